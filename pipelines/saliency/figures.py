"""Pictures of saliency: the best, median and worst scenes, and curves of precision and recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...data.formats.pictures import read_picture
from ...data.scenes.scenes import read_depth, read_mask
from ..engine.pipeline import ReportFigure
from ..metrics.saliency import SaliencyScores

if TYPE_CHECKING:
    from .data import Scenes

SHOWN = 2  # scenes of each kind
LONGEST = 240  # pixels of a shown picture


def sheet(part: Scenes, maps: list[np.ndarray], scores: SaliencyScores) -> ReportFigure:
    """Colour, depth, mask and map of the best, median and worst scenes by S-measure."""
    from matplotlib.figure import Figure

    ranked = torch.argsort(scores.s_measure, descending=True).tolist()
    middle = len(ranked) // 2
    kinds = {
        "best": ranked[:SHOWN],
        "median": ranked[middle : middle + SHOWN],
        "worst": ranked[::-1][:SHOWN],
    }
    chosen: dict[int, str] = {}
    for kind, places in kinds.items():
        for place in places:
            chosen.setdefault(place, kind)
    drawn = Figure(figsize=(8, 1.6 * len(chosen)), layout="constrained")
    axes = drawn.subplots(len(chosen), 4, squeeze=False)
    images, depths, masks = (part.of(name) for name in ("images", "depths", "masks"))
    for line, (place, kind) in zip(axes, chosen.items()):
        picture = read_picture(images[place]).transpose(1, 2, 0)
        shown = [
            picture,
            read_depth(depths[place], part.source.near)[0],
            read_mask(masks[place]),
            maps[place],
        ]
        for axis, one in zip(line, shown):
            step = max(1, max(one.shape[:2]) // LONGEST)
            most = 255 if one.dtype == np.uint8 else 1
            axis.imshow(one[::step, ::step], cmap="gray", aspect="auto", vmin=0, vmax=most)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(kind, fontsize=8)
        line[3].set_xlabel(
            f"S {float(scores.s_measure[place]):.3f}, MAE {float(scores.mae[place]):.3f}",
            fontsize=7,
        )
    for axis, title in zip(axes[0], ("colour", "depth, near is bright", "mask", "saliency")):
        axis.set_title(title, fontsize=8)
    return ReportFigure("scenes", "Best, median and worst scenes of this part by S-measure.", drawn)


def curves(every: dict[str, SaliencyScores]) -> ReportFigure:
    """Precision against recall, and F against the threshold."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for name, scores in every.items():
        left.plot(scores.recall.mean(0), scores.precision.mean(0), label=name)
        right.plot(np.arange(256)[::-1], scores.f_curve.mean(0), label=name)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    right.set(xlabel="threshold", ylabel="F-measure", ylim=(0, 1.02))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    return ReportFigure(
        "curves",
        "Precision and recall, and F-measure, mean over the scenes, at 256 thresholds.",
        drawn,
    )
