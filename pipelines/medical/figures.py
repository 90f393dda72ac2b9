"""Figures of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_confusion, draw_reliability, draw_roc, finish_roc
from ..figures.style import BLUE, GREY, MEDIUM, RED, ROW, SMALL, WIDE, bare, styled_figure
from .audit import Probe
from .explain import ATTENTION, CAM, overlay
from .scoring import ShownPicture, decided

SIDE = 192  # pixels of a picture in the strip


def calibration(
    labels: np.ndarray,
    raw: np.ndarray,
    calibrated: np.ndarray,
    classes: Sequence[str],
    positive: int,
    threshold: float,
) -> ReportFigure:
    """Reliability before and after the temperature, ROC with the operating point, confusion.

    labels: int (N,); raw, calibrated: probabilities (N, K). The confusion is that of the operating
    point.
    """
    with styled_figure(WIDE, ROW) as figure:
        first, middle, last = figure.subplots(1, 3)
        curves = {"as trained": (raw, GREY), "with temperature": (calibrated, BLUE)}
        draw_reliability(first, labels, curves)
        draw_roc(middle, labels, calibrated, classes)
        ill = labels == positive
        if ill.any() and not ill.all():
            called = calibrated[:, positive] >= threshold
            point = called[~ill].mean(), called[ill].mean()
            middle.plot(*point, "ko", ms=5, label="operating point")
        finish_roc(middle)
        certain = np.eye(len(classes))[decided(calibrated, positive, threshold)]
        draw_confusion(last, labels, certain, classes)
    text = "Reliability, ROC curves, and confusion at the operating point, on this part"
    return ReportFigure("calibration", text, figure)


def shortcuts(probes: Sequence[Probe], auc: float) -> ReportFigure:
    """AUC of each probe with its interval, compared with that of what predicts."""
    with styled_figure(MEDIUM, 0.45 * len(probes) + 1.4, grid=False) as figure:
        axes = figure.subplots()
        places = np.arange(len(probes))[::-1]
        for place, probe in zip(places, probes):
            colour = RED if probe.readable else GREY
            axes.plot([probe.low, probe.high], [place, place], color=colour)
            axes.plot(probe.auc, place, "o", color=colour)
        axes.axvline(0.5, color=GREY, ls=":")
        axes.axvline(auc, color=BLUE, label=f"this run, on this part ({auc:.2f})")
        axes.set_yticks(places, [probe.name for probe in probes], fontsize=8)
        least = min(0.35, *(probe.low for probe in probes))
        text = "AUC of a linear model in five folds by patient, 95 % interval"
        axes.set(xlabel=text, xlim=(least, 1.01))
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1))
    text = "What else than the lung tells the label (red: more than chance)"
    return ReportFigure("shortcuts", text, figure)


def looked(shown: Sequence[ShownPicture], *, is_part: bool) -> ReportFigure:
    """Pictures with their maps. is_part: whether these are of a part of what predicts, a blend."""
    names = ["picture", *(name for name in shown[0].maps if name != ATTENTION)]
    with styled_figure(1.5 * len(names), 1.75 * len(shown), grid=False) as figure:
        for axes, picture in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown):
            bare(axes)
            axes.imshow(overlay(picture.pixels, picture.maps, side=SIDE))
            axes.set_title(picture.headline, fontsize=8)
            centres = [SIDE / 2 + SIDE * k for k in range(len(names))]
            axes.set_xticks(centres, names, fontsize=SMALL)
    text = f"Attention at each scale, the map of the body, and {CAM}"
    if is_part:
        text += "; of the attention model, which is one part of the blend that predicts"
    return ReportFigure("attention", text, figure, is_answer=True)
