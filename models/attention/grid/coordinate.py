"""Coordinate attention: a gate for each row and each column of a grid, from the means along the
other direction.

Shapes: B batch, N = Y X cells of a grid, D width, R width of the bottleneck.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..base import Attention, grid_of


class CoordinateAttention(Attention):
    """out[y, x] = input[y, x] * rows[y] * columns[x], each gate in (0, 1) (Hou et al., CVPR 2021,
    arXiv 2103.02907).

        h = mean over columns (Y, D), w = mean over rows (X, D)
        z = hardswish(norm(W_1 [h ; w])),  rows = sigmoid(W_h z[:Y]),  columns = sigmoid(W_w z[Y:])

    Cost: O(N D + (Y + X) D R) time, one pass for both means and one for the product. There are no
    weights between cells: a cell reaches only its row and its column.

    width: D; reduction: R = max(8, D / reduction); inner: R itself instead; norm: "batch" as
    published, over the lines of the entire batch in training, or "layer", which treats each line
    separately. Masked cells are left out of the means; a line without cells counts as 0, in the
    statistics of a batch norm, too.
    """

    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("size",)
    variants: ClassVar[tuple[dict, ...]] = ({"reduction": 2}, {"norm": "layer"})

    def __init__(
        self,
        width: int,
        *,
        reduction: int = 32,
        norm: Literal["batch", "layer"] = "batch",
        inner: int | None = None,
    ) -> None:
        super().__init__(width)
        if reduction < 1:
            raise ValueError(f"CoordinateAttention: reduction must be positive, got {reduction}")
        if inner is not None and inner < 1:
            raise ValueError(f"CoordinateAttention: inner must be positive, got {inner}")
        if norm not in ("batch", "layer"):
            raise ValueError(f"CoordinateAttention: norm must be 'batch' or 'layer', got {norm!r}")
        inner = max(8, width // reduction) if inner is None else inner
        self.equivariant = False
        self.squeeze = nn.Linear(width, inner)
        self.norm = nn.BatchNorm1d(inner) if norm == "batch" else nn.LayerNorm(inner)
        self.activation = nn.Hardswish()
        self.rows = nn.Linear(inner, width)
        self.columns = nn.Linear(inner, width)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """x: (B, N, D), size: (Y, X), by default a square; mask: bool (B, N), True = a cell -> (B,
        N, D).

        Raises ValueError if shapes do not fit or a context is given.
        """
        self.check(x, context, mask)
        height, width = grid_of("CoordinateAttention", x.shape[1], size)
        grid = x.unflatten(1, (height, width))
        lines = torch.cat(
            [_mean(grid, mask, 2, height, width), _mean(grid, mask, 1, height, width)], 1
        )
        squeezed = self.squeeze(lines)
        if isinstance(self.norm, nn.BatchNorm1d):
            squeezed = self.norm(squeezed.flatten(0, 1)).view_as(squeezed)
        else:
            squeezed = self.norm(squeezed)
        row, column = self.activation(squeezed).split([height, width], 1)
        gate = self.rows(row).sigmoid()[:, :, None] * self.columns(column).sigmoid()[:, None]
        return x * gate.flatten(1, 2)


def _mean(grid: Tensor, mask: Tensor | None, axis: int, height: int, width: int) -> Tensor:
    """Mean of (B, Y, X, D) over the present cells along one axis, 0 for a line without cells."""
    if mask is None:
        return grid.mean(axis)
    counts = mask.view(-1, height, width, 1)
    return grid.masked_fill(~counts, 0.0).sum(axis) / counts.sum(axis).clamp_min(1)
