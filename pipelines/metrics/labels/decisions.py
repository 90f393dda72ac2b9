"""Scores of the labels that are given to texts, plain and with their ancestors in a tree; labels by
how often they occur; how true probabilities are.

Shapes: see the package; A labels of a tree, A >= L, B bins. called: bool (N, L), the labels that
are given. A score of a label or of a text counts where the label (the text has a label that) occurs
or is called, and is then 0 where it is 0 / 0, as in scikit-learn with zero_division=0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..bootstrap import DRAWS, Groups, Interval, bootstrap_intervals
from ..classification import equal_width_bins
from .shapes import checked

BUCKETS = ("rare", "medium", "frequent")


def given_labels(logits: np.ndarray, thresholds: np.ndarray | float) -> np.ndarray:
    """logits >= thresholds, bool (N, L), in 64 bits so that thresholds are not rounded.

    thresholds: one number or (L,). Raises ValueError for shapes that do not fit."""
    logits, cuts = np.asarray(logits), np.asarray(thresholds, np.float64)
    if logits.ndim != 2 or cuts.shape not in ((), logits.shape[1:]):
        raise ValueError(
            f"given_labels: logits {logits.shape} and thresholds {cuts.shape} must be (texts, "
            "labels) and one number or (labels,)"
        )
    return logits.astype(np.float64) >= cuts


def decision_scores(truth: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """micro_, macro_ and sample_ precision, recall and f1, and exact_match, by name.

    micro: of all pairs of a text and a label; macro: mean over labels; sample: mean over texts;
    exact_match: share of the texts with exactly their labels. Raises ValueError for shapes that do
    not fit."""
    values = weighted_decisions(truth, called, np.ones((1, len(truth))))
    return {name: float(value[0]) for name, value in values.items()}


def decision_bootstrap(
    truth: np.ndarray, called: np.ndarray, groups: Groups, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of `decision_scores`, entire groups drawn with replacement; those
    of means over labels are centred."""
    return bootstrap_intervals(
        lambda weights: weighted_decisions(truth, called, weights),
        groups,
        draws=draws,
        seed=seed,
        centred=("macro_precision", "macro_recall", "macro_f1"),
    )


