"""The rungs of several findings: the share of each, independent logistic regressions on frozen
features or pixels, and their blend with the attention model.

Shapes: N pictures of a part, D width of a feature, K findings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import nn

from ....models.vision.frozen import FrozenLinear
from ....models.vision.simple import BlendedFindings, LinearPixels, PriorPictures
from ...engine.class_ladder import PRIOR_GROUPS, SHARES
from ...engine.ladder import LadderScores, Rung
from ...engine.options import RungName
from ...metrics.bootstrap import draw_weights
from ...metrics.classification import weighted_auc
from ...metrics.frozen_fit import fit_classes
from ...metrics.operating import fit_temperature
from ..data import MedicalSpec, SeveralXrays
from ..options import MedicalOptions
from ..rungs import empty_frozen, feature_weights, features_of, logits_of, pixel_model, pixel_rung


def simple_rungs(
    train: SeveralXrays,
    validation: SeveralXrays,
    spec: MedicalSpec,
    options: MedicalOptions,
    device: torch.device,
) -> dict[RungName, Rung]:
    """The share of each finding; and a logistic regression for each, all of frozen features or all
    of pixels, whichever has the smaller log-loss on the validation part.
    """
    naive = PriorPictures(len(spec.classes))
    having = (train.truth & train.known).sum(0)
    share = (having + 1) / (train.known.sum(0) + 2)
    naive.logits = torch.from_numpy(np.log(share / (1 - share))).float()
    seed = options.seed % (1 << 32)  # as scikit-learn takes it
    weights = feature_weights(options)
    frozen, pixels = empty_frozen(options, weights, len(spec.classes)), pixel_model(spec)
    _fit(frozen, train, validation, seed, device)
    _fit(pixels, train, validation, seed, device)
    name = weights.name if weights.pretrained else "random filters"
    words = f"a logistic regression of frozen features ({name}) for each finding"
    forms = [
        Rung("frozen features", words, frozen, dict(frozen.facts())),
        pixel_rung(pixels, "a logistic regression for each finding"),
    ]
    losses = [_loss(form.model, validation, device) for form in forms]
    return {
        "naive": Rung("the shares of the findings", "shares of the findings", naive),
        "simple": forms[int(np.argmin(losses))],
    }


def _fit(
    model: FrozenLinear | LinearPixels,
    train: SeveralXrays,
    validation: SeveralXrays,
    seed: int,
    device: torch.device,
) -> None:
    """Set the weights, with a penalty for each finding by the validation part."""
    seen, other = features_of(model, train, device), features_of(model, validation, device)
    patients, centre = np.array(train.column("patients")), seen.mean(0)
    weight, bias = [], []
    for k in range(len(train.classes)):
        rows, held = train.known[:, k], validation.known[:, k]
        fitted = fit_classes(
            seen[rows],
            train.truth[rows, k].astype(np.int64),
            other[held],
            validation.truth[held, k].astype(np.int64),
            2,
            seed=seed,
            groups=patients[rows],
        )
        # Of two classes, the logit of the finding is the difference of theirs.
        weight.append(fitted.weight[1] - fitted.weight[0])
        moved = weight[-1].astype(np.float64) @ (centre - fitted.centre)
        bias.append(fitted.bias[1] - fitted.bias[0] + moved)
    model.set_map(*map(torch.from_numpy, (centre, np.stack(weight), np.array(bias))))


def losses_of(part: SeveralXrays, logits: np.ndarray) -> np.ndarray:
    """Log-loss of each picture and finding, float64 (N, K); 0 where it is not known."""
    return np.where(part.known, -log_expit(np.where(part.truth, logits, -logits)), 0.0)


def _loss(model: nn.Module, part: SeveralXrays, device: torch.device) -> float:
    logits = logits_of({"simple": model.to(device)}, part, device)["simple"]
    return float(losses_of(part, logits).sum() / part.known.sum())


def blend_rung(
    model: nn.Module, simple: nn.Module, validation: SeveralXrays, device: torch.device
) -> Rung:
    """The mean of the probabilities of the two, with one share and a temperature of each for all
    findings, drawn towards one half and 1 as `fit_blend` draws those of classes.
    """
    blend = BlendedFindings(model, simple.to(device))
    logits = logits_of({"model": model, "simple": blend.simple}, validation, device)
    groups, known = len(set(validation.column("patients"))), validation.known
    certainty = groups / (groups + PRIOR_GROUPS)
    truth = validation.truth[known].astype(np.int64)
    chances, temperatures = [], []
    for name in ("model", "simple"):
        score = logits[name][known]
        # Of two classes with the logits 0 and z, softmax is the sigmoid of z.
        pair = np.stack([np.zeros_like(score), score], 1)
        temperatures.append(fit_temperature(truth, pair) ** certainty)
        chance = expit(score / temperatures[-1])
        chances.append(np.where(truth > 0, chance, 1 - chance))
    p, q = chances
    losses = [-np.log(np.maximum(s * p + (1 - s) * q, 1e-12)).mean() for s in SHARES]
    share = certainty * float(SHARES[int(np.argmin(losses))]) + (1 - certainty) * 0.5
    share = min(max(share, 0.01), 0.99)
    blend.temperatures, blend.share = torch.tensor(temperatures), torch.tensor(share)
    words = f"mean of the probabilities of the two, {share:.0%} of the model"
    return Rung("the blend of the two", words, blend)


def ladder_scores(
    models: Mapping[RungName, nn.Module], part: SeveralXrays, device: torch.device
) -> LadderScores:
    """Log-loss, the mean over pictures and findings whose truth is known, with draws of patients;
    the mean AUC of the findings beside it.
    """
    logits = logits_of(models, part, device)
    patients, known = np.array(part.column("patients")), part.known.sum(1)
    sums = {name: losses_of(part, values).sum(1) for name, values in logits.items()}
    drawn: dict[RungName, list[np.ndarray]] = {name: [] for name in logits}
    for weights in draw_weights(patients, 1000, seed=0):
        for name, values in sums.items():
            drawn[name].append(weights @ values / np.maximum(weights @ known, 1))
    return LadderScores(
        "log-loss",
        False,
        {name: float(values.sum() / known.sum()) for name, values in sums.items()},
        {name: np.concatenate(parts) for name, parts in drawn.items()},
        len(set(patients.tolist())),
        {"mean AUC": {name: _mean_auc(part, values) for name, values in logits.items()}},
    )


def _mean_auc(part: SeveralXrays, logits: np.ndarray) -> float:
    areas = []
    for k, rows in enumerate(part.known.T):
        truth = part.truth[rows, k]
        if 0 < truth.sum() < len(truth):
            areas.append(float(weighted_auc(truth, logits[rows, k], np.ones((1, len(truth))))[0]))
    return float(np.mean(areas)) if areas else float("nan")
