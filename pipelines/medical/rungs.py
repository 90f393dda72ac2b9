"""The rungs of chest X-rays: the shares of the classes, a linear model of frozen features or of
pixels, and its blend with the attention model.

Shapes: N pictures of a part, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import cast

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from ...base.account import note, opened
from ...base.errors import InputError, reason
from ...data.catalogue import find_dataset
from ...models.layers.encoders import RANDOM_FILTERS, TileEncoder
from ...models.layers.pyramid import SMALL
from ...models.vision.frozen import FrozenLinear, rebuilt_frozen
from ...models.vision.simple import BlendedFindings, BlendedPictures, LinearPixels, PriorPictures
from ...models.weights.adopted import ADOPTED
from ..engine.class_ladder import class_scores, fit_blend, prior_logits
from ..engine.frozen import Normalisation, frozen_classes, frozen_features, open_encoder
from ..engine.ladder import LadderScores, Rung
from ..engine.options import RungName
from ..engine.training import order
from ..engine.weights import NO_WEIGHTS, Weights, resolve_weights
from ..metrics.frozen_fit import fit_classes
from .audit import Pictures
from .augment import DEVIATION, MEAN, normalise
from .data import MedicalSpec, XrayPart, Xrays
from .options import MedicalOptions

PREFERRED = ("mobilenetv2", "efficientnet-lite0")  # docs/measured/medical.md
BATCH = 32
MOST_PIXELS = 48  # of a side of the reduced picture, as in the audit
LEAST_SIDE = 224  # of the frozen features; smaller pictures are seen at twice their size


def feature_weights(options: MedicalOptions) -> Weights:
    """The weights of the frozen features: those that the options name, or where they name none,
    published ones; without a network and a copy of these, none.
    """
    if options.weights in NO_WEIGHTS:
        return _published()[0]
    return resolve_weights(
        options.weights, "features", backbone=options.backbone, scratch=SMALL, prefer=PREFERRED
    )


@cache
def _published() -> tuple[Weights, str]:
    """The first published weights that can be had, and what kept the others away; asked once."""
    why = ""
    for name in PREFERRED:
        try:
            return resolve_weights(name, "features", backbone=SMALL, scratch=SMALL), ""
        except InputError as error:
            why = reason(error, 200)
    return resolve_weights("none", "features", backbone=SMALL, scratch=SMALL), why


def note_features(options: MedicalOptions) -> None:
    """Say in the account what the simple model sees, before the training, which may fetch it."""
    with opened():  # what is said of the names of weights is of another option
        weights = feature_weights(options)
    if weights.name in ADOPTED:
        seen = f"{weights.name} (licence: {find_dataset(weights.name).licence})"
    elif weights.pretrained:
        seen = weights.name
    else:
        why = _published()[1] if options.weights in NO_WEIGHTS else ""
        seen = f"random filters, without weights{f' ({why})' if why else ''}"
    note("assumed", f"the simple model is of pixels or of frozen features of {seen}")


def probed_encoder(model: nn.Module) -> TileEncoder | None:
    """The encoder whose pretrained features what predicts is of, for the audit."""
    part = model.simple if isinstance(model, BlendedPictures) else model
    if not isinstance(part, FrozenLinear) or part.encoder.name == RANDOM_FILTERS:
        return None
    return part.encoder


def open_simple_encoder(options: MedicalOptions, weights: Weights) -> TileEncoder:
    """The encoder of the frozen features. Raises `InputError` as `open_encoder` does."""
    size = options.size
    return open_encoder(weights, picture=(size[0], size[1]), side=side_of(size))


def side_of(size: tuple[int, ...]) -> int | None:
    """The side of a square with as many pixels as the encoder sees; None: what it was trained for.

    size: height and width of the pictures, pixels.
    """
    side = round(2 * math.sqrt(size[0] * size[1]))
    return side if side < LEAST_SIDE else None


def simple_rungs(
    train: Xrays,
    validation: Xrays,
    spec: MedicalSpec,
    options: MedicalOptions,
    device: torch.device,
) -> dict[RungName, Rung]:
    """The shares of the classes; and a linear model of frozen features or of pixels, whichever has
    the smaller log-loss on the validation part.
    """
    classes, seed = len(spec.classes), options.seed % (1 << 32)  # as scikit-learn takes it
    naive = PriorPictures(classes)
    naive.logits = prior_logits(train.labels, classes)
    weights = feature_weights(options)
    fitted = frozen_classes(
        open_simple_encoder(options, weights),
        weights,
        Pictures(train),
        train.labels,
        Pictures(validation),
        validation.labels,
        classes,
        normalisation=Normalisation(MEAN, DEVIATION),
        seed=seed,
        groups=np.array(train.column("patients")),
        device=device,
    )
    frozen = Rung("frozen features", fitted.words, fitted.model, dict(fitted.facts))
    forms = [frozen, _of_pixels(train, validation, spec, seed)]
    losses = [_loss(form.model, validation, device) for form in forms]
    return {
        "naive": Rung("the shares of the classes", "shares of the classes", naive),
        "simple": forms[int(np.argmin(losses))],
    }


def _of_pixels(train: Xrays, validation: Xrays, spec: MedicalSpec, seed: int) -> Rung:
    model, device = pixel_model(spec), torch.device("cpu")
    fitted = fit_classes(
        features_of(model, train, device),
        train.labels,
        features_of(model, validation, device),
        validation.labels,
        len(spec.classes),
        seed=seed,
        groups=np.array(train.column("patients")),
    )
    model.set_map(*map(torch.from_numpy, fitted[:3]))
    return pixel_rung(model, fitted.words)


def pixel_model(spec: MedicalSpec) -> LinearPixels:
    """A linear model of pixels, not fitted."""
    return LinearPixels(spec.size, min(MOST_PIXELS, *spec.size), len(spec.classes))


def pixel_rung(model: LinearPixels, words: str) -> Rung:
    """A linear model of pixels as a rung; words: how it was fitted."""
    side = model.reduced
    words = f"{words} of the pixels, {side} x {side}"
    return Rung("a linear model of pixels", words, model, {"pixels": side})


def empty_frozen(options: MedicalOptions, weights: Weights, outputs: int) -> FrozenLinear:
    """A linear model of frozen features, not fitted."""
    encoder = open_simple_encoder(options, weights)
    return FrozenLinear(encoder, outputs, mean=MEAN, deviation=DEVIATION)


@torch.no_grad()
def features_of(
    model: FrozenLinear | LinearPixels, part: XrayPart, device: torch.device
) -> np.ndarray:
    """What a linear model sees of each picture of a part, float32 (N, D)."""
    if isinstance(model, FrozenLinear):
        return frozen_features(Pictures(part), model.encoder, device=device)
    batches = order.loader(part, order.sequential(len(part), BATCH), device=device)
    seen = [model.features(normalise(b["picture"], b["small"])[0]).cpu() for b in batches]
    return torch.cat(seen).numpy() if seen else np.zeros((0, model.reduced**2), np.float32)


def _loss(model: nn.Module, part: Xrays, device: torch.device) -> float:
    logits = logits_of({"simple": model.to(device)}, part, device)["simple"]
    return float(-log_softmax(logits, axis=1)[np.arange(len(part)), part.labels].mean())


@torch.no_grad()
def logits_of(
    models: Mapping[RungName, nn.Module], part: XrayPart, device: torch.device
) -> dict[RungName, np.ndarray]:
    """float64 (N, K) of each rung. Frozen features are looked up where they were computed before,
    and a blend is made of its parts, not computed again.
    """
    rows: dict[RungName, Tensor] = {}
    for name, model in models.items():
        if isinstance(model, BlendedPictures) and {"model", "simple"} <= set(rows):
            rows[name] = model.blend(rows["model"], rows["simple"])
        elif isinstance(model, FrozenLinear):
            features = torch.from_numpy(features_of(model, part, device))
            rows[name] = model.read_out(features.to(device))
        else:
            batches = order.loader(part, order.sequential(len(part), BATCH), device=device)
            logits = [model(*normalise(b["picture"], b["small"])).float() for b in batches]
            rows[name] = torch.cat(logits)
    return {name: values.double().cpu().numpy() for name, values in rows.items()}


def blend_rung(
    model: nn.Module, simple: nn.Module, validation: Xrays, device: torch.device
) -> Rung:
    """The mean of the probabilities of the two."""
    blend = BlendedPictures(model, simple.to(device))
    logits = logits_of({"model": model, "simple": blend.simple}, validation, device)
    groups = len(set(validation.column("patients")))
    words = fit_blend(blend, validation.labels, logits["model"], logits["simple"], groups)
    return Rung("the blend of the two", words, blend)


def rung_model(
    name: RungName,
    facts: Mapping[str, object],
    models: Mapping[RungName, nn.Module],
    spec: MedicalSpec,
) -> nn.Module:
    """A rung without its tensors.

    Raises `InputError` for facts that make no model.
    """
    if name == "naive":
        return PriorPictures(len(spec.classes))
    if name == "blend":
        kind = BlendedFindings if spec.several else BlendedPictures
        return kind(models["model"], models["simple"])
    if "pixels" in facts:
        return LinearPixels(spec.size, int(cast(int, facts["pixels"])), len(spec.classes))
    try:
        return rebuilt_frozen(facts)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"ladder.json: the simple model cannot be built ({error})") from None


def ladder_scores(
    models: Mapping[RungName, nn.Module], part: Xrays, device: torch.device
) -> LadderScores:
    """Log-loss, with draws of patients."""
    logits = logits_of(models, part, device)
    return class_scores(part.labels, logits, np.array(part.column("patients")))
