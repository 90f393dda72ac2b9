"""Attention experts, soft routed: several attention layers, whose outputs each token weights.

Shapes: B batch, N tokens, M tokens of the context, D width, E experts, H heads of one, K heads of
keys and values of one, d = D / H.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..attention.base import Attention, attend, join_heads, remembered_mask, split_heads, split_pair
from ..attention.cache import Cache
from ..attention.positions import rotary_pair
from ..attention.softmax import SoftmaxAttention


class AttentionExperts(Attention):
    """out = sum_e g_e(x) attention_e(x), g = softmax(W x) (Branch-Attend-Mix, Zhang et al., arXiv
    2408.08274).

    Each token uses all experts, so that nothing is gathered: the heads of all experts are together
    in one call of the fused operator, and the gates multiply their outputs before one last product.
    Copies of one attention are that attention, whatever the router says.

    Cost: E times that of softmax attention between tokens; O((N + M) D E) memory.

    width: D; heads: H of each expert; experts: E; kv_heads: K, by default H; shared: all experts
    share one set of keys and values, as in the paper's second variant, and are then grouped
    queries; positions, causal: as in softmax attention; bias: of the projections.
    """

    masks: ClassVar[tuple[str, ...]] = ("keys", "pairs", "heads")
    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"shared": True},
        {"experts": 3, "kv_heads": 2, "causal": True},
        {"shared": True, "positions": "rotary"},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        experts: int = 2,
        kv_heads: int | None = None,
        shared: bool = False,
        positions: Literal["none", "rotary"] = "none",
        causal: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(width, heads)
        kv_heads = heads if kv_heads is None else kv_heads
        if experts < 1 or kv_heads < 1 or heads % kv_heads:
            raise ValueError(
                f"AttentionExperts: kv_heads {kv_heads} must divide heads {heads}; "
                f"got {experts} experts"
            )
        if positions not in ("none", "rotary") or (positions == "rotary" and width // heads % 2):
            raise ValueError(
                f"AttentionExperts: no positions {positions!r} for heads of {width // heads}"
            )
        self.experts, self.kv_heads, self.shared = experts, kv_heads, shared
        self.rotary, self.causal = positions == "rotary", causal
        self.equivariant = not (causal or self.rotary)
        self.gate = nn.Linear(width, experts, bias=False)
        self.query = nn.Linear(width, experts * width, bias=bias)
        sets = 1 if shared else experts
        self.key_value = nn.Linear(width, 2 * sets * kv_heads * (width // heads), bias=bias)
        self.out = nn.Linear(experts * width, width, bias=False)
        self.out_bias = nn.Parameter(torch.zeros(experts, width)) if bias else None

    @classmethod
    @torch.no_grad()
    def assemble(
        cls, layers: Sequence[SoftmaxAttention], *, shared: bool = False
    ) -> "AttentionExperts":
        """Trained attentions of one shape as experts, with a new router.

        shared: the experts share the mean of their keys and values.

        Raises ValueError without layers or if they differ.
        """
        kinds = {(m.width, m.heads, m.kv_heads, m.rotary, m.causal) for m in layers}
        if len(kinds) != 1:
            raise ValueError(
                "AttentionExperts: needs attentions of one shape, "
                f"got {sorted(map(str, kinds)) or 'none'}"
            )
        first = layers[0]
        layer = cls(
            first.width,
            heads=first.heads,
            experts=len(layers),
            kv_heads=first.kv_heads,
            shared=shared,
            positions="rotary" if first.rotary else "none",
            causal=first.causal,
        ).to(first.out.weight)
        layer.query.weight.copy_(torch.cat([m.query.weight for m in layers]))
        layer.query.bias.copy_(torch.cat([m.query.bias for m in layers]))
        for name in ("weight", "bias"):
            pairs = torch.stack(
                [getattr(m.key_value, name).unflatten(0, (2, -1)) for m in layers], 1
            )
            pairs = pairs.mean(1, keepdim=True) if shared else pairs  # (2, sets, K d, ...)
            getattr(layer.key_value, name).copy_(pairs.flatten(0, 2))
        layer.out.weight.copy_(torch.cat([m.out.weight for m in layers], 1))
        assert layer.out_bias is not None
        layer.out_bias.copy_(torch.stack([m.out.bias for m in layers]))
        return layer.train(first.training)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x; mask and cache as in `SoftmaxAttention`
        -> (B, N, D).

        Raises ValueError if mask, cache or widths do not fit.
        """
        source = self.check(x, context, mask, cache)
        query = split_heads(self.query(x), self.experts * self.heads)
        sets = (1 if self.shared else self.experts) * self.kv_heads
        key, value = split_pair(self.key_value(source), sets)
        if self.rotary:
            query, key = rotary_pair(query, key, cache)
        if cache is not None:
            key, value = cache.extended("key", key), cache.extended("value", value)
        if self.shared and self.experts > 1:
            # Heads of all experts that read one set of keys are next to each other.
            query = (
                query.unflatten(1, (self.experts, self.kv_heads, -1)).transpose(1, 2).flatten(1, 3)
            )
        allowed = remembered_mask(cache, x, mask)
        if allowed is not None and allowed.shape[1] > 1:
            allowed = self._mask_of_experts(allowed)
        mixed = attend(query, key, value, allowed, causal=self.causal)
        if self.shared and self.experts > 1:
            mixed = (
                mixed.unflatten(1, (self.kv_heads, self.experts, -1)).transpose(1, 2).flatten(1, 3)
            )
        gate = self.gate(x).softmax(-1)
        gate_of_heads = gate.transpose(1, 2)[:, :, None, :, None].to(mixed)
        gated = mixed.unflatten(1, (self.experts, self.heads)) * gate_of_heads
        out = self.out(join_heads(gated.flatten(1, 2)))
        if self.out_bias is None:
            return out
        return out + gate.to(out.dtype) @ self.out_bias.to(out.dtype)

    def _mask_of_experts(self, mask: Tensor) -> Tensor:
        """A mask of heads (B, H, N, M) for the heads of all experts, in the order of the
        queries.
        """
        masks = mask[:, None].expand(-1, self.experts, -1, -1, -1)
        if self.shared and self.experts > 1:
            masks = masks.unflatten(2, (self.kv_heads, -1)).transpose(1, 2).flatten(2, 3)
        return masks.flatten(1, 2)
