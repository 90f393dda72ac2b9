"""Figures of the report of several findings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...engine.pipeline import ReportFigure
from ...figures.classifier import draw_roc, finish_roc
from ...figures.style import BLUE, GREY, MEDIUM, ORANGE, ROW, SMALL, WIDE, styled_figure
from ...metrics.multilabel import LabelScores
from ..data import SeveralXrays

BINS = 10  # of the calibration curve
MOST_NAMED = 16  # ROC curves that have room for their names


def areas(findings: Sequence[str], scores: LabelScores) -> ReportFigure:
    """AUC of each finding with its interval, and their mean; findings without one are left out."""
    defined = [k for k, values in enumerate(scores.values) if not np.isnan(values["auc"])]
    with styled_figure(MEDIUM, 0.3 * len(defined) + 1.4, grid=False) as figure:
        axes = figure.subplots()
        for place, k in enumerate(reversed(defined)):
            axes.plot(scores.intervals[k]["auc"], [place, place], color=BLUE)
            axes.plot(scores.values[k]["auc"], place, "o", color=BLUE)
        axes.axvline(0.5, color=GREY, ls=":")
        mean = scores.means["auc"]
        if not np.isnan(mean):
            axes.axvline(mean, color=ORANGE, label=f"mean ({mean:.2f})")
            axes.legend(loc="upper left")
        names = [findings[k] for k in reversed(defined)]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="AUC, 95 % interval by patient", xlim=(0, 1.01))
    return ReportFigure("findings", "AUC of each finding on this part", figure)


def curves(part: SeveralXrays, raw: np.ndarray, calibrated: np.ndarray) -> ReportFigure:
    """Share of pictures with a finding against its probability, of all findings together, before
    and after the temperatures, and the ROC curve of each finding.

    raw, calibrated: probabilities (N, K).
    """
    with styled_figure(WIDE, ROW * 1.2) as figure:
        first, second = figure.subplots(1, 2)
        for probability, colour, name in (
            (raw, GREY, "as trained"),
            (calibrated, BLUE, "with temperatures"),
        ):
            chance, share = reliability(part.truth[part.known], probability[part.known])
            first.plot(chance, share, "o-", color=colour, ms=4, label=name)
        first.plot([0, 1], [0, 1], ":", color=GREY)
        first.set(xlabel="probability of a finding", ylabel="share that has it")
        first.set(xlim=(0, 1.02), ylim=(0, 1.02))
        first.legend()
        for k, name in enumerate(part.classes):
            rows = part.known[:, k]
            pair = np.stack([1 - calibrated[rows, k], calibrated[rows, k]], 1)
            draw_roc(second, part.truth[rows, k].astype(np.int64), pair, ["", name])
        finish_roc(second)
        if (legend := second.get_legend()) is not None:
            if len(part.classes) > MOST_NAMED:
                legend.remove()
            for text in legend.get_texts():
                text.set_fontsize(SMALL - 1)
    text = "Calibration over all findings, and ROC curve of each, on this part"
    return ReportFigure("calibration", text, figure)


def reliability(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability and share of positives in bins of equal width that hold samples.

    truth: bool (n,); probability: (n,).
    """
    place = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = count > 0
    chance = np.bincount(place, probability, BINS)[filled] / count[filled]
    return chance, np.bincount(place, truth, BINS)[filled] / count[filled]