def weighted_decisions(
    truth: np.ndarray, called: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The scores of `decision_scores` for each row of weights (R, N), each (R,)."""
    truth, called = _checked_calls("decision_scores", truth, called)
    counts = [weights @ kind.astype(np.float64) for kind in (truth & called, called, truth)]
    by_label = rates_of_counts(*counts)
    micro = rates_of_counts(*(count.sum(1, keepdims=True) for count in counts))
    by_text = rates_of_counts(
        *(kind.sum(1).astype(float) for kind in (truth & called, called, truth))
    )
    total = weights.sum(1)
    results = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in ("precision", "recall", "f1"):
            results[f"micro_{name}"] = micro[name][:, 0]
            defined = ~np.isnan(by_label[name])
            results[f"macro_{name}"] = np.nansum(by_label[name], 1) / defined.sum(1)
            defined = ~np.isnan(by_text[name])
            values = np.where(defined, by_text[name], 0.0)
            results[f"sample_{name}"] = weights @ values / (weights @ defined.astype(float))
        results["exact_match"] = weights @ (truth == called).all(1) / total
    return results


@dataclass(frozen=True)
class LabelDecisions:
    """Scores of each label, (L,); NaN for labels that neither occur nor are called.

    occurring, called: int64, how many texts have the label, and how many are given it."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    occurring: np.ndarray
    called: np.ndarray


def label_decisions(truth: np.ndarray, called: np.ndarray) -> LabelDecisions:
    """Precision, recall and F1 label by label. Raises ValueError for shapes that do not fit."""
    truth, called = _checked_calls("label_decisions", truth, called)
    counts = [kind.sum(0) for kind in (truth & called, called, truth)]
    rates = rates_of_counts(*(count.astype(np.float64) for count in counts))
    return LabelDecisions(rates["precision"], rates["recall"], rates["f1"], counts[2], counts[1])


def label_tree(names: Sequence[str], separator: str = "::") -> tuple[list[str], np.ndarray]:
    """The labels (L) and behind them the ancestors that are no labels themselves, A names in all;
    and the place of the parent of each, int64 (A,), -1 for roots.

    >>> label_tree(["role::program", "role", "use::edit::text"])[0]
    ['role::program', 'role', 'use::edit::text', 'use::edit', 'use']
    """
    if not separator:
        raise ValueError("label_tree: the separator of the levels is empty")
    tree = list(names)
    place = {name: k for k, name in enumerate(tree)}
    if len(place) < len(tree):
        raise ValueError("label_tree: a label occurs twice")
    parents: list[int] = []
    for name in tree:  # grows while it is read
        head, cut, _ = name.rpartition(separator)
        if cut and head not in place:
            place[head] = len(tree)
            tree.append(head)
        parents.append(place[head] if cut else -1)
    return tree, np.array(parents, np.int64)


def with_ancestors(labels: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Labels (N, L) with all their ancestors: bool (N, A).

    parents: place of the parent of each label, int (A,), -1 for roots; the first L are the labels.
    Raises ValueError for places outside of the tree and for labels that are their own ancestors."""
    labels, parents = np.asarray(labels, bool), np.asarray(parents)
    count = len(parents)
    if labels.ndim != 2 or parents.ndim != 1 or labels.shape[1] > count:
        raise ValueError(
            f"with_ancestors: labels {labels.shape} and parents {parents.shape} must be (texts, "
            "labels) and (labels of the tree,)"
        )
    if parents.dtype.kind not in "iu" or not np.all((parents >= -1) & (parents < count)):
        raise ValueError(f"with_ancestors: parents are whole numbers from -1 to {count - 1}")
    everything = np.zeros((len(labels), count), bool)
    everything[:, : labels.shape[1]] = labels
    for child in np.argsort(-_depths(parents), kind="stable"):  # the deepest first
        if parents[child] >= 0:
            everything[:, parents[child]] |= everything[:, child]
    return everything


def hierarchical_scores(
    truth: np.ndarray, called: np.ndarray, parents: np.ndarray
) -> dict[str, float]:
    """hierarchical_precision, hierarchical_recall and hierarchical_f1: the micro scores when true
    and called labels both have their ancestors added (Kiritchenko, Matwin and Famili 2005).

    parents: see `with_ancestors`. Intervals: `decision_bootstrap` of the same two arrays."""
    truth, called = _checked_calls("hierarchical_scores", truth, called)
    scores = decision_scores(with_ancestors(truth, parents), with_ancestors(called, parents))
    names = ("precision", "recall", "f1")
    return {f"hierarchical_{name}": scores[f"micro_{name}"] for name in names}


@dataclass(frozen=True)
class FrequencyBuckets:
    """Labels by how often they occur in the training part.

    bucket: place in `BUCKETS`, int64 (L,). edges: the largest count that is rare, and the largest
    that is medium."""

    bucket: np.ndarray
    edges: tuple[int, int]

    def columns(self, name: str) -> np.ndarray:
        """Places of the labels of the bucket "rare", "medium" or "frequent"."""
        return np.flatnonzero(self.bucket == BUCKETS.index(name))


def frequency_buckets(counts: np.ndarray, edges: tuple[int, int] | None = None) -> FrequencyBuckets:
    """Labels in three buckets by their counts (L,) in the training part; by default thirds of the
    labels, of which equal counts are never divided.

    Raises ValueError for edges that fall and for counts below 0."""
    counts = np.asarray(counts)
    if counts.ndim != 1 or (len(counts) and counts.min() < 0):
        raise ValueError(f"frequency_buckets: counts are (labels,) from 0, got {counts.shape}")
    if edges is None:
        low, high = np.quantile(counts, [1 / 3, 2 / 3], method="lower") if len(counts) else (0, 0)
        edges = int(low), int(high)
    if edges[0] > edges[1]:
        raise ValueError(f"frequency_buckets: the edges {edges} fall")
    return FrequencyBuckets(np.searchsorted(edges, counts, "left").astype(np.int64), edges)


@dataclass(frozen=True)
class LabelReliability:
    """Mean probability and share of true ones bin by bin, of each label (L, B) and of all pairs of
    a text and a label together (B,), NaN for empty bins; and the expected calibration errors, the
    mean distance of the two weighted by the counts: of each label (L,) and of all pairs."""

    confidence: np.ndarray
    share: np.ndarray
    count: np.ndarray
    errors: np.ndarray
    overall_confidence: np.ndarray
    overall_share: np.ndarray
    overall_count: np.ndarray
    overall_error: float

    @property
    def mean_error(self) -> float:
        """Mean of the errors of the labels, which do not make up for each other."""
        return float(self.errors.mean()) if len(self.errors) else float("nan")


def label_reliability(
    truth: np.ndarray, probability: np.ndarray, bins: int = 10
) -> LabelReliability:
    """Reliability and expected calibration error (Guo et al., arXiv 1706.04599) of each label as a
    yes-or-no question, in bins of equal width that hold their upper edge.

    Raises ValueError for shapes that do not fit and numbers outside 0 to 1."""
    truth, probability = checked("label_reliability", truth, probability)
    if probability.size and not 0 <= probability.min() <= probability.max() <= 1:
        raise ValueError("label_reliability: probabilities lie between 0 and 1")
    if bins < 1:
        raise ValueError(f"label_reliability: bins = {bins} must be at least 1")
    labels = truth.shape[1]
    place = equal_width_bins(probability, bins) + np.arange(labels) * bins
    count, confidence, hits = (
        np.bincount(place.ravel(), values, labels * bins).reshape(labels, bins)
        for values in (None, probability.ravel(), truth.ravel().astype(np.float64))
    )
    pooled = count.sum(0), confidence.sum(0), hits.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return LabelReliability(
            confidence / count,
            hits / count,
            count,
            np.abs(hits - confidence).sum(1) / max(len(truth), 1),
            pooled[1] / pooled[0],
            pooled[2] / pooled[0],
            pooled[0],
            float(np.abs(pooled[2] - pooled[1]).sum() / max(truth.size, 1)),
        )


def weighted_calibration_error(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray, bins: int = 10
) -> np.ndarray:
    """`overall_error` of `label_reliability` for each row of weights (R, N): (R,)."""
    truth, probability = checked("weighted_calibration_error", truth, probability)
    texts, labels = truth.shape
    place = equal_width_bins(probability, bins) + np.arange(texts)[:, None] * bins
    gap = np.bincount(place.ravel(), (truth - probability).ravel(), texts * bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(weights @ gap.reshape(texts, bins)).sum(1) / (weights.sum(1) * labels)


def rates_of_counts(
    hits: np.ndarray, called: np.ndarray, true: np.ndarray
) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of counts of any one shape; 0 / 0 is 0 where something is true or
    called, else NaN."""
    counts = ((hits, called), (hits, true), (2 * hits, called + true))
    either = called + true > 0
    return {
        name: np.where(either, above / np.where(below > 0, below, 1), np.nan)
        for name, (above, below) in zip(("precision", "recall", "f1"), counts, strict=True)
    }


def _depths(parents: np.ndarray) -> np.ndarray:
    """How many ancestors each label has: (A,)."""
    depth, above = np.zeros(len(parents), np.int64), parents.copy()
    while (above >= 0).any():
        if depth.max(initial=0) > len(parents):
            raise ValueError("with_ancestors: a label is its own ancestor")
        depth += above >= 0
        above = np.where(above >= 0, parents[above], -1)
    return depth


def _checked_calls(
    name: str, truth: np.ndarray, called: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    truth, called = np.asarray(truth), np.asarray(called)
    if truth.ndim != 2 or truth.shape != called.shape:
        raise ValueError(
            f"{name}: truth and called are both (texts, labels), got {truth.shape} and "
            f"{called.shape}"
        )
    if truth.dtype != bool or called.dtype != bool:
        raise ValueError(f"{name}: truth and called are bool")
    return truth, called
