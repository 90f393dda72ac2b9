"""The rungs of saliency: the mean mask, a linear readout of every pixel on frozen features, colour,
depth and place, and its blend with GL-DMNet.

Shapes: N scenes of Y x X pixels, n rows of sampled pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...base.account import note, opened
from ...base.errors import InputError, reason
from ...data.catalogue import find_dataset
from ...models.layers.encoders import TileEncoder
from ...models.layers.vit_trunk import SCRATCH
from ...models.vision.saliency_rungs import (
    PIXEL_WIDTH,
    BlendedSaliency,
    LinearSaliency,
    MeanMask,
    SceneNormalisation,
    logit_of,
    rebuilt_pixels,
)
from ..engine.class_ladder import fit_blend
from ..engine.frozen import open_encoder
from ..engine.ladder import LEAST_BLOCKS, LadderScores, Rung, Rungs, drawn_scores, rung_outputs
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..engine.training import order
from ..engine.weights import Weights, resolve_weights
from ..metrics.frozen_fit import LinearMap, fit_classes, refit_classes
from ..metrics.saliency import SaliencyScores, saliency_scores
from .augment import DEPTH_DEVIATION, DEPTH_MEAN, DEVIATION, MEAN, normalise
from .data import SaliencySpec, Scenes
from .options import SaliencyOptions
from .scoring import to_bytes

PUBLISHED = "dinov2-small-focus"  # docs/measured/saliency.md
SIDE = 224  # of a square with as many pixels as the frozen encoder sees
MOST_SCENES = 1000  # that the simple model is fitted on, evenly spaced
MOST_ROWS = 40_000  # pixels of all of them
PIXELS = 256  # of a scene, at most
BATCH = 8
METRIC = "max F-measure"
SCALE = SceneNormalisation(MEAN, DEVIATION, DEPTH_MEAN, DEPTH_DEVIATION)


@cache
def feature_weights() -> tuple[Weights, str]:
    """The published weights whose patches the simple model reads, or none and what kept them away;
    asked once.
    """
    try:
        with opened():  # what is said of the weights of the network is of another option
            return resolve_weights(PUBLISHED, "trunk", backbone=SCRATCH, scratch=SCRATCH), ""
    except InputError as error:
        none = resolve_weights("none", "trunk", backbone=SCRATCH, scratch=SCRATCH)
        return none, reason(error, 200)


def patch_encoder(options: SaliencyOptions) -> TileEncoder | None:
    """The frozen encoder of patches, in the proportions of the scenes; None without weights."""
    weights, _ = feature_weights()
    if not weights.pretrained:
        return None
    return open_encoder(weights, picture=(options.size[0], options.size[1]), side=SIDE)


class SaliencyRungs(Rungs[SaliencyOptions, SaliencySpec, Scenes]):
    """The mean mask, a linear readout of every pixel, and its blend with GL-DMNet."""

    def answer_words(self, options: SaliencyOptions, spec: SaliencySpec) -> str:
        """What is told of a picture."""
        return "map of what is salient in a picture with depth"

    def model_words(self, options: SaliencyOptions) -> str:
        """The name of the model."""
        return "GL-DMNet"

    def prepare(self, splits: Splits[SaliencySpec, Scenes], options: SaliencyOptions) -> None:
        """Say in the account what the simple model sees, which may fetch it, and where nothing can
        compare it with the model.
        """
        weights, why = feature_weights()
        if weights.pretrained:
            licence = find_dataset(weights.name).licence
            seen = f"frozen patches of {weights.name} (licence: {licence}), colour, depth and place"
        else:
            seen = f"colour, depth and place, without weights ({why})"
        note("assumed", f"the simple model reads {seen}")
        if not len(splits.validation):
            note("assumed", "no validation part compares the models: their blend predicts")

    def simple(
        self,
        model: nn.Module,
        splits: Splits[SaliencySpec, Scenes],
        options: SaliencyOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The mean mask; and the readout of each pixel with frozen patches or without, whichever
        has the smaller log-loss on the validation part.
        """
        train, held = splits.train, splits.validation
        naive = MeanMask((options.size[0], options.size[1]))
        naive.share = mean_mask(train)
        rungs = {"naive": Rung("mean of the training masks", naive, short="the mean mask")}
        full = LinearSaliency(patch_encoder(options), SCALE).to(device)
        rows = Rows.of(full, train, options.seed, device)
        held_rows = Rows.of(full, held, options.seed + 1, device)
        if len(np.unique(rows.labels)) < 2:
            return rungs
        candidates = [LinearSaliency(None, SCALE)]
        if full.encoder is not None:
            candidates.append(full.cpu())
        fitted = [_fit(candidate, rows, held_rows, options.seed) for candidate in candidates]
        if len(held):
            losses = [_loss(candidate, held_rows) for candidate in candidates]
            best = int(np.argmin(losses))
        else:
            best = len(candidates) - 1  # nothing compares them
        chosen = candidates[best]
        short = "a linear model of pixels" if chosen.encoder is None else "frozen features"
        words = f"{fitted[best].words} of each pixel: {_inputs(chosen)}"
        simple = Rung(words, chosen, dict(chosen.facts()), short=short)

        def refit() -> Rung:
            width = len(chosen.centre)
            parts = [(part.features[:, :width], part.labels) for part in (rows, held_rows)]
            seed = options.seed % (1 << 32)
            _set_map(chosen, refit_classes(fitted[best], parts, 2, seed=seed))
            return simple

        rungs["simple"] = simple._replace(refit=refit if len(held) else None)
        return rungs

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[SaliencySpec, Scenes],
        options: SaliencyOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the probabilities of the two."""
        part, blend = splits.validation, BlendedSaliency(model, simple.to(device))
        words = "mean of the probabilities of the two, 50% of the model"
        if len(part):
            labels, first, second = _both(model, blend.simple, part, options.seed, device)
            words = fit_blend(blend, labels, first, second, len(set(part.column("groups"))))
        return Rung(words, blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: SaliencySpec,
    ) -> nn.Module:
        """The mean mask, the readout, or the blend."""
        if name == "naive":
            height, width = spec.input["size"]
            return MeanMask((height, width))
        if name == "blend":
            return BlendedSaliency(models["model"], models["simple"])
        return rebuilt_pixels(facts, SCALE)

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: Scenes,
        context: Context[SaliencyOptions, SaliencySpec],
    ) -> LadderScores:
        """max F-measure, with draws of groups of scenes; S-measure and MAE beside it."""
        scored = rung_scores(models, dataset, context.options, context.device)
        tables = {name: scores.table() for name, scores in scored.items()}
        return drawn_scores(
            METRIC,
            {name: table[METRIC] for name, table in tables.items()},
            {name: partial(_max_f, scores.f_curve.numpy()) for name, scores in scored.items()},
            dataset.column("groups"),
            larger_is_better=True,
            further={
                column: {name: table[column] for name, table in tables.items()}
                for column in ("S-measure", "MAE")
            },
        )


def mean_mask(part: Scenes) -> Tensor:
    """How often each pixel of a part is salient, float32 (Y, X)."""
    masks = (part[place]["mask"].float() for place in range(len(part)))
    total = next(masks)
    for mask in masks:
        total = total + mask
    return total / len(part)


class Rows(NamedTuple):
    """What the simple model reads of some pixels: features float32 (n, D); labels int (n,), whether
    each is salient; groups (n,), those of the scenes.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, model: LinearSaliency, part: Scenes, seed: int, device: torch.device) -> Rows:
        """Pixels at random of the scenes of a part, as many of each."""
        chosen = _some(part)
        names = part.column("groups")
        features = [np.zeros((0, len(model.centre)), np.float32)]
        labels, groups = [np.zeros(0, np.int64)], []
        places = sampled_places(part, len(chosen), seed)
        for start in range(0, len(chosen), BATCH):
            numbers = chosen[start : start + BATCH]
            batch = _batch(part, numbers, device)
            at = places[start : start + BATCH]
            with torch.no_grad():
                image, depth = normalise(batch["image"], batch["depth"])
                values = model.sampled(image, depth, at.to(device))
            features.append(values.flatten(0, 1).cpu().numpy())
            truth = batch["mask"].flatten(1).cpu().gather(1, at)
            labels.append(truth.flatten().long().numpy())
            groups += [names[number] for number in numbers for _ in range(at.shape[1])]
        return cls(np.concatenate(features), np.concatenate(labels), np.array(groups))


