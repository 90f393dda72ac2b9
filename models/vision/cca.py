"""Conditional cross-attention embedding: one space of vectors for each attribute, by one network.

In the spirit of CCA (Song et al., ICCV 2023, arXiv 2307.13254), whose formulas, sizes and losses
were not to be had: the condition (which attribute to compare by) becomes a query token that asks
the tokens of a vision transformer, so that the vector holds what matters for that attribute.

Shapes: B pictures, N tokens, D width of a token, C conditions, E width of a vector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.vit_trunk import Trunk
from .dcal import CrossLayer


class ConditionalEmbedder(nn.Module):
    """A transformer whose last layers are asked by the condition.

    trunk: the transformer; conditions: C; vector: E; layers: cross-attention layers of the
    condition's token."""

    def __init__(
        self, trunk: Trunk, conditions: int, *, vector: int = 128, layers: int = 1
    ) -> None:
        super().__init__()
        if conditions < 1 or layers < 1 or vector < 1:
            raise ValueError(
                f"ConditionalEmbedder: conditions, layers and vector must be at least 1, got {conditions}, {layers} "
                f"and {vector}"
            )
        self.trunk = trunk
        self.conditions = nn.Parameter(0.02 * torch.randn(conditions, trunk.width))
        self.layers = nn.ModuleList(CrossLayer(trunk.width, trunk.heads) for _ in range(layers))
        self.norm = nn.LayerNorm(trunk.width, eps=1e-6)
        self.project = nn.Linear(trunk.width, vector)
        # The layers have norms of their own; several devices would wait for the gradient of one
        # that is not used.
        trunk.model.norm.requires_grad_(False)

    def embed(self, images: Tensor, condition: Tensor) -> Tensor:
        """One vector a picture, of length 1. images: (B, 3, Y, X); condition: int64 (B,) -> (B,
        E).
        """
        return self._ask(images, self.conditions[condition][:, None])[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """The vectors of every condition: (B, 3, Y, X) -> (B, C, E), each of length 1."""
        return self._ask(images, self.conditions.expand(images.shape[0], -1, -1))

    def _ask(self, images: Tensor, query: Tensor) -> Tensor:
        context, _ = self.trunk(images)
        for layer in self.layers:
            # Tokens of conditions do not see each other, so that a vector is the same alone and
            # among others.
            query = layer(query, context)
        return F.normalize(self.project(self.norm(query)).float(), dim=-1)
