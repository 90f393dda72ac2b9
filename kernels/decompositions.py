"""Decompositions of our operators into plain PyTorch, so that an exported program runs where
Headwise is absent.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import KERNELS, expert_gate, gated_scores
from .grouped_linear.cpu import gathered
from .precision import compute_type
from .register import EXPORT_FORMS
from .segments import segment_of
from .softmax_pool.cpu import masked


def plain_decompositions() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """Table for `torch.export.ExportedProgram.run_decompositions`: our inference operators in plain
    PyTorch.

    The operators that were registered with a form for export. Those that draw belong to training
    and stay opaque: a graph has no plain form of them that a seed decides. So do the operators on
    windows of a grid.
    """
    for kernel in KERNELS.values():
        import_module(f"{__package__}.{kernel.module}")
    return {
        torch.ops.headwise.softmax_pool.default: pool_decomposed,
        torch.ops.headwise.gated_scores.default: gated_scores.scores_plain,
        torch.ops.headwise.expert_gate.default: expert_gate.forward,
        torch.ops.headwise.grouped_linear.default: grouped_decomposed,
        torch.ops.headwise.expert_combine.default: combined_decomposed,
        torch.ops.headwise.gelu_linear.default: lambda h, weight, bias: F.linear(
            F.gelu(h), weight, bias
        ),
    } | EXPORT_FORMS


def combined_decomposed(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """`expert_combine` with the rows of a token gathered."""
    kind = compute_type(y)
    return (y[place].to(kind) * weights[..., None].to(kind)).sum(1).to(y.dtype)


def grouped_decomposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """`grouped_linear` with every row through every expert: a graph has no sizes that data
    decide.
    """
    rows = gathered(x, tokens, activation, gated)
    expert = segment_of(offsets, rows.shape[0])[:, None]
    out = rows.new_zeros((rows.shape[0], weight.shape[1]))
    for e in range(weight.shape[0]):
        out = torch.where(
            expert == e, F.linear(rows, weight[e], None if bias is None else bias[e]), out
        )
    return out


def pool_decomposed(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """(pooled, lse) of `softmax_pool` without a loop over bags and without a branch on sizes."""
    kind = compute_type(scores)
    if offsets is not None:
        return _packed(
            scores.to(kind),
            None if values is None else values.to(kind),
            offsets,
            per_head,
            scores.dtype,
        )
    part = masked(scores, mask)
    value = (scores if values is None else values).to(kind)
    value = value if mask is None else value.masked_fill(~mask[..., None], 0.0)
    # Nothing in place here: the graph that takes this in must stay functional.
    top = part.amax(1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = (part - top).exp()
    total = weights.sum(1)
    summed = weights.transpose(1, 2) @ value if per_head else (weights * value).sum(1)
    return _divided(summed, total, top[:, 0], per_head, scores.dtype)


def _packed(
    scores: Tensor, values: Tensor | None, offsets: Tensor, per_head: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    bags = offsets.shape[0] - 1
    bag = segment_of(offsets, scores.shape[0])
    where = bag[:, None].expand_as(scores)
    top = scores.new_full((bags, scores.shape[1]), -torch.inf).scatter_reduce(
        0, where, scores, "amax"
    )
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = (scores - top[bag]).exp()
    total = scores.new_zeros(top.shape).index_add(0, bag, weights)
    value = scores if values is None else values
    product = weights[:, :, None] * value[:, None] if per_head else weights * value
    summed = product.new_zeros((bags, *product.shape[1:])).index_add(0, bag, product)
    return _divided(summed, total, top, per_head, dtype)


def _divided(
    summed: Tensor, total: Tensor, top: Tensor, per_head: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    empty = total == 0
    divisor = total.masked_fill(empty, 1.0)
    pooled = summed / (divisor[..., None] if per_head else divisor)
    return pooled.to(dtype), (divisor.log() + top).masked_fill(empty, torch.inf)
