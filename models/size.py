"""The size of a model: its parameters and multiply-accumulates."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def _signed_root_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, eps: float, *_: object, **__: object
) -> int:
    """Both products of softmax-free attention; shapes (B, N, C), (B, M, C), (B, M, E)."""
    return 2 * query[0] * query[1] * key[1] * (query[2] + value[2])


@torch.no_grad()
def model_size(model: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """parameters, and multiply-accumulates of `model(*inputs)`: half of the floating point
    operations that PyTorch counts in products and convolutions and in `signed_root_attention`.

    >>> model_size(nn.Linear(3, 2), torch.zeros(5, 3))
    {'parameters': 8, 'multiply-accumulates': 30}
    """
    from ..kernels import signed_root_attention  # noqa: F401  (registers the operator)

    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.headwise.signed_root_attention: _signed_root_flops}
    )
    with counter:
        model(*inputs)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "multiply-accumulates": cast(int, counter.get_total_flops()) // 2,
    }
