"""Sets of scenes as data sets: their parts, and which way round their depth is.

Shapes: Y x X pixels, the size that the model sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError
from ...data.scenes.pictures import Near
from ...data.scenes.scenes import (
    INVERTED,
    RgbdSet,
    Sample,
    depth_polarity,
    describe,
    read_rgbd_set,
    read_sample,
)
from ..engine.command_line.terminal import say
from ..engine.spec import Spec
from ..engine.subsets import (
    BoundedCache,
    Subsets,
    Taken,
    own_or_shares,
    refuse_shared_groups,
    take_groups,
)
from ..engine.training.order import mix
from .options import SaliencyOptions

POLARITY_SCENES = 50  # scenes by which the way round of depth is judged


class SceneInput(TypedDict):
    """What the scenes of a training were."""

    scenes: int
    size: list[int]
    near: Near


@dataclass(frozen=True, kw_only=True)
class SaliencySpec(Spec):
    """The spec of a run."""

    input: SceneInput
    layout: str
    """The public set, "folders", "several sets" or "table"."""
    sets: list[str]
    """Names of the data sets that the scenes come from."""
    parts: Mapping[str, int]
    """Scenes in each part."""
    inverted: float | None
    """Share of training scenes that are farther in the mask than outside; None if not known."""


class SceneSource:
    """A set of scenes, read at one size (height, width) in pixels and held in memory as far as they
    fit.
    """

    def __init__(self, scenes: RgbdSet, size: tuple[int, int], near: Near) -> None:
        self.scenes, self.size = scenes, size
        self.near: Near = near
        self._cache = BoundedCache(self._read)

    def _read(self, row: int) -> Sample:
        return read_sample(self.scenes, row, self.size, self.near)

    def scene(self, row: int) -> Sample:
        """image uint8 (3, Y, X), depth float32 (1, Y, X), mask bool (Y, X), shape."""
        return self._cache[row]


class Scenes:
    """Some scenes of a source, as a data set."""

    def __init__(self, source: SceneSource, rows: np.ndarray) -> None:
        self.source, self.rows = source, np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scene = self.source.scene(int(self.rows[index]))
        assert scene["depth"] is not None
        assert scene["mask"] is not None
        return {
            "image": torch.from_numpy(scene["image"]),
            "depth": torch.from_numpy(scene["depth"]),
            "mask": torch.from_numpy(scene["mask"]),
            "shape": torch.tensor(scene["shape"]),
            "index": torch.tensor(index),
        }

    def column(
        self, name: Literal["names", "images", "depths", "masks", "sets", "groups"]
    ) -> list[str]:
        """A column of the set of scenes, for these scenes."""
        values = getattr(self.source.scenes, name)
        return [values[row] for row in self.rows]


def read_source(options: SaliencyOptions) -> SceneSource:
    """The scenes that the options name.

    Raises `InputError` if no data is named or a scene is incomplete.
    """
    if options.data is None:
        raise InputError("saliency: name the scenes with --data")
    scenes = read_rgbd_set(
        options.data,
        depth=options.depth,
        mask=options.masks,
        groups=options.groups,
        strict=options.unmatched == "error",
    )
    if scenes.unmatched:
        say(f"{options.data}: left out {describe(scenes.unmatched)}")
    return SceneSource(scenes, (options.size[0], options.size[1]), options.near)


def describe_source(
    source: SceneSource, parts: Mapping[str, int], inverted: float | None
) -> SaliencySpec:
    """The spec of a training on these scenes; parts: scenes in each part."""
    scenes = source.scenes
    return SaliencySpec(
        input={"scenes": len(scenes), "size": list(source.size), "near": source.near},
        layout=scenes.layout,
        sets=sorted(set(scenes.sets)),
        parts=parts,
        inverted=inverted,
    )


def split(options: SaliencyOptions, scenes: RgbdSet) -> Subsets:
    """Rows of the three parts: the data's own, else shares of the groups.

    Raises `InputError` for an empty part and for a group in two parts.
    """
    generator = np.random.default_rng(mix(options.seed, 3))
    subsets = own_or_shares(
        scenes.where,
        scenes.parts,
        lambda rows, share, _: take_scenes(scenes, rows, share, generator),
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="scenes",
        validation_needed=False,
    )
    refuse_shared_groups(scenes.where, subsets, scenes.groups, "group")
    return subsets


def take_scenes(
    scenes: RgbdSet, rows: np.ndarray, share: float, generator: np.random.Generator
) -> Taken:
    """Take a share of the groups among `rows`, as `take_groups` does."""
    return take_groups(rows, np.array(scenes.groups)[rows], share, generator)


def check_polarity(source: SceneSource, rows: np.ndarray) -> float | None:
    """Share of scenes that are farther in the mask than outside, with a warning where most are;
    None where no scene tells.
    """
    scenes = [source.scene(int(row)) for row in rows[:: max(1, len(rows) // POLARITY_SCENES)]]
    complete = [
        (scene["depth"], scene["mask"])
        for scene in scenes
        if scene["depth"] is not None and scene["mask"] is not None
    ]
    share = depth_polarity((depth for depth, _ in complete), (mask for _, mask in complete))
    if np.isnan(share):
        return None
    if share > INVERTED:
        opposite = "dark" if source.near == "bright" else "bright"
        say(
            f"depth looks inverted: what is salient is farther than the rest in {share:.0%} of the "
            f"scenes; if near things are {opposite}, say --near {opposite}"
        )
    return share
