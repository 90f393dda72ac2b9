"""Aggregated attention: a window at full resolution and a pooled view of the entire image in one
softmax.

Shapes: B batch, N = Y X cells, D width, H heads, d = D / H, w window, W = w w, P pooled cells.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels.forms import Form
from ....kernels.neighbourhood import (
    forms,
    neighbourhood_attention,
    neighbourhood_index,
    neighbourhood_scores,
    neighbourhood_sum,
)
from ....kernels.partial_softmax import attend_with_lse
from ..base import Attention, grid_of, join_heads, split_heads, to_image, to_tokens
from .contmix import _bins


class AggregatedAttention(Attention):
    """Pixel-focused attention of TransNeXt (Shi, CVPR 2024, arXiv 2311.17132, equations 2-10).

        q^ = q / |q|, k^ = k / |k|,   q~ = (q^ + e_h) softplus(t_h) log(number of keys of the cell)
        p = softmax [q~ . k^ + r_h over the w x w window ;
                     q~ . k^ + f_h(distance) over the P pooled cells]
        out = W_o (p v + (q^ T_h + b_h) v_window)

    Cost: O(N (W + P) D) with P = N / reduction^2: linear in the number of cells only for a fixed P.
    Neighbourhoods are never unfolded; window and pooled part are two softmaxes joined by their
    log-sum-exps. The bias is the only tensor of size N P, one for all images of a batch.

    width: D; heads: H; window: w, odd; reduction: the pooled grid is (Y / reduction, X /
    reduction), at least one cell; pooled: False leaves the pooled part out; learned_tokens: the
    term with T and b, which is not normalised and is added after the softmax; hidden: width of the
    network f of the continuous position bias.

    Readings: a pooled cell is the mean of gelu(linear) over the present cells of its bin, then a
    layer norm, then the same key and value layer. Distances are log2(1 + 8 |x|) / 3 with their
    sign, x from the cell to the mean position of the bin's cells as a share of the image's side
    minus one, as published. Masked cells are not keys and do not enter means; an empty bin is not a
    key; the logarithm counts the keys that are present, at least 2. The published out-of-image key
    is -inf with a value of 0; here it does not exist.
    """

    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("size",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"learned_tokens": False},
        {"pooled": False},
        {"window": 5, "reduction": 4, "hidden": 8},
        {"reduction": 1},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        window: int = 3,
        reduction: int = 2,
        pooled: bool = True,
        learned_tokens: bool = True,
        hidden: int = 512,
    ) -> None:
        super().__init__(width, heads)
        if window < 1 or window % 2 == 0 or reduction < 1 or hidden < 1:
            raise ValueError(
                "AggregatedAttention: window must be odd, reduction and hidden positive, "
                f"got {window}, {reduction}, {hidden}"
            )
        size = width // heads
        self.window, self.reduction = window, reduction
        self.equivariant = False
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.embedding = nn.Parameter(0.02 * torch.randn(heads, 1, size))
        # softplus of this is 1 / 0.24, the published start.
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), 1 / 0.24).expm1().log())
        self.local_bias = nn.Parameter(0.02 * torch.randn(heads, 1, window * window))
        self.pool = nn.Linear(width, width) if pooled else None
        self.pool_norm = nn.LayerNorm(width) if pooled else None
        self.distance = (
            nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads))
            if pooled
            else None
        )
        self.tokens = (
            nn.Parameter(0.02 * torch.randn(heads, size, window * window))
            if learned_tokens
            else None
        )
        self.token_bias = (
            nn.Parameter(torch.zeros(heads, 1, window * window)) if learned_tokens else None
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

        Raises ValueError if shapes do not fit or a context is given.
        """
        self.check(x, context, mask)
        size = grid_of("AggregatedAttention", x.shape[1], size)
        key, value = self._keys(x)
        pooled = self._pooled(x, mask, size)
        values = None if pooled is None else pooled[1]
        return self.out(join_heads(self._mix(x, key, value, pooled, values, mask, size)))

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """(B, H, N, N): the weight of a pooled cell is divided evenly among the cells of its bin.
        The term of the learned tokens is left out.
        """
        self.check(x, context, mask)
        size = grid_of("AggregatedAttention", x.shape[1], size)
        unit = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand(
            x.shape[0], self.heads, -1, -1
        )
        pooled, values = self._pooled(x, mask, size), None
        if pooled is not None:
            values = self._shares(x, mask, size)[0][:, None].expand(-1, self.heads, -1, -1)
        return self._mix(x, self._keys(x)[0], unit, pooled, values, mask, size, tokens=False)

    def _keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(x).chunk(2, -1)
        return F.normalize(split_heads(key, self.heads), dim=-1), split_heads(value, self.heads)

    def _mix(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        pooled: tuple[Tensor, Tensor, Tensor] | None,
        pooled_value: Tensor | None,
        mask: Tensor | None,
        size: tuple[int, int],
        *,
        tokens: bool = True,
    ) -> Tensor:
        unit = F.normalize(split_heads(self.query(x), self.heads), dim=-1)
        count = self._count(mask, pooled, size, x).clamp_min(2.0).log()
        query = (unit + self.embedding) * (F.softplus(self.temperature) * count)
        logits = (
            neighbourhood_scores(query, key.to(query.dtype), size, self.window) + self.local_bias
        )
        far = None
        if pooled is not None and pooled_value is not None:
            pooled_key, known = (
                pooled[0].to(query.dtype),
                None if mask is None else pooled[2][:, None, None],
            )
            bias = self._bias(size, x)
            far = attend_with_lse(
                query, pooled_key, pooled_value.to(query.dtype), mask=known, bias=bias, scale=1.0
            )
        mixed = neighbourhood_attention(
            logits.to(value.dtype), value, size, self.window, mask=mask, extra=far
        )
        if tokens and self.tokens is not None and self.token_bias is not None:
            visible = value if mask is None else value.masked_fill(~mask[:, None, :, None], 0.0)
            mixed = mixed + neighbourhood_sum(
                unit @ self.tokens + self.token_bias, visible, size, self.window
            )
        return mixed.to(value.dtype)

    def _shares(
        self, x: Tensor, mask: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(1 or B, P, N): the share of each cell in the mean of each bin, and bool (·, P): whether
        the bin has any cell.
        """
        rows, columns = (max(1, side // self.reduction) for side in size)
        share = (
            _bins(size[0], rows, x)[:, None, :, None] * _bins(size[1], columns, x)[None, :, None, :]
        )
        share = share.reshape(1, rows * columns, -1)
        if mask is not None:
            share = share * mask[:, None].to(x.dtype)
        total = share.sum(2, keepdim=True)
        return (share / total.clamp_min(1.0)).expand(x.shape[0], -1, -1), (total > 0).squeeze(
            2
        ).expand(x.shape[0], -1)

    def _pooled(
        self, x: Tensor, mask: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Keys and values (B, H, P, d) of the pooled cells, and which are present, bool (B, P)."""
        if self.pool is None or self.pool_norm is None:
            return None
        bins = max(1, size[0] // self.reduction), max(1, size[1] // self.reduction)
        cells = F.gelu(self.pool(x))
        if mask is None:
            means = to_tokens(F.adaptive_avg_pool2d(to_image(cells, size), bins))
            present = torch.ones(means.shape[:2], dtype=torch.bool, device=x.device)
        else:
            cells = cells.masked_fill(~mask[..., None], 0.0)
            part = to_tokens(
                F.adaptive_avg_pool2d(to_image(mask[..., None].to(cells.dtype), size), bins)
            )
            present = part.squeeze(2) > 0
            means = to_tokens(
                F.adaptive_avg_pool2d(to_image(cells, size), bins)
            ) / part.masked_fill(part == 0, 1.0)
        return *self._keys(self.pool_norm(means)), present

    def _count(
        self, mask: Tensor | None, pooled: tuple | None, size: tuple[int, int], x: Tensor
    ) -> Tensor:
        """Number of keys of each cell: (1 or B, 1, N, 1)."""
        index, inside = neighbourhood_index(size, self.window, device=x.device)
        known = inside[None] if mask is None else inside & mask[:, index]
        count = known.sum(2)
        if pooled is not None:
            count = count + pooled[2].sum(1, keepdim=True)
        return count[:, None, :, None].to(x.dtype)

    def _bias(self, size: tuple[int, int], x: Tensor) -> Tensor:
        """Continuous position bias (H, N, P) of the pooled cells.

        Of the N P distances only about 4 N are distinct: the network computes each of them once.
        """
        assert self.distance is not None
        down, across = (_distances(side, max(1, side // self.reduction), x.device) for side in size)
        kind = torch.promote_types(x.dtype, torch.float32)
        steps = [
            axis[0].to(kind) * (4 / max(1, side - 1)) for axis, side in zip((down, across), size)
        ]
        grid = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
        grid = grid.sign() * (1 + grid.abs()).log2() / 3
        table = self.distance(grid.flatten(0, 1).to(x.dtype)).t()
        where = down[1][:, None, :, None] * len(across[0]) + across[1][None, :, None, :]
        return table.index_select(1, where.flatten()).view(self.heads, x.shape[1], -1)

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the sums over the windows."""
        return forms(x, width=self.width // self.heads)


def _distances(side: int, bins: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Distances between the cells of a line and the centres of its bins, in half cells.

    Returns the distinct distances, and for each cell and bin the index of its own (side, bins).
    """
    place = torch.arange(bins, device=device)
    centres = place * side // bins - (-(place + 1) * side // bins) - 1
    # Bins of equal size have centres of equal parity.
    step = 1 if side % bins else 2
    lowest = -((bins - 1) * side // bins) - side + 1
    values = torch.arange(lowest, 2 * side + (-side // bins), step, device=device)
    index = 2 * torch.arange(side, device=device)[:, None] - centres - lowest
    return values, index // step
