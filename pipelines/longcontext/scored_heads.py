"""Scores of heads over many prompts, which go on after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from ...models.language.analysis.needle import NeedlePrompt, NeedleScores, needle_scores
from ...models.language.plans.facts import ModelFacts
from ..engine.experiments.jobs import run_jobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def scored_heads(
    model: PreTrainedModel,
    prompts: Sequence[NeedlePrompt],
    *,
    home: Path | None,
    fingerprint: str,
    title: str,
    size: int = 1,
) -> NeedleScores:
    """Score all heads, `size` prompts at once.

    home: the folder of what was scored already, None where nothing is kept; fingerprint: of all
    that scores depend on; title: of the bar. Raises InputError where `home` holds scores of another
    fingerprint.
    """
    unit, called = ("prompt", "prompts") if size == 1 else ("group", "groups of prompts")
    batches = {
        f"scores-{start:04d}": prompts[start : start + size]
        for start in range(0, len(prompts), size)
    }
    with ExitStack() as stack:
        records = run_jobs(
            batches,
            lambda batch: {"scores": needle_scores(model, batch).tolist()},
            home or Path(stack.enter_context(TemporaryDirectory())),
            fingerprint,
            title=title,
            unit=unit,
            called=called,
        )
    scores = NeedleScores.of(ModelFacts.of(model))
    for record in records.values():
        scores.add(torch.tensor(record["scores"]))
    return scores
