"""ContMix: each cell of a grid makes its convolution kernels from its affinity to regions of the
image.

Shapes: B batch, N = Y X cells, D width, G heads, R x R regions, w and s windows, c = D / (2 G)
width of a head.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ....kernels.forms import Form
from ....kernels.neighbourhood import Border, forms, neighbourhood_attention, relative_index
from ..base import Attention, grid_of, join_heads, split_heads


class ContMix(Attention):
    """Dynamic convolution with global context (OverLoCK, Lou and Yu, CVPR 2025, arXiv 2502.20087).

        a_g[i, r] = q_g[i] . k_g[r] / sqrt(c)     r: R x R regions, each the mean of its tokens
        kernels_g[i] = P a_g[i] + relative bias   s^2 + w^2 numbers, a softmax over each window; the
                                                  heads share P
        out = W_o [first half of x, mixed by small windows ; second half, mixed by large ones]

    Cost: O(N (w^2 + s^2) (D + G R^2)), linear in cells; neighbourhoods are never unfolded
    (kernels/neighbourhood/__init__.py).

    width: D, a multiple of 2 G; heads: G; window: w, odd; small: s, odd; regions: R. At the border
    a window is shifted into the image; if the image is smaller than the window, the window has only
    the cells inside.

    Departures: the paper's block around it (dilated re-parameterised convolution, squeeze and
    excitation, gate) is not part of the mechanism; queries and regions have a layer norm where the
    paper has a batch norm, which would see masked cells and other images. The published code
    enlarges images smaller than the window and pools the result back, which is not done here.
    """

    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("size",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"window": 3, "small": 1, "regions": 2},
        {"window": 13, "heads": 2},
    )

    def __init__(
        self, width: int, *, heads: int = 4, window: int = 7, small: int = 5, regions: int = 7
    ) -> None:
        super().__init__(width, heads)
        if width % (2 * heads):
            raise ValueError(
                f"ContMix: width {width} must be a multiple of twice the {heads} heads"
            )
        if window < 1 or window % 2 == 0 or small < 1 or small % 2 == 0 or regions < 1:
            raise ValueError(
                "ContMix: windows must be odd and regions positive, "
                f"got {window}, {small}, {regions}"
            )
        self.windows = (small, window)
        self.regions = regions
        self.equivariant = False
        self.query = nn.Linear(width, width // 2)
        self.key = nn.Linear(width, width // 2)
        self.query_norm = nn.LayerNorm(width // 2)
        self.key_norm = nn.LayerNorm(width // 2)
        self.kernels = nn.Linear(regions**2, small**2 + window**2)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(heads, (2 * w - 1) ** 2)) for w in self.windows
        )
        self.out = nn.Linear(width, width)

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

        A cell with empty windows receives 0 before the last layer. Raises ValueError if shapes do
        not fit.
        """
        self.check(x, context, mask)
        halves = [split_heads(half, self.heads) for half in x.chunk(2, -1)]
        return self.out(
            torch.cat([join_heads(part) for part in self._mixed(x, halves, mask, size)], -1)
        )

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """The kernels as matrices (B, 2 G, N, N): small windows of all heads, then large ones."""
        self.check(x, context, mask)
        unit = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand(
            x.shape[0], self.heads, -1, -1
        )
        return torch.cat(self._mixed(x, [unit, unit], mask, size), 1)

    def _mixed(
        self, x: Tensor, values: list[Tensor], mask: Tensor | None, size: tuple[int, int] | None
    ) -> list[Tensor]:
        size = grid_of("ContMix", x.shape[1], size)
        kernel_logits = self.kernels(self._affinity(x, mask, size)).split(
            [w * w for w in self.windows], -1
        )
        mixed = []
        for logits, bias, value, window in zip(kernel_logits, self.biases, values, self.windows):
            border: Border = "clamp" if min(size) >= window else "mask"
            place = relative_index(size, window, border, device=x.device)
            logits = (logits + bias[:, place]).to(value.dtype)
            mixed.append(
                neighbourhood_attention(logits, value, size, window, border=border, mask=mask)
            )
        return mixed

    def _affinity(self, x: Tensor, mask: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(B, G, N, R^2): affinity of each cell to the mean of each region, 0 for an empty one."""
        share = (
            _bins(size[0], self.regions, x)[:, None, :, None]
            * _bins(size[1], self.regions, x)[None, :, None, :]
        )
        share = share.reshape(1, self.regions**2, -1)
        known = x
        if mask is not None:
            share = share * mask[:, None].to(x.dtype)
            known = x.masked_fill(~mask[..., None], 0.0)
        total = share.sum(2, keepdim=True)
        means = (share / total.clamp_min(1.0)) @ known
        key = self.key_norm(self.key(means)).masked_fill(total == 0, 0.0)
        query = self.query_norm(self.query(x))
        scale = (self.width // (2 * self.heads)) ** -0.5
        return split_heads(query * scale, self.heads) @ split_heads(key, self.heads).transpose(2, 3)

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the sum over the windows."""
        return forms(x, width=self.width // (2 * self.heads))


def _bins(cells: int, bins: int, like: Tensor) -> Tensor:
    """(bins, cells) of 0 and 1: which cells of a line each bin of adaptive pooling covers."""
    start = torch.arange(bins, device=like.device) * cells // bins
    stop = -(-(torch.arange(bins, device=like.device) + 1) * cells // bins)
    place = torch.arange(cells, device=like.device)
    return ((place >= start[:, None]) & (place < stop[:, None])).to(like.dtype)
