"""Prompts as tokens of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...data.prompts.table import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens(NamedTuple):
    """A prompt and its answer as tokens; the answer is () where none is known."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


class Coder:
    """The tokenizer of a language model, as prompts need it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def code(self, text: str) -> tuple[int, ...]:
        """The tokens of a text on its own, with the special ones that a model begins with."""
        # verbose: the length is checked where it matters, in words of ours.
        return tuple(self.tokenizer.encode(text, verbose=False))

    def code_on(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that goes on after another."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def measure(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.code_on(text))

    def prompt(self, prompt: Prompt) -> Tokens:
        """A prompt and its answer."""
        return Tokens(self.code(prompt.text), self.code_on(prompt.answer))
