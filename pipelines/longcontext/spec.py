"""What a plan needs to meet new prompts, as the run keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ..engine.spec import Spec


class InputFacts(TypedDict):
    """What the plan was made for and from, as the run's card says it."""

    model: str
    licence: str
    prompts: int
    generated: bool
    kinds: list[str]


@dataclass(frozen=True, kw_only=True)
class LongContextSpec(Spec):
    """What a plan needs to meet new prompts.

    model       name or folder of the language model
    sha256      of its weights; another model is refused
    settings_sha256  of its chat template, special tokens and settings of generation, "" in old runs
    layers      of the model, and kv_heads, its heads of keys and values
    columns     of the table of prompts, by what they hold
    shortest    tokens of the shortest prompt of the training and the validation part, and longest
    parts       prompts of each part
    """

    input: InputFacts
    model: str
    sha256: str
    settings_sha256: str = ""
    layers: int
    kv_heads: int
    columns: Mapping[str, str] = field(default_factory=dict)
    shortest: int
    longest: int
    parts: dict[str, int] = field(default_factory=dict)
