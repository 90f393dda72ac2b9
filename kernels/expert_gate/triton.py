"""Triton form of the gate of experts.

Shapes: T tokens, E experts, K active experts of a token.

A program takes blocks of rows in turn and holds their scores: softmax, the K greatest in turn,
weights and statistics are made without a tensor (T, E) in memory. Statistics leave as one row of
partial sums a program, which PyTorch adds up; there are as many programs as fill a GPU, so that
this does not grow with the tokens. How many chose an expert is counted after the choice, in whole
numbers. So two runs give the same numbers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import contiguous, kernel, launch, power_of_two
from .cpu import counts_of

NUMBERS = 512  # scores of a program: 4 a thread, without spills on sm_90
PROGRAMS = 1056  # eight for each of the 132 multiprocessors of an H100
SCORES = {"softmax": 0, "sigmoid": 1, "given": 2}
TINY = torch.finfo(torch.float32).tiny
LEAST = tl.constexpr(torch.finfo(torch.float32).min)


@triton.jit
def probabilities(s, inside, SCORE: tl.constexpr):  # pragma: no cover - device code
    """p, exp(s - top) and log-sum-exp of rows; 0 outside."""
    top = tl.max(tl.where(inside, s, float("-inf")), 1)
    top = tl.where(top == float("-inf"), 0.0, top)
    raised = tl.where(inside, tl.exp(s - top[:, None]), 0.0)
    total = tl.sum(raised, 1)
    soft = raised / total[:, None]  # pyright: ignore[reportArgumentType]
    if SCORE == 0:
        p = soft
    elif SCORE == 1:
        p = tl.where(inside, 1 / (1 + tl.exp(-s)), 0.0)
    else:
        p = tl.where(inside, s, 0.0)
    return p, soft, tl.log(total) + top


@kernel
def gate_kernel(
    scores,
    bias,
    present_mask,
    weights,
    chosen,
    lse,
    mean_parts,
    log_parts,
    entropy_parts,
    count,
    experts,
    scale,
    tiny,
    ACTIVE: tl.constexpr,
    CHOICES: tl.constexpr,
    SCORE: tl.constexpr,
    NORMALISE: tl.constexpr,
    BIAS: tl.constexpr,
    MASK: tl.constexpr,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
):  # pragma: no cover - device code
    program = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EXPERTS)
    k = tl.arange(0, CHOICES)
    known = e < experts
    mean = tl.zeros((EXPERTS,), tl.float32)
    log_sum = tl.zeros((ROWS,), tl.float32)
    entropy_sum = tl.zeros((ROWS,), tl.float32)
    for first in range(program * ROWS, count, tl.num_programs(0) * ROWS):
        t = first + tl.arange(0, ROWS)
        row = t < count
        place = t[:, None] * experts + e[None, :]
        s = tl.load(scores + place, mask=row[:, None] & known[None, :], other=0.0)
        p, _, logs = probabilities(s, known[None, :] & (t >= 0)[:, None], SCORE)
        real = row
        if MASK:
            real = real & (tl.load(present_mask + t, mask=row, other=0) != 0)
        remaining = p
        if BIAS:
            remaining += tl.load(bias + e, mask=known, other=0.0)[None, :]
        # Not a number counts as greatest, as in PyTorch. What is taken is below all numbers, so
        # that no expert is taken twice.
        remaining = tl.where(remaining == remaining, remaining, float("inf"))
        remaining = tl.where(known[None, :], tl.maximum(remaining, LEAST), float("-inf"))
        top_values = tl.zeros((ROWS, CHOICES), tl.float32)
        top_experts = tl.zeros((ROWS, CHOICES), tl.int64) + experts
        total = tl.zeros((ROWS,), tl.float32)
        for i in range(ACTIVE):
            best = tl.argmax(remaining, 1, tie_break_left=True)
            this = e[None, :] == best[:, None]
            value = tl.sum(tl.where(this, p, 0.0), 1)
            total += value
            top_values = tl.where(k[None, :] == i, value[:, None], top_values)  # pyright: ignore[reportArgumentType]
            top_experts = tl.where(
                (k[None, :] == i) & real[:, None], best[:, None].to(tl.int64), top_experts
            )
            remaining = tl.where(this, float("-inf"), remaining)
        if NORMALISE:
            divisor = tl.where(total < tiny, tiny, total)  # stays what is not a number
            top_values = top_values / divisor[:, None]
        top_values = tl.where(real[:, None], top_values * scale, 0.0)
        at = t[:, None] * ACTIVE + k[None, :]
        stored = row[:, None] & (k < ACTIVE)[None, :]
        tl.store(weights + at, top_values, mask=stored)
        tl.store(chosen + at, top_experts, mask=stored)
        if SCORE == 2:
            logs = tl.zeros((ROWS,), tl.float32)
        tl.store(lse + t, logs, mask=row)
        q = p
        if SCORE != 0:
            p_total = tl.sum(p, 1)
            q = p / tl.where(p_total < tiny, tiny, p_total)[:, None]
        q = tl.where(real[:, None], q, 0.0)
        mean += tl.sum(q, 0)
        log_sum += tl.where(real, logs * logs, 0.0)
        # 0 at 0, and not a number where q is none.
        entropy = tl.where(q > 0, -q * tl.log(tl.where(q > 0, q, 1.0)), q)
        entropy_sum += tl.sum(entropy, 1)
    tl.store(mean_parts + program * experts + e, mean, mask=known)
    tl.store(log_parts + program, tl.sum(log_sum, 0))
    tl.store(entropy_parts + program, tl.sum(entropy_sum, 0))


@kernel
def gate_backward_kernel(
    d_weights,
    d_mean,
    d_log,
    scores,
    chosen,
    tokens,
    d_scores,
    count,
    experts,
    scale,
    tiny,
    ACTIVE: tl.constexpr,
    SCORE: tl.constexpr,
    NORMALISE: tl.constexpr,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
):  # pragma: no cover - device code
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    e = tl.arange(0, EXPERTS)
    row = t < count
    known = e < experts
    inside = row[:, None] & known[None, :]
    place = t[:, None] * experts + e[None, :]
    s = tl.load(scores + place, mask=inside, other=0.0)
    p, soft, logs = probabilities(s, known[None, :] & (t >= 0)[:, None], SCORE)
    real = tl.load(chosen + t * ACTIVE, mask=row, other=0) < experts
    share = tl.where(real, 1 / tl.maximum(tl.load(tokens), 1.0), 0.0)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS,), tl.float32)
    g = tl.load(d_mean + e, mask=known, other=0.0)
    d = share[:, None] * g[None, :] + tl.zeros((ROWS, EXPERTS), tl.float32)
    if SCORE != 0:
        p_total = tl.maximum(tl.sum(p, 1), tiny)
        d = (d - (share * tl.sum(p * g[None, :], 1) / p_total)[:, None]) / p_total[:, None]
    if NORMALISE:
        for i in range(ACTIVE):
            which = tl.load(chosen + t * ACTIVE + i, mask=row, other=0)
            value = tl.sum(tl.where(e[None, :] == which[:, None], p, 0.0), 1)
            total += value
            mixed += value * tl.load(d_weights + t * ACTIVE + i, mask=row, other=0.0)
        total = tl.maximum(total, tiny)
    for i in range(ACTIVE):
        which = tl.load(chosen + t * ACTIVE + i, mask=row, other=0)
        grad = tl.load(d_weights + t * ACTIVE + i, mask=row, other=0.0)
        if NORMALISE:
            grad = (grad - mixed / total) / total
        d += tl.where((e[None, :] == which[:, None]) & real[:, None], scale * grad[:, None], 0.0)
    if SCORE == 0:
        d = p * (d - tl.sum(p * d, 1)[:, None])  # pyright: ignore[reportArgumentType]
    elif SCORE == 1:
        d = p * (1 - p) * d
    if SCORE != 2:
        d += (share * 2 * tl.load(d_log) * logs)[:, None] * soft
    tl.store(d_scores + place, tl.where(real[:, None], d, 0.0), mask=inside)


def _tile(experts: int) -> tuple[int, int]:
    """Rows and experts, a power of 2, that a program holds."""
    padded = power_of_two(experts, 2)
    return max(1, NUMBERS // padded), padded


def forward(
    scores: Tensor,
    bias: Tensor | None,
    present_mask: Tensor | None,
    active: int,
    score: str,
    normalise: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    scores = scores.contiguous()
    count, experts = scores.shape
    rows, padded = _tile(experts)
    programs = min(triton.cdiv(count, rows), PROGRAMS)
    weights, lse = scores.new_empty((count, active)), scores.new_empty((count,))
    chosen = scores.new_empty((count, active), dtype=torch.int64)
    mean, logs, entropy = (scores.new_empty((programs, *more)) for more in ((experts,), (), ()))
    tokens = scores.new_full((), count)
    if present_mask is not None:
        tokens = present_mask.sum().to(scores.dtype)
    flags = {"BIAS": bias is not None, "MASK": present_mask is not None}
    flags |= {"ACTIVE": active, "CHOICES": triton.next_power_of_2(active)}
    flags |= {"SCORE": SCORES[score], "NORMALISE": normalise, "ROWS": rows, "EXPERTS": padded}
    bias = scores if bias is None else bias.contiguous()
    mask = scores if present_mask is None else present_mask.to(torch.uint8).contiguous()
    results = weights, chosen, lse, mean, logs, entropy
    if count:
        tensors = scores, bias, mask, *results
        launch(gate_kernel, (programs,), *tensors, count, experts, scale, TINY, **flags)
    share = 1 / tokens.clamp_min(1)
    sums = mean.sum(0) * share, logs.sum() * share, entropy.sum() * share
    return weights, chosen, counts_of(chosen, experts), *sums, tokens, lse


def backward(
    grad: Tensor,
    grad_probability: Tensor,
    grad_log_sum: Tensor,
    scores: Tensor,
    chosen: Tensor,
    lse: Tensor,
    tokens: Tensor,
    score: str,
    normalise: bool,
    scale: float,
) -> Tensor:
    """As `cpu.backward`, by Triton."""
    grads = contiguous(grad, grad_probability, grad_log_sum)
    scores, chosen = contiguous(scores, chosen)
    count, experts = scores.shape
    rows, padded = _tile(experts)
    d_scores = scores.new_empty((count, experts))
    flags = {"ACTIVE": chosen.shape[1], "SCORE": SCORES[score]}
    flags |= {"NORMALISE": normalise, "ROWS": rows, "EXPERTS": padded}
    if count:
        grid, tensors = (triton.cdiv(count, rows),), (*grads, scores, chosen, tokens, d_scores)
        launch(gate_backward_kernel, grid, *tensors, count, experts, scale, TINY, **flags)
    return d_scores
