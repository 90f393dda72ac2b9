"""Modules that learn something about a language model that does not change.

Shapes: B rows, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from .supported import attention_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FrozenBase(nn.Module):
    """A module over a frozen model: its state holds only what is learned.

    model: gets no gradients from here on, is in evaluation mode, and follows this module to other
    devices and types. Raises ValueError for a model whose attention is not served, see
    `attention_layers`.
    """

    base: PreTrainedModel

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        attention_layers(model)  # refuses, in a line, attention of another kind
        model.requires_grad_(False)
        model.eval()
        # Past nn.Module, so that the model is neither a part of the state nor among the parameters.
        object.__setattr__(self, "base", model)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.base._apply(fn)
        return super()._apply(fn, recurse)


def check_batch(ids: Tensor, mask: Tensor, answer: Tensor) -> None:
    """Raises ValueError unless ids is int64 (B, N), mask and answer are bool of its shape, answers
    lie on tokens, and each row has an answer and a token before it.
    """
    if ids.ndim != 2 or ids.dtype != torch.int64 or not len(ids):
        raise ValueError(f"tokens must be int64 (rows, tokens), got {ids.dtype} {tuple(ids.shape)}")
    for name, values in (("mask", mask), ("answer", answer)):
        if values.shape != ids.shape or values.dtype != torch.bool:
            raise ValueError(
                f"{name} must be bool {tuple(ids.shape)}, got {values.dtype} {tuple(values.shape)}"
            )
    if bool((answer & ~mask).any()):
        raise ValueError("an answer token lies on padding")
    if not bool(answer.any(1).all()):
        raise ValueError("each row needs an answer token")
    if not bool(prompt_of(mask, answer).any(1).all()):
        raise ValueError("each row needs a token before its answer")


def prompt_of(mask: Tensor, answer: Tensor) -> Tensor:
    """The tokens before the first answer token of their row, bool (B, N)."""
    return mask & (answer.long().cumsum(1) == 0)


def mean_by_row(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values of each row (B, N), then over rows: a tensor without dimensions."""
    by_row = torch.where(chosen, values, 0).sum(1) / chosen.sum(1).clamp_min(1)
    return by_row.mean()
