"""The stochastic core of STAR (SOFTS): two linear layers, a draw per core feature, and a sparse
backward pass.

Shapes: B batch, N tokens, D width, C core width, R = B N rows, U rows that were drawn at least
once.

    h = x W1^T + b1;  z = gelu(h) W2^T + b2
    index[b, c] ~ softmax_n(z[b, n, c]);  core[b, c] = z[b, index, c]

Only the drawn entries of z carry a gradient: one token per (batch, core feature). So dL/dz has B C
numbers that are not zero instead of B N C, and, exactly,

    dW2[c] = sum_b dcore[b, c] gelu(h[b, index[b, c]])
    dgelu[row] = sum of dcore[b, c] W2[c] over the (b, c) drawn at the row
    dh = dgelu * gelu'(h);  dW1 = dh^T x;  dx = dh W1           on the drawn rows only

Work, in matrix products of 2 R D^2 flops (C = D): forward 2; backward 4 in the plain form, here 2
U/R (the two sums are gathers, 1/N of a product each). U is at most B min(N, C); for independent
draws U/R = 1 - (1 - 1/N)^C, that is 0.45 at N = 862 and 0.10 at N = 5000 with C = 512. Kept for the
backward pass: x and min(N, C)/N of h, where the plain form keeps x, h and gelu(h). On the CPU z
exists for a few bags at a time. On other devices nothing is read back: shapes do not depend on
the draw, so there U = B min(N, C) rows are computed, of which those that were not drawn are 0."""

import torch
from torch import Tensor

from ..forms import Form
from ..precision import match_autocast
from ..register import operator
from ..softmax_pool import new_seed
from . import cpu


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
    operands = x, w1, b1, w2, b2
    fit = x.ndim == 3 and w1.ndim == w2.ndim == 2 and x.shape[2] == w1.shape[1]
    fit = fit and w1.shape[0] == w2.shape[1]
    if not fit or b1.shape != w1.shape[:1] or b2.shape != w2.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in operands)
        raise ValueError(f"star_core: x, w1, b1, w2, b2 of shapes {shapes} do not fit")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
        raise ValueError(
            f"star_core: mask must be bool {tuple(x.shape[:2])} (True counts), "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if seed is None:
        seed = new_seed(x.device, generator)
    elif isinstance(seed, int):
        seed = torch.full((), seed, dtype=torch.int64, device=x.device)  # a copy would wait
    core, index, _ = torch.ops.headwise.star_core(*match_autocast(*operands), seed, mask)
    return core, index


def forms(x: Tensor, core: int) -> list[Form]:
    """What can compute the core, of width `core`, of such tokens (B, N, D)."""
    few = x.shape[1] <= cpu.kept_per_bag(x.shape[1], core)
    dense = "" if not cpu.gathers(x) else f"more than {cpu.FEW_TOKENS} tokens"
    kept = "all rows are kept, there are not more than core features" if few else ""
    counted = "" if cpu.counts_rows(x) else f"{x.device.type} would wait for the number of rows"
    return [
        Form("dense backward over the rows that are kept", dense),
        Form("gathers over the drawn rows", kept or counted),
        Form("gathers over a fixed number of rows a bag"),
    ]


def empty(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, seed: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for core (B, C), index (B, C) and the rows of h that are kept."""
    shape = (x.shape[0], w2.shape[0])
    rows = x.shape[0] * cpu.kept_per_bag(x.shape[1], w2.shape[0])
    hidden = x.new_empty((rows, w1.shape[0]))
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64), hidden


operator(
    "star_core",
    cpu.forward,
    fake=empty,
    results=("core", "index", "hidden"),
    backward=cpu.backward,
    gradients=("x", "w1", "b1", "w2", "b2"),
)
