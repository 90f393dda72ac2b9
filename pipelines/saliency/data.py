"""Sets of scenes as data sets: which part they belong to, which way round their depth is."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import fail
from ...data.scenes.scenes import (
    INVERTED,
    RgbdSet,
    depth_polarity,
    describe,
    read_rgbd_set,
    read_sample,
)
from ..engine.command_line.terminal import say
from ..engine.pipeline import Splits
from ..engine.spec import DictSpec
from ..engine.training.order import mix
from .augment import normalise

HELD_BYTES = 2 << 30  # scenes kept in memory, at the model's size; others are read again each time
LOOKED = 50  # scenes by which the way round of depth is judged


@dataclass
class Source:
    """A set of scenes, read at one size (height, width) in pixels."""

    scenes: RgbdSet
    size: tuple[int, int]
    near: Any
    held: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.most = HELD_BYTES // (8 * self.size[0] * self.size[1])

    def scene(self, row: int) -> dict[str, Any]:
        """image uint8 (3, Y, X), depth float32 (1, Y, X), mask bool (Y, X), shape."""
        found = self.held.get(row)
        if found is None:
            found = read_sample(self.scenes, row, self.size, self.near)
            if len(self.held) < self.most:
                self.held[row] = found
        return found


class Scenes:
    """Some scenes of a source."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source, self.rows = source, np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        found = self.source.scene(int(self.rows[index]))
        sample = {name: torch.from_numpy(found[name]) for name in ("image", "depth", "mask")}
        return {**sample, "shape": torch.tensor(found["shape"]), "index": torch.tensor(index)}

    def of(self, name: str) -> list[Any]:
        """A list of the set, such as names, masks, sets or groups, for these scenes."""
        given = getattr(self.source.scenes, name)
        return [given[row] for row in self.rows]


def read_source(options: Any) -> Source:
    """The scenes that the options name."""
    if options.data is None:
        raise ValueError("saliency: needs data")
    scenes = read_rgbd_set(
        options.data,
        depth=options.depth,
        mask=options.masks,
        groups=options.groups,
        strict=options.unmatched == "error",
    )
    if scenes.unmatched:
        say(f"{options.data}: left out {describe(scenes.unmatched)}")
    return Source(scenes, (options.size[0], options.size[1]), options.near)


def open_splits(options: Any, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Read the list of scenes and split it."""
    source = read_source(options)
    scenes = source.scenes
    if whole:
        rows = scenes.rows("test")
        part = Scenes(source, rows if len(rows) else scenes.rows())
        return Splits(part, part, part, spec or DictSpec())
    train, validation, test = split(options, scenes)
    if spec is None:
        inverted = check_polarity(source, train)
        parts = {"train": len(train), "validation": len(validation), "test": len(test)}
        spec = {
            "input": {"scenes": len(scenes), "size": list(source.size), "near": options.near},
            "layout": scenes.layout,
            "sets": sorted(set(scenes.sets)),
            "parts": parts,
            "inverted": inverted,
        }
    return Splits(
        Scenes(source, train), Scenes(source, validation), Scenes(source, test), DictSpec(spec)
    )


def split(options: Any, scenes: RgbdSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the three parts: the data's own, else shares of the groups."""
    generator = np.random.default_rng(mix(options.seed, 3))
    train, validation, test = (scenes.rows(part) for part in ("train", "validation", "test"))
    free = scenes.rows("")
    if not len(train):
        train, free = free, free[:0]
    if not len(test):
        test, train = taken(scenes, train, options.test_share, generator)
        if not len(test):
            raise fail(
                scenes.where,
                f"has no test part, and --test-share {options.test_share} leaves none of it",
            )
    if not len(train):
        raise fail(scenes.where, "has no scenes to train on; `evaluate --data` scores such a set")
    if not len(validation) and options.validation_share:
        validation, train = taken(scenes, train, options.validation_share, generator)
        if not len(validation):
            raise fail(
                scenes.where,
                f"--validation-share {options.validation_share} leaves nothing; raise it, or give "
                "0 to train on all",
            )
    parts = {"training": train, "validation": validation, "test": test}
    for one, other in combinations(parts, 2):
        if crossed := {scenes.groups[row] for row in parts[one]} & {
            scenes.groups[row] for row in parts[other]
        }:
            group = sorted(crossed)[0]
            raise fail(
                scenes.where, f"group {group!r} stands both in the {one} and in the {other} part"
            )
    return train, validation, test


def taken(
    scenes: RgbdSet, rows: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(taken, left): a share of the groups, at least one of them where the share is above 0; one is
    always left.
    """
    if not share or not len(rows):
        return rows[:0], rows
    names, code = np.unique([scenes.groups[row] for row in rows], return_inverse=True)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = np.isin(code, generator.permutation(len(names))[:count])
    return rows[chosen], rows[~chosen]


def check_polarity(source: Source, rows: np.ndarray) -> float | None:
    """Share of scenes that are farther in the mask than out of it; a line of warning where that is
    most of them.
    """
    looked = [source.scene(int(row)) for row in rows[:: max(1, len(rows) // LOOKED)]]
    found = depth_polarity((one["depth"] for one in looked), (one["mask"] for one in looked))
    if np.isnan(found):
        return None
    if found > INVERTED:
        other = "dark" if source.near == "bright" else "bright"
        say(
            f"depth looks inverted: what is salient is farther than the rest in {found:.0%} of the scenes; if near "
            f"things are {other}, say --near {other}"
        )
    return found


def example(splits: Splits) -> tuple[tuple[Any, ...], Any]:
    """Two normalised scenes of the test part, their number free, for export."""
    part = splits.test
    given = [part[min(k, len(part) - 1)] for k in range(2)]
    image, depth = (torch.stack([one[name] for one in given]) for name in ("image", "depth"))
    free = torch.export.Dim("scenes", min=1)
    return normalise(image, depth), ({0: free}, {0: free})
