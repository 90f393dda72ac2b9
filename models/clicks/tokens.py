"""A click model of plain tokens: fields, sequences and tasks, mixed by any mechanism of the core.

Shapes: as in `click`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..layers.blocks import NetworkKind
from ..layers.vit import TransformerEncoder
from .click import ClickModel, Layout, Towers


class TokenMixer(ClickModel):
    """Fields, sequences and tasks as tokens, mixed by any mechanism of the core; each task reads
    its own token.

    attention_options: of the mechanism; further options of the encoder as in
    `vit.TransformerEncoder`.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        layers: int = 2,
        heads: int = 4,
        attention: str = "softmax",
        attention_options: Mapping[str, object] | None = None,
        ffn: NetworkKind = "mlp",
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        self.tokens = nn.Parameter(0.05 * torch.randn(layout.tasks, width))
        self.place = nn.Parameter(0.05 * torch.randn(layout.fields + layout.sequences, width))
        self.encoder = TransformerEncoder(
            width,
            depth=layers,
            heads=heads,
            attention=attention,
            options={attention: attention_options or {}},
            ffn=ffn,
            dropout=dropout,
        )
        self.towers = Towers(width, layout.tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        x = self.embedding(fields)
        if self.layout.sequences:
            x = torch.cat([x, self.embedding.pooled(events, offsets)], 1)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x + self.place], 1)
        return self.towers(self.encoder(x)[:, : self.layout.tasks])
