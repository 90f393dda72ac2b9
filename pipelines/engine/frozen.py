"""Frozen features of pictures, kept on disk, and the simple models made of them.

Shapes: n pictures, D width of a feature, K classes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError
from ...models.layers.encoders import RANDOM_FILTERS, Size, TileEncoder, build_encoder
from ...models.vision.frozen import FrozenFacts, FrozenLinear, Output
from ...models.weights.adopted import backbone_facts
from ..metrics.frozen_fit import LinearMap, fit_classes, fit_vectors, refit_classes
from .command_line.terminal import Progressbar
from .feature_cache import FeatureCache
from .ladder import Rung
from .weights import Weights

BATCH = 32
SIDE = 224  # of the pictures of an encoder that does not say it
STRIDE = 32  # sides are multiples of it, or of the patch of a vision transformer


class PictureSequence(Protocol):
    """Pictures by their place: (1 or 3, Y, X), uint8, or floats in [0, 1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class Normalisation(NamedTuple):
    """What a pipeline normalises its pictures by: one number, or one for each colour."""

    mean: float | Sequence[float]
    deviation: float | Sequence[float]


class FrozenFit(NamedTuple):
    """A fitted model, what it is in words, and what `rebuilt_frozen` needs; refit: fits it to the
    training and the validation part together.
    """

    model: FrozenLinear
    words: str
    facts: FrozenFacts
    refit: Callable[[], FrozenFit] | None = None


def frozen_rung(fitted: FrozenFit) -> Rung:
    """The rung of the ladder of a fitted model."""
    refit = fitted.refit
    again = None if refit is None else (lambda: frozen_rung(refit()))
    return Rung(
        fitted.words, fitted.model, dict(fitted.facts), short="frozen features", refit=again
    )


def open_encoder(
    weights: Weights, picture: Size | None = None, side: int | None = None
) -> TileEncoder:
    """The encoder of some weights; without weights, random filters.

    picture: height and width of the pictures, whose proportions the encoder's keep; None: a square.
    side: of a square with as many pixels as the encoder sees; None: as its file says.

    Raises `InputError` for weights that cannot be fetched or do not fit.
    """
    if not weights.pretrained:
        return build_encoder(RANDOM_FILTERS)
    size = encoder_size(weights, picture or (1, 1), side)
    try:
        return build_encoder(weights.architecture, weights.argument, size)
    except ValueError as error:
        raise InputError(f"--weights {weights.name}: {error}") from None


def encoder_size(weights: Weights, picture: Size, side: int | None) -> Size:
    """Height and width for the encoder: multiples of its stride, near the proportions of `picture`
    and near side² pixels.
    """
    if side is None:
        facts = None if weights.argument == "pretrained" else backbone_facts(weights.argument)
        side = SIDE if facts is None else facts.side
    patch = re.search(r"patch(\d+)", weights.architecture)
    stride = int(patch[1]) if patch else STRIDE
    ratio = math.sqrt(picture[0] / picture[1])
    height, width = (max(1, round(length / stride)) for length in (side * ratio, side / ratio))
    return height * stride, width * stride


def frozen_features(
    pictures: PictureSequence,
    encoder: TileEncoder,
    *,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    cache: FeatureCache | None = None,
) -> np.ndarray:
    """The features of pictures, float32 (n, D), each picture read once.

    cache: where features are looked up and stored, by the content of a picture, the weights and the
    size; None: the one of this user.
    """
    features = np.zeros((len(pictures), encoder.width), np.float32)
    encoder = encoder.to(device).eval()
    stamp = f"{encoder.name} {encoder.fingerprint()} {encoder.size}"
    places: dict[bytes, list[int]] = {}
    waiting: dict[bytes, Tensor] = {}
    bar = Progressbar(total=len(pictures), unit="picture", desc="features")
    with bar, FeatureCache() if cache is None else cache as stored:

        def encode() -> None:
            values = _encode(encoder, torch.stack(list(waiting.values())), device)
            for key, value in zip(waiting, values, strict=True):
                features[places[key]] = value
            stored.put(waiting, values)
            waiting.clear()

        for index in range(len(pictures)):
            picture = pictures[index]
            key = content_key(picture, stamp)
            places.setdefault(key, []).append(index)
            if key not in waiting:
                first = places[key][0]
                known = features[first] if first < index else stored.get(key, encoder.width)
                if known is not None:
                    features[index] = known
                else:
                    if waiting and next(iter(waiting.values())).shape != picture.shape:
                        encode()
                    waiting[key] = picture
            if len(waiting) == batch:
                encode()
            bar.update()
        if waiting:
            encode()
    return features


def content_key(picture: Tensor, stamp: str) -> bytes:
    """What tells a picture and what encodes it from all others, 16 bytes."""
    digest = hashlib.sha256(f"{stamp} {picture.dtype} {tuple(picture.shape)}".encode())
    digest.update(picture.contiguous().numpy().tobytes())
    return digest.digest()[:16]


@torch.no_grad()
def _encode(encoder: TileEncoder, pictures: Tensor, device: torch.device | str) -> np.ndarray:
    x = pictures.to(device)
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    return encoder.features(x).float().cpu().numpy()


def frozen_classes(
    encoder: TileEncoder,
    weights: Weights,
    train: PictureSequence,
    labels: np.ndarray,
    held: PictureSequence,
    held_labels: np.ndarray,
    classes: int,
    *,
    normalisation: Normalisation,
    seed: int,
    output: Output = "logits",
    device: torch.device | str = "cpu",
    groups: np.ndarray | None = None,
    cache: FeatureCache | None = None,
) -> FrozenFit:
    """Logistic regression on frozen features, called as the domain model is.

    train, held: pictures of the training and of the validation part, which chooses the penalty
    (where it is empty, folds of the training part do, in which `groups` are not divided); labels,
    held_labels: int (n,); classes: K; output: "logits" or "probabilities".
    """
    features, held_features = (
        frozen_features(part, encoder, device=device, cache=cache) for part in (train, held)
    )
    fitted = fit_classes(
        features, labels, held_features, held_labels, classes, seed=seed, groups=groups
    )

    def refit() -> FrozenFit:
        parts = [(features, labels), (held_features, held_labels)]
        again = refit_classes(fitted, parts, classes, seed=seed)
        return _frozen(encoder, weights, again, normalisation, output)

    first = _frozen(encoder, weights, fitted, normalisation, output)
    return first._replace(refit=refit if len(held_labels) else None)


def frozen_vectors(
    encoder: TileEncoder,
    weights: Weights,
    train: PictureSequence,
    labels: np.ndarray,
    held: PictureSequence,
    held_labels: np.ndarray,
    *,
    normalisation: Normalisation,
    seed: int,
    device: torch.device | str = "cpu",
    cache: FeatureCache | None = None,
) -> FrozenFit:
    """Frozen features to compare by cosine, centred or whitened where that finds identities better;
    called as the domain model is. Arguments as of `frozen_classes`; identities begin at 1.
    """
    features, held_features = (
        frozen_features(part, encoder, device=device, cache=cache) for part in (train, held)
    )
    fitted = fit_vectors(features, labels, held_features, held_labels, seed=seed)
    return _frozen(encoder, weights, fitted, normalisation, "vectors")


def _frozen(
    encoder: TileEncoder,
    weights: Weights,
    fitted: LinearMap,
    normalisation: Normalisation,
    output: Output,
) -> FrozenFit:
    mean, deviation = normalisation
    model = FrozenLinear(encoder, len(fitted.bias), mean=mean, deviation=deviation, output=output)
    model.set_map(*map(torch.from_numpy, fitted[:3]))
    name = weights.name if weights.pretrained else "random filters"
    return FrozenFit(model, f"{fitted.words} of frozen features ({name})", model.facts())
