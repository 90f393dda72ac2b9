"""The rungs of several findings: the share of each, independent logistic regressions on frozen
features or pixels, and their blend with the attention model.

Shapes: N pictures of a part, D width of a feature, K findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy.special import log_expit
from torch import nn

from ....models.vision.frozen import FrozenLinear
from ....models.vision.simple import BlendedFindings, LinearPixels, PriorPictures
from ...engine.class_ladder import fit_blend
from ...engine.ladder import LadderScores, Rung, drawn_scores
from ...engine.options import RungName
from ...engine.pipeline import Context, Splits
from ...metrics.classification import weighted_auc
from ...metrics.frozen_fit import LinearMap, fit_classes, refit_classes
from ..data import MedicalSpec, SeveralXrays
from ..options import MedicalOptions
from ..rungs import (
    PictureRungs,
    empty_frozen,
    feature_weights,
    features_of,
    logits_of,
    pixel_model,
    pixel_rung,
)


class FindingRungs(PictureRungs[SeveralXrays]):
    """The rungs of several findings."""

    def simple(
        self,
        model: nn.Module,
        splits: Splits[MedicalSpec, SeveralXrays],
        options: MedicalOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The share of each finding; and a logistic regression for each, all of frozen features or
        all of pixels, whichever has the smaller log-loss on the validation part.
        """
        train, validation, spec = splits.train, splits.validation, splits.spec
        naive = PriorPictures(len(spec.classes))
        having = (train.truth & train.known).sum(0)
        share = (having + 1) / (train.known.sum(0) + 2)
        naive.logits = torch.from_numpy(np.log(share / (1 - share))).float()
        seed = options.seed % (1 << 32)  # as scikit-learn takes it
        weights = feature_weights(options)
        frozen, pixels = empty_frozen(options, weights, len(spec.classes)), pixel_model(spec)
        parts = train, validation
        features = [
            [features_of(model, part, device) for part in parts] for model in (frozen, pixels)
        ]
        fitted = [
            _fit(model, of_parts, parts, seed)
            for model, of_parts in zip((frozen, pixels), features, strict=True)
        ]
        name = weights.name if weights.pretrained else "random filters"
        words = f"a logistic regression of frozen features ({name}) for each finding"
        candidates = [
            Rung(words, frozen, dict(frozen.facts()), short="frozen features"),
            pixel_rung(pixels, "a logistic regression for each finding"),
        ]
        losses = [_loss(rung.model, validation, device) for rung in candidates]
        best = int(np.argmin(losses))
        simple = candidates[best]

        def refit() -> Rung:
            _fit((frozen, pixels)[best], features[best], parts, seed, fitted[best])
            return simple

        return {
            "naive": Rung("shares of the findings", naive, short="the shares of the findings"),
            "simple": simple._replace(refit=refit if len(validation) else None),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[MedicalSpec, SeveralXrays],
        options: MedicalOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the probabilities of the two, with one share and a temperature of each for
        all findings.
        """
        validation, blend = splits.validation, BlendedFindings(model, simple.to(device))
        logits = logits_of({"model": model, "simple": blend.simple}, validation, device)
        known = validation.known
        truth = validation.truth[known].astype(np.int64)
        # Of two classes with the logits 0 and z, softmax is the sigmoid of z.
        first, second = (
            np.stack([np.zeros(len(truth)), logits[name][known]], 1) for name in ("model", "simple")
        )
        groups = len(set(validation.column("patients")))
        return Rung(fit_blend(blend, truth, first, second, groups), blend)

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: SeveralXrays,
        context: Context[MedicalOptions, MedicalSpec],
    ) -> LadderScores:
        """Log-loss, the mean over pictures and findings whose truth is known, with draws of
        patients; the mean AUC of the findings beside it.
        """
        logits = logits_of(models, dataset, context.device)
        known = dataset.known.sum(1)
        sums = {name: losses_of(dataset, values).sum(1) for name, values in logits.items()}
        return drawn_scores(
            "log-loss",
            {name: float(values.sum() / known.sum()) for name, values in sums.items()},
            {name: partial(_mean_of_known, values, known) for name, values in sums.items()},
            np.array(dataset.column("patients")),
            further={"mean AUC": {name: _mean_auc(dataset, v) for name, v in logits.items()}},
        )


def _mean_of_known(sums: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over what is known, of sums (N,) over as many findings, for each row of weights."""
    return weights @ sums / np.maximum(weights @ known, 1)


def _fit(
    model: FrozenLinear | LinearPixels,
    features: Sequence[np.ndarray],
    parts: tuple[SeveralXrays, SeveralXrays],
    seed: int,
    chosen: Sequence[LinearMap] = (),
) -> list[LinearMap]:
    """Set the weights, with a penalty for each finding by the validation part. Returns the map of
    each finding.

    features: (N, D) of the training and of the validation part; chosen: maps whose penalties are
    taken to fit both parts together.
    """
    train = parts[0]
    patients, centre = np.array(train.column("patients")), features[0].mean(0)
    maps, weight, bias = [], [], []
    for k in range(len(train.classes)):
        present = [part.known[:, k] for part in parts]
        known = [
            (x[rows], part.truth[rows, k].astype(np.int64))
            for x, part, rows in zip(features, parts, present, strict=True)
        ]
        if chosen:
            fitted = refit_classes(chosen[k], known, 2, seed=seed)
        else:
            groups = patients[present[0]]
            fitted = fit_classes(*known[0], *known[1], 2, seed=seed, groups=groups)
        maps.append(fitted)
        # Of two classes, the logit of the finding is the difference of theirs.
        weight.append(fitted.weight[1] - fitted.weight[0])
        moved = weight[-1].astype(np.float64) @ (centre - fitted.centre)
        bias.append(fitted.bias[1] - fitted.bias[0] + moved)
    model.set_map(*map(torch.from_numpy, (centre, np.stack(weight), np.array(bias))))
    return maps


def losses_of(part: SeveralXrays, logits: np.ndarray) -> np.ndarray:
    """Log-loss of each picture and finding, float64 (N, K); 0 where it is not known."""
    return np.where(part.known, -log_expit(np.where(part.truth, logits, -logits)), 0.0)


def _loss(model: nn.Module, part: SeveralXrays, device: torch.device) -> float:
    logits = logits_of({"simple": model.to(device)}, part, device)["simple"]
    return float(losses_of(part, logits).sum() / part.known.sum())


def _mean_auc(part: SeveralXrays, logits: np.ndarray) -> float:
    areas = []
    for k, rows in enumerate(part.known.T):
        truth = part.truth[rows, k]
        if 0 < truth.sum() < len(truth):
            areas.append(float(weighted_auc(truth, logits[rows, k], np.ones((1, len(truth))))[0]))
    return float(np.mean(areas)) if areas else float("nan")
