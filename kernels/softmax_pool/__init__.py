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

from . import cpu as plain

Per = Literal["feature", "head"]


def _check(
    operation: str,
    scores: Tensor,
    values: Tensor | None,
    per: Per,
    mask: Tensor | None,
    offsets: Tensor | None,
) -> None:
    rank = 3 if offsets is None else 2
    if per not in ("feature", "head"):
        raise ValueError(f"{operation}: per must be 'feature' or 'head', got {per!r}")
    if scores.ndim != rank or not scores.is_floating_point():
        form = "(batch, rows, features)" if offsets is None else "(rows, features) with offsets"
        raise ValueError(
            f"{operation}: scores must be floating {form}, got {tuple(scores.shape)} {scores.dtype}"
        )
    if per == "head" and values is None:
        raise ValueError(
            f"{operation}: per='head' needs values (one softmax per head over rows of another width)"
        )
    if values is not None:
        same = (
            values.shape == scores.shape
            if per == "feature"
            else values.shape[:-1] == scores.shape[:-1]
        )
        if not same or values.dtype != scores.dtype:
            raise ValueError(
                f"{operation}: values {tuple(values.shape)} {values.dtype} do not fit "
                f"scores {tuple(scores.shape)} {scores.dtype} (per={per!r})"
            )
    if mask is not None and offsets is not None:
        raise ValueError(f"{operation}: give mask (padded) or offsets (packed), not both")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != scores.shape[:-1]):
        raise ValueError(
            f"{operation}: mask must be bool {tuple(scores.shape[:-1])} (True counts), "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if offsets is not None and (offsets.dtype != torch.int64 or offsets.ndim != 1):
        raise ValueError(
            f"{operation}: offsets must be int64 (bags + 1,), got {offsets.dtype} {tuple(offsets.shape)}"
        )


def _small_and_plain(
    scores: Tensor, values: Tensor | None, mask: Tensor | None, offsets: Tensor | None
) -> bool:
    """True where the formula itself is quicker than calling an operator, and nothing is kept for a
    backward pass.
    """
    return (
        values is None
        and mask is None
        and offsets is None
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and scores.is_cpu
        and scores.dtype == torch.float32
        and scores.numel() <= plain.SLICE_NUMBERS
    )


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
    bag gives 0 and zero gradients; NaN scores give NaN.

    Raises ValueError for shapes or types that do not fit.
    """
    _check("softmax_pool", scores, values, per, mask, offsets)
    if _small_and_plain(scores, values, mask, offsets):
        return (scores.softmax(1) * scores).sum(1)
    return torch.ops.headwise.softmax_pool(scores, values, mask, offsets, per == "head")[0]


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

    Raises ValueError for shapes or types that do not fit.
    """
    _check("softmax_draw", scores, values, per, mask, offsets)
    if seed is None:
        seed = new_seed(scores.device, generator)
    elif isinstance(seed, int):
        seed = torch.tensor(seed, dtype=torch.int64, device=scores.device)
    index = torch.ops.headwise.softmax_draw(scores.detach(), seed, mask, offsets)
    return gather_drawn(scores if values is None else values, index, per, offsets), index


def new_seed(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A seed, int64 (), from torch's generator of the device or the one given; never waits for the
    device.
    """
    return torch.randint(0, 2**62, (), dtype=torch.int64, device=device, generator=generator)


def gather_drawn(values: Tensor, index: Tensor, per: Per, offsets: Tensor | None) -> Tensor:
    """Values of the drawn rows: (B, D), or (B, H, D) per head; 0 where index is -1, NaN where it is
    -2.
    """
    rows = index.clamp_min(0)
    if offsets is not None:
        # An empty last bag starts behind the last row.
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
    odd = index if per == "feature" else index[..., None]
    return picked.masked_fill(odd == -1, 0.0).masked_fill(odd == -2, math.nan)


@torch.library.custom_op("headwise::softmax_pool", mutates_args=())
def _pool(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    return plain.pool(scores, values, mask, offsets, per_head)


@_pool.register_fake
def _(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    bags = scores.shape[0] if offsets is None else offsets.shape[0] - 1
    lse = scores.new_empty((bags, scores.shape[-1]), dtype=plain.compute_type(scores))
    if per_head:
        assert values is not None
        return scores.new_empty((bags, scores.shape[-1], values.shape[-1])), lse
    return scores.new_empty((bags, scores.shape[-1])), lse


@torch.library.custom_op("headwise::softmax_pool_backward", mutates_args=())
def _pool_backward(
    grad: Tensor,
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    pooled: Tensor,
    lse: Tensor,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    return plain.pool_backward(grad, scores, values, mask, offsets, pooled, lse, per_head)


@_pool_backward.register_fake
def _(
    grad: Tensor,
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    pooled: Tensor,
    lse: Tensor,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    shared = scores.new_empty((0,)) if values is None else values.new_empty(values.shape)
    return scores.new_empty(scores.shape), shared


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    scores, values, mask, offsets, ctx.per_head = inputs
    ctx.save_for_backward(scores, values, mask, offsets, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad: Tensor | None, _: Tensor | None):  # type: ignore[no-untyped-def]
    if grad is None:
        return None, None, None, None, None
    scores, values, mask, offsets, pooled, lse = ctx.saved_tensors
    d_scores, d_values = torch.ops.headwise.softmax_pool_backward(
        grad, scores, values, mask, offsets, pooled, lse, ctx.per_head
    )
    return d_scores, None if values is None else d_values, None, None, None


_pool.register_autograd(_gradient, setup_context=_save)


@torch.library.custom_op("headwise::softmax_draw", mutates_args=())
def _draw(scores: Tensor, seed: Tensor, mask: Tensor | None, offsets: Tensor | None) -> Tensor:
    return plain.draw(scores, seed, mask, offsets)


@_draw.register_fake
def _(scores: Tensor, seed: Tensor, mask: Tensor | None, offsets: Tensor | None) -> Tensor:
    bags = scores.shape[0] if offsets is None else offsets.shape[0] - 1
    return scores.new_empty((bags, scores.shape[-1]), dtype=torch.int64)


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
@_pool.register_kernel("cuda")
def _(scores, values, mask, offsets, per_head):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = plain.triton_form()
    return (device or plain).pool(scores, values, mask, offsets, per_head)


@_pool_backward.register_kernel("cuda")
def _(grad, scores, values, mask, offsets, pooled, lse, per_head):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = plain.triton_form()
    return (device or plain).pool_backward(
        grad, scores, values, mask, offsets, pooled, lse, per_head
    )


@_draw.register_kernel("cuda")
def _(scores, seed, mask, offsets):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = plain.triton_form()
    return (device or plain).draw(scores, seed, mask, offsets)
