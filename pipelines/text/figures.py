"""Figures of the report of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_confusion
from ..figures.style import BLUE, GREY, MEDIUM, NARROW, ORANGE, ROW, SMALL, bare, styled_figure
from ..metrics.labels.decisions import LabelReliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE, LINE, MARGIN = 9, 15.0, 8.0  # of text in figures, points
ROUNDED = 1.05  # letters are drawn on whole pixels, mostly wider
NAMED = 8  # labels that a figure names
WIDE = 20  # times the least count that the largest must be for logarithms to be read more easily


def reliability_figure(reliability: LabelReliability) -> ReportFigure:
    """How often a label is right against how probable it was said to be, of all labels."""
    filled = reliability.overall_count > 0
    confidence, share = reliability.overall_confidence[filled], reliability.overall_share[filled]
    with styled_figure(NARROW, ROW) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=GREY)
        axes.plot(confidence, share, "o-", color=BLUE)
        axes.set(xlabel="probability of a label", ylabel="share of texts that have it")
    caption = (
        "Of all pairs of a text and a label with about this probability (across), the share that "
        "is true (up). On the dotted line probabilities mean what they say; above it they are "
        "too low, below it too high."
    )
    return ReportFigure("reliability", caption, figure)


def label_figure(names: Sequence[str], scores: np.ndarray, counts: Sequence[int]) -> ReportFigure:
    """F1 of each label against how often the training part has it."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    heights = np.nan_to_num(scores)
    with styled_figure(MEDIUM, ROW) as figure:
        axes = figure.subplots()
        axes.plot(counts, heights, "o", color=BLUE, alpha=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        middle = (min(counts) + max(counts)) / 2
        if max(counts) > WIDE * max(1, min(counts)):
            middle = (max(1, min(counts)) * max(counts)) ** 0.5
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        for place in np.argsort(-np.array(counts))[:NAMED].tolist():
            is_right = counts[place] > middle  # its name goes to the left, into the picture
            axes.annotate(
                str(names[place]),
                (float(counts[place]), float(heights[place])),
                xytext=(-5 if is_right else 5, -2),
                textcoords="offset points",
                ha="right" if is_right else "left",
                fontsize=SMALL,
            )
        axes.set(xlabel="texts of the training part with the label", ylabel="F1")
        axes.set_ylim(-0.02, 1.02)
    caption = (
        "F1 of each label (up) against how many texts it was learned from (across). The most "
        "frequent labels are named; the table of labels has all."
    )
    return ReportFigure("labels", caption, figure)


def confusion_figure(
    labels: np.ndarray, probability: np.ndarray, classes: Sequence[str]
) -> ReportFigure:
    """Counts of true by predicted classes."""
    side = 2.5 + 0.35 * len(classes)
    with styled_figure(side + 0.8, side, grid=False) as figure:
        draw_confusion(figure.subplots(), labels, probability, classes)
    return ReportFigure("confusion", "Counts of texts by true and by predicted class.", figure)


def number_figure(truth: np.ndarray, predicted: np.ndarray, name: str) -> ReportFigure:
    """Predictions against the truth."""
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    with styled_figure(NARROW, ROW) as figure:
        axes = figure.subplots()
        axes.plot(truth, predicted, ".", color=BLUE, alpha=0.4)
        axes.plot(ends, ends, ":", color=GREY)
        axes.set(xlabel=f"{name}, true", ylabel=f"{name}, predicted")
    caption = "Each dot is a text of this part; on the dotted line the prediction is right."
    return ReportFigure("predictions", caption, figure)


class ShadedText(NamedTuple):
    """A text of a figure. pieces: in their order, with how much each speaks for (above 0, at most
    1) or against (below 0) what the heading says.
    """

    heading: str
    pieces: list[tuple[str, float]]


def explained_texts(texts: Sequence[ShadedText]) -> ReportFigure:
    """Texts with shaded words; what speaks against is dotted below."""
    width, lines = MEDIUM * 72, [_lines(text, MEDIUM * 72 - 2 * MARGIN) for text in texts]
    height = sum(LINE * (len(rows) + 2) for rows in lines)
    with styled_figure(MEDIUM, height / 72, grid=False) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        bare(axes)
        axes.set(xlim=(0, width), ylim=(height, 0))
        y = 0.0
        for text, rows in zip(texts, lines, strict=True):
            y += LINE
            axes.text(MARGIN, y, text.heading, fontsize=SIZE, fontweight="bold")
            for row in rows:
                y += LINE
                for word in row:
                    _draw_word(axes, word, y)
            y += LINE
    caption = (
        "Right labels of some texts, with the words that speak for them (blue) and against them "
        "(orange, dotted), the darker the more; `headwise text explain` shows any text."
    )
    return ReportFigure("explained", caption, figure, is_answer=True)


class _Word(NamedTuple):
    text: str
    x: float
    width: float
    strength: float


def _lines(text: ShadedText, width: float) -> list[list[_Word]]:
    """The words of a text in lines of a width in points; a word that is longer has a line alone."""
    rows: list[list[_Word]] = [[]]
    x = 0.0
    for piece, strength in text.pieces:
        for part in re.findall(r"\s+|\S+", piece):
            shown = " " if part.isspace() else part
            size = _width(shown)
            if x + size > width and rows[-1]:
                rows.append([])
                x = 0.0
            if shown != " ":
                rows[-1].append(_Word(shown, MARGIN + x, size, strength))
            if shown != " " or rows[-1]:
                x += size
    return [row for row in rows if row]


def _width(text: str) -> float:
    """Of a text, points; matplotlib leaves out spaces at the ends."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    if text == " ":
        return _width("a a") - 2 * _width("a")
    size = text_to_path.get_text_width_height_descent(text, FontProperties(size=SIZE), False)[0]
    return ROUNDED * size


def _draw_word(axes: Axes, word: _Word, y: float) -> None:
    from matplotlib.patches import Rectangle

    if word.strength:
        colour = BLUE if word.strength > 0 else ORANGE
        shade = 0.1 + 0.5 * abs(word.strength)
        corner = (word.x, y - 0.75 * LINE + 2)
        axes.add_patch(Rectangle(corner, word.width, 0.8 * LINE, color=colour, alpha=shade, lw=0))
        style = "-" if word.strength > 0 else ":"
        ends = [word.x, word.x + word.width]
        axes.plot(ends, [y + 2.5, y + 2.5], style, color=colour, lw=1.2)
    axes.text(word.x, y, word.text, fontsize=SIZE)
