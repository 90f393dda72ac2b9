"""The variants of DCAL by seeds, beside a search by colours alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch

from ...engine.experiments.variants import Plan, Scores, compare_variants
from ...engine.pipeline import AnyPipeline, Splits
from ...metrics import classification
from ..options import VARIANTS, CompareOptions
from ..protocol import search_part
from ..scoring import COLOURS, colours_of, embed_part

ALONE = "{}, SA head alone"  # of a model that has GLCA or PWCA


def compare(pipeline: AnyPipeline, options: CompareOptions) -> pl.DataFrame:
    """Train every variant with every seed, see `compare_variants`; writes into --output, returns
    the table.
    """
    plan = Plan(VARIANTS, "baseline", _score, _colours, "DCAL", free={"images"})
    return compare_variants(pipeline, options, plan)


def _score(name: str, model: Any, splits: Splits, options: Any, device: torch.device) -> Scores:
    """As the model is used, and by its SA head alone."""
    found = {name: scores(splits, embed_part(model, splits.test, options, device), options)}
    if options.glca and options.embedding == "both":
        model.heads = "sa"
        found[ALONE.format(name)] = scores(
            splits, embed_part(model, splits.test, options, device), options
        )
    return found


def _colours(splits: Splits, options: Any) -> Scores:
    return {COLOURS: scores(splits, {"vectors": colours_of(splits.test)}, options)}


def scores(splits: Splits, found: Mapping[str, np.ndarray], options: Any) -> dict[str, float]:
    """mAP and rank 1 of a search, accuracy and log-loss of classes."""
    part = splits.test
    if "probability" in found:
        probability = found["probability"].astype(np.float64)
        scored = classification.scores(part.labels, probability / probability.sum(1, keepdims=True))
        return {name: scored[name] for name in ("accuracy", "log_loss")}
    searched = search_part(part, found["vectors"]).scores
    return {"mAP": searched.mean_ap, "rank_1": float(searched.cmc[0])}
