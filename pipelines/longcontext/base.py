"""The language model that a plan is for."""

from __future__ import annotations

from pathlib import Path

from ...base.account import note
from ...data.prompts.sample import SAMPLE
from ...models.language.generated import GENERATED
from .options import LongContextOptions

DEFAULT = "smollm2-135m"


def is_sample(data: str | None) -> bool:
    """Whether the data is the built-in sample, as a run holds it."""
    path = Path(data or "")
    return path.name == f"{SAMPLE}.jsonl" and path.parent.name == "sample"


def model_of(options: LongContextOptions) -> str:
    """The model that the options name."""
    if options.model != "auto":
        return options.model
    if not is_sample(options.data):
        return DEFAULT
    note("assumed", "--model generated: a tiny model with random weights, since there is no --data")
    return GENERATED
