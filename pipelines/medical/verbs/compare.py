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
from ..data import MedicalSpec, Xrays
from ..options import VARIANTS, CompareOptions
from ..pipeline import MedicalPipeline
from ..scoring import decided, logits_of

MOST_FREQUENT = "most frequent class"


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
    validation = logits_of(model, parts.validation, device)
    temperature = fit_temperature(parts.validation.labels, validation)
    positive = parts.spec.positive
    chance = softmax(validation / temperature, axis=1)[:, positive]
    is_positive = parts.validation.labels == positive
    threshold = choose_threshold(is_positive, chance, trained.options.sensitivity)
    probability = softmax(logits_of(model, parts.test, device) / temperature, axis=1)
    predicted = decided(probability, positive, threshold)
    return {trained.variant: _main_scores(parts.test.labels, probability, predicted)}


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


def _floor(splits: Splits[MedicalSpec, Xrays]) -> Scores:
    """The scores of predicting the class shares of the training part for every picture."""
    train, test = splits.train, splits.test
    share = np.bincount(train.labels, minlength=len(train.classes)) / len(train)
    probability = np.tile(share, (len(test), 1))
    return {MOST_FREQUENT: _main_scores(test.labels, probability, probability.argmax(1))}
