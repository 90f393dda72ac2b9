"""The attention of MEDUSA beside its ablations, by seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.special import softmax

from ...engine.experiments.variants import Plan, Scores, compare_variants
from ...engine.pipeline import AnyPipeline, Splits
from ...metrics import classification
from ...metrics.operating import fit_temperature
from ..options import VARIANTS, CompareOptions
from ..scoring import logits_of

MOST_FREQUENT = "most frequent class"


def compare(pipeline: AnyPipeline, options: CompareOptions) -> pl.DataFrame:
    """Train every variant with every seed, see `compare_variants`; writes into --output, returns
    the table.
    """
    plan = Plan(VARIANTS, "none", _score, _floor, "MEDUSA-style attention and its ablations")
    return compare_variants(pipeline, options, plan)


def _score(name: str, model: Any, splits: Splits, options: Any, device: torch.device) -> Scores:
    """Of the test part, calibrated by a temperature fitted on the validation part."""
    temperature = fit_temperature(
        splits.validation.labels, logits_of(model, splits.validation, device)
    )
    probability = softmax(logits_of(model, splits.test, device) / temperature, axis=1)
    return {name: _chosen(splits.test.labels, probability)}


def _chosen(labels: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    found = classification.scores(labels, probability.astype(np.float64))
    return {name: found[name] for name in ("auc", "accuracy", "balanced_accuracy", "ece")}


def _floor(splits: Splits, options: Any) -> Scores:
    """What is said without looking."""
    share = np.bincount(splits.train.labels, minlength=len(splits.train.classes)) / len(
        splits.train
    )
    return {MOST_FREQUENT: _chosen(splits.test.labels, np.tile(share, (len(splits.test), 1)))}
