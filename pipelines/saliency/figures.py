"""Figures of saliency: the best, median and worst scenes, and curves of precision and recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...data.formats.pictures import read_picture
from ..engine.pipeline import ReportFigure
from ..figures.style import MEDIUM, ROW, SMALL, WIDE, bare, styled_figure
from ..metrics.saliency import SaliencyScores
from .data import Scenes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 2  # scenes of each kind
LONGEST = 240  # pixels of a shown picture


def scenes_figure(part: Scenes, maps: Sequence[np.ndarray], scores: SaliencyScores) -> ReportFigure:
    """Colour, depth, mask and map of the best, median and worst scenes by S-measure."""
    kind_of_place = _best_median_worst(scores)
    images = part.column("images")
    with styled_figure(MEDIUM, 1.4 * len(kind_of_place), grid=False) as figure:
        rows = figure.subplots(len(kind_of_place), 4, squeeze=False)
        for row, (place, kind) in zip(rows, kind_of_place.items()):
            pictures = [
                read_picture(images[place]).transpose(1, 2, 0),
                part.depth(place),
                part.mask(place),
                maps[place],
            ]
            for axes, picture in zip(row, pictures):
                _show(axes, picture)
            row[0].set_ylabel(kind)
            s_measure, mae = float(scores.s_measure[place]), float(scores.mae[place])
            row[3].set_xlabel(f"S {s_measure:.3f}, MAE {mae:.3f}", fontsize=SMALL)
        for axes, title in zip(rows[0], ("colour", "depth, near is bright", "mask", "saliency")):
            axes.set_title(title)
    caption = "Best, median and worst scenes of this part by S-measure."
    return ReportFigure("scenes", caption, figure, is_answer=True)


def _best_median_worst(scores: SaliencyScores) -> dict[int, str]:
    """The kind of each shown scene by its place; a scene of two kinds has the first."""
    ranked = torch.argsort(scores.s_measure, descending=True).tolist()
    middle = len(ranked) // 2
    places_of_kind = {
        "best": ranked[:SHOWN],
        "median": ranked[middle : middle + SHOWN],
        "worst": ranked[::-1][:SHOWN],
    }
    kind_of_place: dict[int, str] = {}
    for kind, places in places_of_kind.items():
        for place in places:
            kind_of_place.setdefault(place, kind)
    return kind_of_place


def _show(axes: Axes, picture: np.ndarray) -> None:
    step = max(1, max(picture.shape[:2]) // LONGEST)
    brightest = 255 if picture.dtype == np.uint8 else 1
    axes.imshow(picture[::step, ::step], cmap="gray", aspect="auto", vmin=0, vmax=brightest)
    bare(axes)


def curves_figure(map_scores: Mapping[str, SaliencyScores]) -> ReportFigure:
    """Precision against recall, and F against the threshold, for each kind of map."""
    with styled_figure(WIDE, ROW) as figure:
        recall_axes, threshold_axes = figure.subplots(1, 2)
        for name, scores in map_scores.items():
            recall_axes.plot(scores.recall.mean(0), scores.precision.mean(0), label=name)
            threshold_axes.plot(np.arange(256)[::-1], scores.f_curve.mean(0), label=name)
        recall_axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        threshold_axes.set(xlabel="threshold", ylabel="F-measure", ylim=(0, 1.02))
        recall_axes.legend()
    caption = "Precision and recall, and F-measure, mean over the scenes, at 256 thresholds."
    return ReportFigure("curves", caption, figure)
