"""The attention of one language model replaced for a while, by the interface that transformers has
for it.

Shapes: B rows, H heads, KV key-value heads, T queries, S keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import torch.nn.functional as F
from torch import Tensor, nn

from .implementation import using_attention
from .supported import attention_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "headwise_replaced"


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


# By attention module, so that nothing is written on the modules of somebody's model.
_ACTIVE: WeakKeyDictionary[nn.Module, AttentionOfLayer] = WeakKeyDictionary()


@contextmanager
def replaced_attention(model: PreTrainedModel, attention: AttentionOfLayer) -> Iterator[None]:
    """A block in which `attention` stands for the attention of all layers of a model.

    One function is registered under a name of this package, once; no entry of transformers'
    registries changes, and another model is not affected, see `using_attention`. Blocks may be
    nested. Raises ValueError, in a line, for a model whose attention is of
    another kind, see `attention_layers`.
    """
    _register()
    modules = attention_layers(model)
    past = {module: _ACTIVE[module] for module in modules if module in _ACTIVE}
    with using_attention(model, NAME):
        _ACTIVE.update(dict.fromkeys(modules, attention))
        try:
            yield
        finally:
            for module in modules:
                del _ACTIVE[module]
            _ACTIVE.update(past)


def layer_of(module: nn.Module) -> int:
    """The number of an attention module's layer, from 0."""
    layer = module.layer_idx
    assert isinstance(layer, int)
    return layer


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


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def mask_of(*args: object, **options: object) -> Tensor | None:
        # Without a mask the function could not tell later keys from earlier ones.
        return sdpa_mask(*args, **{**options, "allow_is_causal_skip": False})  # pyright: ignore

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, mask_of)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: object,
) -> tuple[Tensor, None]:
    """What transformers calls: the function of this module's model."""
    assert attention_mask is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _ACTIVE[module](layer_of(module), query, key, value, attention_mask, scale)
    return out.transpose(1, 2).contiguous(), None


def plain_attention(
    layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
) -> Tensor:
    """Attention to all that is allowed, as of the model itself: an `AttentionOfLayer`."""
    return attend(query, key, value, allowed, scale)
