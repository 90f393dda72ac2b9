"""The variants of DCAL by seeds, compared with a search by colours alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl

from ...engine.experiments.compare import Plan, Trained, compare_variants
from ...engine.experiments.table import Scores
from ...engine.pipeline import AnyPipeline, Splits
from ...engine.spec import DictSpec
from ...metrics import classification
from ..options import VARIANTS, CompareOptions
from ..scoring import COLOURS, ask, colours_of, embed_part

ALONE = "{}, SA head alone"  # of a model that has GLCA or PWCA


def compare(pipeline: AnyPipeline, options: CompareOptions) -> pl.DataFrame:
    """Train every variant with every seed, see `compare_variants`; writes into --output, returns
    the table.
    """
    plan = Plan(
        output=options.output,
        seeds=options.seeds,
        variants={name: VARIANTS[name] for name in options.models},
        score=_score,
        free={"images"},
    )
    return compare_variants(
        pipeline, options, plan, baseline="baseline", untrained=_colours, title="DCAL"
    )


def _score(trained: Trained[CompareOptions, DictSpec]) -> Scores:
    """Of the model as it is used, and of its SA head alone."""
    model, options = trained.model, trained.options
    embed = partial(embed_part, model, trained.splits.test, options, trained.device)
    rows = {trained.variant: scores(trained.splits, embed())}
    if options.glca and options.embedding == "both":
        model.heads = "sa"  # pyright: ignore[reportAttributeAccessIssue]
        rows[ALONE.format(trained.variant)] = scores(trained.splits, embed())
    return rows


def _colours(splits: Splits[DictSpec]) -> Scores:
    return {COLOURS: scores(splits, {"vectors": colours_of(splits.test)})}


def scores(splits: Splits[DictSpec], outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """mAP and rank 1 of a search, accuracy and log-loss of classes."""
    part = splits.test
    if "probability" in outputs:
        probability = outputs["probability"].astype(np.float64)
        scored = classification.scores(part.labels, probability / probability.sum(1, keepdims=True))
        return {name: scored[name] for name in ("accuracy", "log_loss")}
    searched = ask(part, outputs["vectors"]).scores
    return {"mAP": searched.mean_ap, "rank_1": float(searched.cmc[0])}
