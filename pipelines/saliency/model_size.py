"""Parameters and multiply-accumulates of a model of scenes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def _attention(
    query: Any, key: Any, value: Any, eps: float, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    """Both products of softmax-free attention; shapes (B, N, C), (B, M, C), (B, M, E)."""
    return 2 * query[0] * query[1] * key[1] * (query[2] + value[2])


@torch.no_grad()
def model_size(model: nn.Module, size: tuple[int, int], device: torch.device) -> dict[str, int]:
    """parameters, and multiply-accumulates of one scene of `size` (height, width): half of the
    floating point operations that PyTorch counts in products and convolutions, our own operator
    included."""
    from ...kernels import signed_root_attention  # noqa: F401  (its operator)

    given = (torch.zeros(1, 3, *size, device=device), torch.zeros(1, 1, *size, device=device))
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.headwise.signed_root_attention: _attention}
    )
    with counter:
        model(*given)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "multiply-accumulates": counter.get_total_flops() // 2,
    }
