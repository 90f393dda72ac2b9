"""The verb compare: the attention of MEDUSA compared with its ablations, by seeds."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import softmax

from ...engine.experiments.compare import Plan, Trained, compare_variants
from ...engine.experiments.table import Scores
from ...engine.pipeline import Splits
from ...metrics import classification
from ...metrics.operating import fit_temperature
from ..data import MedicalSpec, Xrays
from ..options import VARIANTS, CompareOptions
from ..pipeline import MedicalPipeline
from ..scoring import logits_of

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
    return compare_variants(pipeline, options, plan, baseline="none", untrained=_floor, title=title)


def _score(trained: Trained[CompareOptions, MedicalSpec]) -> Scores:
    """On the test part, calibrated by a temperature fitted on the validation part."""
    parts, model, device = trained.splits, trained.model, trained.device
    validation = logits_of(model, parts.validation, device)
    temperature = fit_temperature(parts.validation.labels, validation)
    probability = softmax(logits_of(model, parts.test, device) / temperature, axis=1)
    return {trained.variant: _main_scores(parts.test.labels, probability)}


def _main_scores(labels: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    scores = classification.scores(labels, probability.astype(np.float64))
    return {name: scores[name] for name in ("auc", "accuracy", "balanced_accuracy", "ece")}


def _floor(splits: Splits[MedicalSpec, Xrays]) -> Scores:
    """The scores of predicting the class shares of the training part for every picture."""
    train, test = splits.train, splits.test
    share = np.bincount(train.labels, minlength=len(train.classes)) / len(train)
    return {MOST_FREQUENT: _main_scores(test.labels, np.tile(share, (len(test), 1)))}
