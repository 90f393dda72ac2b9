"""From which logit on a label is given: one threshold, one of each label, and what lies between.

A threshold of a label is chosen from the few texts that have it, so the best ones of the validation
part are too good to be true: micro-F1 falls on new texts, although macro-F1 gains over a single
threshold. Two remedies help at once (`shrunk_thresholds`): the mean of the best thresholds of many
draws of the texts, which smooths the steps of the F1 curve, and a part of the way to the single
threshold.

A calibration without flat parts maps thresholds along with the logits, by
`calibration.apply(thresholds[None])`, and changes no label that is given. So choose thresholds on
the logits of the model, not on ones calibrated to the same texts, on which one threshold looks
better than it is.

Shapes: see the package; W weights of micro-F1. Everything is on the scale of the logits, or of any
score that rises with them. A label is given where logit >= threshold (`decisions.given_labels`);
thresholds lie midway between two logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..bootstrap import draw_weights
from .decisions import given_labels, rates_of_counts
from .shapes import checked, checked_groups, folds_of

DRAWS = 40
FOLDS = 5
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # share of the way from the single threshold
MICRO_WEIGHTS = (0.0, 0.5, 1.0, 4.0)


def best_single_threshold(truth: np.ndarray, logits: np.ndarray) -> float:
    """The threshold of all labels with the highest micro-F1, exactly, by one sort of all pairs; of
    several the highest. 0 where no text has a label.

    Raises ValueError for shapes that do not fit."""
    truth, logits = checked("best_single_threshold", truth, logits)
    if not truth.any():
        return 0.0
    scan = _Scan(truth.ravel(), logits.ravel(), np.ones((1, truth.size)))
    return float(scan.cuts(scan.f1())[0])


def best_label_thresholds(
    truth: np.ndarray, logits: np.ndarray, fallback: float | None = None
) -> np.ndarray:
    """The threshold of each label with its highest F1, exactly, by one sort a label: (L,).

    fallback: of labels that no text has; by default `best_single_threshold`. Raises ValueError for
    shapes that do not fit."""
    truth, logits = checked("best_label_thresholds", truth, logits)
    single = best_single_threshold(truth, logits) if fallback is None else fallback
    thresholds = np.full(truth.shape[1], single)
    for k in np.flatnonzero(truth.any(0)):
        scan = _Scan(truth[:, k], logits[:, k], np.ones((1, len(truth))))
        thresholds[k] = scan.cuts(scan.f1())[0]
    return thresholds


def mean_label_thresholds(
    truth: np.ndarray,
    logits: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    micro_weights: Sequence[float] = MICRO_WEIGHTS,
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Means over draws of entire groups of the best thresholds of each label: (W, L), for each of
    the weights of micro-F1.

    Best is where F1_k / L + w (2 hits - F (called + true)) / P is highest. The second part is what
    label k adds to micro-F1 around the single threshold: F and P are micro-F1 there, and the number
    of called and true pairs. Draws without a text that has the label do not count; labels that no
    text has get the single threshold."""
    truth, logits = checked("mean_label_thresholds", truth, logits)
    member = checked_groups("mean_label_thresholds", groups, len(truth))
    single = best_single_threshold(truth, logits)
    weights = np.concatenate(list(draw_weights(member, draws, seed)))
    called = logits >= single
    pairs = weights @ (called.sum(1) + truth.sum(1)).astype(np.float64)
    hits = weights @ (called & truth).sum(1).astype(np.float64)
    pairs = np.maximum(pairs, 1)[:, None]
    micro = 2 * hits[:, None] / pairs
    labels = truth.shape[1]
    thresholds = np.full((len(micro_weights), labels), single)
    for k in np.flatnonzero(truth.any(0)):
        scan = _Scan(truth[:, k], logits[:, k], weights)
        drawn_rows = scan.true[:, 0] > 0
        if not drawn_rows.any():
            continue
        gain = (2 * scan.hits - micro * (scan.called + scan.true)) / pairs
        for i, weight in enumerate(micro_weights):
            cuts = scan.cuts(scan.f1() / labels + weight * gain)
            thresholds[i, k] = cuts[drawn_rows].mean()
    return thresholds


