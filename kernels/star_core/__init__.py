"""The stochastic core of STAR (SOFTS): two linear layers, a draw per core feature, and a sparse
backward pass.

Shapes: B batch, N tokens, D width, C core width, R = B N rows, U rows that were drawn at least
once.

    h = x W1^T + b1;  z = gelu(h) W2^T + b2;  index[b, c] ~ softmax_n(z[b, n, c]);  core[b, c] = z[b, index, c]

Only the drawn entries of z carry a gradient: one token per (batch, core feature). So dL/dz has B C
numbers that are not zero instead of B N C, and, exactly,

    dW2[c] = sum_b dcore[b, c] gelu(h[b, index[b, c]])          dgelu[row] = sum of dcore[b, c] W2[c] drawn at the row
    dh = dgelu * gelu'(h);  dW1 = dh^T x;  dx = dh W1           on the drawn rows only

Work, in matrix products of 2 R D^2 flops (C = D): forward 2; backward 4 in the plain form, here 2
U/R (the two sums are gathers, 1/N of a product each). U is at most B min(N, C); for independent
draws U/R = 1 - (1 - 1/N)^C, that is 0.45 at N = 862 and 0.10 at N = 5000 with C = 512. Kept for the
backward pass: min(N, C)/N of h, besides x, against h and gelu(h). z exists for a few bags at a time
on the CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gelu_linear import match_autocast
from ..precision import compute_type
from ..forms import triton_installed
from ..softmax_pool import cpu as plain
from ..softmax_pool import gather_drawn, new_seed

FEW_TOKENS = 32  # below this one dense product is faster than the gathers it replaces
SLICE_ROWS = 2048


def star_core(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    *,
    mask: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Core drawn per batch and core feature from the softmax over tokens of z = W2 gelu(W1 x + b1)
    + b2.

    x: (B, N, D); w1: (E, D); b1: (E,); w2: (C, E); b2: (C,); mask: bool (B, N), True = the token
    counts. Returns (core (B, C), index int64 (B, C)); index and core of a bag without tokens are -1
    and 0. seed, generator: as in `softmax_draw`. Gradients flow through the drawn values only.

    Raises ValueError if the shapes do not fit. Source: Han et al. arXiv 2404.14197, equations 3 to
    5."""
    fits = (
        x.ndim == 3
        and w1.ndim == w2.ndim == 2
        and x.shape[2] == w1.shape[1]
        and w1.shape[0] == w2.shape[1]
    )
    if not fits or b1.shape != w1.shape[:1] or b2.shape != w2.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (x, w1, b1, w2, b2))
        raise ValueError(f"star_core: x, w1, b1, w2, b2 of shapes {shapes} do not fit")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
        raise ValueError(
            f"star_core: mask must be bool {tuple(x.shape[:2])} (True counts), got {mask.dtype} {tuple(mask.shape)}"
        )
    if seed is None:
        seed = new_seed(x.device, generator)
    elif isinstance(seed, int):
        seed = torch.tensor(seed, dtype=torch.int64, device=x.device)
    core, index, _ = torch.ops.headwise.star_core(*match_autocast(x, w1, b1, w2, b2), seed, mask)
    return core, index


def kept_per_bag(tokens: int, core: int) -> int:
    """Rows of h kept per bag: a bound that the draw does not change, so that shapes in a graph are
    fixed.
    """
    return min(tokens, max(core, FEW_TOKENS))


