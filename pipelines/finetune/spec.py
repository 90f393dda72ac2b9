"""What a tuned model needs to meet new prompts, as the run keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from torch import Tensor

from ..engine.spec import Spec

IMPORTANCE = "importance.safetensors"


class InputFacts(TypedDict):
    """What the model was trained on, as the run's card says it."""

    prompts: int
    training_prompts: int
    general: list[str]


class BaseFacts(TypedDict):
    """The model that was tuned. model: as --model names it; sha256: of its weights;
    settings_sha256: of its chat template, special tokens and settings of generation, which old runs
    do not say.
    """

    model: str
    name: str
    sha256: str
    settings_sha256: NotRequired[str]
    architecture: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class TuneSpec(Spec):
    """What a tuned model needs to meet new prompts.

    base        the model that was tuned
    template    how prompts are written for it
    most_tokens of a prompt and its answer
    new_tokens  of a generated answer
    columns     of the table, by what they hold
    parts       prompts of each part
    importance  of hidden units by layer, by which a training is masked
    """

    input: InputFacts
    base: BaseFacts
    template: Literal["chat", "plain"]
    most_tokens: int
    new_tokens: int
    columns: dict[str, str]
    parts: dict[str, int]
    importance: Mapping[int, Tensor] = field(
        default_factory=dict, metadata={"saved": False}, compare=False
    )