@dataclass(frozen=True)
class ShrunkThresholds:
    """What `shrunk_thresholds` chose.

    thresholds: (L,). single: the threshold of all labels that they are drawn to. strength: share of
    the way from it, 0 to 1. micro_weight: see `mean_label_thresholds`. tried: rows of (micro
    weight, strength, micro-F1, macro-F1) on held-out groups; strength 0 is the single threshold."""

    thresholds: np.ndarray
    single: float
    strength: float
    micro_weight: float
    tried: tuple[tuple[float, float, float, float], ...]

    @property
    def words(self) -> str:
        """How they were chosen, in a sentence."""
        if not self.tried:
            return "one threshold for all labels: fewer than two groups to choose with"
        rows = {row[:2]: row[2:] for row in self.tried}
        micro, macro = rows[self.micro_weight, self.strength]
        base = next(row[2:] for row in self.tried if row[1] == 0)
        return (
            f"{self.strength:.0%} of the way from one threshold to one a label: on held-out groups "
            f"of the validation part micro-F1 {base[0]:.3f} -> {micro:.3f}, "
            f"macro-F1 {base[1]:.3f} -> {macro:.3f}"
        )


def shrunk_thresholds(
    truth: np.ndarray,
    logits: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    strengths: Sequence[float] = STRENGTHS,
    micro_weights: Sequence[float] = MICRO_WEIGHTS,
    allowed_loss: float = 0.0,
    folds: int = FOLDS,
    draws: int = DRAWS,
    seed: int = 0,
) -> ShrunkThresholds:
    """single + strength (mean_label_thresholds - single), where strength and micro weight are
    chosen by cross-validation over groups of this (validation) part: the highest macro-F1 of those
    whose micro-F1 is not below that of a single threshold by more than `allowed_loss`.

    With fewer than two groups it is the single threshold. Raises ValueError for shapes that do not
    fit and strengths outside 0 to 1."""
    truth, logits = checked("shrunk_thresholds", truth, logits)
    member = checked_groups("shrunk_thresholds", groups, len(truth))
    grid = [(w, s) for s in sorted({0.0, *strengths}) for w in micro_weights]
    if not micro_weights or not all(0 <= strength <= 1 for strength in strengths):
        raise ValueError("shrunk_thresholds: strengths from 0 to 1, and at least 1 micro weight")
    hits, called = np.zeros((2, len(grid), truth.shape[1]))
    parts = list(folds_of(member, folds, seed))
    for rows, held in parts:
        path = _path(truth[rows], logits[rows], member[rows], grid, micro_weights, draws, seed)
        for i, thresholds in enumerate(path):
            calls = given_labels(logits[held], thresholds)
            hits[i] += (calls & truth[held]).sum(0)
            called[i] += calls.sum(0)
    single = best_single_threshold(truth, logits)
    if not parts or not truth.any():
        return ShrunkThresholds(np.full(truth.shape[1], single), single, 0.0, micro_weights[0], ())
    true = np.broadcast_to(truth.sum(0), hits.shape)
    micro = rates_of_counts(hits.sum(1), called.sum(1), true.sum(1))["f1"]
    macro = np.nanmean(rates_of_counts(hits, called, true)["f1"], 1)
    tried = [
        (*point, float(first), float(second))
        for point, first, second in zip(grid, micro, macro, strict=True)
    ]
    least = tried[0][2] - allowed_loss  # of the single threshold
    weight, strength, *_ = max((row for row in tried if row[2] >= least), key=lambda row: row[3])
    thresholds = _path(truth, logits, member, [(weight, strength)], [weight], draws, seed)[0]
    return ShrunkThresholds(thresholds, single, strength, weight, tuple(tried))


