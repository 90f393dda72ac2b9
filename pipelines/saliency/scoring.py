"""What saliency maps are worth: every metric of the field by data set, compared with the depth
alone and with the middle of the picture.

Shapes: B scenes, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.size import model_size
from ...models.vision.saliency_rungs import BlendedSaliency, LinearSaliency, MeanMask
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Metrics
from ..engine.training import order
from ..metrics.bootstrap import Interval
from ..metrics.saliency import SaliencyScores, bootstrap_table, saliency_scores
from .augment import normalise
from .data import Scenes
from .options import SaliencyOptions

MODEL, DEPTH, MIDDLE = "GL-DMNet", "depth alone", "middle"
SIGMA = 0.25  # of the middle's Gaussian, as a share of each side
ALL = "all"

MapScores = Mapping[str, SaliencyScores]
"""Scores of each kind of map: those of models by name, then DEPTH and MIDDLE."""


def name_of(model: nn.Module) -> str:
    """What predicts, in a few words."""
    if isinstance(model, BlendedSaliency):
        return "blend"
    if isinstance(model, LinearSaliency):
        return "pixels" if model.encoder is None else "frozen features"
    return "mean mask" if isinstance(model, MeanMask) else MODEL


@torch.no_grad()
def saliency_of(model: nn.Module, image: Tensor, depth: Tensor) -> Tensor:
    """Saliency in [0, 1], (B, Y, X), of uint8 pictures and depths in [0, 1]."""
    return model(*normalise(image, depth))[:, 0].float()


def to_bytes(saliency: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """A map (Y, X) in [0, 1], resized to `shape`, in 8 bits."""
    resized = F.interpolate(saliency[None, None], shape, mode="bilinear", align_corners=False)
    return (255 * resized[0, 0]).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def maps_of(
    model: nn.Module, part: Scenes, options: SaliencyOptions, device: torch.device
) -> list[np.ndarray]:
    """The maps of all scenes, 8 bits, each in the size of its picture."""
    maps: list[np.ndarray] = []
    batches = order.sequential(len(part), options.batch_size)
    with Progressbar(total=len(part), unit="scene", desc="maps") as bar:
        for batch in order.loader(part, batches, workers=options.workers):
            saliency = saliency_of(model, batch["image"].to(device), batch["depth"].to(device))
            maps += [
                to_bytes(values, (height, width))
                for values, (height, width) in zip(saliency, batch["shape"].tolist())
            ]
            bar.update(len(saliency))
    return maps


def score_maps(part: Scenes, maps_by_name: Mapping[str, Sequence[np.ndarray]]) -> MapScores:
    """Scores of the maps of models (uint8, one per scene) and of the two floors against the masks
    as they are stored; a map of another size than its mask is resized to it.
    """
    parts: dict[str, list[SaliencyScores]] = {name: [] for name in (*maps_by_name, DEPTH, MIDDLE)}
    for place in range(len(part)):
        mask = torch.from_numpy(part.mask(place))
        of_models = {name: maps[place] for name, maps in maps_by_name.items()}
        shape = next(iter(of_models.values())).shape
        floors = {DEPTH: depth_map(part, place), MIDDLE: middle_map(shape)}
        for name, values in {**of_models, **floors}.items():
            levels = torch.from_numpy(values)
            if levels.shape != mask.shape:
                shape = (mask.shape[0], mask.shape[1])
                levels = torch.from_numpy(to_bytes(levels.float() / 255, shape))
            parts[name].append(saliency_scores(levels[None], mask[None]))
    return {name: SaliencyScores.join(scores) for name, scores in parts.items()}


def depth_map(part: Scenes, place: int) -> np.ndarray:
    """The map, uint8, of a scene by its place: near things are salient."""
    return (255 * part.depth(place)).round().astype(np.uint8)


def middle_map(shape: tuple[int, ...]) -> np.ndarray:
    """The map, uint8, of a picture of this (height, width): what is in its middle is salient."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in shape)
    distance = (y[:, None] ** 2 + x**2) / (2 * SIGMA**2)
    return (255 * np.exp(-distance)).round().astype(np.uint8)


def by_set(part: Scenes, scores: SaliencyScores) -> dict[str, SaliencyScores]:
    """The scores of each data set, and of all together where there are several."""
    names = np.array(part.column("sets"))
    sets = {
        name: scores.of(torch.from_numpy(np.flatnonzero(names == name)))
        for name in sorted(set(names))
    }
    return {**sets, ALL: scores} if len(sets) > 1 else sets


def set_table(part: Scenes, map_scores: MapScores) -> pl.DataFrame:
    """One row per kind of map and data set."""
    return pl.DataFrame(
        [
            {"data set": name, "map": kind, "scenes": len(of_set), **of_set.table()}
            for kind, scores in map_scores.items()
            for name, of_set in by_set(part, scores).items()
        ]
    )


@dataclass(frozen=True)
class Summary:
    """Scores of the maps of what predicts on one part, by name of the metric, and of the two
    floors.
    """

    name: str
    """What predicts."""
    scenes: int
    scores: dict[str, float]
    intervals: Mapping[str, Interval]
    """Percentile intervals of 95 % of `scores`, by group."""
    by_set: dict[str, dict[str, float]]
    floors: dict[str, dict[str, float]]
    size: dict[str, int]

    def to_json(self) -> Metrics:
        """What `metrics.json` holds."""
        return {
            "scenes": self.scenes,
            **self.scores,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "sets": {name: dict(scores) for name, scores in self.by_set.items()},
            "baselines": {name: dict(scores) for name, scores in self.floors.items()},
            "model": dict(self.size),
        }

    def table(self) -> pl.DataFrame:
        """One row per metric: of what predicts with its interval, and of the two floors."""
        return pl.DataFrame(
            [
                {
                    "metric": name,
                    self.name: f"{self.scores[name]:.3f} ({low:.3f} to {high:.3f})",
                    **{kind: f"{scores[name]:.3f}" for kind, scores in self.floors.items()},
                }
                for name, (low, high) in self.intervals.items()
            ]
        )

    def headline(self) -> str:
        """One sentence with the main figures."""
        ours, floor, size = self.scores, self.floors[DEPTH], self.size
        return (
            f"{self.scenes} scenes: S-measure {ours['S-measure']:.3f}, MAE {ours['MAE']:.3f}, max "
            f"F-measure {ours['max F-measure']:.3f}; depth alone {floor['S-measure']:.3f}, "
            f"{floor['MAE']:.3f}; {size['parameters'] / 1e6:.2f} million parameters, "
            f"{size['multiply-accumulates'] / 1e9:.2f} billion multiply-accumulates"
        )


def summarise(
    part: Scenes, map_scores: MapScores, name: str, size: dict[str, int], options: SaliencyOptions
) -> Summary:
    """The scores of a part by what predicts, with intervals by group."""
    ours = map_scores[name]
    return Summary(
        name,
        len(part),
        ours.table(),
        bootstrap_table(ours, part.column("groups"), seed=options.seed),
        {of_set: scores.table() for of_set, scores in by_set(part, ours).items()},
        {floor: map_scores[floor].table() for floor in (DEPTH, MIDDLE)},
        size,
    )


def size_of(model: nn.Module, options: SaliencyOptions, device: torch.device) -> dict[str, int]:
    """Parameters, and multiply-accumulates of one scene."""
    colour, depth = (torch.zeros(1, n, *options.size, device=device) for n in (3, 1))
    return model_size(model, colour, depth)
