"""Metrics of click models: ranking over all rows and within users, and how far probabilities are
true.

Shapes: N rows (impressions), G groups (users), B bins. labels: bool or int of 0 and 1 (N,); score
and probability: finite floats (N,), float32 kept as it is; a score is anything that is higher for a
click, a probability is from 0 to 1. Undefined values (one label only, no rows) are NaN.
`ValueError` for shapes, labels or numbers that do not fit."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .classification import LEAST_PROBABILITY

# Rows worked on at once, so that what is derived from them stays in the processor's cache.
BLOCK_ROWS = 1 << 15
# A sort key of 64 bits is a group, the order of a score (the bits of a float32, or a rank) and a
# label.
GROUP_BITS, SCORE_BITS = 31, 32
MOST_ROWS = 1 << 30  # leaves room for the numbers of a table and of as many groups as rows
TABLE_BITS = 24  # of the largest table of ids that are far apart
HASH = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth's multiplicative hashing)


def auc(labels: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve, ties counting half. Exact but for the last division."""
    positive, score = _checked(labels, score)
    up, down = np.sort(score[positive]), np.sort(score[~positive])
    if not len(up) or not len(down):
        return float("nan")
    few, many = (up, down) if len(up) <= len(down) else (down, up)
    # Sorted queries walk through memory in order. Scores strictly below plus scores up to a tie
    # make twice the rank.
    twice = sum(int(np.searchsorted(many, few, side).sum()) for side in ("left", "right"))
    share = twice / (2 * len(up) * len(down))
    return share if few is up else 1 - share


@dataclass(frozen=True)
class GroupedAuc:
    """Ranking within groups. Groups of one label have no AUC: they are NaN below and left out of
    the means.

    gauc    mean weighted by the rows of each group (GAUC of DIN, Zhou et al. 2018; gAUC of FuxiCTR)
    mean    mean with the same weight for every group (avgAUC of FuxiCTR)
    groups  how many groups count
    rows    how many rows these have
    group   (G,) ids of all groups, ascending
    auc     (G,) float64
    count   (G,) int64 rows
    """

    gauc: float
    mean: float
    groups: int
    rows: int
    group: np.ndarray
    auc: np.ndarray
    count: np.ndarray


def grouped_auc(labels: np.ndarray, score: np.ndarray, group: np.ndarray) -> GroupedAuc:
    """Area under the ROC curve in every group, ties counting half; one sort for all of them.

    group: any integers, or anything else that `np.unique` takes (N,). Counts are whole numbers, so
    each area is exact but for its last division. Memory besides the arguments, in bytes per row: 16
    for float32 scores, 20 for float64 ones that float32 can hold, 37 for others, which take a
    second sort; up to 41 where one group has nearly all rows; some 20 more for integers further
    apart than 2^31. At most 2^30 rows."""
    positive, score = _checked(labels, score)
    group = np.asarray(group)
    if group.shape != positive.shape:
        raise ValueError(f"grouped_auc: group {group.shape} does not fit labels {positive.shape}")
    if len(group) > MOST_ROWS:
        raise ValueError(f"grouped_auc: {len(group)} rows are more than {MOST_ROWS}")
    if not len(group):
        return GroupedAuc(np.nan, np.nan, 0, 0, group, np.zeros(0), np.zeros(0, np.int64))
    code, decoded = _coded(group)
    key = _keys(code, score, positive)
    del code
    key.sort()
    parts = [_areas(part) for part in _blocks(key)]
    code, area, count = (np.concatenate(values) for values in zip(*parts, strict=True))
    ids = decoded(code)
    ascending = np.argsort(ids, kind="stable")  # fast, since most are in order
    ids, area, count = ids[ascending], area[ascending], count[ascending]
    defined = ~np.isnan(area)
    rows, groups = int(count[defined].sum()), int(defined.sum())
    return GroupedAuc(
        gauc=float(area[defined] @ count[defined] / rows) if groups else np.nan,
        mean=float(area[defined].mean()) if groups else np.nan,
        groups=groups,
        rows=rows,
        group=ids,
        auc=area,
        count=count,
    )


def log_loss(labels: np.ndarray, probability: np.ndarray) -> float:
    """Mean of -log of the probability of what happened, in nats; probabilities below 1e-7 count as
    1e-7.
    """
    positive, probability = _checked(labels, probability, probabilities=True)
    total = 0.0
    for k in range(0, len(positive), BLOCK_ROWS):
        p = probability[k : k + BLOCK_ROWS].astype(np.float64)
        true_probability = np.where(positive[k : k + BLOCK_ROWS], p, 1 - p)
        total -= float(np.log(np.maximum(true_probability, LEAST_PROBABILITY)).sum())
    return total / len(positive) if len(positive) else float("nan")


