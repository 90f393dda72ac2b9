"""Multi-head softmax attention on PyTorch's fused operator: the reference for all other mechanisms.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, K heads of keys and values, d
= D / H.
"""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...kernels.attention_stats import AttentionStats, attention_stats
from ...kernels.checks import check_offsets
from ...kernels.forms import Form
from ..checks import check_dropout, check_not_negative
from .base import (
    Attention,
    attend,
    causal_mask,
    join_heads,
    joint_mask,
    leave_loss,
    masked_softmax,
    remembered_mask,
    split_heads,
    split_pair,
    spread_mask,
)
from .cache import Cache
from .diversification import diversification_loss
from .positions import rotary_pair


class SoftmaxAttention(Attention):
    """Multi-head attention, out = W_o softmax(q k^T / sqrt(d)) v (Vaswani et al., arXiv 1706.03762,
    equation 1).

    Cost: O(N M D) time, O((N + M) D) memory with a fused kernel.

    width: D; heads: H, must divide D; kv_heads: K, must divide H, by default H; with fewer, groups
    of heads share keys and values (Ainslie et al., arXiv 2305.13245); positions: "rotary" turns
    queries and keys by their position (Su et al., arXiv 2104.09864), "none" ignores the order of
    tokens; causal: token i sees tokens up to i; with a context, the last token is at its last
    token, for the positions, too; dropout: of the weights, in training; diversify: weight of the
    diversification loss (Guo et al., ICCV 2023), which training leaves in `auxiliary`.
    """

    masks: ClassVar[tuple[str, ...]] = ("keys", "pairs", "heads")
    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"kv_heads": 2},
        {"positions": "rotary"},
        {"causal": True},
        {"kv_heads": 1, "positions": "rotary", "causal": True},
        {"kv_heads": 2, "diversify": 0.5},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        kv_heads: int | None = None,
        positions: Literal["none", "rotary"] = "none",
        causal: bool = False,
        dropout: float = 0.0,
        diversify: float = 0.0,
    ) -> None:
        super().__init__(width, heads)
        kv_heads = heads if kv_heads is None else kv_heads
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"SoftmaxAttention: kv_heads {kv_heads} must divide heads {heads}")
        if positions not in ("none", "rotary"):
            raise ValueError(
                f"SoftmaxAttention: positions must be 'none' or 'rotary', got {positions!r}"
            )
        if positions == "rotary" and width // heads % 2:
            raise ValueError(
                f"SoftmaxAttention: rotary positions need heads of even width, got {width // heads}"
            )
        self.kv_heads = kv_heads
        self.rotary = positions == "rotary"
        self.causal = causal
        self.equivariant = not (causal or self.rotary)
        check_dropout(type(self).__name__, dropout)
        check_not_negative(type(self).__name__, "diversify", diversify)
        self.dropout = dropout
        self.diversify = diversify
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * kv_heads * (width // heads))
        self.out = nn.Linear(width, width)

    def project(
        self, x: Tensor, source: Tensor, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, N, d), keys and values (B, K, M, d), with a cache those of all tokens so
        far; turned by position if rotary.
        """
        query = split_heads(self.query(x), self.heads)
        key, value = self.keys_values(source)
        if self.rotary:
            query, key = rotary_pair(query, key, cache)
        if cache is not None:
            key, value = cache.extended("key", key), cache.extended("value", value)
        return query, key, value

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, M, d), not turned: what a decoder stores of earlier tokens."""
        return split_pair(self.key_value(source), self.kv_heads)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x -> (B, N, D).

        mask: bool, True = may attend: (B, M) over the context, (B, N, M), or (B, H, N, M); cache:
        of earlier tokens, see `Cache`. A token that may attend to nothing receives 0 before the
        last layer.

        Raises ValueError if mask, cache or widths do not fit.
        """
        query, key, value = self.project(x, self.check(x, context, mask, cache), cache)
        allowed = remembered_mask(cache, x, mask)
        dropout = self.dropout if self.training else 0.0
        if self.diversify:
            # Without a context, a mask of keys tells which tokens are padding; these are not
            # queries either.
            queries = mask if context is None and mask is not None and mask.ndim == 2 else None
            loss = self._diversification(query, key, allowed, queries) if self.training else None
            leave_loss(self, loss)
        mixed = attend(query, key, value, allowed, causal=self.causal, dropout=dropout)
        return self.out(join_heads(mixed))

    def _diversification(
        self, query: Tensor, key: Tensor, allowed: Tensor | None, queries: Tensor | None
    ) -> Tensor:
        loss = diversification_loss(query, key, mask=allowed, queries=queries, causal=self.causal)
        return self.diversify * loss

    def readouts(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        want: Sequence[str] = ("lse",),
        **options: Any,
    ) -> AttentionStats:
        """Read-outs of the attention without its matrix: x, context and mask as in `forward`.

        want: names of the read-outs of `kernels.attention_stats`, and "output" for the outputs of
        the heads (B, H, N, d) in the same pass; options: keys, k, row, rows, weights of that
        function.

        Raises ValueError if mask, widths or names do not fit.
        """
        query, key, value = self.project(x, self.check(x, context, mask))
        rest: Any = [name for name in want if name != "output"]
        value = value if "output" in want else None
        return attention_stats(
            query, key, value, mask=mask, causal=self.causal, want=rest, **options
        )

    def packed(
        self,
        x: Tensor,
        offsets: Tensor,
        context: Tensor | None = None,
        context_offsets: Tensor | None = None,
    ) -> Tensor:
        """Ragged sequences without padding: concatenated in x (T, D), sequence b at offsets[b] to
        offsets[b + 1], int64 (B + 1,).

        context (U, D) with context_offsets (B + 1,): what each sequence attends to, by default
        itself; an empty context gives 0 before the last layer. Returns (T, D). Each sequence is one
        call of the fused operator.

        Raises ValueError if shapes do not fit, and for offsets that descend, leave the tokens or,
        of x, leave some out.
        """
        source, ends = (x, offsets) if context is None else (context, context_offsets)
        if ends is None or ends.shape != offsets.shape or x.ndim != 2 or source.ndim != 2:
            raise ValueError(
                "SoftmaxAttention: packed needs (tokens, width) and offsets of one length for both "
                "sides"
            )
        for places, rows in ((offsets, x), (ends, source)):
            check_offsets("SoftmaxAttention.packed", places, len(rows), "tokens")
        if offsets[0] != 0 or offsets[-1] != len(x):
            raise ValueError(
                f"SoftmaxAttention.packed: offsets must begin at 0 and end at {len(x)}, the number "
                "of tokens of x"
            )
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]
        pair = self.key_value(source).unflatten(-1, (2, self.kv_heads, -1)).permute(1, 2, 0, 3)
        key, value = pair[0][None], pair[1][None]
        mixed = []
        spans = zip(itertools.pairwise(offsets.tolist()), itertools.pairwise(ends.tolist()))
        for (first, last), (begin, end) in spans:
            q, k, v = query[:, :, first:last], key[:, :, begin:end], value[:, :, begin:end]
            if self.rotary:
                q, k = rotary_pair(q, k)
            mixed.append(
                attend(q, k, v, causal=self.causal) if end > begin else torch.zeros_like(q)
            )
        return self.out(join_heads(torch.cat(mixed, 2))[0]) if mixed else self.out(x)

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights (B, H, N, M); a token that may attend to nothing has a row of 0."""
        query, key, _ = self.project(x, self.check(x, context, mask))
        key = key.repeat_interleave(self.heads // self.kv_heads, 1)
        allowed = spread_mask(mask)
        if self.causal:
            allowed = joint_mask(allowed, causal_mask(query.shape[2], key.shape[2], x.device))
        return masked_softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, allowed)

    def forms(self, x: Tensor) -> list[Form]:
        """PyTorch chooses among its backends: see `torch.nn.attention.sdpa_kernel`."""
        half = x.dtype in (torch.float16, torch.bfloat16)
        flash = "" if x.is_cuda and half else "needs CUDA and half precision"
        return [
            Form("PyTorch's fused operator, flash or cuDNN backend", flash),
            Form(
                "PyTorch's fused operator, "
                + ("memory-efficient backend" if x.is_cuda else "CPU flash backend")
            ),
        ]
