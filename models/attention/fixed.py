"""Fixed scores: who attends to whom depends on the places of the tokens and never on what they
hold.

Shapes: B batch, N tokens, L longest sequence, D width, H heads, d = D / H.

    out = W_o softmax((W_q e)(W_k e)^T / sqrt(d)) W_v x,   e: L rows of width D that are not the input
"""

import string
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from .base import (
    Attention,
    attend,
    causal_mask,
    join_heads,
    masked_softmax,
    rotary,
    split_heads,
    spread_mask,
)


class FixedAttention(Attention):
    """Queries and keys from rows that no input changes: RndEmbQK, FixedSeqQK (arXiv 2510.11602,
    table 1) and positions.

    Cost: O(N^2 D); scores and softmax once a batch, not once a row of it. Memory O(H N^2), or O(N
    D) with a mask.

    width: D; heads: H; source of e: "random" noise of N(0, scale^2); "sequence", the embeddings of
    one fixed text (`sequence`, (L, D); by default letters of a generated text of Zipf's law, each
    with a random embedding); "learned", an embedding of positions (as the factorised random
    synthesizer, arXiv 2005.00743). tokens: L; seed: of what is drawn; scale: its deviation;
    positions: "rotary" turns queries and keys by their place; causal: token i sees tokens up to i.
    Departure: the paper sends noise or text through all layers below; here each layer projects it
    directly."""

    masks: ClassVar[tuple[str, ...]] = ("keys", "pairs", "heads")
    crosses: ClassVar[bool] = False
    variants: ClassVar[tuple[dict, ...]] = ({"causal": True}, {"positions": "rotary", "scale": 2.0})

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        source: Literal["random", "sequence", "learned"] = "random",
        sequence: Tensor | None = None,
        tokens: int = 1024,
        seed: int = 0,
        scale: float = 1.0,
        positions: Literal["none", "rotary"] = "none",
        causal: bool = False,
    ) -> None:
        super().__init__(width, heads)
        if source not in ("random", "sequence", "learned"):
            raise ValueError(
                f"FixedAttention: source must be 'random', 'sequence' or 'learned', got {source!r}"
            )
        if sequence is not None and (
            source != "sequence" or sequence.ndim != 2 or sequence.shape[1] != width
        ):
            raise ValueError(
                f"FixedAttention: sequence must be (tokens, {width}) with source='sequence'"
            )
        if tokens < 1:
            raise ValueError(f"FixedAttention: tokens must be positive, got {tokens}")
        if positions not in ("none", "rotary") or (positions == "rotary" and width // heads % 2):
            raise ValueError(
                "FixedAttention: positions must be 'none' or, for heads of even width, 'rotary'"
            )
        self.rotary = positions == "rotary"
        self.causal = causal
        self.equivariant = False
        dice = torch.Generator().manual_seed(seed)
        rows = generated_text(tokens, dice) if source == "sequence" else torch.arange(tokens)
        drawn = torch.randn(int(rows.max()) + 1, width, generator=dice)[rows] * scale
        if source == "learned":
            self.rows = nn.Parameter(drawn)
        else:
            # Kept with the weights: another version of PyTorch may draw other numbers from the
            # seed.
            self.register_buffer("rows", drawn if sequence is None else sequence.detach().clone())
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def sides(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Queries and keys (1, H, N, d) of the first N rows. Raises ValueError for more tokens than
        there are.
        """
        if tokens > self.rows.shape[0]:
            raise ValueError(
                f"FixedAttention: {tokens} tokens, built for up to {self.rows.shape[0]}; give tokens={tokens}"
            )
        rows = self.rows[None, :tokens]
        query, key = (
            split_heads(self.query(rows), self.heads),
            split_heads(self.key(rows), self.heads),
        )
        return (rotary(query), rotary(key)) if self.rotary else (query, key)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D); mask: bool, True = may attend: (B, N), (B, N, N), or (B, H, N,
        N).

        A token that may attend to nothing receives 0 before the last layer. Raises ValueError if
        mask or widths do not fit, for a context and for more tokens than rows."""
        self.check(x, context, mask)
        query, key = self.sides(x.shape[1])
        value = split_heads(self.value(x), self.heads)
        if mask is not None or x.shape[0] == 1:
            query, key = (side.expand(x.shape[0], -1, -1, -1) for side in (query, key))
            return self.out(
                join_heads(attend(query, key, value, spread_mask(mask), causal=self.causal))
            )
        # One matrix for the whole batch: its rows lie side by side in the width of the values.
        mixed = self.shared(query, key)[0] @ value.permute(1, 2, 0, 3).flatten(2)
        return self.out(mixed.unflatten(-1, (x.shape[0], -1)).permute(2, 1, 0, 3).flatten(2))

    def shared(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention weights (1 or B, H, N, N)."""
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if self.causal:
            lower = causal_mask(query.shape[2], key.shape[2], query.device)
            mask = lower if mask is None else mask & lower
        return masked_softmax(scores, mask)

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights (B, H, N, N), the same for every input."""
        self.check(x, context, mask)
        return self.shared(*self.sides(x.shape[1]), spread_mask(mask)).expand(
            x.shape[0], -1, -1, -1
        )


def generated_text(tokens: int, dice: torch.Generator) -> Tensor:
    """Numbers of the letters of a generated text: the n-th letter is drawn with a share of 1 /
    n.
    """
    letters = len(string.ascii_lowercase) + 1
    return torch.multinomial(
        1 / torch.arange(1.0, letters + 1), tokens, replacement=True, generator=dice
    )