def normalised_entropy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Log-loss over that of always predicting the mean label (He et al. 2014): 1 is no better than
    the click rate.
    """
    loss = log_loss(labels, probability)
    rate = float(np.mean(labels)) if np.size(labels) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def calibration_ratio(labels: np.ndarray, probability: np.ndarray) -> float:
    """Clicks predicted over clicks that happened: above 1 the model predicts too many."""
    positive, probability = _checked(labels, probability, probabilities=True)
    observed = int(positive.sum())
    return float(probability.sum(dtype=np.float64)) / observed if observed else float("nan")


@dataclass(frozen=True)
class CalibrationTable:
    """Predicted and observed rates, bin by bin, from the lowest probability to the highest."""

    predicted: np.ndarray  # (B,) float64, mean probability
    observed: np.ndarray  # (B,) float64, share of clicks
    count: np.ndarray  # (B,) int64


def calibration_table(
    labels: np.ndarray, probability: np.ndarray, bins: int = 20
) -> CalibrationTable:
    """Bins of equal counts, for a calibration picture.

    Equal probabilities share a bin, since otherwise its rate would depend on the order of the rows;
    many equal ones make bins unequal and fewer. Without rows there are no bins."""
    positive, probability = _checked(labels, probability, probabilities=True)
    if bins < 1:
        raise ValueError(f"calibration_table: bins must be at least 1, got {bins}")
    if not len(positive):
        return CalibrationTable(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    # Upper edges, each a probability that occurs and belongs to the bin below.
    edges = np.unique(
        np.quantile(probability, np.arange(1, bins + 1) / bins, method="inverted_cdf")
    )
    place = np.searchsorted(edges, probability)
    count = np.bincount(place)
    return CalibrationTable(
        np.bincount(place, probability) / count, np.bincount(place, positive) / count, count
    )


def ranking_scores(
    labels: np.ndarray, probability: np.ndarray, users: np.ndarray
) -> dict[str, float]:
    """All scores by name.

    auc; gauc and user_auc: AUC within users, weighted by impressions and with equal weights;
    log_loss in nats; normalised_entropy: below 1 beats the click rate; predicted_over_observed:
    clicks, 1 is calibrated; rows; positive_rate; users_that_count: those with both labels."""
    within = grouped_auc(labels, probability, users)
    return {
        "auc": auc(labels, probability),
        "gauc": within.gauc,
        "user_auc": within.mean,
        "log_loss": log_loss(labels, probability),
        "normalised_entropy": normalised_entropy(labels, probability),
        "predicted_over_observed": calibration_ratio(labels, probability),
        "rows": float(len(labels)),
        "positive_rate": float(np.mean(labels)) if len(labels) else float("nan"),
        "users_that_count": float(within.groups),
    }


def _coded(group: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """A number below 2^31 for each group, uint64 (N,), and what turns such numbers back into
    groups.
    """
    if group.dtype.kind not in "iu":
        ids, code = np.unique(group, return_inverse=True)
        return code.astype(np.uint64), ids.__getitem__
    least, most = int(group.min()), int(group.max())
    if most - least >= 1 << GROUP_BITS:
        return _hashed(group)
    # No need to be dense. Unsigned arithmetic wraps, so that negative ids and those above 2^63 come
    # back alike.
    offset = np.uint64(least % (1 << 64))
    code = group.astype(np.uint64)
    code -= offset
    return code, lambda code: (code + offset).astype(group.dtype)


def _hashed(group: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """`_coded` for integers that are far apart: places in a table, in no order; several times
    faster than np.unique.

    Of the ids that fall on one place the last one written keeps it; the few others are numbered
    behind the table."""
    bits = min(len(group).bit_length(), TABLE_BITS)
    code = group.astype(np.uint64)
    code *= HASH
    code >>= np.uint64(64 - bits)
    table = np.zeros(1 << bits, group.dtype)
    table[code] = group
    lost = np.flatnonzero(table[code] != group)
    others, number = np.unique(group[lost], return_inverse=True)
    code[lost] = number + len(table)
    return code, np.concatenate([table, others]).__getitem__


def _keys(code: np.ndarray, score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Group, order of the score and label as one number, uint64 (N,), so that a plain sort carries
    all of them.

    `code` may be overwritten.
    """
    single = _single(score)
    if single is not None:
        key, order = code, _ordered_bits(single)
    else:
        rows = _sorted_rows(score)
        score = score[rows]
        order = np.zeros(len(score), np.uint32)
        np.cumsum(score[1:] != score[:-1], out=order[1:])
        key, positive = code[rows], positive[rows]
    key <<= np.uint64(SCORE_BITS)
    key |= order
    key <<= np.uint64(1)
    key |= positive
    return key


def _single(score: np.ndarray) -> np.ndarray | None:
    """The scores as float32 where that loses nothing."""
    with np.errstate(over="ignore"):
        single = score.astype(np.float32, copy=False)
    return single if single is score or (single == score).all() else None


