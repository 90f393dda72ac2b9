"""The prompts that heads are scored on, and other ones to check them with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ....base.account import note
from ....base.errors import InputError
from ....data.prompts.builtin import builtin_texts
from ....data.prompts.generate import filler_of, generate_prompts, pieces_of
from ....data.prompts.table import Prompt, PromptTable, read_prompt_data
from ....models.language.analysis.needle import NeedlePrompt
from ...engine.training.order import mix
from ..data import Coder, reading_of
from .options_attention import HeadsOptions

if TYPE_CHECKING:
    from ....models.language.opening import OpenedLanguageModel


def prompts_of(
    options: HeadsOptions, model: OpenedLanguageModel
) -> tuple[list[NeedlePrompt], list[NeedlePrompt]]:
    """Prompts to score and prompts to check, which share no text. Raises `InputError` where there
    are none, and for a prompt longer than the positions of the model.
    """
    coder, table = Coder(model.tokenizer), texts_or_prompts(options.data, options.columns)
    if table.are_texts:
        parts = _generated(options, table, coder)
    else:
        parts = _drawn(options, table)
    scored, checked = (_coded(part, coder, model) for part in parts)
    if not scored:
        raise InputError(
            f"{options.data}: has no prompt in which its answer stands word for word; give texts, "
            "over which such prompts are generated"
        )
    if options.check_prompts and not checked:
        note("assumed", "no prompt is left to check the heads with; --prompts takes all", count=0)
    return scored, checked


def texts_or_prompts(data: str | None, columns: Sequence[str]) -> PromptTable:
    """The rows of --data, or the texts that are on every machine."""
    if data is not None:
        return read_prompt_data(data, reading_of(columns))
    if columns:
        raise InputError("--columns: is read with --data")
    texts = [Prompt(text, id=f"text {number}") for number, text in enumerate(builtin_texts(), 1)]
    return PromptTable(texts, are_texts=True)


def _generated(
    options: HeadsOptions, table: PromptTable, coder: Coder
) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts over every second piece of the texts, and over the other ones."""
    pieces = [piece for text in table.prompts for piece in pieces_of(text.text)]
    if len(pieces) < 2:
        note("assumed", "the texts are too short for two parts: both have the same", count=0)
        pieces = pieces * 2
    parts = []
    for number, count in enumerate((options.prompts, options.check_prompts)):
        parts.append(
            generate_prompts(
                filler_of(pieces[number::2], coder.measure),
                coder.measure,
                kinds=options.kinds,
                lengths=options.lengths,
                depths=options.depths,
                count=count,
                seed=mix(options.seed, number, 7),
                name=("scored", "checked")[number],
            )
        )
    return parts[0], parts[1]


def _drawn(options: HeadsOptions, table: PromptTable) -> tuple[list[Prompt], list[Prompt]]:
    """Rows of a table of prompts, drawn by the seed; a group is in one part."""
    known = [prompt for prompt in table.prompts if prompt.answer.strip()]
    if missing := len(table.prompts) - len(known):
        note("left out", "rows without an answer", count=missing)
    order = np.random.default_rng(mix(options.seed, 8)).permutation(len(known)).tolist()
    # With few rows half of them check, so that what is checked was never scored.
    count = min(options.prompts, len(known) - min(options.check_prompts, len(known) // 2))
    scored = [known[row] for row in order[:count]]
    groups = {prompt.group for prompt in scored if prompt.group}
    rest = [known[row] for row in order[count:] if known[row].group not in groups]
    beyond = len(known) - count - min(len(rest), options.check_prompts)
    if beyond:
        note("left out", "prompts beyond --prompts and --check-prompts", count=beyond)
    return scored, rest[: options.check_prompts]


def _coded(
    prompts: Sequence[Prompt], coder: Coder, model: OpenedLanguageModel
) -> list[NeedlePrompt]:
    coded = []
    for prompt in prompts:
        tokens = coder.prompt(prompt)
        length = len(tokens.prompt) + len(tokens.answer)
        if length > model.facts.positions:
            raise InputError(
                f"prompt {prompt.id}: {length:,} tokens with its answer, more than the "
                f"{model.facts.positions:,} positions of {model.name}; leave it out or shorten it"
            )
        try:
            coded.append(NeedlePrompt.of(tokens.prompt, tokens.answer))
        except ValueError:
            continue
    if missing := len(prompts) - len(coded):
        note("left out", "prompts that do not hold their answer token for token", count=missing)
    return coded
