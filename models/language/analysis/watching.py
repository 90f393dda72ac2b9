"""Reads attention of a Hugging Face model layer by layer while it runs, without keeping any map.

Shapes: B rows of a batch, T tokens, S keys (T without a cache), H query heads, K heads of keys, d
width of a head. Query head h reads the keys of head h K // H.

The output of each layer is computed as ever, and its queries and keys are shown to whoever watches.
So the maps of one layer exist at a time, and of these only the rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ....kernels.attention_stats import attention_stats
from ..running.replaced import attend, replaced_attention
from ..running.supported import attention_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class KeyMasses(NamedTuple):
    """What keys draw, float32 (B, T). Rows of attention sum to 1, so mass times later and itself,
    summed over the keys, are the number of tokens.

    mass: attention from later tokens, mean over those that may attend to the key and over heads,
    nan where there is none; uniform: the same if they attended to all their keys alike; later: how
    many tokens that is; itself: what a token gives to itself, mean over heads.
    """

    mass: Tensor
    uniform: Tensor
    later: Tensor
    itself: Tensor


@dataclass(frozen=True)
class WatchedLayer:
    """What the attention of a layer works with.

    layer: from 0; query: (B, H, T, d) and key: (B, K, S, d), turned by their positions; value: (B,
    K, S, d'); allowed: bool (B, 1, T, S), which keys a token may attend to; scale: of the scores.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    allowed: Tensor
    scale: float

    def rows(self, places: Tensor) -> Tensor:
        """Attention of some tokens: places int64 (B, R), other ones in each row of the batch ->
        float32 (B, H, R, S); 0 for a token that may attend to nothing.
        """
        heads = self.query.shape[1]
        chosen = places[:, None, :, None]
        query = self.query.gather(2, chosen.expand(-1, heads, -1, self.query.shape[-1])).float()
        key = self.key.float().repeat_interleave(heads // self.key.shape[1], 1)
        scores = query @ key.mT * self.scale
        allowed = self.allowed.expand(len(places), -1, -1, -1)
        allowed = allowed.gather(2, chosen.expand(-1, 1, -1, allowed.shape[-1]))
        scores = scores.masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1).nan_to_num(0.0)

    def key_masses(self, present: Tensor) -> KeyMasses:
        """How much attention each key draws; present: bool (B, T), False = padding. Without a cache
        of earlier tokens.
        """
        allowed = self.allowed[:, 0] & present[:, :, None]
        later = allowed.float().tril(-1)
        count = later.sum(1)
        read = attention_stats(
            self.query,
            self.key,
            mask=self.allowed,
            scale=self.scale,
            want=("lse", "column_mass"),
            weights=present.to(torch.float32),
        )
        assert read.lse is not None
        assert read.column_mass is not None
        key = self.key.repeat_interleave(self.query.shape[1] // self.key.shape[1], 1)
        scores = (self.query.float() * key.float()).sum(-1) * self.scale
        can_itself = allowed.diagonal(dim1=1, dim2=2)[:, None]
        itself = torch.where(can_itself, (scores - read.lse.float()).exp(), 0.0).mean(1)
        total = (read.column_mass.float().mean(1) - itself).clamp(min=0.0)
        even = (later / allowed.sum(2, keepdim=True).clamp(min=1)).sum(1)
        divisor = torch.where(count > 0, count, torch.nan)
        return KeyMasses(total / divisor, even / divisor, count, itself)


@contextmanager
def watched(model: PreTrainedModel, watcher: Callable[[WatchedLayer], None]) -> Iterator[None]:
    """Call `watcher` with the attention of each layer while `model` runs inside the context.

    Only this model is touched, and its attention is as before afterwards. Raises ValueError, in a
    line, for a model whose attention is of another kind.
    """

    def attention(
        layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
    ) -> Tensor:
        watcher(WatchedLayer(layer, query, key, value, allowed, scale))
        return attend(query, key, value, allowed, scale)

    attention_layers(model)  # refuses what cannot be computed so
    with replaced_attention(model, attention):
        yield


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder, first to last. Raises ValueError where there is no such list."""
    attentions = attention_layers(model)
    for modules in model.modules():
        if isinstance(modules, nn.ModuleList) and len(modules) == len(attentions):
            pairs = zip(modules, attentions, strict=True)
            if all(attention in set(layer.modules()) for layer, attention in pairs):
                return modules
    raise ValueError(f"{type(model).__name__}: has no list of its {len(attentions)} layers")
