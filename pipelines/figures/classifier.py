"""Axes that reports of classifiers share.

Shapes: N samples, K classes. labels: int (N,); probability: (N, K).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics.classification import reliability


def draw_reliability(
    axis: Any, labels: np.ndarray, curves: Mapping[str, tuple[np.ndarray, str]]
) -> None:
    """How often a prediction is right against how sure it was; curves: (probability, colour) by
    name.
    """
    for name, (probability, colour) in curves.items():
        found = reliability(labels, probability)
        there = found.count > 0
        axis.plot(
            found.confidence[there], found.accuracy[there], "o-", color=colour, ms=4, label=name
        )
    axis.plot([0, 1], [0, 1], ":", color="0.5")
    axis.set(
        xlabel="probability of the predicted class",
        ylabel="share that is right",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    axis.legend(frameon=False, fontsize=8)


def draw_roc(
    axis: Any, labels: np.ndarray, probability: np.ndarray, names: Sequence[str], **style: Any
) -> None:
    """A ROC curve for each class that has and has not samples; of two classes, the second's."""
    from sklearn.metrics import roc_curve

    for c in range(1 if len(names) == 2 else 0, len(names)):
        if 0 < (labels == c).sum() < len(labels):
            false, true, _ = roc_curve(labels == c, probability[:, c])
            axis.plot(false, true, label=names[c], **style)


def finish_roc(axis: Any) -> None:
    """Chance, names and legend, once all curves are drawn."""
    axis.plot([0, 1], [0, 1], ":", color="0.5")
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.legend(frameon=False, fontsize=7)


def draw_confusion(
    axis: Any, labels: np.ndarray, probability: np.ndarray, classes: Sequence[str]
) -> None:
    """Counts of true by predicted classes."""
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, probability.argmax(1)), 1)
    axis.imshow(confusion, cmap="Blues")
    for (i, j), count in np.ndenumerate(confusion):
        dark = count > confusion.max() / 2
        axis.text(j, i, str(count), ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(classes)), classes, fontsize=7)
    axis.set_yticks(range(len(classes)), classes, fontsize=7)
    axis.set(xlabel="predicted", ylabel="true")


def with_interval(found: Mapping[str, Any], name: str) -> str:
    """A score and the ends of its interval, found["intervals"][name]."""
    low, high = found["intervals"][name]
    return "undefined" if np.isnan(found[name]) else f"{found[name]:.3f} ({low:.3f} to {high:.3f})"
