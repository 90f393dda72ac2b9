"""AUC within users on generated rows: one sort, compared with scikit-learn's roc_auc_score called
user by user.

    python benchmarks/ops/grouped_auc.py [--seconds 0.5]

10 million rows of 100,000 users, half an hour; `make bench` takes 100,000. Users are drawn with
log-normal activity; scores are drawn for each row, a third of them rounded to hundredths, so that
there are ties. The loop is given its rows sorted by user, outside its time, and leaves out users of
one label. Both must agree to 1e-12. Measured as `ratios.py` says.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from sklearn.metrics import roc_auc_score

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size
from headwise.pipelines.metrics.ranking import grouped_auc


def random_rows(rows: int, users: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and users (rows,)."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 1.0, users)
    user = rng.choice(users, rows, p=activity / activity.sum())
    logit = rng.normal(-1.5, 1.0, rows)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logit))
    score = 1 / (1 + np.exp(-logit - rng.normal(0.0, 1.0, rows)))
    return labels, np.where(rng.random(rows) < 1 / 3, score.round(2), score), user


def one_by_one(labels: np.ndarray, score: np.ndarray, starts: np.ndarray) -> float:
    """The mean of users' areas weighted by their rows, which are sorted by user."""
    total, weight = 0.0, 0
    for user_labels, user_scores in zip(
        np.split(labels, starts), np.split(score, starts), strict=True
    ):
        if 0 < user_labels.sum() < len(user_labels):
            total += roc_auc_score(user_labels, user_scores) * len(user_labels)
            weight += len(user_labels)
    return total / weight


def cases(size: Size) -> Iterator[Case]:
    """One sort and the loop, equal to 1e-12, for each type of score."""
    rows = {"tiny": 300, "short": 100_000, "full": 10_000_000}[size]
    labels, score, user = random_rows(rows, rows // 100)
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order])) + 1
    single = score.astype(np.float32)
    kinds = {
        "float32": single,
        "float64": score,
        "float32 held as float64": single.astype(np.float64),
    }
    for kind, values in kinds.items():
        ours = partial(grouped_auc, labels, values, user)
        loop = partial(one_by_one, labels[order], values[order], starts)
        np.testing.assert_allclose(ours().gauc, loop(), rtol=0, atol=1e-12)
        name = f"{rows:,} rows, {len(starts) + 1:,} users, {kind}"
        yield Case(name, ours, {"scikit-learn by user": loop}, memory=kind == "float64")


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/grouped_auc"])
