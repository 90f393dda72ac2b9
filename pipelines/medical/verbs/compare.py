"""The verb compare: the attention of MEDUSA compared with its ablations, by seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import softmax

from ....base.account import opened
from ...engine.accounts import publish
from ...engine.experiments.compare import Plan, Trained, compare_variants
from ...engine.experiments.table import Scores
from ...engine.pipeline import Splits
from ...engine.runs.run_directory import ACCOUNT
from ...metrics import classification
from ...metrics.operating import choose_threshold, fit_temperature
from ..data import SeveralXrays, XrayPart, Xrays
from ..options import VARIANTS, CompareOptions
from ..pipeline import MedicalPipeline
from ..scoring import decided, logits_of
from ..several.learning import calibrate_findings, probability_of
from ..several.scoring import mean_scores
from ..spec import MedicalSpec

MOST_FREQUENT = "most frequent class"
SHARES = "shares of the findings"


def compare(pipeline: MedicalPipeline, options: CompareOptions) -> pl.DataFrame:
    """Train every variant with every seed, see `compare_variants`; writes into --output, returns
    the table.
    """
    plan = Plan(
        output=options.output,
        seeds=options.seeds,
        variants={name: VARIANTS[name] for name in options.models},
        score=_score,
    )
    title = "MEDUSA-style attention and its ablations"
    with opened(options.accept) as account:
        table = compare_variants(
            pipeline, options, plan, baseline="none", untrained=_floor, title=title
        )
        publish(account, Path(options.output) / ACCOUNT)
    return table


def _score(trained: Trained[CompareOptions, MedicalSpec]) -> Scores:
    """On the test part, with temperature and operating point of the validation part."""
    parts, model, device = trained.splits, trained.model, trained.device
    if isinstance(parts.validation, SeveralXrays) and isinstance(parts.test, SeveralXrays):
        return {trained.variant: _of_findings(trained, parts.validation, parts.test)}
    assert isinstance(parts.validation, Xrays)
    assert isinstance(parts.test, Xrays)
    validation = logits_of(model, parts.validation, device)
    temperature = fit_temperature(parts.validation.labels, validation)
    positive = parts.spec.positive
    chance = softmax(validation / temperature, axis=1)[:, positive]
    is_positive = parts.validation.labels == positive
    threshold = choose_threshold(is_positive, chance, trained.options.sensitivity)
    probability = softmax(logits_of(model, parts.test, device) / temperature, axis=1)
    predicted = decided(probability, positive, threshold)
    return {trained.variant: _main_scores(parts.test.labels, probability, predicted)}


def _of_findings(
    trained: Trained[CompareOptions, MedicalSpec], validation: SeveralXrays, test: SeveralXrays
) -> dict[str, float]:
    """Means over the findings, with the operating points of the validation part."""
    model, device = trained.model, trained.device
    logits = logits_of(model, validation, device)
    sensitivity = trained.options.sensitivity
    calibration = calibrate_findings(validation.truth, validation.known, logits, sensitivity)
    probability = probability_of(logits_of(model, test, device), calibration)
    return mean_scores(test, probability, calibration["threshold"].double().numpy())


def _main_scores(
    labels: np.ndarray, probability: np.ndarray, predicted: np.ndarray
) -> dict[str, float]:
    """predicted: the class of each picture, which accuracies are of."""
    scores = classification.scores(labels, probability.astype(np.float64))
    certain = classification.scores(labels, np.eye(probability.shape[1])[predicted])
    return {
        "auc": scores["auc"],
        "accuracy": certain["accuracy"],
        "balanced_accuracy": certain["balanced_accuracy"],
        "ece": scores["ece"],
    }


def _floor(splits: Splits[MedicalSpec, XrayPart]) -> Scores:
    """The scores of predicting the class shares of the training part for every picture."""
    train, test = splits.train, splits.test
    if isinstance(train, SeveralXrays) and isinstance(test, SeveralXrays):
        share = train.truth.sum(0) / train.known.sum(0)
        scores = mean_scores(test, np.tile(share, (len(test), 1)), np.full(len(share), 0.5))
        return {SHARES: scores}
    assert isinstance(train, Xrays)
    assert isinstance(test, Xrays)
    share = np.bincount(train.labels, minlength=len(train.classes)) / len(train)
    probability = np.tile(share, (len(test), 1))
    return {MOST_FREQUENT: _main_scores(test.labels, probability, probability.argmax(1))}
