"""Static queries and keys: scores from the tokens before any layer, values from the current tokens.

Shapes: B batch, N tokens, D width, H heads, d = D / H.

    out = W_o softmax((W_q t)(W_k t)^T / sqrt(d)) W_v x,   t: the embedded tokens
"""

from typing import ClassVar, Literal

from torch import Tensor, nn

from ....kernels.forms import Form
from ..base import (
    Attention,
    attend,
    causal_mask,
    join_heads,
    joint_mask,
    masked_softmax,
    remembered_mask,
    split_heads,
    spread_mask,
)
from ..cache import Cache
from ..positions import rotary_pair


class StaticAttention(Attention):
    """Queries, keys or both from the embeddings: StaticEmbQK (arXiv 2510.11602, table 1).

    Cost: O(N^2 D) time, O(N D) memory with a fused kernel. Who attends to whom is known before the
    layers below have run.

    width: D; heads: H; static: which side comes from t, "both" (the paper), "queries" or "keys";
    positions: "rotary" turns queries and keys by their position; causal: token i sees tokens up to
    i. Without `static` tokens x takes their place, and this is softmax attention.
    """

    masks: ClassVar[tuple[str, ...]] = ("keys", "pairs", "heads")
    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("static", "cache")
    variants: ClassVar[tuple[dict, ...]] = (
        {"causal": True},
        {"static": "queries"},
        {"static": "keys", "positions": "rotary"},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        static: Literal["both", "queries", "keys"] = "both",
        positions: Literal["none", "rotary"] = "none",
        causal: bool = False,
    ) -> None:
        super().__init__(width, heads)
        if static not in ("both", "queries", "keys"):
            raise ValueError(
                f"StaticAttention: static must be 'both', 'queries' or 'keys', got {static!r}"
            )
        if positions not in ("none", "rotary") or (positions == "rotary" and width // heads % 2):
            raise ValueError(
                "StaticAttention: positions must be 'none' or, for heads of even width, 'rotary'"
            )
        self.static = static
        self.rotary = positions == "rotary"
        self.causal = causal
        # A permutation of x, without t, would move the values away from their scores.
        self.equivariant = False
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def sides(
        self, x: Tensor, static: Tensor | None, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, H, N, d)."""
        if static is None:
            static = x
        if static.shape[1:] != x.shape[1:] or static.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"StaticAttention: static must be {tuple(x.shape)}, got {tuple(static.shape)}"
            )
        query = split_heads(self.query(x if self.static == "keys" else static), self.heads)
        key = split_heads(self.key(x if self.static == "queries" else static), self.heads)
        if self.rotary:
            query, key = rotary_pair(query, key, cache)
        return query.expand(x.shape[0], -1, -1, -1), key.expand(x.shape[0], -1, -1, -1)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        static: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D); static: (B or 1, N, D), the tokens before any layer, by
        default x.

        mask: bool, True = may attend: (B, N), (B, N, N), or (B, H, N, N); cache: of earlier tokens,
        see `Cache`. A token that may attend to nothing receives 0 before the last layer. Raises
        ValueError if mask, cache, widths or static do not fit, and for a context.
        """
        self.check(x, context, mask, cache)
        query, key = self.sides(x, static, cache)
        value = split_heads(self.value(x), self.heads)
        if cache is not None:
            key, value = cache.extended("key", key), cache.extended("value", value)
        allowed = remembered_mask(cache, x, mask)
        return self.out(join_heads(attend(query, key, value, allowed, causal=self.causal)))

    def forms(self, x: Tensor) -> list[Form]:
        return [Form("PyTorch's fused operator")]

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Tensor:
        """Attention weights (B, H, N, N); a token that may attend to nothing has a row of 0."""
        self.check(x, context, mask)
        query, key = self.sides(x, static)
        allowed = spread_mask(mask)
        if self.causal:
            allowed = joint_mask(allowed, causal_mask(x.shape[1], x.shape[1], x.device))
        return masked_softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, allowed)
