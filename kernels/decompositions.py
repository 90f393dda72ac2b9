"""Decompositions of our operators into plain PyTorch, so that an exported program runs where
Headwise is absent.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import KERNELS
from .attention_stats.cpu import FLOOR, HIDDEN
from .precision import compute_type
from .register import EXPORT_FORMS


def plain_decompositions() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """Table for `torch.export.ExportedProgram.run_decompositions`: our inference operators in plain
    PyTorch.

    The operators that were registered with a form for export. Those that draw belong to training
    and stay opaque: a graph has no plain form of them that a seed decides. So do the operators on
    windows of a grid.
    """
    for kernel in KERNELS.values():
        import_module(f"{__package__}.{kernel.module}")
    return {torch.ops.headwise.attention_stats.default: stats_decomposed} | EXPORT_FORMS


def stats_decomposed(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    scale: float,
    causal: bool,
    entropy: bool,
    columns: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Read-outs of `attention_stats` from all N x M weights at once: a graph has no loop over
    blocks.
    """
    kind, group, count = compute_type(query), query.shape[1] // key.shape[1], key.shape[2]
    none = query.new_zeros((0,), dtype=kind)
    scores = (query.to(kind) * scale) @ key.to(kind).repeat_interleave(group, 1).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, HIDDEN)
    if causal:
        shape = query.shape[2], count
        before = torch.ones(shape, dtype=torch.bool, device=query.device).tril(
            count - query.shape[2]
        )
        scores = scores.masked_fill(~before, HIDDEN)
    bare = scores.amax(-1) <= FLOOR
    p = scores.softmax(-1).masked_fill(scores <= FLOOR, 0.0)
    lse = scores.logsumexp(-1).masked_fill(bare, -torch.inf)
    output = query.new_zeros((0,))
    if value is not None:
        output = (p @ value.to(kind).repeat_interleave(group, 1)).to(query.dtype)
    spread = lse.masked_fill(bare, 0.0) - (p * scores).sum(-1) if entropy else none
    held = none if keys is None else (p * keys[:, :, None]).sum(-1)
    counted = p if weights is None else p * weights[:, None, :, None]
    values, places = none, torch.zeros((0,), dtype=torch.int64, device=query.device)
    if top:
        values, places = p.topk(min(top, count), -1)
        places = places.masked_fill(values <= 0, -1)
        missing = (0, top - values.shape[-1])
        values, places = F.pad(values, missing), F.pad(places, missing, value=-1)
    return output, lse, spread, counted.sum(2) if columns else none, held, values, places
