"""Figures of saliency: the best, median and worst scenes, and curves of precision and recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...data.formats.pictures import read_picture
from ...data.scenes.pictures import read_depth, read_mask
from ..engine.pipeline import ReportFigure
from ..metrics.saliency import SaliencyScores
from .data import Scenes

SHOWN = 2  # scenes of each kind
LONGEST = 240  # pixels of a shown picture


def sheet(part: Scenes, maps: Sequence[np.ndarray], scores: SaliencyScores) -> ReportFigure:
    """Colour, depth, mask and map of the best, median and worst scenes by S-measure."""
    kind_of_place = _best_median_worst(scores)
    figure = Figure(figsize=(8, 1.6 * len(kind_of_place)), layout="constrained")
    axes = figure.subplots(len(kind_of_place), 4, squeeze=False)
    images, depths, masks = part.of("images"), part.of("depths"), part.of("masks")
    for line, (place, kind) in zip(axes, kind_of_place.items()):
        pictures = [
            read_picture(images[place]).transpose(1, 2, 0),
            read_depth(depths[place], part.source.near)[0],
            read_mask(masks[place]),
            maps[place],
        ]
        for axis, picture in zip(line, pictures):
            _show(axis, picture)
        line[0].set_ylabel(kind, fontsize=8)
        s_measure, mae = float(scores.s_measure[place]), float(scores.mae[place])
        line[3].set_xlabel(f"S {s_measure:.3f}, MAE {mae:.3f}", fontsize=7)
    for axis, title in zip(axes[0], ("colour", "depth, near is bright", "mask", "saliency")):
        axis.set_title(title, fontsize=8)
    caption = "Best, median and worst scenes of this part by S-measure."
    return ReportFigure("scenes", caption, figure)


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


def _show(axis: Axes, picture: np.ndarray) -> None:
    step = max(1, max(picture.shape[:2]) // LONGEST)
    brightest = 255 if picture.dtype == np.uint8 else 1
    axis.imshow(picture[::step, ::step], cmap="gray", aspect="auto", vmin=0, vmax=brightest)
    axis.set_xticks([])
    axis.set_yticks([])


def curves(map_scores: Mapping[str, SaliencyScores]) -> ReportFigure:
    """Precision against recall, and F against the threshold, for each kind of map."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    recall_axis, threshold_axis = figure.subplots(1, 2)
    for name, scores in map_scores.items():
        recall_axis.plot(scores.recall.mean(0), scores.precision.mean(0), label=name)
        threshold_axis.plot(np.arange(256)[::-1], scores.f_curve.mean(0), label=name)
    recall_axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    threshold_axis.set(xlabel="threshold", ylabel="F-measure", ylim=(0, 1.02))
    for axis in (recall_axis, threshold_axis):
        axis.grid(alpha=0.3)
    recall_axis.legend(frameon=False, fontsize=8)
    caption = "Precision and recall, and F-measure, mean over the scenes, at 256 thresholds."
    return ReportFigure("curves", caption, figure)