def _some(part: Scenes) -> list[int]:
    """The scenes of a part, or some evenly spaced in it."""
    if len(part) <= MOST_SCENES:
        return list(range(len(part)))
    return np.linspace(0, len(part) - 1, MOST_SCENES).astype(int).tolist()


def sampled_places(part: Scenes, scenes: int, seed: int) -> Tensor:
    """Pixels (scenes, n) of the scenes, counted row by row, none twice."""
    if not scenes:
        return torch.zeros(0, 1, dtype=torch.long)
    height, width = part.source.size
    count = min(PIXELS, max(1, MOST_ROWS // scenes), height * width)
    generator = torch.Generator().manual_seed(seed % (1 << 63))
    draws = [torch.randperm(height * width, generator=generator)[:count] for _ in range(scenes)]
    return torch.stack(draws)


def _batch(part: Scenes, numbers: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    scenes = [part[number] for number in numbers]
    return {
        name: torch.stack([scene[name] for scene in scenes]).to(device)
        for name in ("image", "depth", "mask")
    }


def _fit(model: LinearSaliency, rows: Rows, held: Rows, seed: int) -> LinearMap:
    """Fit a readout to its part of the features, the penalty by the validation part, or, where this
    has few groups, by folds of the training part. Returns its map.
    """
    width = len(model.centre)
    enough = len(np.unique(held.groups)) >= LEAST_BLOCKS
    fitted = fit_classes(
        rows.features[:, :width],
        rows.labels,
        held.features[:, :width] if enough else held.features[:0, :width],
        held.labels if enough else held.labels[:0],
        2,
        seed=seed % (1 << 32),  # as scikit-learn takes it
        groups=rows.groups,
    )
    _set_map(model, fitted)
    return fitted


def _set_map(model: LinearSaliency, fitted: LinearMap) -> None:
    """Give a readout the map of two classes, salient or not."""
    weight, bias = (torch.from_numpy(values) for values in (fitted.weight, fitted.bias))
    centre = torch.from_numpy(fitted.centre)
    model.set_map(centre, weight[1:] - weight[:1], bias[1:] - bias[:1])


def _inputs(model: LinearSaliency) -> str:
    """What a readout sees, in words."""
    what = "colour, depth and place"
    if len(model.centre) > PIXEL_WIDTH:
        what += f", and frozen patches ({feature_weights()[0].name})"
    return what


def _loss(model: LinearSaliency, rows: Rows) -> float:
    features = torch.from_numpy(rows.features[:, : len(model.centre)])
    logits = model.read_out(features)[:, 0]
    labels = torch.from_numpy(rows.labels).float()
    return float(nn.functional.binary_cross_entropy_with_logits(logits, labels))


@torch.no_grad()
def _both(
    model: nn.Module, simple: nn.Module, part: Scenes, seed: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of some pixels of a part: whether each is salient, int (n,), and the logits (n, 2) that the
    two models give.
    """
    labels: list[Tensor] = []
    logits: dict[RungName, list[Tensor]] = {"model": [], "simple": []}
    places = sampled_places(part, len(part), seed + 2)
    for start in range(0, len(part), BATCH):
        numbers = range(start, min(start + BATCH, len(part)))
        batch, at = _batch(part, numbers, device), places[start : start + BATCH]
        scene = normalise(batch["image"], batch["depth"])
        labels.append(batch["mask"].flatten(1).cpu().gather(1, at).flatten())
        for name, rung in (("model", model), ("simple", simple)):
            values = logit_of(rung(*scene)).flatten(1).cpu().gather(1, at).flatten()
            logits[name].append(torch.stack([torch.zeros_like(values), values], 1))
    first, second = (torch.cat(logits[name]).double().numpy() for name in ("model", "simple"))
    return torch.cat(labels).long().numpy(), first, second


@torch.no_grad()
def rung_scores(
    models: Mapping[RungName, nn.Module],
    part: Scenes,
    options: SaliencyOptions,
    device: torch.device,
) -> dict[RungName, SaliencyScores]:
    """Scores of the maps of each rung, in 8 bits and in the size of the masks."""
    parts: dict[RungName, list[SaliencyScores]] = {name: [] for name in models}
    batches = order.loader(part, order.sequential(len(part), options.batch_size), device=device)
    for batch in batches:
        scene = normalise(batch["image"], batch["depth"])

        def run(model: nn.Module, scene: tuple[Tensor, Tensor] = scene) -> Tensor:
            return model(*scene)[:, :1].float()

        maps = rung_outputs(models, run)
        for row, place in enumerate(batch["index"].tolist()):
            mask = torch.from_numpy(part.mask(place))
            for name, values in maps.items():
                levels = to_bytes(values[row, 0], (mask.shape[0], mask.shape[1]))
                parts[name].append(saliency_scores(torch.from_numpy(levels)[None], mask[None]))
    nothing = torch.zeros((0, 1, 1), dtype=torch.uint8)
    without = saliency_scores(nothing, nothing)
    return {name: SaliencyScores.join([without, *scores]) for name, scores in parts.items()}


def _max_f(curves: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The largest value of the mean curve: curves (N, 256), weights (B, N) -> (B,)."""
    return (weights @ curves).max(1) / weights.sum(1)
