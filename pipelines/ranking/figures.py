"""Figures of click models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.clicks.schema import Schema
from ..engine.pipeline import ReportFigure
from ..figures.style import GREY, styled_figure
from ..metrics.ranking import calibration_table


def score_figures(
    labels: np.ndarray, probability: np.ndarray, tasks: Sequence[str], schema: Schema
) -> list[ReportFigure]:
    """Calibration of each task, and how well the predictions separate rows of either label.

    labels: int8 (N, S), -1 = not counted.
    """
    counted = []
    for place in range(len(tasks)):
        rows = labels[:, place] >= 0
        counted.append((labels[rows, place], probability[rows, place]))
    return [_calibration(counted, tasks), _separation(counted, tasks, schema)]


def _calibration(
    counted: Sequence[tuple[np.ndarray, np.ndarray]], tasks: Sequence[str]
) -> ReportFigure:
    """counted: labels and probabilities of each task."""
    with styled_figure(4.2 * len(tasks), 3.6) as figure:
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task, (label, value) in zip(panels, tasks, counted, strict=True):
            axes.set(xlabel="predicted", ylabel="observed", title=task)
            if len(label):
                bins = calibration_table(label, value)
                top = float(max(bins.predicted.max(), bins.observed.max(), 1e-6)) * 1.05
                axes.plot([0, top], [0, top], color=GREY, linewidth=1)
                axes.plot(bins.predicted, bins.observed, "o-", markersize=3)
    text = "Predicted and observed rates in bins of equal count."
    return ReportFigure("calibration", text, figure)


def _separation(
    counted: Sequence[tuple[np.ndarray, np.ndarray]], tasks: Sequence[str], schema: Schema
) -> ReportFigure:
    with styled_figure(4.2 * len(tasks), 3.2) as figure:
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task, (label, value) in zip(panels, tasks, counted, strict=True):
            for kind, name in ((0, "no"), (1, "yes")):
                if (values := value[label == kind]).size:
                    axes.hist(
                        values, bins=40, range=(0, 1), density=True, histtype="step", label=name
                    )
            axes.set(xlabel="predicted", ylabel="density", title=task)
            axes.legend(title=schema.tasks[task].label.column)
    return ReportFigure("separation", "Predictions for rows of either label.", figure)
