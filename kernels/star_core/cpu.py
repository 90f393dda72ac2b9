"""PyTorch form of STAR's stochastic core, on any device.

Shapes: B bags, N tokens, D width, E hidden width, C core width, R = B N rows, U rows that were
drawn at least once.
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
    step = max(1, SLICE_ROWS // tokens) if x.is_cpu else bags
    uniform = uniforms(seed, (bags, core_width), compute_type(x), x.device) if x.is_cpu else None
    cores, indices, filled = [], [], 0
    for first in range(0, bags, step):
        x_slice = x[first : first + step]
        flat = x_slice.reshape(-1, width)
        mask_slice = None if mask is None else mask[first : first + step]
        all_rows = hidden[filled : filled + flat.shape[0]] if tokens == per_bag else None
        h = torch.addmm(b1, flat, w1.t(), out=all_rows)
        z = torch.addmm(b2, F.gelu(h), w2.t()).view(x_slice.shape[0], tokens, core_width)
        if uniform is None:  # pragma: no cover - needs a GPU
            index = torch.ops.headwise.softmax_draw(z, seed, mask_slice, None)
        else:
            index = draw_slice(z, mask_slice, uniform[first : first + step])
        if all_rows is None:
            rows = drawn_rows(index, tokens).unique()
            torch.index_select(h, 0, rows, out=hidden[filled : filled + rows.shape[0]])
            filled += rows.shape[0]
        else:
            filled += h.shape[0]
        cores.append(gather_drawn(z, index, "feature", None))
        indices.append(index)
    hidden[filled:] = 0
    if len(cores) == 1:
        return cores[0], indices[0], hidden
    return torch.cat(cores), torch.cat(indices), hidden


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
    tokens, flat = x.shape[1], x.reshape(-1, x.shape[2])
    grad = grad.masked_fill(index < 0, 0.0)
    if flat.shape[0] == 0 or w2.shape[0] == 0:
        d_x, d_w1, d_b1, d_w2, d_b2 = (torch.zeros_like(t) for t in (x, w1, b1, w2, b2))
        return d_x, d_w1, d_b1, d_w2, d_b2
    d_b2 = grad.sum(0)
    # One dense product over all tokens, where gathers would be slower.
    if tokens <= FEW_TOKENS:
        d_z = x.new_zeros((x.shape[0], tokens, w2.shape[0]))
        d_z = d_z.scatter_(1, index.clamp_min(0)[:, None], grad[:, None]).flatten(0, 1)
        d_w2 = d_z.t() @ F.gelu(hidden)
        d_h = torch.ops.aten.gelu_backward(d_z @ w2, hidden)
        return (d_h @ w1).view(x.shape), d_h.t() @ flat, d_h.sum(0), d_w2, d_b2
    # Gathers, over the drawn rows alone where those are fewer than all.
    place, rows = drawn_rows(index, tokens), None
    if tokens > kept_per_bag(tokens, w2.shape[0]):
        rows, place = place.unique(return_inverse=True)
        hidden, flat = hidden[: rows.shape[0]], flat[rows]
    shares = grad.t().contiguous()
    activated = F.gelu(hidden)
    d_w2 = F.embedding_bag(place.t().contiguous(), activated, per_sample_weights=shares, mode="sum")
    d_h = torch.ops.aten.gelu_backward(_sum_by_row(grad, place, w2, hidden.shape[0]), hidden)
    d_x = d_h @ w1
    if rows is not None:
        d_x = x.new_zeros((x.shape[0] * tokens, x.shape[2])).index_copy_(0, rows, d_x)
    return d_x.view(x.shape), d_h.t() @ flat, d_h.sum(0), d_w2, d_b2


def _sum_by_row(grad: Tensor, place: Tensor, w2: Tensor, rows: int) -> Tensor:
    """Sum over (b, c) with place[b, c] = r of grad[b, c] W2[c], for each row r: (rows, E)."""
    order = place.flatten().argsort(stable=True)
    counts = torch.bincount(place.flatten(), minlength=rows)
    return F.embedding_bag(
        order % w2.shape[0],
        w2,
        counts.cumsum(0) - counts,
        per_sample_weights=grad.flatten()[order],
        mode="sum",
    )
