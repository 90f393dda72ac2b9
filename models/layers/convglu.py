"""ConvGLU: a gated feed-forward network whose gate sees the neighbouring cells.

Shapes: B batch, N = Y X cells, D width, F inner width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.base import grid_of, to_image, to_tokens


class ConvGLU(nn.Module):
    """down(gelu(conv(gate x)) * up x), where conv is a depth-wise 3 x 3 convolution (TransNeXt,
    Shi, CVPR 2024, arXiv 2311.17132).

    With a convolution that takes only the centre it is a gated linear unit. width: D; hidden: F is
    two thirds of it, as published, by default of 4 D; dropout as in `FeedForward`.
    """

    extras = ("size",)

    def __init__(self, width: int, hidden: int | None = None, *, dropout: float = 0.0) -> None:
        super().__init__()
        inner = max(1, (4 * width if hidden is None else hidden) * 2 // 3)
        self.gate = nn.Linear(width, inner)
        self.up = nn.Linear(width, inner)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.down = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, D); size: (Y, X), by default a square.

        Raises ValueError if they do not fit.
        """
        size = grid_of("ConvGLU", x.shape[1], size)
        gate = to_tokens(self.conv(to_image(self.gate(x), size)))
        return self.dropout(self.down(self.dropout(F.gelu(gate) * self.up(x))))
