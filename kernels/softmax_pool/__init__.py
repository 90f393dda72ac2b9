"""Softmax-weighted pooling over the rows of a bag, and its stochastic form.

Shapes: B bags, N rows (tokens) of a padded bag, M rows of all bags packed, D width, H heads.

    mean   pooled = sum_n p_n v_n,  p = softmax_n(scores);  lse = log sum_n exp(scores_n)
           d scores = p * g * (v - pooled),  d v = p * g
    draw   index ~ p, pooled = v[index];  the gradient goes to the drawn value only

Work of the mean, feature form: 2 N D reads (N D when values are the scores) and D written per bag,
~6 flops and one exponential a number: limited by memory. The plain form writes and reads N D three
times more and keeps softmax, scores and product for the backward pass; here only `pooled` and `lse`
are kept besides the inputs. Work of the draw: on the GPU the maximum of scores + Gumbel noise, the
noise made by Philox in registers in the same pass. On the CPU the inverse of the cumulative sum:
one uniform number per bag and feature, where softmax followed by `torch.multinomial` draws B N D
exponentials. Both are exact draws from the same softmax, with different random streams."""

import math
from typing import Literal

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..precision import SLICE_NUMBERS, compute_type, type_refused
from ..register import operator
from . import cpu, naive

Per = Literal["feature", "head"]


