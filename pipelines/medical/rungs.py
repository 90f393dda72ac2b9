"""The rungs of chest X-rays: the shares of the classes, a linear model of frozen features or of
pixels, and its blend with the attention model.

Shapes: N pictures of a part, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TypeVar, cast

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
from ..engine.class_ladder import class_list, class_scores, fit_blend, prior_logits
from ..engine.frozen import (
    Normalisation,
    frozen_classes,
    frozen_features,
    frozen_rung,
    open_encoder,
)
from ..engine.ladder import LadderScores, Rung, Rungs, rung_outputs
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..engine.training import order
from ..engine.weights import AUTO, NO_WEIGHTS, Weights, resolve_weights
from ..metrics.frozen_fit import LinearMap, fit_classes, refit_classes
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
        why = _published()[1] if options.weights in (*NO_WEIGHTS, AUTO) else ""
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


PartT = TypeVar("PartT", bound=XrayPart)


class PictureRungs(Rungs[MedicalOptions, MedicalSpec, PartT]):
    """What the rungs of one class and of several findings have in common."""

    def answer_words(self, options: MedicalOptions, spec: MedicalSpec) -> str:
        """What is told of a picture."""
        told = "findings" if spec.several else "class"
        return f"{told} of a chest X-ray ({class_list(spec.classes)})"

    def model_words(self, options: MedicalOptions) -> str:
        """The network and its attention."""
        if options.attention == "medusa":
            return "the attention model"
        return f"the network with attention {options.attention}"

    def prepare(self, splits: Splits[MedicalSpec, PartT], options: MedicalOptions) -> None:
        """Say in the account what the simple model sees, which may fetch it."""
        note_features(options)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: MedicalSpec,
    ) -> nn.Module:
        """Shares, a linear model of pixels or of frozen features, or the blend."""
        if name == "naive":
            return PriorPictures(len(spec.classes))
        if name == "blend":
            kind = BlendedFindings if spec.several else BlendedPictures
            return kind(models["model"], models["simple"])
        if "pixels" in facts:
            return LinearPixels(spec.size, int(cast(int, facts["pixels"])), len(spec.classes))
        return rebuilt_frozen(facts)


class ClassRungs(PictureRungs[Xrays]):
    """The rungs of classes that exclude each other."""

    def simple(
        self,
        model: nn.Module,
        splits: Splits[MedicalSpec, Xrays],
        options: MedicalOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The shares of the classes; and a linear model of frozen features or of pixels, whichever
        has the smaller log-loss on the validation part.
        """
        train, validation, spec = splits.train, splits.validation, splits.spec
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
        candidates = [frozen_rung(fitted), _of_pixels(train, validation, spec, seed)]
        losses = [_loss(rung.model, validation, device) for rung in candidates]
        return {
            "naive": Rung("shares of the classes", naive, short="the shares of the classes"),
            "simple": candidates[int(np.argmin(losses))],
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[MedicalSpec, Xrays],
        options: MedicalOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the probabilities of the two."""
        validation, blend = splits.validation, BlendedPictures(model, simple.to(device))
        logits = logits_of({"model": model, "simple": blend.simple}, validation, device)
        groups = len(set(validation.column("patients")))
        words = fit_blend(blend, validation.labels, logits["model"], logits["simple"], groups)
        return Rung(words, blend)

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: Xrays,
        context: Context[MedicalOptions, MedicalSpec],
    ) -> LadderScores:
        """Log-loss, with draws of patients."""
        logits = logits_of(models, dataset, context.device)
        return class_scores(dataset.labels, logits, np.array(dataset.column("patients")))


def _of_pixels(train: Xrays, validation: Xrays, spec: MedicalSpec, seed: int) -> Rung:
    model, device, classes = pixel_model(spec), torch.device("cpu"), len(spec.classes)
    parts = [(features_of(model, part, device), part.labels) for part in (train, validation)]
    groups = np.array(train.column("patients"))
    fitted = fit_classes(*parts[0], *parts[1], classes, seed=seed, groups=groups)

    def rung(fitted: LinearMap) -> Rung:
        model = pixel_model(spec)
        model.set_map(*map(torch.from_numpy, fitted[:3]))
        return pixel_rung(model, fitted.words)

    def refit() -> Rung:
        return rung(refit_classes(fitted, parts, classes, seed=seed))

    return rung(fitted)._replace(refit=refit if len(validation) else None)


def pixel_model(spec: MedicalSpec) -> LinearPixels:
    """A linear model of pixels, not fitted."""
    return LinearPixels(spec.size, min(MOST_PIXELS, *spec.size), len(spec.classes))


def pixel_rung(model: LinearPixels, words: str) -> Rung:
    """A linear model of pixels as a rung; words: how it was fitted."""
    side = model.reduced
    words = f"{words} of the pixels, {side} x {side}"
    return Rung(words, model, {"pixels": side}, short="a linear model of pixels")


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
    """float64 (N, K) of each rung. Frozen features are looked up where they were computed
    before.
    """

    def logits(model: nn.Module) -> Tensor:
        if isinstance(model, FrozenLinear):
            features = torch.from_numpy(features_of(model, part, device))
            return model.read_out(features.to(device))
        batches = order.loader(part, order.sequential(len(part), BATCH), device=device)
        return torch.cat([model(*normalise(b["picture"], b["small"])).float() for b in batches])

    outputs = rung_outputs(models, logits)
    return {name: values.double().cpu().numpy() for name, values in outputs.items()}
