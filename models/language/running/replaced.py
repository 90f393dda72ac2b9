"""The attention of one language model replaced for a while, by the interface that transformers has
for it.

Shapes: B rows, H heads, KV key-value heads, T queries, S keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .implementation import layer_of, using_attention
from .supported import attention_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AttentionOfLayer(Protocol):
    """What takes the place of the attention of every layer."""

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
    ) -> Tensor:
        """query (B, H, T, d) and key (B, KV, S, d) after the positions are applied, value as key;
        allowed: bool (B, 1, T, S), no later key, no padding, within the layer's window if it has
        one. Returns (B, H, T, d).
        """
        ...


@contextmanager
def replaced_attention(model: PreTrainedModel, attention: AttentionOfLayer) -> Iterator[None]:
    """A block in which `attention` stands for the attention of all layers of a model.

    Another model is not affected, see `using_attention`. Blocks may be nested. Raises ValueError,
    in a line, for a model whose attention is of another kind, see `attention_layers`.
    """
    with using_attention(model, attention_layers(model), partial(_replaced, attention)):
        yield


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float) -> Tensor:
    """Softmax attention of queries (B, H, T, d) to keys (B, KV, S, d), each key-value head shared
    by H / KV heads in a row; allowed: bool (B, 1 or KV, T, S). Returns (B, H, T, d).
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if allowed.shape[1] > 1:
        allowed = allowed.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scale)


def positions_of(mask: Tensor) -> Tensor:
    """Position (B, N) of each token among the tokens of its row, from 0; of padding, any."""
    return (mask.long().cumsum(1) - 1).clamp_min(0)


def _replaced(
    attention: AttentionOfLayer,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """See `Attending`."""
    if mask is None:  # the function could not tell later keys from earlier ones
        size = (query.shape[2], key.shape[2])
        mask = torch.ones(size, dtype=torch.bool, device=query.device).tril(size[1] - size[0])
        mask = mask.expand(len(query), 1, *size)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attention(layer_of(module), query, key, value, mask, scale)
    return out.transpose(1, 2).contiguous()


def plain_attention(
    layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
) -> Tensor:
    """Attention to all that is allowed, as of the model itself: an `AttentionOfLayer`."""
    return attend(query, key, value, allowed, scale)