def _check(
    name: str,
    scores: Tensor,
    values: Tensor | None,
    per: Per,
    mask: Tensor | None,
    offsets: Tensor | None,
) -> None:
    rank = 3 if offsets is None else 2
    if per not in ("feature", "head"):
        raise ValueError(f"{name}: per must be 'feature' or 'head', got {per!r}")
    if scores.ndim != rank or not scores.is_floating_point():
        form = "(batch, rows, features)" if offsets is None else "(rows, features) with offsets"
        raise ValueError(
            f"{name}: scores must be floating {form}, got {tuple(scores.shape)} {scores.dtype}"
        )
    if per == "head" and values is None:
        raise ValueError(
            f"{name}: per='head' needs values (one softmax per head over rows of another width)"
        )
    if values is not None:
        shared = scores.ndim if per == "feature" else scores.ndim - 1  # axes of equal sizes
        fit = values.ndim == scores.ndim and values.shape[:shared] == scores.shape[:shared]
        if not fit or values.dtype != scores.dtype:
            raise ValueError(
                f"{name}: values {tuple(values.shape)} {values.dtype} do not fit "
                f"scores {tuple(scores.shape)} {scores.dtype} (per={per!r})"
            )
    if mask is not None and offsets is not None:
        raise ValueError(f"{name}: give mask (padded) or offsets (packed), not both")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != scores.shape[:-1]):
        raise ValueError(
            f"{name}: mask must be bool {tuple(scores.shape[:-1])} (True counts), "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if offsets is not None and (
        offsets.dtype != torch.int64 or offsets.ndim != 1 or not len(offsets)
    ):
        raise ValueError(
            f"{name}: offsets must be int64 (bags + 1,), got {offsets.dtype} {tuple(offsets.shape)}"
        )


def _formula_refused(
    scores: Tensor,
    values: Tensor | None = None,
    mask: Tensor | None = None,
    offsets: Tensor | None = None,
) -> str:
    """Why the formula itself is not taken; "" where it is faster than calling an operator, and
    nothing has to be kept for a backward pass.
    """
    if not all(x is None for x in (values, mask, offsets)):
        return "values, a mask or packed bags"
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return "it would keep its steps for a gradient"
    if not scores.is_cpu or scores.dtype != torch.float32:
        return f"{scores.dtype} on {scores.device.type}"
    most = SLICE_NUMBERS
    return "" if scores.numel() <= most else f"more than {most} scores do not fit the cache"


def softmax_pool(
    scores: Tensor,
    values: Tensor | None = None,
    *,
    per: Per = "feature",
    mask: Tensor | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Softmax-weighted mean of the rows of each bag.

    scores: (B, N, D) for per="feature" (each feature has its own softmax over the rows; SOFTS,
    arXiv 2404.14197, section 3.2), (B, N, H) for per="head". values: (B, N, D); None (feature only)
    means the scores themselves. mask: bool (B, N), True counts. Packed bags: scores (M, D) or (M,
    H), values (M, D), offsets int64 (B + 1,). Returns (B, D) or (B, H, D). An empty or fully masked
    bag gives 0 and zero gradients, rows of no bag have gradients of 0; NaN scores give NaN.

    Raises ValueError for shapes or types that do not fit and, on the CPU, if offsets descend or
    leave the rows.
    """
    _check("softmax_pool", scores, values, per, mask, offsets)
    if not _formula_refused(scores, values, mask, offsets):
        return (scores.softmax(1) * scores).sum(1)
    return torch.ops.headwise.softmax_pool(scores, values, mask, offsets, per == "head")[0]


def forms(scores: Tensor, values: Tensor | None = None) -> list[Form]:
    """What can pool such scores; the draw has the last two."""
    refused = triton_refused(scores) or type_refused(scores)
    return [
        Form("the formula in PyTorch calls", _formula_refused(scores, values)),
        Form("Triton kernel, one pass over the scores", refused),
        Form("PyTorch calls, by slices of bags that fit the cache"),
    ]


def softmax_draw(
    scores: Tensor,
    values: Tensor | None = None,
    *,
    per: Per = "feature",
    mask: Tensor | None = None,
    offsets: Tensor | None = None,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one row of each bag per feature or head from the softmax of its scores (stochastic
    pooling).

    Shapes as in `softmax_pool`; returns (pooled, index) with index int64 (B, D) or (B, H): the row
    within its bag, -1 for an empty or fully masked bag (pooled 0), -2 where the scores hold a NaN
    (pooled NaN). The gradient flows through the drawn value only, not through the probabilities
    (Zeiler and Fergus, arXiv 1301.3557; SOFTS). seed: decides the draw (an int, or an int64 tensor
    on the device of the scores); by default it is drawn from `generator` or torch's own, so that
    `torch.manual_seed` decides it.

    Raises ValueError as `softmax_pool`.
    """
    _check("softmax_draw", scores, values, per, mask, offsets)
    if seed is None:
        seed = new_seed(scores.device, generator)
    elif isinstance(seed, int):
        seed = torch.full((), seed, dtype=torch.int64, device=scores.device)  # a copy would wait
    index = torch.ops.headwise.softmax_draw(scores.detach(), seed, mask, offsets)
    return gather_drawn(scores if values is None else values, index, per, offsets), index


def new_seed(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A seed, int64 (), from `generator` or torch's own for the device; never waits for the
    device.
    """
    return torch.randint(0, 2**62, (), dtype=torch.int64, device=device, generator=generator)


def gather_drawn(values: Tensor, index: Tensor, per: Per, offsets: Tensor | None) -> Tensor:
    """Values of the drawn rows: (B, D), or (B, H, D) per head; 0 where the index is -1, NaN where
    it is -2.
    """
    rows = index.clamp_min(0)
    if offsets is not None:
        # An empty last bag starts after the last row.
        rows = (rows + offsets[:-1, None]).clamp_max(max(values.shape[0] - 1, 0))
        if values.shape[0] == 0:
            values = values.new_zeros((1, values.shape[1])) + values.sum()
        picked = values.gather(0, rows) if per == "feature" else values[rows]
    elif values.shape[1] == 0:
        picked = values.sum(1)
        picked = picked if per == "feature" else picked[:, None].expand(-1, index.shape[1], -1)
    elif per == "feature":
        picked = values.gather(1, rows[:, None]).squeeze(1)
    else:
        picked = values[torch.arange(values.shape[0], device=values.device)[:, None], rows]
    row = index if per == "feature" else index[..., None]
    return picked.masked_fill(row == -1, 0.0).masked_fill(row == -2, math.nan)


def empty_pool(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """Memory for pooled (B, D) and lse (B, D), or per head (B, H, D) and (B, H)."""
    shape = _bags(scores, offsets), scores.shape[-1]
    width = (values.shape[-1],) if per_head and values is not None else ()
    return scores.new_empty((*shape, *width)), scores.new_empty(shape, dtype=compute_type(scores))


def empty_draw(scores: Tensor, seed: Tensor, mask: Tensor | None, offsets: Tensor | None) -> Tensor:
    """Memory for index (B, D)."""
    return scores.new_empty((_bags(scores, offsets), scores.shape[-1]), dtype=torch.int64)


def _bags(scores: Tensor, offsets: Tensor | None) -> int:
    return scores.shape[0] if offsets is None else offsets.shape[0] - 1


def fits(scores: Tensor) -> bool:
    """The Triton kernels sum in float32."""
    return not type_refused(scores)


operator(
    "softmax_pool",
    cpu.pool,
    fake=empty_pool,
    results=("pooled", "lse"),
    fits=fits,
    export=naive.softmax_pool,
    backward=cpu.pool_backward,
    backward_fits=fits,
    gradients=("scores", "values"),
)
operator("softmax_draw", cpu.draw, fake=empty_draw, fits=fits)
