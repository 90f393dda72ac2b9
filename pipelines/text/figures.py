"""Figures of Text."""

from ..engine.pipeline import ReportFigure
from ..figures.style import GREY, NARROW, styled_figure
from .scoring import Scores


def truth_figure(scores: Scores, target: str) -> ReportFigure:
    """Predictions against the truth."""
    with styled_figure(NARROW, NARROW) as figure:
        axis = figure.subplots()
        axis.plot(scores.truth, scores.prediction, ".", markersize=4)
        ends = [scores.truth.min(), scores.truth.max()]
        axis.plot(ends, ends, color=GREY, linewidth=1)
        axis.set(xlabel=f"{target}: truth", ylabel="prediction")
    return ReportFigure("truth", "Predictions of the part against the truth", figure)
