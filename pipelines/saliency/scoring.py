"""What saliency maps are worth: every metric of the field by data set, beside depth alone and the
middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.scenes.scenes import read_depth, read_mask
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Review
from ..engine.training import order
from ..metrics.saliency import SaliencyScores, bootstrap_table, saliency_scores
from . import figures
from .augment import normalise
from .data import Scenes
from .model_size import model_size

OURS, DEPTH, MIDDLE = "GL-DMNet", "depth alone", "middle"
SIGMA = 0.25  # of the middle's Gaussian, as a share of each side
ALL = "all"


@torch.no_grad()
def saliency_of(model: nn.Module, image: Tensor, depth: Tensor) -> Tensor:
    """Saliency in [0, 1], (B, Y, X), of uint8 pictures and depths in [0, 1]."""
    return model(*normalise(image, depth))[:, 0].float()


def to_bytes(saliency: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """A map (Y, X) in [0, 1] at the size of its picture, in 8 bits."""
    there = F.interpolate(saliency[None, None], shape, mode="bilinear", align_corners=False)[0, 0]
    return (255 * there).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def validate(model: Any, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    """error: the mean of MAE and 1 - S-measure, at the size of the model; 0 where nothing is kept
    for validation, so that the last epoch counts as the best."""
    plain = getattr(model, "module", model)
    parts = []
    for batch in batches:
        found = saliency_of(plain, batch["image"], batch["depth"]).clamp(0, 1).cpu()
        parts.append(saliency_scores(found, batch["mask"].cpu()))
    if not parts:
        return {"error": 0.0}
    scores = SaliencyScores.join(parts)
    mae, s = float(scores.mae.mean()), float(scores.s_measure.mean())
    return {"error": (mae + 1 - s) / 2, "mae": mae, "s_measure": s}


def review(
    model: nn.Module, part: Scenes, options: Any, spec: dict[str, Any], device: torch.device
) -> Review:
    """Scores of every data set with intervals beside the floors, and the pictures of the report."""
    maps = maps_of(model, part, options, device)
    every = scored(part, maps)
    found, floors = every[OURS], {who: every[who] for who in (DEPTH, MIDDLE)}
    groups = part.of("groups")
    table = found.table()
    size = model_size(model, tuple(options.size), device)
    between = bootstrap_table(found, groups, seed=options.seed)
    metrics: dict[str, Any] = {
        "scenes": len(part),
        **table,
        "intervals": {name: list(ends) for name, ends in between.items()},
        "sets": {name: scores.table() for name, scores in by_set(part, found).items()},
        "baselines": {name: scores.table() for name, scores in floors.items()},
        "model": size,
    }
    sheet = table_of(part, every)
    shown = pl.DataFrame(
        [
            {
                "metric": name,
                OURS: f"{table[name]:.3f} ({between[name][0]:.3f} to {between[name][1]:.3f})",
                **{who: f"{metrics['baselines'][who][name]:.3f}" for who in floors},
            }
            for name in table
        ]
    )
    headline = (
        f"{len(part)} scenes: S-measure {table['S-measure']:.3f}, MAE {table['MAE']:.3f}, max F-measure "
        f"{table['max F-measure']:.3f}; depth alone {metrics['baselines'][DEPTH]['S-measure']:.3f}, "
        f"{metrics['baselines'][DEPTH]['MAE']:.3f}; {size['parameters'] / 1e6:.2f} million parameters, "
        f"{size['multiply-accumulates'] / 1e9:.2f} billion multiply-accumulates"
    )
    pictures = [figures.sheet(part, maps, found), figures.curves(every)]
    tables = {"Scores, 95 % intervals by group": shown, "Scores by data set": sheet}
    return Review(metrics, headline, pictures, tables, {"scores": sheet})


def maps_of(model: nn.Module, part: Scenes, options: Any, device: torch.device) -> list[np.ndarray]:
    """The maps of all scenes, 8 bits, each at the size of its mask."""
    found = []
    lists = order.sequential(len(part), options.batch_size)
    with Progressbar(total=len(part), unit="scene", desc="maps") as bar:
        for batch in order.loader(part, lists, workers=options.workers):
            saliency = saliency_of(model, batch["image"].to(device), batch["depth"].to(device))
            found += [
                to_bytes(one, (height, width))
                for one, (height, width) in zip(saliency, batch["shape"].tolist())
            ]
            bar.update(len(saliency))
    return found


def scored(part: Scenes, maps: Sequence[np.ndarray]) -> dict[str, SaliencyScores]:
    """Scores of the maps (uint8, by place) and of the floors, by name, against the masks as they
    are stored; a map of another size than its mask is brought to it."""
    ways = {OURS: maps.__getitem__, DEPTH: depth_map(part), MIDDLE: middle_map(part)}
    parts: dict[str, list[SaliencyScores]] = {who: [] for who in ways}
    for place, path in enumerate(part.of("masks")):
        mask = torch.from_numpy(read_mask(path))
        for who, way in ways.items():
            given = torch.from_numpy(way(place))
            if given.shape != mask.shape:
                given = torch.from_numpy(
                    to_bytes(given.float() / 255, (mask.shape[0], mask.shape[1]))
                )
            parts[who].append(saliency_scores(given[None], mask[None]))
    return {who: SaliencyScores.join(own) for who, own in parts.items()}


def table_of(part: Scenes, every: dict[str, SaliencyScores]) -> pl.DataFrame:
    """A row for each kind of map and data set."""
    return pl.DataFrame(
        [
            {"data set": name, "map": who, "scenes": len(own), **own.table()}
            for who, scores in every.items()
            for name, own in by_set(part, scores).items()
        ]
    )


def by_set(part: Scenes, scores: SaliencyScores) -> dict[str, SaliencyScores]:
    """Of each data set, and of all where there are several."""
    names = np.array(part.of("sets"))
    every = {
        name: scores.of(torch.from_numpy(np.flatnonzero(names == name)))
        for name in sorted(set(names))
    }
    return {**every, ALL: scores} if len(every) > 1 else every


def depth_map(part: Scenes) -> Callable[[int], np.ndarray]:
    """Near things are salient."""
    depths = part.of("depths")
    return lambda place: (
        (255 * read_depth(depths[place], part.source.near)[0]).round().astype(np.uint8)
    )


def middle_map(part: Scenes) -> Callable[[int], np.ndarray]:
    """What is in the middle of the picture is salient."""

    def drawn(place: int) -> np.ndarray:
        height, width = part.source.scene(int(part.rows[place]))["shape"]
        y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in (height, width))
        far = (y[:, None] ** 2 + x**2) / (2 * SIGMA**2)
        return (255 * np.exp(-far)).round().astype(np.uint8)

    return drawn
