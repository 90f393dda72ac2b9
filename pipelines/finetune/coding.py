"""Dialogues as tokens: which of them the model is to learn, and batches of them.

Shapes: B rows of a batch, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, reason
from ...data.prompts.dialogues import Dialogue, Message
from ...models.language.answers import end_of, end_tokens, padding_token
from ..engine.training.order import Batch

if TYPE_CHECKING:
    from ...models.language.opening import OpenedLanguageModel

IGNORED = -100  # as a target: its loss does not count
NOBODY = -1  # as an owner: padding
# A run keeps its template: other verbs than the training have no option for it.
_PLAIN = "a model trained with --template plain takes them"


class Coded(NamedTuple):
    """Tokens of a row, and which of them are to be learned, both int64 or bool (N,)."""

    tokens: np.ndarray
    learned: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


class DialogueCoder:
    """Writes dialogues for a model, and reads its answers.

    template: "chat", by the tokenizer's template, or "plain": prompt, line, answer, end. ends:
    tokens that end an answer; a special token that the template writes behind one is among them.
    """

    def __init__(self, opened: OpenedLanguageModel, template: Literal["chat", "plain"]) -> None:
        self.tokenizer = opened.tokenizer
        self.template: Literal["chat", "plain"] = template
        self.ends = end_tokens(opened.model, opened.tokenizer) | self._end_of_turn()
        self.padding = padding_token(opened.tokenizer, self.ends)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of messages that wait for an answer."""
        return self._tokens(self._before(messages), first=True)

    def row(self, dialogue: Dialogue) -> Coded:
        """Tokens of a dialogue with its answers, the ends of answers included; earlier answers are
        learned as the last one is.

        Raises InputError for a template that writes earlier messages otherwise once others follow.
        """
        messages = [*dialogue.messages, Message("assistant", dialogue.answer or "")]
        tokens, learned, written = list[int](), list[bool](), ""
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before, after = self._before(messages[:place]), self._after(messages[: place + 1])
            if not before.startswith(written) or not after.startswith(before):
                raise InputError(
                    "the model's chat template writes a message otherwise once others follow, so "
                    f"that answers cannot be told apart; {_PLAIN}"
                )
            for text, answer in ((before[len(written) :], False), (after[len(before) :], True)):
                piece = self._tokens(text, first=not tokens)
                tokens += piece
                learned += self._counted(piece) if answer else [False] * len(piece)
            written = after
        return Coded(np.array(tokens, np.int64), np.array(learned, bool))

    def text(self, text: str) -> Coded:
        """Tokens of a text, all of which but the first are to be predicted."""
        tokens = np.array(self._tokens(text, first=True), np.int64)
        return Coded(tokens, np.ones(len(tokens), bool))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _before(self, messages: Sequence[Message]) -> str:
        """What stands before an answer to these messages."""
        if self.template == "plain":
            return "".join(
                f"{message.text}{self._end() if message.role == 'assistant' else ''}\n"
                for message in messages
            )
        return self._templated(messages, True)

    def _after(self, messages: Sequence[Message]) -> str:
        """The messages, the last of which is an answer, with its end."""
        if self.template == "plain":
            return f"{self._before(messages[:-1])}{messages[-1].text}{self._end()}"
        return self._templated(messages, False)

    def _end(self) -> str:
        return str(self.tokenizer.eos_token or "")

    def _end_of_turn(self) -> set[int]:
        """The special token that the chat template writes right behind an answer, if it does."""
        if self.template == "plain":
            return set()
        question, answer = Message("user", "a"), Message("assistant", "b")
        try:
            before, after = self._before([question]), self._after([question, answer])
        except InputError:  # which the dialogues raise as well, unless they are of another kind
            return set()
        behind = after.removeprefix(before).lstrip().removeprefix(answer.text)
        first = self._tokens(behind.lstrip(), first=False)[:1]
        added = self.tokenizer.added_tokens_decoder
        return {token for token in first if token in added and added[token].special}

    def _templated(self, messages: Sequence[Message], answers_next: bool) -> str:
        told = [{"role": message.role, "content": message.text} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                told, tokenize=False, add_generation_prompt=answers_next
            )
        except Exception as error:  # a template may do and raise anything
            raise InputError(
                f"the model's chat template cannot write these messages ({reason(error)}); {_PLAIN}"
            ) from None
        return str(text)

    def _tokens(self, text: str, *, first: bool) -> list[int]:
        """first: whether the tokens with which a text begins are added, where the template does
        not write them.
        """
        special = first and self.template == "plain"
        tokens = list(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
        added = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        if special and added and not text.endswith(self._end()):
            tokens.pop()  # some tokenizers end every text
        return tokens

    def _counted(self, piece: list[int]) -> list[bool]:
        """Which tokens of an answer are learned: not what a template writes behind its end."""
        end = end_of(piece, self.ends)
        return [k <= end for k in range(len(piece))]


def batch_of(rows: Sequence[Coded], *, packed: bool, padding: int) -> Batch:
    """A batch: tokens, positions, targets (the next token where it counts) and owner (the row of
    each token), int64 (B', N), padded on the right.

    packed: several rows in one sequence of the length of the longest, so that B' <= B; the
    positions of each begin at 0. Otherwise B' = B.
    """
    longest = max(len(row) for row in rows)
    bins = _bins([len(row) for row in rows], longest) if packed else [[k] for k in range(len(rows))]
    shape = (len(bins), longest)
    tokens, targets = torch.full(shape, padding), torch.full(shape, IGNORED)
    positions, owner = torch.arange(longest).repeat(len(bins), 1), torch.full(shape, NOBODY)
    for line, members in enumerate(bins):
        place = 0
        for k in members:
            row, end = rows[k], place + len(rows[k])
            tokens[line, place:end] = torch.from_numpy(row.tokens)
            positions[line, place:end] = torch.arange(len(row))
            owner[line, place:end] = k
            following = torch.from_numpy(np.where(row.learned, row.tokens, IGNORED)[1:])
            targets[line, place : end - 1] = following
            place = end
        if packed:  # padding is a text of its own
            positions[line, place:] = torch.arange(longest - place)
    return {"tokens": tokens, "positions": positions, "targets": targets, "owner": owner}


def _bins(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Rows put together, the largest first, each where it fits first."""
    bins, left = list[list[int]](), list[int]()
    for row in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        place = next((k for k, free in enumerate(left) if free >= sizes[row]), len(bins))
        if place == len(bins):
            bins.append([])
            left.append(room)
        bins[place].append(row)
        left[place] -= sizes[row]
    return bins


def columns_of(targets: Tensor) -> Tensor:
    """The columns in which the loss of any row counts, int64 (C,)."""
    return (targets != IGNORED).any(0).nonzero()[:, 0]
