"""Triton form of attention by labels.

Shapes: B batch, N tokens, L labels, d width.

Forward, a program owns a block of labels of one sample and walks its tokens: scores and what the
tokens say come from two products with the same tile of tokens, in steps along the width, so that
any width fits; a running maximum and two sums a label are all that is held. Backward, a kernel of
the same products writes the slopes of scores and evidence of a chunk of labels, in the type of the
tokens, and PyTorch's products sum them over labels (tokens) and over tokens (queries and weights).
Scores are formed in the kernel, since rounded to half precision they would change the weights.
Exponentials are powers of 2, scale includes log2(e); lse is the natural logarithm."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch, pair_and_block, power_of_two
from .cpu import room

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
SLOPES = 1 << 26  # numbers of the slopes of a chunk of labels


@triton.jit
def _tile(x, rows, live, column, width, WIDTH: tl.constexpr):  # pragma: no cover - device code
    """(rows, WIDTH) from a column on, 0 beyond the edges; x: contiguous."""
    c = column + tl.arange(0, WIDTH)
    place = x + rows.to(tl.int64)[:, None] * width + c[None, :]
    return tl.load(place, mask=live[:, None] & (c < width)[None, :], other=0.0)


@triton.jit
def _products(
    h,
    query,
    weight,
    t,
    present,
    label,
    asked,
    width,
    LABELS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    """q . h and w . h of a block of labels and tokens, (LABELS, TOKENS)."""
    scores = tl.zeros((LABELS, TOKENS), tl.float32)
    evidence = tl.zeros((LABELS, TOKENS), tl.float32)
    for column in range(0, width, WIDTH):
        # Absent tokens are not read: they may hold a NaN.
        rows = tl.trans(_tile(h, t, present, column, width, WIDTH))
        q = _tile(query, label, asked, column, width, WIDTH)
        scores += tl.dot(q, rows, input_precision=PRECISION)
        w = _tile(weight, label, asked, column, width, WIDTH)
        evidence += tl.dot(w, rows, input_precision=PRECISION)
    return scores, evidence


@triton.jit
def _present(mask, t, tokens, MASKED: tl.constexpr):  # pragma: no cover - device code
    present = t < tokens
    if MASKED:
        present = present & (tl.load(mask + t, mask=present, other=0) != 0)
    return present


@kernel
def forward_kernel(
    h,
    query,
    weight,
    mask,
    pooled,
    lse,
    tokens,
    labels,
    width,
    scale,
    MASKED: tl.constexpr,
    LABELS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    sample, block = pair_and_block(tl.cdiv(labels, LABELS))
    label = block * LABELS + tl.arange(0, LABELS)
    asked = label < labels
    top = tl.full((LABELS,), float("-inf"), tl.float32)
    total = tl.zeros((LABELS,), tl.float32)
    summed = tl.zeros((LABELS,), tl.float32)
    for start in range(0, tokens, TOKENS):
        t = start + tl.arange(0, TOKENS)
        present = _present(mask + sample * tokens, t, tokens, MASKED)
        scores, evidence = _products(
            h + sample * tokens * width, query, weight, t, present, label, asked, width,
            LABELS, TOKENS, WIDTH,
        )  # fmt: skip
        scores = tl.where(present[None, :], scores * (scale * LOG2E), float("-inf"))
        above = tl.maximum(top, tl.max(scores, 1))
        # Before the first token there is no maximum, and -inf from -inf would be NaN.
        base = tl.where(above == float("-inf"), 0.0, above)
        weights = tl.exp2(scores - base[:, None])
        shrunk = tl.exp2(top - base)
        total = total * shrunk + tl.sum(weights, 1)
        summed = summed * shrunk + tl.sum(weights * evidence, 1)
        top = above
    place = sample * labels + label
    tl.store(pooled + place, tl.where(total == 0.0, 0.0, summed / total), mask=asked)
    log_sum = tl.where(total == 0.0, float("inf"), (top + tl.log2(total)) * LN2)
    tl.store(lse + place, log_sum, mask=asked)


@kernel
def slopes_kernel(
    grad,
    h,
    query,
    weight,
    mask,
    pooled,
    lse,
    slopes,
    tokens,
    labels,
    first,
    count,
    width,
    scale,
    MASKED: tl.constexpr,
    LABELS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    blocks = tl.cdiv(count, LABELS)
    sample, block = pair_and_block(tl.cdiv(tokens, TOKENS) * blocks)
    t = block // blocks * TOKENS + tl.arange(0, TOKENS)
    c = block % blocks * LABELS + tl.arange(0, LABELS)  # place in the chunk of labels
    asked, label = c < count, first + c
    present = _present(mask + sample * tokens, t, tokens, MASKED)
    scores, evidence = _products(
        h + sample * tokens * width, query, weight, t, present, label, asked, width,
        LABELS, TOKENS, WIDTH,
    )  # fmt: skip
    place = sample * labels + label
    g = tl.load(grad + place, mask=asked, other=0.0)
    mean = tl.load(pooled + place, mask=asked, other=0.0)
    sums = tl.load(lse + place, mask=asked, other=float("inf")) * LOG2E
    weights = tl.exp2(scores * (scale * LOG2E) - sums[:, None])
    for_evidence = tl.where(present[None, :], weights, 0.0) * g[:, None]
    for_scores = for_evidence * (evidence - mean[:, None]) * scale
    row = slopes + (sample * tokens + t)[None, :] * (2 * count) + c[:, None]
    inside = asked[:, None] & (t < tokens)[None, :]
    tl.store(row, for_scores, mask=inside)
    tl.store(row + count, for_evidence, mask=inside)


def _flags(h: Tensor, labels: int, mask: Tensor | None) -> dict[str, int]:
    """Sizes of the tiles; products need 16 rows and columns."""
    single = h.dtype == torch.float32  # three products in place of one: more registers
    return {
        "MASKED": mask is not None,
        "LABELS": min(64, power_of_two(labels)),
        "TOKENS": 32 if single else 64,
        "WIDTH": min(16 if single else 64, power_of_two(h.shape[2])),
        "num_warps": 4,
        "num_stages": 2 if single else 3,
    }


def _bytes(mask: Tensor | None, stand_in: Tensor) -> Tensor:
    return stand_in if mask is None else mask.contiguous().view(torch.uint8)


def forward(
    h: Tensor, query: Tensor, weight: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    pooled, lse = room(h, query)
    if h.shape[1] == 0 or pooled.numel() == 0:
        return pooled.zero_(), lse.fill_(torch.inf)
    h, query, weight = contiguous(h, query, weight)
    (batch, tokens, width), labels = h.shape, query.shape[0]
    flags = _flags(h, labels, mask)
    grid = (batch * triton.cdiv(labels, flags["LABELS"]),)
    tensors = h, query, weight, _bytes(mask, h), pooled, lse
    launch(forward_kernel, grid, *tensors, tokens, labels, width, scale, **flags)
    return pooled, lse


def backward(
    grad: Tensor,
    h: Tensor,
    query: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    pooled: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by a kernel for the slopes and PyTorch's products."""
    d_h, d_query, d_weight = (
        torch.zeros(x.shape, dtype=torch.float32, device=h.device) for x in (h, query, weight)
    )
    grad, h, query, weight, pooled, lse = contiguous(grad, h, query, weight, pooled, lse)
    (batch, tokens, width), labels = h.shape, query.shape[0]
    if h.numel() and labels:
        rows, marks, flags = h.flatten(0, 1), _bytes(mask, h), _flags(h, labels, mask)
        if mask is not None:  # 0 times NaN would be NaN
            rows = rows.masked_fill(~mask.flatten()[:, None], 0.0)
        step = max(1, SLOPES // (2 * batch * tokens))
        for first in range(0, labels, step):
            some = slice(first, first + step)
            count = min(step, labels - first)
            slopes = h.new_empty((batch * tokens, 2 * count))
            blocks = triton.cdiv(tokens, flags["TOKENS"]) * triton.cdiv(count, flags["LABELS"])
            tensors = grad, h, query, weight, marks, pooled, lse, slopes
            sizes = tokens, labels, first, count, width
            launch(slopes_kernel, (batch * blocks,), *tensors, *sizes, scale, **flags)
            d_h += (slopes @ torch.cat([query[some], weight[some]])).view(h.shape).float()
            d_both = (slopes.T @ rows).float()
            d_query[some], d_weight[some] = d_both[:count], d_both[count:]
    return d_h.to(h.dtype), d_query.to(query.dtype), d_weight.to(weight.dtype)
