"""Answers of causal language models: their batches, their ends, their losses.

Shapes: B prompts, N tokens of the longest, P places that predict a token of any answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class AnswerLosses(NamedTuple):
    """loss: mean cross entropy of each answer in nats (B,), in float32 at least; right: bool (B,),
    whether each of its tokens is the likeliest one, as greedy decoding would write it.
    """

    loss: Tensor
    right: Tensor


def losses_of_answers(
    model: PreTrainedModel,
    tokens: Tensor,
    present: Tensor,
    answer: Tensor,
    embedded: Tensor | None = None,
) -> AnswerLosses:
    """Read prompts with their answers at once; logits that predict no answer are not computed.

    tokens: int64 (B, N); present: bool (B, N), True = a token, padding at the ends; answer: bool
    (B, N), True for tokens of the answer, at least one a row and none first; embedded: the tokens
    as the model embeds them, where something is derived by them.
    """
    chosen = predicting(answer)
    places = chosen.any(0).nonzero()[:, 0]
    selects = "logits_to_keep" in inspect.signature(model.forward).parameters
    options = {"logits_to_keep": places} if selects else {}
    inputs = {"input_ids": tokens} if embedded is None else {"inputs_embeds": embedded}
    logits = model(**inputs, attention_mask=present.long(), use_cache=False, **options).logits
    logits = logits if selects else logits[:, places]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    expected, chosen = tokens.roll(-1, 1)[:, places], chosen[:, places]
    losses = cross_entropy(logits.mT, expected, reduction="none")
    weights = chosen.to(losses.dtype)
    right = ((logits.argmax(-1) == expected) | ~chosen).all(1)
    return AnswerLosses((losses * weights).sum(1) / weights.sum(1), right)


def predicting(answer: Tensor) -> Tensor:
    """Which tokens predict a token of the answer: bool (..., N) -> the same, one place earlier."""
    return pad(answer[..., 1:], (0, 1))


def left_padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Prompts as a batch that all end together, int64 (B, N), and 1 where a token is, int64 (B, N).

    padding: the token before them; any will do.
    """
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), padding, dtype=torch.int64)
    mask = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return tokens, mask


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's end of a text, and what the model's settings of
    generation name, such as the end of a turn. Numbers that the model has no token for are none.
    """
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ends = configured if isinstance(configured, list) else [configured]
    tokens = range(model.config.get_text_config(decoder=True).vocab_size)
    return frozenset(
        token
        for token in (*ends, tokenizer.eos_token_id)
        if isinstance(token, int) and token in tokens
    )


def padding_token(tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> int:
    """The token that fills a batch up; any will do, since nothing attends to it."""
    token = tokenizer.pad_token_id
    return token if isinstance(token, int) else min(ends, default=0)


def end_of(tokens: Sequence[int], ends: Collection[int]) -> int:
    """The place of the first token that ends an answer; their number where there is none."""
    return next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
