"""Sets of labels that hold the truth as often as asked for: conformal prediction.

If the groups of the validation part and those to come are exchangeable, the statements hold on
average over both, whatever the model. Texts of one group are not independent, so a group counts as
one: its loss is the mean over its texts. Without groups every text is one.

The threshold is the strictest for which (sum of the losses of the G groups + 1) / (G + 1) is at
most the share that may go wrong (Angelopoulos et al., arXiv 2208.02814). For classes and single
texts that is the rank ceil((G + 1) level) of split-conformal prediction, as in `conformal`.

Shapes: see the package; C classes, G groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..conformal import needed
from .shapes import checked, checked_groups

Method = Literal["least", "adaptive"]
TOLERANCE = 1e-9  # of sums of losses, so that 10 * 0.1 allows one


@dataclass(frozen=True)
class LabelSets:
    """The labels with logit >= base + shift: on average over texts at most a share `miss` of the
    labels of a text is missing.

    shift: -inf where the validation part is too small, so that all labels are given. base: (L,) or
    (). groups: how many groups of the validation part."""

    shift: float
    base: np.ndarray
    miss: float
    groups: int

    @property
    def statement(self) -> str:
        """A sentence where the validation part is too small; else empty."""
        return _too_small(self.groups, 1 - self.miss, "labels are given")

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, L) -> bool (N, L)."""
        return np.asarray(logits, np.float64) - self.base >= self.shift


def fit_label_sets(
    truth: np.ndarray,
    logits: np.ndarray,
    miss: float,
    groups: np.ndarray | None = None,
    base: np.ndarray | float = 0.0,
) -> LabelSets:
    """Conformal risk control of the share of missed labels of a text, 0 for texts without labels.

    miss: the share, between 0 and 1. base: (L,) or one number that logits are compared with, such
    as the thresholds of the labels. Raises ValueError for shapes that do not fit, no text, and
    shares outside of 0 and 1."""
    truth, logits = checked("fit_label_sets", truth, logits)
    member = checked_groups("fit_label_sets", groups, len(truth))
    _check_share("fit_label_sets", "miss", miss, len(truth))
    base = np.asarray(base, np.float64)
    if base.shape not in ((), logits.shape[1:]):
        raise ValueError(f"fit_label_sets: base {base.shape} does not fit logits {logits.shape}")
    text, label = np.nonzero(truth)
    weight = (1 / np.bincount(member))[member[text]] / truth.sum(1)[text]
    margin = (logits - base)[text, label]
    count = int(member.max()) + 1
    shift = -_least_cut(-margin, weight, miss, count)
    return LabelSets(shift, base, miss, count)


@dataclass(frozen=True)
class ClassSets:
    """Sets of classes, of which the true one is in with probability at least `level`.

    cut: classes of nonconformity up to it are in; inf where the validation part is too small, so
    that all are. groups: how many groups of the validation part."""

    cut: float
    level: float
    method: Method
    groups: int

    @property
    def statement(self) -> str:
        """A sentence where the validation part is too small; else empty."""
        return _too_small(self.groups, self.level, "classes are given")

    def apply(self, probability: np.ndarray) -> np.ndarray:
        """Probabilities (N, C) -> bool (N, C). Adaptive sets hold at least one class; the least
        ones may be empty where no class is probable enough."""
        return _nonconformity(np.asarray(probability, np.float64), self.method) <= self.cut


def fit_class_sets(
    labels: np.ndarray,
    probability: np.ndarray,
    level: float,
    method: Method = "least",
    groups: np.ndarray | None = None,
) -> ClassSets:
    """Split-conformal sets of classes.

    labels: int (N,); probability: (N, C). method: "least", all classes of at least some probability
    (LAC: Sadinle, Lei and Wasserman 2019), the smallest sets on average; "adaptive", the most
    probable classes up to some sum (APS without chance: Romano, Sesia and Candès 2020), larger sets
    for harder texts; they hold the truth more often than asked for. Raises ValueError for shapes
    that do not fit, no text, and levels outside of 0 and 1."""
    labels, probability = np.asarray(labels), np.asarray(probability, np.float64)
    if probability.ndim != 2 or labels.shape != probability.shape[:1]:
        raise ValueError(
            f"fit_class_sets: labels {labels.shape} and probability {probability.shape} must be "
            "(texts,) and (texts, classes)"
        )
    if method not in ("least", "adaptive"):
        raise ValueError(f"fit_class_sets: method {method!r} is neither 'least' nor 'adaptive'")
    if not np.isfinite(probability).all():
        raise ValueError("fit_class_sets: probabilities must be finite")
    _check_share("fit_class_sets", "level", level, len(labels))
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < len(probability.T):
        raise ValueError(
            f"fit_class_sets: labels are whole numbers from 0 to {len(probability.T) - 1}"
        )
    member = checked_groups("fit_class_sets", groups, len(labels))
    scores = _nonconformity(probability, method)[np.arange(len(labels)), labels]
    sizes = np.bincount(member)
    cut = _least_cut(scores, (1 / sizes)[member], 1 - level, len(sizes))
    return ClassSets(cut, level, method, len(sizes))


def _least_cut(scores: np.ndarray, weights: np.ndarray, share: float, groups: int) -> float:
    """The smallest cut for which (sum of the weights of scores above it + 1) / (groups + 1) is at
    most `share`; inf where there is none, -inf where every cut will do."""
    allowed = share * (groups + 1) - 1 + TOLERANCE
    if allowed < 0:
        return np.inf
    order = np.argsort(scores, kind="stable")
    values, total = scores[order], np.cumsum(weights[order][::-1])[::-1]
    # total: of the scores from each place on, so lost if the cut lies just below it.
    needed_places = np.flatnonzero(total > allowed)
    return float(values[needed_places[-1]]) if len(needed_places) else -np.inf


def _nonconformity(probability: np.ndarray, method: Method) -> np.ndarray:
    """How little a class conforms, (N, C): 1 - p, or the sum of all higher probabilities, by which
    the most probable class has 0."""
    if method == "least":
        return 1 - probability
    order = np.argsort(-probability, axis=1, kind="stable")
    ordered = np.take_along_axis(probability, order, 1)
    before = np.cumsum(ordered, 1) - ordered
    # Classes of equal probability go in together.
    same = np.zeros_like(order, bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    before = np.maximum.accumulate(np.where(same, 0.0, before), 1)
    results = np.empty_like(probability)
    np.put_along_axis(results, order, before, 1)
    return results


def _too_small(groups: int, level: float, what: str) -> str:
    if groups >= (least := needed(level)):
        return ""
    return (
        f"only {groups} groups in the validation part: to miss at most {1 - level:.3g} needs "
        f"{least}, so all {what}"
    )


def _check_share(name: str, what: str, share: float, texts: int) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name}: {what} = {share} must lie between 0 and 1")
    if not texts:
        raise ValueError(f"{name}: no text to choose a threshold with")
