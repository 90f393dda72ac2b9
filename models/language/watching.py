"""Reads attention of a Hugging Face model layer by layer while it runs, without keeping any map.

Shapes: B rows of a batch, T tokens, S keys (T without a cache), H query heads, K heads of keys, d
width of a head. Query head h reads the keys of head h K // H.

transformers calls a registered function for each layer. Ours computes the output as its own `sdpa`
does and hands queries and keys to whoever watches. So the maps of one layer exist at a time, and of
these only the rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ...kernels.attention_stats import attention_stats

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "headwise_watched"
REFUSED = {"softcap": "a soft cap of the scores", "s_aux": "sinks that are weights"}


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
    K, S, d'); mask: bool (B, 1 or H, T, S), True = may attend, or None: causal; scale: of the
    scores.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float

    def allowed(self) -> Tensor:
        """Which keys each token may attend to: bool, broadcasts to (B, 1, T, S)."""
        if self.mask is not None:
            return self.mask[:, :1]
        queries, keys = self.query.shape[2], self.key.shape[2]
        pairs = torch.ones(queries, keys, dtype=torch.bool, device=self.key.device)
        return pairs.tril(keys - queries)[None, None]

    def rows(self, places: Tensor) -> Tensor:
        """Attention of some tokens: places int64 (B, R), other ones in each row of the batch ->
        float32 (B, H, R, S); 0 for a token that may attend to nothing.
        """
        count, heads = places.shape[1], self.query.shape[1]
        chosen = places[:, None, :, None]
        query = self.query.gather(2, chosen.expand(-1, heads, -1, self.query.shape[-1])).float()
        key = self.key.float().repeat_interleave(heads // self.key.shape[1], 1)
        scores = query @ key.mT * self.scale
        allowed = self.allowed().expand(len(places), -1, -1, -1)
        allowed = allowed.gather(2, chosen.expand(-1, 1, -1, allowed.shape[-1]))
        assert scores.shape[2] == count
        scores = scores.masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1).nan_to_num(0.0)

    def key_masses(self, present: Tensor) -> KeyMasses:
        """How much attention each key draws; present: bool (B, T), False = padding. Without a cache
        of earlier tokens.
        """
        allowed = self.allowed()[:, 0] & present[:, :, None]
        later = allowed.float().tril(-1)
        count = later.sum(1)
        read = attention_stats(
            self.query,
            self.key,
            mask=self.mask,
            causal=self.mask is None,
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


Watcher = Callable[[WatchedLayer], None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(model: PreTrainedModel, watcher: Watcher) -> Iterator[None]:
    """Call `watcher` with each layer's attention while `model` runs inside the context.

    Only this model is touched; its attention implementation is as before afterwards. Its outputs
    are those of `sdpa`. Raises ValueError where the model's attention cannot be computed so.
    """
    refuse_unwatchable(model)
    _register()
    before = model.config._attn_implementation
    token = _WATCHER.set(watcher)
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        _WATCHER.reset(token)
        model.set_attn_implementation(before)


def refuse_unwatchable(model: PreTrainedModel) -> None:
    """Raise ValueError, in a line, for a model whose attention is of another kind."""
    config, name = model.config.get_text_config(), type(model).__name__
    if config.is_encoder_decoder:
        raise ValueError(f"{name}: is an encoder with a decoder; give a model that only decodes")
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise ValueError(f"{name}: caps its scores (softcap), which cannot be watched")
    if not model._can_set_attn_implementation():
        raise ValueError(f"{name}: its attention cannot be exchanged in transformers")


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder, first to last. Raises ValueError where there is no such list."""
    count = model.config.get_text_config().num_hidden_layers
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(_has_attention(layer) for layer in module)
    ]
    if len(lists) != 1:
        raise ValueError(f"{type(model).__name__}: has no list of {count} layers with attention")
    return lists[0]


def _has_attention(layer: nn.Module) -> bool:
    return any(
        hasattr(part, "layer_idx") and hasattr(part, "is_causal") for part in layer.modules()
    )


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

    if NAME not in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys():
        AttentionInterface.register(NAME, _attend)
        # Without a mask of its own padding would be attended to.
        AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """The attention function of transformers: output (B, T, H, d'), no weights."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    for name, what in REFUSED.items():
        if options.get(name) is not None:
            raise ValueError(f"{type(module).__name__}: has {what}, which cannot be watched")
    watcher = _WATCHER.get()
    if watcher is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int):
            raise ValueError(f"{type(module).__name__}: does not know its layer")
        watcher(WatchedLayer(layer, query, key, value, attention_mask, scale))
    return sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=scaling,
        **options,  # pyright: ignore[reportArgumentType]
    )