@torch.library.custom_op("headwise::star_core", mutates_args=())
def _star_core(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    bags, tokens, width = x.shape
    core_width = w2.shape[0]
    if tokens == 0:
        empty = torch.full((bags, core_width), -1, dtype=torch.int64, device=x.device)
        return x.new_zeros((bags, core_width)), empty, x.new_empty((0, w1.shape[0]))
    step = max(1, SLICE_ROWS // tokens) if x.is_cpu else bags
    uniform = None
    if x.is_cpu or not triton_installed():
        uniform = plain.uniforms(seed, (bags, core_width), compute_type(x), x.device)
    all_rows = tokens == kept_per_bag(tokens, core_width)
    kept = x.new_empty((bags * kept_per_bag(tokens, core_width), w1.shape[0]))
    cores, indices, filled = [], [], 0
    for first in range(0, bags, step):
        part = x[first : first + step]
        flat = part.reshape(-1, width)
        part_mask = None if mask is None else mask[first : first + step]
        if all_rows:
            h = torch.addmm(
                b1, flat, w1.t(), out=kept[first * tokens : first * tokens + flat.shape[0]]
            )
        else:
            h = torch.addmm(b1, flat, w1.t())
        z = torch.addmm(b2, F.gelu(h), w2.t()).view(part.shape[0], tokens, core_width)
        if uniform is None:  # pragma: no cover - needs a GPU
            index = torch.ops.headwise.softmax_draw(z, seed, part_mask, None)
        else:
            index = plain.draw_slice(z, part_mask, uniform[first : first + step])
        if not all_rows:
            drawn = _drawn_rows(index, tokens).unique()
            torch.index_select(h, 0, drawn, out=kept[filled : filled + drawn.shape[0]])
            filled += drawn.shape[0]
        cores.append(gather_drawn(z, index, "feature", None))
        indices.append(index)
    if not all_rows:
        kept[filled:] = 0
    return (
        (cores[0], indices[0], kept)
        if len(cores) == 1
        else (torch.cat(cores), torch.cat(indices), kept)
    )


@_star_core.register_fake
def _(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (x.shape[0], w2.shape[0])
    kept = x.new_empty((x.shape[0] * kept_per_bag(x.shape[1], w2.shape[0]), w1.shape[0]))
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64), kept


def _drawn_rows(index: Tensor, tokens: int) -> Tensor:
    """Rows of the flattened tokens for index (B, C); what was not drawn (-1, -2) points at the
    first row of its bag.
    """
    return index.clamp_min(0) + torch.arange(index.shape[0], device=index.device)[:, None] * tokens


@torch.library.custom_op("headwise::star_core_backward", mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, w1: Tensor, w2: Tensor, index: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tokens, flat = x.shape[1], x.reshape(-1, x.shape[2])
    grad = grad.masked_fill(index < 0, 0.0)
    d_b2 = grad.sum(0)
    if flat.shape[0] == 0 or w2.shape[0] == 0:
        return (
            torch.zeros_like(x),
            torch.zeros_like(w1),
            w1.new_zeros(w1.shape[0]),
            torch.zeros_like(w2),
            d_b2,
        )
    if tokens <= FEW_TOKENS:
        d_z = x.new_zeros((x.shape[0], tokens, w2.shape[0]))
        d_z = d_z.scatter_(1, index.clamp_min(0)[:, None], grad[:, None]).flatten(0, 1)
        d_w2 = d_z.t() @ F.gelu(kept)
        d_h = torch.ops.aten.gelu_backward(d_z @ w2, kept)
        return (d_h @ w1).view(x.shape), d_h.t() @ flat, d_h.sum(0), d_w2, d_b2
    place = _drawn_rows(index, tokens)
    rows = None
    if tokens > kept_per_bag(tokens, w2.shape[0]):
        rows, place = place.unique(return_inverse=True)
        kept, flat = kept[: rows.shape[0]], flat[rows]
    d_w2 = F.embedding_bag(
        place.t().contiguous(), F.gelu(kept), per_sample_weights=grad.t().contiguous(), mode="sum"
    )
    d_h = torch.ops.aten.gelu_backward(_sum_by_row(grad, place, w2, kept.shape[0]), kept)
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


@_backward.register_fake
def _(
    grad: Tensor, x: Tensor, w1: Tensor, w2: Tensor, index: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    biases = w1.new_empty(w1.shape[:1]), w2.new_empty(w2.shape[:1])
    return (
        x.new_empty(x.shape),
        w1.new_empty(w1.shape),
        biases[0],
        w2.new_empty(w2.shape),
        biases[1],
    )


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, w1, _, w2, *_ = inputs
    _, index, kept = output
    ctx.save_for_backward(x, w1, w2, index, kept)
    ctx.mark_non_differentiable(index, kept)
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad: Tensor | None, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 7
    return *torch.ops.headwise.star_core_backward(grad, *ctx.saved_tensors), None, None


_star_core.register_autograd(_gradient, setup_context=_save)
