"""Pictures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_confusion, draw_reliability, draw_roc, finish_roc
from .audit import Probe
from .explain import CAM, overlay

SHOWN = 2  # pictures of each class with what the model looked at


def calibration(
    labels: np.ndarray,
    raw: np.ndarray,
    calibrated: np.ndarray,
    classes: Sequence[str],
    positive: int,
    threshold: float,
) -> ReportFigure:
    """Reliability before and after the temperature, ROC with the operating point, confusion."""
    drawn = Figure(figsize=(9.5, 3.1), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    draw_reliability(
        left, labels, {"as trained": (raw, "0.6"), "with temperature": (calibrated, "C0")}
    )
    draw_roc(middle, labels, calibrated, classes)
    own = labels == positive
    if own.any() and not own.all():
        said = calibrated[:, positive] >= threshold
        middle.plot(said[~own].mean(), said[own].mean(), "ko", ms=5, label="operating point")
    finish_roc(middle)
    draw_confusion(right, labels, calibrated, classes)
    return ReportFigure(
        "calibration",
        "Reliability, ROC curves with the operating point, and confusion on this part",
        drawn,
    )


def shortcuts(found: Sequence[Probe], auc: float) -> ReportFigure:
    """AUC of each probe with its interval, beside the model's."""
    drawn = Figure(figsize=(7, 0.45 * len(found) + 1.4), layout="constrained")
    axis = drawn.subplots()
    place = np.arange(len(found))[::-1]
    for y, probe in zip(place, found):
        colour = "C3" if probe.readable else "0.4"
        axis.plot([probe.low, probe.high], [y, y], color=colour)
        axis.plot(probe.auc, y, "o", color=colour)
    axis.axvline(0.5, color="0.5", ls=":")
    axis.axvline(auc, color="C0", label=f"the model on this part ({auc:.2f})")
    axis.set_yticks(place, [probe.name for probe in found], fontsize=8)
    least = min(0.35, *(probe.low for probe in found))
    axis.set(
        xlabel="AUC of a linear model in five folds by patient, 95 % interval", xlim=(least, 1.01)
    )
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    return ReportFigure(
        "shortcuts", "What tells the label that is not the lung (red: more than chance)", drawn
    )


def looked(chosen: Sequence[tuple[str, np.ndarray, Mapping[str, np.ndarray]]]) -> ReportFigure:
    """Pictures with their maps: (headline, pixels (Y, X) in [0, 1], maps)."""
    names = ["picture", *(name for name in chosen[0][2] if name != "attention")]
    drawn = Figure(figsize=(1.5 * len(names), 1.75 * len(chosen)), layout="constrained")
    axes = drawn.subplots(len(chosen), 1, squeeze=False)[:, 0]
    for axis, (headline, pixels, maps) in zip(axes, chosen):
        shown = {name: one for name, one in maps.items() if name != "attention"}
        axis.imshow(overlay(pixels, shown, side=192))
        axis.set_title(headline, fontsize=8, loc="left")
        axis.set_xticks([96 + 192 * k for k in range(len(names))], names, fontsize=7)
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    return ReportFigure(
        "attention", f"Attention at each scale, the map of the body, and {CAM}", drawn
    )