def _ordered_bits(score: np.ndarray) -> np.ndarray:
    """Unsigned numbers of the same width that are ordered as the floats are, (N,); -0.0 is 0.0."""
    signed, unsigned, sign = (
        (np.int32, np.uint32, 31) if score.dtype == np.float32 else (np.int64, np.uint64, 63)
    )
    bits = (score + 0.0).view(signed)
    bits ^= (bits >> sign) & signed((1 << sign) - 1)  # the more negative, the larger the other bits
    bits = bits.view(unsigned)
    bits ^= unsigned(1 << sign)
    return bits


def _sorted_rows(score: np.ndarray) -> np.ndarray:
    """Rows of float64 scores in ascending order, int64 (N,): np.argsort in half the time.

    As many leading bits as there is room for are sorted with the row's number behind them. Scores
    that these bits do not tell apart are left in the order of rows; where this is wrong, they are
    sorted by themselves."""
    row_bits = (len(score) - 1).bit_length()
    key = _ordered_bits(score)
    key -= key.min()
    key >>= np.uint64(max(0, int(key.max()).bit_length() + row_bits - 64))
    key <<= np.uint64(row_bits)
    key |= np.arange(len(score), dtype=np.uint64)
    key.sort()
    rows = (key & np.uint64((1 << row_bits) - 1)).view(np.int64)
    placed = score[rows]
    wrong = np.flatnonzero(placed[1:] < placed[:-1])
    if len(wrong):
        key >>= np.uint64(row_bits)
        alike = np.unique(key[wrong])
        inside = np.zeros(len(key) + 1, np.int8)
        inside[np.searchsorted(key, alike, "left")] = 1
        inside[np.searchsorted(key, alike, "right")] -= 1
        chosen = np.flatnonzero(np.cumsum(inside[:-1], dtype=np.int8))
        # The leading bits are in order, so one sort of all chosen rows leaves each in its own run.
        rows[chosen] = rows[chosen[np.argsort(placed[chosen])]]
    return rows


def _blocks(key: np.ndarray) -> list[np.ndarray]:
    """Views of sorted keys, whole groups each, of BLOCK_ROWS rows or one group that is larger."""
    shift = np.uint64(SCORE_BITS + 1)
    parts, start = [], 0
    while start < len(key):
        group = int(key[min(start + BLOCK_ROWS, len(key)) - 1] >> shift)
        last = np.uint64((group << int(shift)) | ((1 << int(shift)) - 1))
        stop = int(np.searchsorted(key, last, "right"))
        parts.append(key[start:stop])
        start = stop
    return parts


def _areas(key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of sorted keys: codes of their groups, areas and rows, (groups,) each."""
    code = key >> np.uint64(SCORE_BITS + 1)
    first = np.r_[0, np.flatnonzero(code[1:] != code[:-1]) + 1]
    positive = (key & np.uint64(1)).view(np.int64)
    negatives = np.cumsum(positive ^ 1)  # negatives up to and with a row
    ups = np.add.reduceat(positive, first)
    count = np.diff(first, append=len(key))
    downs = count - ups
    # A positive outranks the negatives before it in its group. The last bit of a key puts the
    # negatives of a tie first, so all pairs of a tie are counted too, and half of them comes off
    # again.
    before = negatives[first] - (positive[first] ^ 1)
    twice = 2 * (np.add.reduceat(positive * negatives, first) - ups * before)
    tie = np.flatnonzero((key[1:] ^ key[:-1]) == 1)  # the last negative of a tie that has positives
    pairs = (tie + 1 - np.searchsorted(key, key[tie])) * (
        np.searchsorted(key, key[tie + 1], "right") - tie - 1
    )
    np.subtract.at(twice, np.searchsorted(first, tie, "right") - 1, pairs)
    with np.errstate(invalid="ignore"):
        return code[first], twice / (2 * ups * downs), count


def _checked(
    labels: np.ndarray, score: np.ndarray, *, probabilities: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores as float32 or float64, both (N,)."""
    labels, score = np.asarray(labels), np.asarray(score)
    if labels.ndim != 1 or labels.shape != score.shape:
        raise ValueError(
            f"ranking: labels and scores must both be (N,), got {labels.shape}, {score.shape}"
        )
    if labels.dtype.kind not in "biu" or (
        len(labels) and not 0 <= labels.min() <= labels.max() <= 1
    ):
        raise ValueError("ranking: labels must be bools or whole numbers, 0 or 1")
    if score.dtype.kind not in "fiu":
        raise ValueError(f"ranking: scores must be numbers, got {score.dtype}")
    score = score.astype(
        np.float32 if score.dtype in (np.float16, np.float32) else np.float64, copy=False
    )
    if not np.isfinite(score).all():
        raise ValueError("ranking: scores must be finite")
    if probabilities and len(score) and not 0 <= score.min() <= score.max() <= 1:
        raise ValueError("ranking: probabilities must be from 0 to 1")
    return labels.astype(bool, copy=False), score
