"""PyTorch form of the neighbourhood operators: products of small bands, without unfolding.

Shapes: G = B H, Y x X cells, w window, W = w w members, e width of a value, T columns of a tile, K
= T + w - 1.

The members of a window row are next to each other, so for one of its w rows the weights of T
neighbouring cells are a band matrix (T, K), and the weighted sums of T cells are its product with K
cells of the row: w products for each tile, in the matrix unit, with (T + w - 1) / w times the flops
and no copies of the values but one row shift at a time."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type

TILE = 24


class Layout(NamedTuple):
    """Where windows lie on a grid that is padded by `pad` cells on each side (0 with clamped
    windows).
    """

    height: int
    width: int
    window: int
    pad: int
    rows: Tensor  # (Y,) first row of each window, in the padded grid
    columns: Tensor  # (X,) first column


def layout(height: int, width: int, window: int, clamp: bool, device: torch.device) -> Layout:
    """Windows centred at each cell, or shifted inside the grid."""
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    if not clamp:
        return Layout(height, width, window, window // 2, y, x)
    rows = (y - window // 2).clamp(0, height - window)
    return Layout(height, width, window, 0, rows, (x - window // 2).clamp(0, width - window))


def _padded(x: Tensor, where: Layout) -> Tensor:
    """(B, H, N, e) -> (G, Y + 2 pad, X + 2 pad, e)."""
    heads = x.shape[0] * x.shape[1]
    grid = x.reshape(heads, where.height, where.width, x.shape[-1])
    return F.pad(grid, (0, 0, *[where.pad] * 4)) if where.pad else grid


def _lines(x: Tensor, where: Layout) -> Tensor:
    """(B, H, N, e) -> (B H Y, X, e), also of a grid without cells."""
    return x.reshape(x.shape[0] * x.shape[1] * where.height, where.width, x.shape[-1])


def _tiles(where: Layout) -> list[tuple[slice, slice, Tensor]]:
    """Tiles of columns: their cells, columns of the padded grid that their windows span, index (T,
    w) among those.
    """
    # Counted here: the columns lie on the device, and the host would wait for them.
    last = where.width + 2 * where.pad - where.window
    shift = 0 if where.pad else where.window // 2
    first = [min(max(0, column - shift), last) for column in range(where.width)]
    steps = torch.arange(where.window, device=where.columns.device)
    tiles = []
    for start in range(0, where.width, TILE):
        cells = slice(start, min(start + TILE, where.width))
        start_column, end = first[cells.start], first[cells.stop - 1] + where.window
        index = where.columns[cells, None] - start_column + steps
        tiles.append((cells, slice(start_column, end), index))
    return tiles


def _bands(weights: Tensor, index: Tensor, span: int) -> Tensor:
    """Weights (G, Y, T, w) as band matrices (G Y, T, K)."""
    shape = weights.shape
    band = weights.new_zeros((*shape[:3], span)).scatter_(3, index.expand(shape), weights)
    return band.flatten(0, 1)


def _weighted(weights: Tensor, value: Tensor, where: Layout) -> Tensor:
    """sum_j weights_ij value_j: (B, H, N, W), (B, H, N, e) -> (B, H, N, e) in the compute type."""
    kind = compute_type(value)
    grid = _padded(value.to(kind), where)
    size = (grid.shape[0], where.height, where.width)
    rows = weights.to(kind).reshape(*size, where.window, where.window)
    out = grid.new_zeros((size[0] * size[1], size[2], grid.shape[3]))
    tiles = _tiles(where)
    for row in range(where.window):
        slab = grid.index_select(1, where.rows + row).flatten(0, 1)
        for cells, span, index in tiles:
            band = _bands(rows[:, :, cells, row], index, span.stop - span.start)
            out[:, cells] += torch.bmm(band, slab[:, span])
    return out.view(*value.shape)


def _products(a: Tensor, b: Tensor, where: Layout) -> Tensor:
    """a_i . b_j for each member j of i's window: (B, H, N, e) twice -> (B, H, N, W), 0 outside the
    image.
    """
    kind = compute_type(a)
    grid, cells_of = _padded(b.to(kind), where), _lines(a.to(kind), where)
    size = (grid.shape[0], where.height, where.width)
    out = grid.new_empty((*size, where.window, where.window))
    tiles = _tiles(where)
    for row in range(where.window):
        slab = grid.index_select(1, where.rows + row).flatten(0, 1)
        for cells, span, index in tiles:
            band = torch.bmm(cells_of[:, cells], slab[:, span].transpose(1, 2)).unflatten(
                0, size[:2]
            )
            out[:, :, cells, row] = band.gather(3, index.expand(*size[:2], -1, -1))
    return out.view(*a.shape[:3], where.window**2)


def _scattered(weights: Tensor, a: Tensor, where: Layout) -> Tensor:
    """sum_i weights_ij a_i over all i whose window holds j: (B, H, N, W), (B, H, N, e) -> (B, H, N,
    e).
    """
    kind = compute_type(a)
    pad, cells_of = where.pad, _lines(a.to(kind), where)
    groups = a.shape[0] * a.shape[1]
    rows = weights.to(kind).reshape(groups, where.height, where.width, where.window, where.window)
    grid = cells_of.new_zeros((groups, where.height + 2 * pad, where.width + 2 * pad, a.shape[-1]))
    tiles = _tiles(where)
    for row in range(where.window):
        slab = grid.new_zeros((groups * where.height, *grid.shape[2:]))
        for cells, span, index in tiles:
            band = _bands(rows[:, :, cells, row], index, span.stop - span.start)
            slab[:, span] += torch.bmm(band.transpose(1, 2), cells_of[:, cells])
        grid.index_add_(1, where.rows + row, slab.unflatten(0, (groups, where.height)))
    if not pad:
        return grid.view(a.shape)
    inside = grid[:, pad : pad + where.height, pad : pad + where.width]
    return inside.clone(memory_format=torch.contiguous_format).view(a.shape)


def allowed(where: Layout, mask: Tensor | None) -> Tensor | None:
    """Bool (1 or B, 1, N, W): members inside the image that the mask (B, N) allows; None allows
    all.
    """
    if mask is None and where.pad == 0:
        return None
    device, steps = where.rows.device, torch.arange(where.window, device=where.rows.device)
    row = (where.rows[:, None] + steps)[:, None, :, None]  # (Y, 1, w, 1)
    column = (where.columns[:, None] + steps)[None, :, None, :]
    present = torch.ones(1, where.height, where.width, dtype=torch.bool, device=device)
    present = present if mask is None else mask.view(len(mask), where.height, where.width)
    present = F.pad(present, [where.pad] * 4)
    return present[:, row, column].reshape(
        present.shape[0], 1, where.height * where.width, where.window**2
    )


def probabilities(logits: Tensor, where: Layout, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax (B, H, N, W) over the members, 0 where there are none, and its lse (B, H, N), -inf
    there.
    """
    members = allowed(where, mask)
    scores = logits.to(compute_type(logits))
    scores = scores if members is None else scores.masked_fill(~members, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = (scores - top).exp_()
    total = weights.sum(-1, keepdim=True)
    empty = total == 0
    filled = total.masked_fill(empty, 1.0)
    lse = (filled.log() + top).masked_fill(empty, -torch.inf)
    return weights.div_(filled), lse.squeeze(-1)


def products(
    query: Tensor, key: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """query_i . key_j for each member j of i's window, (B, H, N, W), in the type of the query."""
    where = layout(height, width, window, clamp, query.device)
    return _products(query, key, where).to(query.dtype)


def weighted(
    weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """sum_j weights_ij value_j, (B, H, N, e), in the type of the values."""
    where = layout(height, width, window, clamp, value.device)
    return _weighted(weights, value, where).to(value.dtype)


def scattered(
    weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """sum_i weights_ij value_i over all i whose window holds j, (B, H, N, e), in their type."""
    where = layout(height, width, window, clamp, value.device)
    return _scattered(weights, value, where).to(value.dtype)


def read(
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """Softmax-weighted mean over the window (B, H, N, e) and its lse (B, H, N)."""
    where = layout(height, width, window, clamp, value.device)
    weights, lse = probabilities(logits, where, mask)
    return _weighted(weights, value, where).to(value.dtype), lse


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of logits and value: d logits = p (g . v_j - g . out + d lse)."""
    where = layout(height, width, window, clamp, value.device)
    weights, _ = probabilities(logits, where, mask)
    d_value = _scattered(weights, grad, where)
    delta = grad_lse - (grad.to(weights.dtype) * out.to(weights.dtype)).sum(-1)
    d_logits = _products(grad, value, where).add_(delta[..., None]).mul_(weights)
    return d_logits.to(logits.dtype), d_value.to(value.dtype)
