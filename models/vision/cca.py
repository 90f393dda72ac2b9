"""Conditional cross-attention embedding: one space of vectors for each attribute, by one network.

In the spirit of CCA (Song et al., ICCV 2023, arXiv 2307.13254), whose formulas, sizes and losses
were not available: the condition (which attribute to compare by) becomes a query token that attends
to the tokens of a vision transformer, so that the vector holds what matters for that attribute.

Shapes: B pictures, N tokens, D width of a token, C conditions, E width of a vector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.vit_trunk import Trunk
from .dcal import CrossLayer


class ConditionalEmbedder(nn.Module):
    """A transformer followed by layers in which the condition attends to its tokens.

    trunk: the transformer; conditions: C; vector: E; layers: cross-attention layers of the
    condition's token.
    """

    def __init__(
        self, trunk: Trunk, conditions: int, *, vector: int = 128, layers: int = 1
    ) -> None:
        super().__init__()
        if conditions < 1 or layers < 1 or vector < 1:
            raise ValueError(
                "ConditionalEmbedder: conditions, layers and vector must be at least 1, got "
                f"{conditions}, {layers} and {vector}"
            )
        self.trunk = trunk
        self.conditions = nn.Parameter(0.02 * torch.randn(conditions, trunk.width))
        self.layers = nn.ModuleList(CrossLayer(trunk.width, trunk.heads) for _ in range(layers))
        self.norm = nn.LayerNorm(trunk.width, eps=1e-6)
        self.project = nn.Linear(trunk.width, vector)
        # The layers normalise the tokens themselves; several devices would wait for the gradient of
        # a norm that is not used.
        trunk.model.norm.requires_grad_(False)

    def embed(self, images: Tensor, condition: Tensor) -> Tensor:
        """One vector per picture, of length 1: (B, 3, Y, X), condition int64 (B,) -> (B, E)."""
        return self._vectors(images, self.conditions[condition][:, None])[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """The vectors of every condition: (B, 3, Y, X) -> (B, C, E), each of length 1."""
        return self._vectors(images, self.conditions.expand(images.shape[0], -1, -1))

    def _vectors(self, images: Tensor, query: Tensor) -> Tensor:
        context, _ = self.trunk(images)
        for layer in self.layers:
            # Tokens of conditions do not attend to each other, so a vector does not depend on which
            # other conditions are computed with it.
            query = layer(query, context)
        return F.normalize(self.project(self.norm(query)).float(), dim=-1)
