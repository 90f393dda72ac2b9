"""The rungs of pictures: colours (or the shares of the classes), frozen features of published
weights, and their blend with the domain model.

A search is scored by mAP with draws of identities, classes by log-loss with draws of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from ...base.account import note
from ...base.errors import InputError, reason
from ...models.layers.encoders import TileEncoder
from ...models.layers.vit_trunk import SCRATCH
from ...models.vision.frozen import FrozenLinear, rebuilt_frozen
from ...models.vision.picture_rungs import (
    LEAST,
    BlendedPictures,
    BlendedVectors,
    ClassShares,
    ColourVectors,
)
from ..engine.class_ladder import (
    SHARES,
    cautious_share,
    class_list,
    class_scores,
    fit_blend,
    prior_logits,
)
from ..engine.frozen import Normalisation, frozen_classes, frozen_rung, frozen_vectors, open_encoder
from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores, weighted_mean
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..engine.weights import AUTO, NO_WEIGHTS, PRETRAINED, Weights, resolve_weights
from .augment import DEVIATION, MEAN
from .data import ReidSpec
from .embedding import Centres, embed_rungs
from .options import ReidOptions
from .pictures import Pictures
from .protocol import score_part

SIDE = 256  # of a square with as many pixels as the frozen encoder sees
PREFERRED = ("efficientnet-lite0", "mobilenetv2")
COMPARED_PICTURES = 2000  # whose cosines with each other give a deviation


def simple_encoder(options: ReidOptions) -> tuple[TileEncoder, Weights]:
    """The encoder of the simple model: of the weights that the options name, where they can be used
    alone, else of the best at hand.
    """
    name, backbone = options.weights, options.backbone
    if name not in NO_WEIGHTS and not (name == PRETRAINED and backbone == SCRATCH):
        try:
            return _opened(name, backbone, options)
        except InputError as error:  # such as positions of another size
            note("assumed", f"the simple model has other weights than dcal ({reason(error, 200)})")
    return _opened(AUTO, SCRATCH, options)


def _opened(name: str, backbone: str, options: ReidOptions) -> tuple[TileEncoder, Weights]:
    weights = resolve_weights(
        name, "features", backbone=backbone, scratch=SCRATCH, prefer=PREFERRED
    )
    return open_encoder(weights, picture=options.size, side=SIDE), weights


def can_choose(validation: Pictures, goal: str) -> bool:
    """Whether there is a validation part that models can be compared on."""
    if goal == "classes" or not len(validation):
        return len(validation) > 0
    of_people = validation.labels[validation.labels > 0]
    return bool((np.bincount(of_people) > 1).any()) if len(of_people) else False


class ReidRungs(Rungs[ReidOptions, ReidSpec, Pictures]):
    """Colours or shares of the classes, frozen features, and their blend with DCAL."""

    def answer_words(self, options: ReidOptions, spec: ReidSpec) -> str:
        """What is told of a picture."""
        if spec.goal == "search":
            return "pictures of the same identity in a gallery"
        return f"class of a picture ({class_list(spec.classes)})"

    def model_words(self, options: ReidOptions) -> str:
        """The name of the model."""
        return "DCAL" if options.model == "dcal" else options.model

    def prepare(self, splits: Splits[ReidSpec, Pictures], options: ReidOptions) -> None:
        """Fetch the weights of the simple model, and say in the account which they are, or why
        there is no choice.

        Raises `InputError` where --choose asks for what cannot be fitted.
        """
        if options.model == "cca":
            return
        if can_choose(splits.validation, splits.spec.goal):
            if not simple_encoder(options)[1].pretrained:
                note(
                    "assumed", "the simple model beside dcal has random filters: no weights at hand"
                )
            return
        what = "no validation part by which models are compared"
        if options.choose not in ("auto", "model"):
            raise InputError(f"--choose {options.choose}: there is {what} (--validation-share)")
        note("assumed", f"dcal predicts: there is {what}")

    def simple(
        self,
        model: nn.Module,
        splits: Splits[ReidSpec, Pictures],
        options: ReidOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """Colours or shares of the classes, and a linear map of frozen features. {} where nothing
        could choose among them.
        """
        train, held, spec = splits.train, splits.validation, splits.spec
        if options.model == "cca" or not can_choose(held, spec.goal):
            return {}
        encoder, weights = simple_encoder(options)
        pictures = Centres(train, options.size), Centres(held, options.size)
        normalisation, seed = Normalisation(MEAN, DEVIATION), options.seed % (1 << 32)
        if spec.goal == "search":
            words = "colour histograms of six stripes"
            naive = Rung(words, colour_vectors(), short="colours alone")
            # Labels of the training part are places from 0; there, 0 is no distractor.
            fitted = frozen_vectors(
                encoder, weights, pictures[0], train.labels + 1, pictures[1], held.labels,
                normalisation=normalisation, seed=seed, device=device,
            )  # fmt: skip
        else:
            shares = class_shares(len(spec.classes))
            shares.logits = prior_logits(train.labels, len(spec.classes))
            naive = Rung("shares of the classes", shares, short="the shares of the classes")
            fitted = frozen_classes(
                encoder, weights, pictures[0], train.labels, pictures[1], held.labels,
                len(spec.classes), normalisation=normalisation, seed=seed, device=device,
                output="probabilities",
            )  # fmt: skip
        return {"naive": naive, "simple": frozen_rung(fitted)}

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[ReidSpec, Pictures],
        options: ReidOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the two cosines, or of the two probabilities."""
        part, spec = splits.validation, splits.spec
        simple = simple.to(device)
        both = embed_rungs({"model": model, "simple": simple}, part, options, device)
        if spec.goal == "classes":
            blend = BlendedPictures(model, simple)
            first, second = (_logarithm(both[name]["probability"]) for name in ("model", "simple"))
            words = fit_blend(blend, part.labels, first, second, len(part))
            return Rung(words, blend)
        first, second = (both[name]["vectors"] for name in ("model", "simple"))
        blend = BlendedVectors(model, simple, first.shape[1])
        deviations = _deviation(part, first), _deviation(part, second)
        weights = [_weight(share, *deviations) for share in SHARES]
        scores = [_mean_ap(part, _joined(first, second, weight)) for weight in weights]
        identities = len(np.unique(part.labels[part.labels > 0]))
        share = cautious_share(float(SHARES[int(np.argmax(scores))]), identities)
        blend.share = torch.tensor(min(max(_weight(share, *deviations), 1e-3), 1 - 1e-3))
        words = f"mean of the standardised cosines of the two, {share:.0%} of the model"
        return Rung(words, blend, {"width": first.shape[1]})

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: ReidSpec,
    ) -> nn.Module:
        """Colours or shares, frozen features, or the blend."""
        search = spec.goal == "search"
        if name == "naive":
            return colour_vectors() if search else class_shares(len(spec.classes))
        if name == "simple":
            return rebuilt_frozen(facts)
        if search:
            return BlendedVectors(models["model"], models["simple"], int(str(facts["width"])))
        return BlendedPictures(models["model"], models["simple"])

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: Pictures,
        context: Context[ReidOptions, ReidSpec],
    ) -> LadderScores:
        """mAP and rank 1, with draws of identities; or log-loss, with draws of pictures."""
        embedded = embed_rungs(models, dataset, context.options, context.device)
        if context.spec.goal == "classes":
            logits = {name: _logarithm(values["probability"]) for name, values in embedded.items()}
            return class_scores(dataset.labels, logits, len(dataset))
        results = {
            name: score_part(dataset, values["vectors"])[0] for name, values in embedded.items()
        }
        labels = dataset.labels[dataset.query] if dataset.ranked else dataset.labels
        counted = next(iter(results.values())).first_rank > 0  # which depends on no model
        return drawn_scores(
            "mAP",
            {name: result.mean_ap for name, result in results.items()},
            {name: partial(weighted_mean, result.ap[counted]) for name, result in results.items()},
            labels[counted],
            larger_is_better=True,
            further={"rank 1": {name: float(result.cmc[0]) for name, result in results.items()}},
        )


