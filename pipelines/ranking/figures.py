"""Figures of click models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ...data.clicks.schema import Schema
from ..engine.pipeline import ReportFigure
from ..metrics.ranking import calibration_table


def score_figures(
    labels: np.ndarray, probability: np.ndarray, tasks: Sequence[str], schema: Schema
) -> list[ReportFigure]:
    """Calibration of each task, and how well the predictions separate rows of either label.

    labels: int8 (N, S), -1 = not counted.
    """
    tables, spread = (
        Figure(figsize=(4.2 * len(tasks), 3.6)),
        Figure(figsize=(4.2 * len(tasks), 3.2)),
    )
    for place, task in enumerate(tasks):
        counts = labels[:, place] >= 0
        label, value = labels[counts, place], probability[counts, place]
        axes = tables.add_subplot(1, len(tasks), place + 1)
        axes.set(xlabel="predicted", ylabel="observed", title=task)
        if len(label):
            bins = calibration_table(label, value)
            top = float(max(bins.predicted.max(), bins.observed.max(), 1e-6)) * 1.05
            axes.plot([0, top], [0, top], color="0.7", linewidth=1)
            axes.plot(bins.predicted, bins.observed, "o-", markersize=3)
        axes = spread.add_subplot(1, len(tasks), place + 1)
        for kind, name in ((0, "no"), (1, "yes")):
            if (label == kind).any():
                axes.hist(
                    value[label == kind],
                    bins=40,
                    range=(0, 1),
                    density=True,
                    histtype="step",
                    label=name,
                )
        axes.set(xlabel="predicted", ylabel="density", title=task)
        axes.legend(frameon=False, title=schema.tasks[task].label.column)
    for figure in (tables, spread):
        figure.tight_layout()
    return [
        ReportFigure("calibration", "Predicted and observed rates in bins of equal count.", tables),
        ReportFigure("separation", "Predictions for rows of either label.", spread),
    ]
