"""Sets of scenes as data sets: their parts, and which way round their depth is.

Shapes: Y x X pixels, the size that the model sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError
from ...data.items import digest, join_copies
from ...data.scenes.depths import AUTO, Near
from ...data.scenes.reading import (
    INVERTED,
    Reading,
    Sample,
    Turn,
    depth_polarity,
    read_sample,
    read_scene_depth,
    read_scene_mask,
    share_of_grounds,
    usual_turn,
)
from ...data.scenes.scenes import RgbdSet, describe, read_rgbd_set
from ..engine.command_line.terminal import Progressbar, say
from ..engine.pipeline import Member
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
    invalid: NotRequired[list[str]]
    turn: NotRequired[Turn]
    stretch: NotRequired[bool]


def reading_of(facts: SceneInput) -> Reading:
    """How the scenes of a training were read; older runs read by the defaults."""
    return Reading(
        facts["near"],
        tuple(facts.get("invalid", (AUTO,))),
        facts.get("turn", "own"),
        facts.get("stretch", False),
    )


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
    backbone: str = ""
    """Encoder that the weights decided; "": the one of the options."""


class SceneSource:
    """A set of scenes, read at one size (height, width) in pixels and held in memory as far as they
    fit.

    own_groups: the groups that the data names; those of `scenes` also join exact copies.
    """

    def __init__(self, scenes: RgbdSet, size: tuple[int, int], reading: Reading) -> None:
        self.scenes, self.size, self.reading = scenes, size, reading
        self.own_groups = scenes.groups
        self._cache = BoundedCache(self._read)

    def _read(self, row: int) -> Sample:
        return read_sample(self.scenes, row, self.size, self.reading)

    def scene(self, row: int) -> Sample:
        """image uint8 (3, Y, X), depth float32 (1, Y, X), mask bool (Y, X), shape."""
        return self._cache[row]

    def join_copies(self) -> None:
        """Give scenes whose colour pictures are exact copies one group.

        Raises `InputError` for copies in two parts of the data (the doubt "copies").
        """
        scenes = self.scenes
        digests = self._digests()
        groups = join_copies(
            scenes.where, "scene", scenes.names, digests, scenes.groups, [], scenes.parts
        )
        self.scenes = replace(scenes, groups=groups)

    def _digests(self) -> Iterator[str]:
        """What tells the pictures apart. So all files of a training are read, and what is wrong
        with one is said, before the training begins.
        """
        with Progressbar(total=len(self.scenes), unit="scene", desc="read") as bar:
            for row in range(len(self.scenes)):
                yield digest(self.scene(row)["image"])
                bar.update()


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

    def depth(self, index: int) -> np.ndarray:
        """The depth map of a scene in its own size, float32 (Y, X)."""
        scenes, row = self.source.scenes, int(self.rows[index])
        depth = scenes.depths[row]
        assert depth is not None
        return read_scene_depth(scenes.images[row], depth, None, self.source.reading)[0]

    def mask(self, index: int) -> np.ndarray:
        """The mask of a scene in its own size, bool (Y, X)."""
        scenes, row = self.source.scenes, int(self.rows[index])
        mask = scenes.masks[row]
        assert mask is not None
        return read_scene_mask(scenes.images[row], mask, None, self.source.reading)

    def members(self) -> list[Member]:
        """The items of these scenes, by which a prediction knows them again."""
        return [Member(file) for file in self.column("images")]

    def column(
        self, name: Literal["names", "images", "depths", "masks", "sets", "groups"]
    ) -> list[str]:
        """A column of the set of scenes, for these scenes."""
        values = getattr(self.source.scenes, name)
        return [values[row] for row in self.rows]


def read_source(options: SaliencyOptions, *, divided: bool = True) -> SceneSource:
    """The scenes that the options name.

    divided: whether they will be divided into parts, so that exact copies must stay together.
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
        columns=options.columns,
    )
    if scenes.unmatched:
        say(f"{options.data}: left out {describe(scenes.unmatched)}")
    turn = usual_turn(scenes) if options.orientation == "auto" else options.orientation
    reading = Reading(options.near, options.invalid, turn, options.stretch)
    source = SceneSource(scenes, (options.size[0], options.size[1]), reading)
    if divided:
        source.join_copies()
    return source


def describe_source(
    source: SceneSource, parts: Mapping[str, int], inverted: float | None, backbone: str = ""
) -> SaliencySpec:
    """The spec of a training on these scenes; parts: scenes in each part; backbone: the one that
    the weights decided.
    """
    scenes, reading = source.scenes, source.reading
    facts: SceneInput = {
        "scenes": len(scenes),
        "size": list(source.size),
        "near": reading.near,
        "invalid": list(reading.invalid),
        "turn": reading.turn,
        "stretch": reading.stretch,
    }
    return SaliencySpec(
        input=facts,
        layout=scenes.layout,
        sets=sorted(set(scenes.sets)),
        parts=parts,
        inverted=inverted,
        backbone=backbone,
    )


def split(options: SaliencyOptions, source: SceneSource) -> Subsets:
    """Rows of the three parts: the data's own, else shares of the groups.

    Raises `InputError` for an empty part and for a group in two parts.
    """
    scenes = source.scenes
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
    refuse_shared_groups(scenes.where, subsets, source.own_groups, "group")
    return subsets


def take_scenes(
    scenes: RgbdSet, rows: np.ndarray, share: float, generator: np.random.Generator
) -> Taken:
    """Take a share of the groups among `rows`, as `take_groups` does."""
    return take_groups(rows, np.array(scenes.groups)[rows], share, generator)


def check_polarity(source: SceneSource, rows: np.ndarray) -> float | None:
    """Share of scenes that are farther in the mask than outside, with a warning where most are, or
    where most masks look like the background; None where no scene tells.
    """
    scenes = [source.scene(int(row)) for row in rows[:: max(1, len(rows) // POLARITY_SCENES)]]
    complete = [
        (scene["depth"], scene["mask"])
        for scene in scenes
        if scene["depth"] is not None and scene["mask"] is not None
    ]
    share = depth_polarity((depth for depth, _ in complete), (mask for _, mask in complete))
    grounds = share_of_grounds(scene["mask"] for scene in scenes if scene["mask"] is not None)
    opposite = "dark" if source.reading.near == "bright" else "bright"
    farther = f"what is salient is farther than the rest in {share:.0%} of the scenes"
    if grounds > 0.5:
        too = f", and {farther}" if share > INVERTED else ""
        say(
            "masks look inverted: they cover most of the picture and of its border in "
            f"{grounds:.0%} of the scenes{too}; if they are white where the background "
            "is, turn them round"
        )
    elif share > INVERTED:
        say(
            f"depth looks inverted: {farther}; if near things are {opposite}, say --near {opposite}"
            "; if the masks are white where the background is, turn them round"
        )
    if np.isnan(share):
        return None
    return share
