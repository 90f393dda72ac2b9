"""The variants of DCAL by seeds, compared with a search by colours alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from ....base.account import opened
from ....models.vision.dcal import DCAL
from ...engine.accounts import publish
from ...engine.experiments.compare import Plan, Trained, compare_variants
from ...engine.experiments.table import Scores
from ...engine.pipeline import Splits
from ...engine.runs.run_directory import ACCOUNT
from ...metrics import classification
from ..data import ReidSpec
from ..embedding import Outputs, embed_part
from ..options import VARIANTS, CompareOptions
from ..pictures import Pictures
from ..pipeline import ReidPipeline
from ..protocol import search_part
from ..scoring import COLOURS, colours_of

ALONE = "{}, SA head alone"  # of a model that has GLCA or PWCA


def compare(pipeline: ReidPipeline, options: CompareOptions) -> pl.DataFrame:
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
    with opened(options.accept) as account:
        table = compare_variants(
            pipeline, options, plan, baseline="baseline", untrained=_colours, title="DCAL"
        )
        publish(account, Path(options.output) / ACCOUNT)
    return table


def _score(trained: Trained[CompareOptions, ReidSpec]) -> Scores:
    """Of the model as it is used, and of its SA head alone."""
    model, options, part = cast(DCAL, trained.model), trained.options, trained.splits.test
    embed = partial(embed_part, model, part, options, trained.device)
    rows = {trained.variant: scores(part, embed())}
    if options.glca and options.embedding == "both":
        model.heads = "sa"
        rows[ALONE.format(trained.variant)] = scores(part, embed())
    return rows


def _colours(splits: Splits[ReidSpec]) -> Scores:
    part: Pictures = splits.test
    return {COLOURS: scores(part, {"vectors": colours_of(part)})}


def scores(part: Pictures, embedded: Outputs) -> dict[str, float]:
    """mAP and rank 1 of a search, accuracy and log-loss of classes."""
    if "probability" in embedded:
        probability = embedded["probability"].astype(np.float64)
        probability /= probability.sum(1, keepdims=True)
        values = classification.scores(part.labels, probability)
        return {name: values[name] for name in ("accuracy", "log_loss")}
    searched = search_part(part, embedded["vectors"]).scores
    return {"mAP": searched.mean_ap, "rank_1": float(searched.cmc[0])}
