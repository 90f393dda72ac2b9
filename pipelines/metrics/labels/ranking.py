"""How well the labels of a text are ranked, and the texts of a label, with intervals by group.

Shapes: see the package. A score is anything that is higher for labels that fit better. Labels of
equal score count as their mean over all orders (precision and nDCG), or against the model (coverage
and ranking loss, as in scikit-learn). Scores by text are NaN where they are undefined and then do
not count in means: nDCG and coverage of a text without labels, ranking loss of one with none or
all. Precision counts 0 for a text without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bootstrap import DRAWS, Groups, Interval, bootstrap_intervals
from ..operating import average_precision
from .shapes import checked

DEPTHS = (1, 3, 5)


def precision_at(truth: np.ndarray, score: np.ndarray, k: int) -> np.ndarray:
    """Share of true ones among the k labels of the highest scores, by text: (N,).

    With fewer than k labels the missing ones count as wrong. Raises ValueError for k < 1 and shapes
    that do not fit."""
    truth, score = checked("precision_at", truth, score)
    _check_depth("precision_at", k)
    return _expected_gain(truth, score, np.ones(k)) / k


def ndcg_at(truth: np.ndarray, score: np.ndarray, k: int) -> np.ndarray:
    """Discounted gain sum 1 / log2(1 + rank) of the true labels among the first k, divided by that
    of the best order (Järvelin and Kekäläinen 2002), by text: (N,).

    Raises ValueError for k < 1 and shapes that do not fit."""
    truth, score = checked("ndcg_at", truth, score)
    _check_depth("ndcg_at", k)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.r_[0.0, discounts.cumsum()][np.minimum(truth.sum(1), k)]
    with np.errstate(invalid="ignore"):
        return _expected_gain(truth, score, discounts) / np.where(ideal > 0, ideal, np.nan)


def coverage_error(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """How many labels must be read, from the highest score down, to have all true ones, by text:
    (N,).

    Raises ValueError for shapes that do not fit."""
    truth, score = checked("coverage_error", truth, score)
    lowest = np.where(truth, score, np.inf).min(1, initial=np.inf)
    return np.where(truth.any(1), (score >= lowest[:, None]).sum(1), np.nan)


def ranking_loss(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Share of the pairs of a true and a false label in which the false one has a higher or equal
    score, by text: (N,).

    Raises ValueError for shapes that do not fit."""
    truth, score = checked("ranking_loss", truth, score)
    order = np.argsort(score, axis=1, kind="stable")
    ascending = np.take_along_axis(score, order, 1)
    is_true = np.take_along_axis(truth, order, 1)
    up_to = np.cumsum(is_true, 1)
    # True labels of the same or a lower score: those up to the last place of equal scores.
    _, after = _tied(ascending)
    beaten = np.take_along_axis(np.pad(up_to, ((0, 0), (1, 0))), after, 1)
    true = truth.sum(1)
    pairs = true * (truth.shape[1] - true)
    with np.errstate(invalid="ignore"):
        return np.where(~is_true, beaten, 0).sum(1) / np.where(pairs > 0, pairs, np.nan)