def colour_vectors() -> ColourVectors:
    """The naive model of a search."""
    return ColourVectors(MEAN, DEVIATION)


def class_shares(classes: int) -> ClassShares:
    """The naive model of classes, not counted yet."""
    return ClassShares(classes, MEAN, DEVIATION)


def _deviation(part: Pictures, vectors: np.ndarray) -> float:
    """Standard deviation of the cosines between pictures of different identities.

    Those of a whitened space are near 0, those of an untrained network all near another value: by
    themselves, they say little of how much a cosine tells.
    """
    people = np.flatnonzero(part.labels > 0)[:COMPARED_PICTURES]
    labels, some = part.labels[people], vectors[people]
    cosines = (some @ some.T)[labels[:, None] != labels]
    return max(float(cosines.std()), 1e-6) if len(cosines) else 1.0


def _weight(share: float, first: float, second: float) -> float:
    """The weight of the first of two cosines that has a share after division by the deviations."""
    one, other = share / first, (1 - share) / second
    return one / (one + other)


def _joined(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    return np.concatenate([np.sqrt(share) * first, np.sqrt(1 - share) * second], 1)


def _mean_ap(part: Pictures, vectors: np.ndarray) -> float:
    return score_part(part, vectors.astype(np.float32))[0].mean_ap


def _logarithm(probability: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probability.astype(np.float64), LEAST))


def name_of(model: nn.Module, options: ReidOptions) -> str:
    """What predicts, in a few words."""
    if isinstance(model, FrozenLinear):
        return "frozen features"
    if isinstance(model, BlendedVectors | BlendedPictures):
        return f"{options.model} and frozen features"
    if isinstance(model, ColourVectors):
        return "colours"
    return "shares of the classes" if isinstance(model, ClassShares) else options.model
