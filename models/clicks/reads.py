"""How the proxies of `infnet` read tokens: its cross-attention, or a mechanism of the core.

Shapes: B rows, Q queries, N tokens, T events of all rows, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.ragged_attention import ragged_attention
from ...kernels.segments import padded
from ..attention import build_attention


@dataclass(frozen=True)
class Reading:
    """How proxies read tokens: heads; uniform: all keys weigh the same, for the ablation without
    cross-attention; attention, options: the paper's softmax, or a mechanism of the core that takes
    a context, with its own projections and output layer behind the queries of each kind.
    """

    heads: int
    uniform: bool = False
    attention: str = "softmax"
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_papers(self) -> bool:
        """Whether it is the paper's cross-attention."""
        return self.attention == "softmax" and not self.options


class Reads(nn.Module):
    """Cross-attention of few queries to one kind of tokens, keys and values made once for all that
    read them.

    kinds: names of the kinds of queries, each with a query layer of its own.
    """

    def __init__(self, width: int, reading: Reading, kinds: Sequence[str]) -> None:
        super().__init__()
        self.heads, self.uniform = reading.heads, reading.uniform
        self.queries = nn.ModuleDict({kind: nn.Linear(width, width, bias=False) for kind in kinds})
        self.keys = self.mixer = None
        if reading.is_papers:
            self.keys = nn.Linear(width, 2 * width, bias=False)
        else:
            self.mixer = build_attention(reading.attention, width, reading.heads, **reading.options)

    def forward(
        self, queries: dict[str, Tensor], tokens: Tensor, offsets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """queries: (B, Q, D) by kind; tokens: (B, N, D), or packed (T, D) with offsets (B + 1,)."""
        sizes = [tokens.shape[1] for tokens in queries.values()]
        query = torch.cat([self.queries[kind](asking) for kind, asking in queries.items()], 1)
        out = self._attend(query, tokens, offsets)
        return dict(zip(queries, out.split(sizes, 1)))

    def _attend(self, query: Tensor, tokens: Tensor, offsets: Tensor | None) -> Tensor:
        """(B, Q, D) for queries (B, Q, D)."""
        if self.mixer is not None:
            present = None
            if offsets is not None:
                tokens, present = padded(tokens, offsets)
            return self.mixer(query, tokens, mask=present)
        assert self.keys is not None
        query = query.unflatten(2, (self.heads, -1))
        if self.uniform:
            query = query * 0.0
        key, value = self.keys(tokens).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        if offsets is None:
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
            out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        else:
            out = ragged_attention(query, key, value, offsets)
        return out.flatten(2)
