"""Few queries: learned queries that pool a bag of any length, and tokens that exchange information
through them.

Shapes: B batch, N tokens, M rows of the bag (tokens of the context), D width, H heads, d = D / H, Q
learned queries.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ...kernels.softmax_pool import softmax_pool
from .base import Attention, attend, join_heads, split_heads, split_pair


class QueryPool(nn.Module):
    """Q learned queries attend to the rows of a bag: pooling by multi-head attention (PMA of arXiv
    1810.00825).

        scores[m, h, q] = (W_k c_m)_h . s_q,h / sqrt(d)
        out[q] = W_o [sum_m softmax_m(scores)[m, h, q] (W_v c_m)_h]_h

    Cost: O(M Q D), linear in the rows; only values and M H Q scores are held. The queries are
    folded into the key layer, so that keys of width D never exist: scores = c (W_k^T s). Bags are
    padded (mask) or packed (offsets). A bag without rows gives the bias of the output layer.

    width: D; queries: Q; heads: H, must divide D. The key layer has no bias, because it would shift
    all scores of a query equally, which the softmax does not see.
    """

    def __init__(self, width: int, *, queries: int = 1, heads: int = 4) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads or queries < 1:
            raise ValueError(
                "QueryPool: needs heads that divide width and a query, "
                f"got {width}, {heads}, {queries}"
            )
        self.width, self.queries, self.heads = width, queries, heads
        self.seeds = nn.Parameter(torch.randn(queries, width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def scores(self, rows: Tensor) -> Tensor:
        """Scores (..., H Q) of rows (..., D): head by head, in each query by query."""
        size = self.width // self.heads
        seeds = self.seeds.view(self.queries, self.heads, size)
        key = self.key.weight.view(self.heads, size, self.width)
        folded = torch.einsum("qhe,hed->hqd", seeds, key).flatten(0, 1) / size**0.5
        return torch.nn.functional.linear(rows, folded)

    def forward(
        self, rows: Tensor, *, mask: Tensor | None = None, offsets: Tensor | None = None
    ) -> Tensor:
        """rows: (B, M, D) with mask bool (B, M), True = a row; or packed (T, D) with offsets int64
        (B + 1,).

        Returns (B, Q, D).

        Raises ValueError if shapes do not fit.
        """
        if rows.shape[-1] != self.width:
            raise ValueError(
                f"QueryPool: needs rows of width {self.width}, got {tuple(rows.shape)}"
            )
        scores, value = self.scores(rows), self.value(rows)
        scores = scores.to(value.dtype)
        size = self.width // self.heads
        parts = [
            softmax_pool(
                scores[..., h * self.queries : (h + 1) * self.queries].contiguous(),
                value[..., h * size : (h + 1) * size].contiguous(),
                per="head",
                mask=mask,
                offsets=offsets,
            )
            for h in range(self.heads)
        ]
        return self.out(torch.cat(parts, -1))


class InducedAttention(Attention):
    """Q learned queries summarise the tokens, and the tokens read the summary (ISAB, arXiv
    1810.00825).

        summary = QueryPool(c) (Q, D);   out = W_o attend(W_q x, W_k summary, W_v summary)

    Cost: O((N + M) Q D), linear in tokens. Both steps are attentions, so the weights are a product
    of rank at most Q.

    width: D; heads: H; queries: Q. Reading: the paper's blocks contain residuals, norms and
    feed-forward layers; here those belong to `EncoderLayer`, and the mechanism is just the two
    attentions.
    """

    variants: ClassVar[tuple[dict, ...]] = ({"queries": 1}, {"queries": 3, "heads": 2})

    def __init__(self, width: int, *, heads: int = 4, queries: int = 16) -> None:
        super().__init__(width, heads)
        self.pool = QueryPool(width, queries=queries, heads=heads)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def _read(self, x: Tensor, summary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = split_heads(self.query(x), self.heads)
        return query, *split_pair(self.key_value(summary), self.heads)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x, mask: bool (B, M) over it -> (B, N, D).

        Raises ValueError if mask or widths do not fit.
        """
        source = self.check(x, context, mask)
        return self.out(join_heads(attend(*self._read(x, self.pool(source, mask=mask)))))

    def packed(self, x: Tensor, context: Tensor, offsets: Tensor) -> Tensor:
        """x: (B, N, D) reads ragged bags, which are concatenated in context (T, D); offsets: int64
        (B + 1,).
        """
        return self.out(join_heads(attend(*self._read(x, self.pool(context, offsets=offsets)))))
