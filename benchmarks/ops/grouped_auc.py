"""AUC within users on generated rows: one sort, compared with scikit-learn's roc_auc_score called
user by user.

    python benchmarks/ops/grouped_auc.py [--rows 10000000] [--users 100000]

Users are drawn with log-normal activity; scores are drawn for each row, a third of them rounded to
hundredths, so that there are ties. The loop is given its rows sorted by user, outside its time, and
leaves out users of one label. Both forms run in the same process: ours three times, of which the
fastest counts, and the loop once for each type of score. `make bench` takes 20,000 rows.
"""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import tyro
from sklearn.metrics import roc_auc_score

from headwise.benchmarks.measure import Case, Size, fastest, peak_bytes, print_header, print_row
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


def kinds_of(score: np.ndarray) -> dict[str, np.ndarray]:
    """Scores by type."""
    single = score.astype(np.float32)
    return {
        "float32": single,
        "float64": score,
        "float32 held as float64": single.astype(np.float64),
    }


def cases(size: Size) -> Iterator[Case]:
    """One sort and the loop, on few rows, equal to 1e-12."""
    rows = 300 if size == "tiny" else 20_000
    labels, score, user = random_rows(rows, rows // 100)
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order])) + 1
    for kind, values in kinds_of(score).items():
        ours = partial(grouped_auc, labels, values, user)
        loop = partial(one_by_one, labels[order], values[order], starts)
        np.testing.assert_allclose(ours().gauc, loop(), rtol=0, atol=1e-12)
        name = f"{rows:,} rows, {len(starts) + 1:,} users, {kind}"
        yield Case(name, ours, {"scikit-learn by user": loop}, memory=False)


def main(rows: int = 10_000_000, users: int = 100_000) -> None:
    labels, score, user = random_rows(rows, users)
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order])) + 1
    print(f"{rows:,} generated rows, {len(starts) + 1:,} users, {labels.mean():.1%} clicks")
    print_header(
        "scores",
        "GAUC, one sort",
        "GAUC, user by user",
        "difference",
        "seconds",
        "seconds",
        "faster by",
        "memory, MiB",
    )
    for name, values in kinds_of(score).items():
        ours = grouped_auc(labels, values, user).gauc
        seconds = fastest([lambda values=values: grouped_auc(labels, values, user)], seconds=0)[0]
        memory = peak_bytes(lambda values=values: grouped_auc(labels, values, user)) / 2**20
        by_user = labels[order], values[order], starts
        begun = time.perf_counter()
        theirs = one_by_one(*by_user)
        loop = time.perf_counter() - begun
        print_row(
            name,
            f"{ours:.12f}",
            f"{theirs:.12f}",
            f"{abs(ours - theirs):.1e}",
            f"{seconds:.2f}",
            f"{loop:.1f}",
            f"{loop / seconds:.0f}x",
            f"{memory:.0f}",
        )


if __name__ == "__main__":
    tyro.cli(main)
