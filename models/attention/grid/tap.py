"""Token-aware average pooling in front of softmax attention, for grids of tokens.

Shapes: B batch, N = Y X cells of a grid, D width, H heads, S scales (pools), s one of them.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels.attention_stats import AttentionStats
from ..base import grid_of, to_image
from ..cache import Cache
from ..softmax import SoftmaxAttention


class TokenAwarePooling(nn.Module):
    """Each cell becomes a mean over its surroundings, whose size it chooses: out = sum_s w_s
    pool_s(x).

    pool_0 is the cell itself, pool_s the mean of 3 x 3 cells at distance s; w = softmax over s of
    two 3 x 3 convolutions of the grid (Guo et al., ICCV 2023, "Robustifying token attention for
    vision transformers", TAP). O(S N D) time.

    width: D; scales: S, 1 leaves the tokens as they are; pad: "exclude" takes means over the cells
    inside the grid, so that a constant grid does not change; "zero" counts cells outside as 0, as
    published (which darkens 27 to 67 % of a 14 x 14 grid). Masked cells count as cells outside.
    Departure: the norm between the convolutions is an RMS norm over the S numbers of a cell, not a
    batch norm, because masked cells and other items of the batch would enter its statistics.
    """

    def __init__(
        self, width: int, *, scales: int = 4, pad: Literal["exclude", "zero"] = "exclude"
    ) -> None:
        super().__init__()
        if scales < 1:
            raise ValueError(f"TokenAwarePooling: needs at least one scale, got {scales}")
        if pad not in ("exclude", "zero"):
            raise ValueError(f"TokenAwarePooling: pad must be 'exclude' or 'zero', got {pad!r}")
        self.scales = scales
        self.exclude = pad == "exclude"
        if scales > 1:
            self.first = nn.Conv2d(width, scales, 3, padding=1, bias=False)
            self.norm = nn.RMSNorm(scales, eps=1e-6)
            self.second = nn.Conv2d(scales, scales, 3, padding=1, bias=False)

    def shares(self, x: Tensor, size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """Weight (B, Y, X, S) of each pool at each cell."""
        visible = self._without_masked(x, mask)
        inner = self.first(to_image(visible, size)).flatten(2).transpose(1, 2)
        inner = self.norm(inner.to(self.norm.weight.dtype))
        logits = self.second(to_image(self._without_masked(inner, mask), size))
        return logits.permute(0, 2, 3, 1).softmax(-1)

    @staticmethod
    def _without_masked(x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None else x.masked_fill(~mask[..., None], 0.0)

    def forward(self, x: Tensor, size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), the cells of a grid of size (Y, X), row by row; mask: bool (B, N), True =
        counts.

        Returns (B, N, D).
        """
        if self.scales == 1:
            return x
        shares = self.shares(x, size, mask)
        visible = self._without_masked(x, mask).unflatten(1, size)
        exists = x.new_ones((1, *size, 1)) if mask is None else mask.to(x.dtype).view(-1, *size, 1)
        out = shares[..., :1] * x.unflatten(1, size)
        for distance in range(1, self.scales):
            total = _sum_of_nine(visible, distance)
            count = _sum_of_nine(exists, distance).clamp_min(1.0) if self.exclude else 9.0
            out = out + shares[..., distance : distance + 1] * (total / count)
        return out.flatten(1, 2)


def _sum_of_nine(x: Tensor, distance: int) -> Tensor:
    """Sum over 3 x 3 cells of (B, Y, X, C) at such a distance, 0 outside; rows, then columns."""
    height, width = x.shape[1:3]
    high = F.pad(x, (0, 0, 0, 0, distance, distance))
    rows = high[:, :height] + x + high[:, 2 * distance :]
    wide = F.pad(rows, (0, 0, distance, distance))
    return wide[:, :, :width] + rows + wide[:, :, 2 * distance :]


class TAPAttention(SoftmaxAttention):
    """Softmax attention among tokens that are first averaged over their surroundings
    (`TokenAwarePooling`).

    out = softmax-attention(TAP(x)) (Guo et al., ICCV 2023). Cost: O(N^2 D) time, O(N D) memory with
    a fused kernel.

    heads: H; scales, pad: of `TokenAwarePooling`; diversify, dropout: as in `SoftmaxAttention`; the
    published models add the diversification loss with weight 1. Departure: queries, keys and values
    come from the pooled tokens, as published, but in a pre-norm layer the pooling comes after the
    norm, not before it.
    """

    masks: ClassVar[tuple[str, ...]] = ("keys",)
    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("size",)
    variants: ClassVar[tuple[dict, ...]] = ({"pad": "zero", "scales": 2}, {"diversify": 1.0})

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        scales: int = 4,
        pad: Literal["exclude", "zero"] = "exclude",
        diversify: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(width, heads=heads, diversify=diversify, dropout=dropout)
        self.equivariant = scales == 1
        self.pool = TokenAwarePooling(width, scales=scales, pad=pad)

    def _pooled(
        self, x: Tensor, context: Tensor | None, mask: Tensor | None, size: tuple[int, int] | None
    ) -> Tensor:
        self.check(x, context, mask)
        return self.pool(x, grid_of("TAPAttention", x.shape[1], size), mask)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """x: (B, N, D), the cells of a grid of size (Y, X), by default a square -> (B, N, D).

        mask: bool (B, N), True = may attend; a masked cell enters no mean.

        Raises ValueError if mask, widths or size do not fit, or for a context or a cache.
        """
        return super().forward(self._pooled(x, context, mask, size), mask=mask)

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Attention weights (B, H, N, N) among the pooled tokens."""
        return super().weights(self._pooled(x, context, mask, size), mask=mask)

    def readouts(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        want: Sequence[str] = ("lse",),
        size: tuple[int, int] | None = None,
        **options: Any,
    ) -> AttentionStats:
        """As `SoftmaxAttention.readouts`, of the pooled tokens."""
        return super().readouts(
            self._pooled(x, context, mask, size), mask=mask, want=want, **options
        )

    def packed(self, *_: Any, **__: Any) -> Tensor:
        """Not supported, since a grid cannot be packed: raises ValueError."""
        raise ValueError("TAPAttention: packed sequences have no grid; pad and mask instead")
