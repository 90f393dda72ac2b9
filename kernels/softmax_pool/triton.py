"""Triton form of softmax pooling and drawing.

Shapes: B bags, N rows, D width, H heads, S splits of the rows of a bag.

Each program owns a block of features of one bag and walks the rows in tiles, keeping the running
maximum, sum and weighted sum (online softmax: Milakov and Gimelshein, arXiv 1805.02867), so the
scores are read once. When bags and features are too few to fill the device, the rows are split over
S programs and their partial sums are merged afterwards. Per head the weighted sum is a matrix
product in the tensor cores (float32 as three TF32 products). The draw keeps the running maximum of
score - log(exponential noise), the noise from Philox with the seed as key and (row, feature, bag)
as counter: nothing random is ever stored.

Tiles are fixed, not tuned: the kernels are limited by memory, and the interpreter cannot run a
tuned kernel. Padded and packed bags differ only in where a bag starts and ends."""

import torch
import triton
from torch import Tensor

from ..launching import contiguous, launch
from ..precision import compute_type
from .naive import finite, mean_and_lse
from .triton_kernels import (
    draw_kernel,
    head_pool_kernel,
    head_scores_backward_kernel,
    head_values_backward_kernel,
    pool_backward_kernel,
    pool_kernel,
)

ROWS, WIDTH = 64, 64
# Smaller tiles per head: with these no kernel spills a register on sm_90, in float32 or bf16.
PER_HEAD = {"ROWS": 32, "HEADS": 16}
PROGRAMS = 264  # two for each of the 132 multiprocessors of an H100


def _bags(
    scores: Tensor, mask: Tensor | None, offsets: Tensor | None
) -> tuple[int, int, Tensor, Tensor, dict[str, int]]:
    """Bags, rows of a padded bag, mask and offsets (any tensor where there are none), and the flags
    of a launch.
    """
    flags: dict[str, int] = {
        "PACKED": offsets is not None,
        "MASKED": mask is not None,
        "ROWS": ROWS,
        "WIDTH": WIDTH,
    }
    counts = scores if mask is None else mask.contiguous().view(torch.uint8)
    if offsets is not None:
        return offsets.shape[0] - 1, 0, counts, offsets.contiguous(), flags
    return scores.shape[0], scores.shape[1], counts, scores, flags


def _splits(scores: Tensor, bags: int, programs: int) -> int:
    """Programs that share the rows of a bag, by the mean length of a bag: its true length would
    need a wait.
    """
    mean = scores.numel() // max(scores.shape[-1], 1) // max(bags, 1)
    return max(1, min(triton.cdiv(mean, ROWS), PROGRAMS // max(programs, 1)))


def _merge(top: Tensor, total: Tensor, summed: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Partial maxima, sums (S, B, ...) and weighted sums -> (pooled, lse)."""
    highest = finite(top.amax(0))
    weight = (top - highest).exp()
    share = weight[..., None] if summed.ndim > weight.ndim else weight
    return mean_and_lse((summed * share).sum(0), (total * weight).sum(0), highest, dtype)


def pool(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """As `cpu.pool`, by Triton."""
    scores = scores.contiguous()
    value = scores if values is None else values.contiguous()
    bags, rows, counts, ends, flags = _bags(scores, mask, offsets)
    columns, width = scores.shape[-1], value.shape[-1]
    blocks = triton.cdiv(width, WIDTH)
    head_blocks = triton.cdiv(columns, PER_HEAD["HEADS"]) if per_head else 1
    splits = _splits(scores, bags, bags * blocks * head_blocks)
    top = scores.new_full((splits, bags, columns), -torch.inf, dtype=compute_type(scores))
    total = torch.zeros_like(top)
    summed = top.new_zeros((*top.shape, width) if per_head else top.shape)
    tensors = scores, value, counts, ends, top, total, summed
    if bags * blocks * head_blocks == 0:
        pass
    elif per_head:
        grid, sizes = (bags * head_blocks, blocks, splits), (rows, columns, width, bags, splits)
        launch(head_pool_kernel, grid, *tensors, *sizes, **(flags | PER_HEAD))
    else:
        flags["OWN"] = values is None
        grid, sizes = (bags, blocks, splits), (rows, width, bags, splits)
        launch(pool_kernel, grid, *tensors, *sizes, **flags)
    return _merge(top, total, summed, scores.dtype)


def pool_backward(
    grad: Tensor,
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    pooled: Tensor,
    lse: Tensor,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """As `cpu.pool_backward`, by Triton."""
    grad, scores, pooled, lse = contiguous(grad, scores, pooled, lse)
    value = scores if values is None else values.contiguous()
    bags, rows, counts, ends, flags = _bags(scores, mask, offsets)
    heads, width = scores.shape[-1], value.shape[-1]
    d_scores = torch.zeros_like(scores)
    d_values = scores.new_empty((0,)) if values is None else torch.zeros_like(value)
    blocks, head_blocks = triton.cdiv(width, WIDTH), triton.cdiv(heads, PER_HEAD["HEADS"])
    if scores.numel() == 0 or value.numel() == 0:
        return d_scores, d_values
    splits = _splits(scores, bags, bags * blocks)
    if not per_head:
        flags["OWN"] = values is None
        tensors = grad, scores, value, counts, ends, pooled, lse, d_scores, d_values
        grid = bags, blocks, splits
        launch(pool_backward_kernel, grid, *tensors, rows, width, splits, **flags)
        return d_scores, d_values
    flags |= PER_HEAD
    delta = (grad.to(lse.dtype) * pooled.to(lse.dtype)).sum(-1)
    score_splits = _splits(scores, bags, bags * head_blocks)
    tensors = grad, scores, value, counts, ends, delta, lse, d_scores
    grid, sizes = (bags * head_blocks, 1, score_splits), (rows, heads, width)
    launch(head_scores_backward_kernel, grid, *tensors, *sizes, score_splits, **flags)
    tensors = grad, scores, counts, ends, lse, d_values
    grid = bags, blocks, splits
    launch(head_values_backward_kernel, grid, *tensors, *sizes, splits, **flags)
    return d_scores, d_values


def draw(scores: Tensor, seed: Tensor, mask: Tensor | None, offsets: Tensor | None) -> Tensor:
    """As `cpu.draw`, by Triton: the same distribution, another stream of random numbers."""
    scores = scores.contiguous()
    bags, rows, counts, ends, flags = _bags(scores, mask, offsets)
    width = scores.shape[-1]
    blocks = triton.cdiv(width, WIDTH)
    splits = _splits(scores, bags, bags * blocks)
    best = scores.new_full((splits, bags, width), -torch.inf, dtype=torch.float32)
    row = torch.full_like(best, -1, dtype=torch.int64)
    if bags * width:
        tensors = scores, seed, counts, ends, best, row
        grid, sizes = (bags, blocks, splits), (rows, width, bags, splits)
        launch(draw_kernel, grid, *tensors, *sizes, **flags)
    return row.gather(0, best.argmax(0, keepdim=True)).squeeze(0)
