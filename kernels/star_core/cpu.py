"""PyTorch form of STAR's stochastic core, on any device.

Shapes: B bags, N tokens, D width, E hidden width, C core width, R = B N rows, P rows kept of a bag,
U rows that were drawn at least once.

Which rows of h are kept when there are more than P is decided by the draw. On the CPU the drawn
rows lie one behind the other, so that the backward pass computes U rows. Elsewhere their number
would have to be read back, and the device would stop for it at each layer; there each bag has P
places, and what is not used is 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type
from ..softmax_pool import gather_drawn
from ..softmax_pool.cpu import draw_slice, uniforms

FEW_TOKENS = 32  # up to here one dense product is faster than the gathers that it replaces
SLICE_ROWS = 2048


def kept_per_bag(tokens: int, core: int) -> int:
    """Rows of h kept per bag: a bound that does not depend on the draw, so that shapes in a graph
    are fixed.
    """
    return min(tokens, max(core, FEW_TOKENS))


def forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """core (B, C), index (B, C), and the rows of h that the backward pass needs."""
    bags, tokens, width = x.shape
    core_width, per_bag = w2.shape[0], kept_per_bag(tokens, w2.shape[0])
    hidden = x.new_empty((bags * per_bag, w1.shape[0]))
    if bags * tokens == 0:
        index = torch.full((bags, core_width), -1, dtype=torch.int64, device=x.device)
        return x.new_zeros((bags, core_width)), index, hidden
    counted = counts_rows(x)
    step = max(1, SLICE_ROWS // tokens) if counted else bags
    uniform = uniforms(seed, (bags, core_width), compute_type(x), x.device) if counted else None
    cores, indices, filled = [], [], 0
    for first in range(0, bags, step):
        x_slice = x[first : first + step]
        flat = x_slice.reshape(-1, width)
        mask_slice = None if mask is None else mask[first : first + step]
        all_rows = hidden[filled : filled + flat.shape[0]] if tokens == per_bag else None
        h = torch.addmm(b1, flat, w1.t(), out=all_rows)
        z = torch.addmm(b2, F.gelu(h), w2.t()).view(x_slice.shape[0], tokens, core_width)
        if uniform is None:
            index = torch.ops.headwise.softmax_draw(z, seed, mask_slice, None)
        else:
            index = draw_slice(z, mask_slice, uniform[first : first + step])
        if all_rows is not None:
            filled += h.shape[0]
        elif counted:
            rows = drawn_rows(index, tokens).unique()
            torch.index_select(h, 0, rows, out=hidden[filled : filled + rows.shape[0]])
            filled += rows.shape[0]
        else:
            rows, _ = places_of_rows(index, tokens, per_bag)
            hidden = rows_or_zero(h, rows)
            filled = hidden.shape[0]
        cores.append(gather_drawn(z, index, "feature", None))
        indices.append(index)
    hidden[filled:] = 0
    if len(cores) == 1:
        return cores[0], indices[0], hidden
    return torch.cat(cores), torch.cat(indices), hidden


def counts_rows(x: Tensor) -> bool:
    """Whether the host may ask how many rows were drawn, without waiting for a device."""
    return x.is_cpu


def places_of_rows(index: Tensor, tokens: int, per_bag: int) -> tuple[Tensor, Tensor]:
    """Row of the flattened tokens at each of the places of all bags, int64 (B P,), B N where a
    place is not used; and the place of each draw, (B, C). The rows of a bag are in their order.

    No size depends on the draw: drawn rows are marked, and their places are the marks summed."""
    bags, index = index.shape[0], index.clamp_min(0)
    marks = torch.zeros((bags, tokens), dtype=torch.int64, device=index.device)
    marks = marks.scatter_(1, index, 1)
    place = (marks.cumsum(1) - 1).gather(1, index)
    first = torch.arange(bags, device=index.device)[:, None]
    rows = torch.full((bags, per_bag), bags * tokens, dtype=torch.int64, device=index.device)
    # Draws of one row write the same number to the same place.
    rows.scatter_(1, place, index + first * tokens)
    return rows.flatten(), place + first * per_bag


def rows_or_zero(x: Tensor, rows: Tensor) -> Tensor:
    """These rows of x (R, ...), 0 where the number is R, whatever x holds."""
    unused = (rows == x.shape[0])[:, None]
    return x.index_select(0, rows.clamp_max(x.shape[0] - 1)).masked_fill_(unused, 0.0)


def drawn_rows(index: Tensor, tokens: int) -> Tensor:
    """Rows of the flattened tokens for index (B, C); the first row of the bag where nothing was
    drawn (-1, -2).
    """
    return index.clamp_min(0) + torch.arange(index.shape[0], device=index.device)[:, None] * tokens


def backward(
    grad: Tensor,
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    index: Tensor,
    hidden: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, w1, b1, w2 and b2."""
    (bags, tokens, width), per_bag = x.shape, kept_per_bag(x.shape[1], w2.shape[0])
    flat = x.reshape(-1, width)
    grad = grad.masked_fill(index < 0, 0.0)
    if flat.shape[0] == 0 or w2.shape[0] == 0:
        d_x, d_w1, d_b1, d_w2, d_b2 = (t.new_zeros(t.shape) for t in (x, w1, b1, w2, b2))
        return d_x, d_w1, d_b1, d_w2, d_b2
    place, rows = drawn_rows(index, tokens), None
    if tokens > per_bag and counts_rows(x):
        rows, place = place.unique(return_inverse=True)
        hidden, flat = hidden[: rows.shape[0]], flat[rows]
    elif tokens > per_bag:
        rows, place = places_of_rows(index, tokens, per_bag)
        flat = rows_or_zero(flat, rows)
    activated = F.gelu(hidden)
    if gathers(x):
        shares = grad.t().contiguous()
        at = place.t().contiguous()
        d_w2 = F.embedding_bag(at, activated, per_sample_weights=shares, mode="sum")
        d_activated = _sum_by_row(grad, place, w2, hidden.shape[0])
    else:
        d_z = grad.new_zeros((hidden.shape[0], w2.shape[0])).scatter_(0, place, grad)
        d_w2, d_activated = d_z.t() @ activated, d_z @ w2
    d_h = torch.ops.aten.gelu_backward(d_activated, hidden)
    d_x = d_h @ w1
    if rows is not None:
        # One row more, which takes what has no row.
        all_rows = x.new_zeros((bags * tokens + 1, width))
        d_x = all_rows.index_copy_(0, rows, d_x)[:-1]
    return d_x.view(x.shape), d_h.t() @ flat, d_h.sum(0), d_w2, grad.sum(0)


def gathers(x: Tensor) -> bool:
    """Whether the two sums over draws are gathers: not for few tokens, where one dense product is
    faster, nor on devices that have no `embedding_bag`.
    """
    return x.shape[1] > FEW_TOKENS and x.device.type in ("cpu", "cuda")


def _sum_by_row(grad: Tensor, place: Tensor, w2: Tensor, rows: int) -> Tensor:
    """Sum over (b, c) with place[b, c] = r of grad[b, c] W2[c], for each row r: (rows, E)."""
    sorted_place, order = place.flatten().sort(stable=True)
    starts = torch.searchsorted(sorted_place, torch.arange(rows, device=place.device))
    return F.embedding_bag(
        order % w2.shape[0], w2, starts, per_sample_weights=grad.flatten()[order], mode="sum"
    )