def budget_thresholds(
    logits: np.ndarray,
    *,
    labels_per_text: float | None = None,
    false_share: float | None = None,
    truth: np.ndarray | None = None,
    base: np.ndarray | float = 0.0,
) -> np.ndarray:
    """base + one shift of all labels, (L,), so that a budget is kept on these texts.

    labels_per_text: at most so many labels a text on average, and with the next lower logit there
    would be more. false_share: of all labels that are given at most this share is wrong, with as
    many given as can be; asks for `truth`. base: (L,) or one number, such as the thresholds of the
    labels.

    Without a threshold that keeps the budget no text gets a label: the thresholds lie above all
    logits. Raises ValueError unless one budget is stated, and for shapes that do not fit."""
    if (labels_per_text is None) == (false_share is None):
        raise ValueError("budget_thresholds: either labels_per_text or false_share")
    if false_share is not None and (truth is None or not 0 <= false_share < 1):
        raise ValueError("budget_thresholds: false_share is from 0 up to 1, and asks for truth")
    is_true = np.zeros(np.shape(logits), bool) if truth is None else truth
    is_true, logits = checked("budget_thresholds", is_true, logits)
    base = np.broadcast_to(np.asarray(base, np.float64), logits.shape[1:])
    scan = _Scan(is_true.ravel(), (logits - base).ravel(), np.ones((1, logits.size)))
    if labels_per_text is not None:
        if labels_per_text < 0:
            raise ValueError(f"budget_thresholds: labels_per_text = {labels_per_text} is below 0")
        allowed = scan.called <= labels_per_text * len(logits) * (1 + 1e-12)
    else:
        allowed = scan.called - scan.hits <= (false_share or 0.0) * scan.called * (1 + 1e-12)
    if not allowed.any():
        highest = (logits - base).max(initial=0.0)
        return base + highest + max(1e-6 * abs(highest), 1e-6)
    return base + scan.cuts(np.where(allowed, scan.called, -1.0))[0]


def _path(
    truth: np.ndarray,
    logits: np.ndarray,
    member: np.ndarray,
    grid: Sequence[tuple[float, float]],
    micro_weights: Sequence[float],
    draws: int,
    seed: int,
) -> list[np.ndarray]:
    """The thresholds (L,) of each (micro weight, strength) of a grid."""
    single = best_single_threshold(truth, logits)
    means = mean_label_thresholds(
        truth, logits, member, micro_weights=micro_weights, draws=draws, seed=seed
    )
    by_weight = dict(zip(micro_weights, means, strict=True))
    return [single + strength * (by_weight[weight] - single) for weight, strength in grid]


class _Scan:
    """Hits and called texts at every threshold, for each row of weights (R, M): one sort, U
    different scores from high to low.

    hits, called: (R, U) when the label is given from the u-th score on. true: (R, 1)."""

    def __init__(self, positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> None:
        order = np.argsort(-score, kind="stable")
        ordered = score[order]
        last = np.flatnonzero(np.r_[np.diff(ordered) != 0, True][: len(ordered)])
        weights = weights[:, order]
        self.values = ordered[last]
        self.called = np.cumsum(weights, 1)[:, last]
        self.hits = np.cumsum(weights * positive[order], 1)[:, last]
        self.true = self.hits[:, -1:]

    def f1(self) -> np.ndarray:
        """F1 at every threshold (R, U); 0 for rows without a true one."""
        return 2 * self.hits / np.maximum(self.called + self.true, 1)

    def cuts(self, objective: np.ndarray) -> np.ndarray:
        """Midway between the score with the highest objective (the first of several) and the next
        one that a row of weights has: (R,); the score itself where it is the lowest."""
        best = objective.argmax(1)
        count = len(self.values)
        weighs = np.diff(self.called, axis=1, prepend=0) > 0
        places = np.where(weighs, np.arange(count), count)
        following = np.minimum.accumulate(places[:, ::-1], 1)[:, ::-1]
        following = np.pad(following, ((0, 0), (0, 1)), constant_values=count)
        behind = np.take_along_axis(following, best[:, None] + 1, 1)[:, 0]
        high = self.values[best]
        low = np.where(behind < count, self.values[np.minimum(behind, count - 1)], high)
        middle = (high + low) / 2
        return np.where(middle > low, middle, high)