def label_average_precision(
    truth: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision of each label over the texts: (L,), or (R, L) for weights (R, N).

    Texts of equal score enter together. NaN for labels that no text has. Raises ValueError for
    shapes that do not fit."""
    truth, score = checked("label_average_precision", truth, score)
    rows = np.ones((1, len(truth))) if weights is None else weights
    labels = range(truth.shape[1])
    columns = [average_precision(truth[:, k], score[:, k], rows) for k in labels]
    values = np.stack(columns, 1) if columns else np.zeros((len(rows), 0))
    return values[0] if weights is None else values


def mean_average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Mean of `label_average_precision` over the labels that occur (mAP); NaN without any."""
    values = label_average_precision(truth, score)
    return _mean(values, np.ones((1, len(values))))[0]


def micro_average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Average precision of all pairs of a text and a label in one list; NaN without a true one."""
    truth, score = checked("micro_average_precision", truth, score)
    return float(average_precision(truth.ravel(), score.ravel(), np.ones((1, truth.size)))[0])


def ranking_scores(
    truth: np.ndarray, score: np.ndarray, depths: Sequence[int] = DEPTHS
) -> dict[str, float]:
    """All scores by name: precision_at_k and ndcg_at_k for k in `depths`, coverage_error and
    ranking_loss, means over the texts; map (over labels that occur) and micro_ap.

    Raises ValueError for shapes that do not fit."""
    ones = np.ones((1, len(truth)))
    values = weighted_ranking(truth, score, ones, depths)
    return {
        **{name: float(value[0]) for name, value in values.items()},
        "micro_ap": micro_average_precision(truth, score),
    }


def ranking_bootstrap(
    truth: np.ndarray,
    score: np.ndarray,
    groups: Groups,
    *,
    depths: Sequence[int] = DEPTHS,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of `ranking_scores` (without micro_ap), entire groups drawn with
    replacement; that of map is centred. Raises ValueError for shapes that do not fit."""
    by_text = text_ranking(truth, score, depths)
    return bootstrap_intervals(
        lambda weights: _weighted(by_text, truth, score, weights),
        groups,
        draws=draws,
        seed=seed,
        centred=("map",),
    )


def weighted_ranking(
    truth: np.ndarray, score: np.ndarray, weights: np.ndarray, depths: Sequence[int] = DEPTHS
) -> dict[str, np.ndarray]:
    """The scores of `ranking_scores` (without micro_ap) for each row of weights (R, N), each
    (R,)."""
    return _weighted(text_ranking(truth, score, depths), truth, score, weights)


def text_ranking(
    truth: np.ndarray, score: np.ndarray, depths: Sequence[int] = DEPTHS
) -> dict[str, np.ndarray]:
    """The scores that are means over texts, by text: (N,) by name."""
    return {
        **{f"precision_at_{k}": precision_at(truth, score, k) for k in depths},
        **{f"ndcg_at_{k}": ndcg_at(truth, score, k) for k in depths},
        "coverage_error": coverage_error(truth, score),
        "ranking_loss": ranking_loss(truth, score),
    }


def _weighted(
    by_text: dict[str, np.ndarray], truth: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    by_label = label_average_precision(truth, score, weights)
    defined = ~np.isnan(by_label)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(defined, by_label, 0.0).sum(1) / defined.sum(1)
    return {**{name: _mean(values, weights) for name, values in by_text.items()}, "map": mean}


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the defined values (N,) for each row of weights (R, N)."""
    defined = ~np.isnan(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return weights[:, defined] @ values[defined] / weights[:, defined].sum(1)


def _expected_gain(truth: np.ndarray, score: np.ndarray, discounts: np.ndarray) -> np.ndarray:
    """Sum over the true labels of the discount of their rank (K,), 0 behind the last; labels of
    equal score share the discounts of their ranks equally. (N,)."""
    order = np.argsort(-score, axis=1, kind="stable")
    begin, after = _tied(np.take_along_axis(score, order, 1))
    total = np.r_[0.0, discounts.cumsum()]
    last = len(discounts)
    shared = total[np.minimum(after, last)] - total[np.minimum(begin, last)]
    return (shared / (after - begin) * np.take_along_axis(truth, order, 1)).sum(1)


def _tied(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows in order: the first place of the values equal to each, and the first behind them."""
    rows, columns = ordered.shape
    places = np.broadcast_to(np.arange(columns), (rows, columns))
    new = np.ones((rows, columns), bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(new, places, 0), 1)
    closing = np.ones((rows, columns), bool)
    closing[:, :-1] = new[:, 1:]
    after = np.where(closing, places + 1, columns)[:, ::-1]
    return begin, np.minimum.accumulate(after, 1)[:, ::-1]


def _check_depth(name: str, k: int) -> None:
    if k < 1:
        raise ValueError(f"{name}: k = {k} must be at least 1")
