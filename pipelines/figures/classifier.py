"""Plots that the reports of classifiers share.

Shapes: N samples, K classes. labels: int (N,); probability: (N, K).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from ..metrics.classification import reliability
from .style import GREY, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_reliability(
    axes: Axes, labels: np.ndarray, curves: Mapping[str, tuple[np.ndarray, str]]
) -> None:
    """How often a prediction is right against how confident it was; curves: (probability, colour)
    by name.
    """
    for name, (probability, colour) in curves.items():
        bins = reliability(labels, probability)
        filled = bins.count > 0
        axes.plot(
            bins.confidence[filled], bins.accuracy[filled], "o-", color=colour, ms=4, label=name
        )
    axes.plot([0, 1], [0, 1], ":", color=GREY)
    axes.set(
        xlabel="probability of the predicted class",
        ylabel="share that is right",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    axes.legend()


def draw_roc(
    axes: Axes,
    labels: np.ndarray,
    probability: np.ndarray,
    names: Sequence[str],
    colour: str | None = None,
) -> None:
    """The ROC curve of each class against the rest; of two classes, only the second's. Classes that
    no sample has, or all have, are left out."""
    from sklearn.metrics import roc_curve

    for c in range(1 if len(names) == 2 else 0, len(names)):
        if 0 < (labels == c).sum() < len(labels):
            false, true, _ = roc_curve(labels == c, probability[:, c])
            axes.plot(false, true, label=names[c], color=colour)


def finish_roc(axes: Axes) -> None:
    """Add the diagonal of chance, the names of the axes and the legend after all curves."""
    axes.plot([0, 1], [0, 1], ":", color=GREY)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    if axes.get_legend_handles_labels()[0]:  # none where all samples are of one class
        axes.legend(fontsize=SMALL)


def draw_confusion(
    axes: Axes, labels: np.ndarray, probability: np.ndarray, classes: Sequence[str]
) -> None:
    """Counts of true by predicted classes."""
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, probability.argmax(1)), 1)
    axes.imshow(confusion, cmap="Blues")
    for (i, j), count in np.ndenumerate(confusion):
        dark = count > confusion.max() / 2
        axes.text(j, i, str(count), ha="center", va="center", color="white" if dark else "black")
    axes.grid(visible=False)
    axes.set_xticks(range(len(classes)), classes, fontsize=SMALL)
    axes.set_yticks(range(len(classes)), classes, fontsize=SMALL)
    axes.set(xlabel="predicted", ylabel="true")


def with_interval(scores: Mapping[str, object], name: str) -> str:
    """A score and the ends of its interval, scores["intervals"][name], as text.

    >>> with_interval({"auc": 0.5, "intervals": {"auc": (0.25, 0.75)}}, "auc")
    '0.500 (0.250 to 0.750)'
    """
    intervals = cast(Mapping[str, Sequence[float]], scores["intervals"])
    return interval_text(cast(float, scores[name]), intervals[name])


def interval_text(value: float, interval: Sequence[float]) -> str:
    """A score and the ends of its interval, as text.

    >>> interval_text(0.5, (0.25, 0.75))
    '0.500 (0.250 to 0.750)'
    """
    low, high = interval
    return "undefined" if np.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f})"
