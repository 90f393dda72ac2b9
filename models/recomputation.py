"""Activation checkpointing runs the forward pass of a layer again, during the backward pass.

Such a pass must repeat the choices of the first one, and must not count its tokens again.
"""

import torch
from torch import Tensor


def is_recomputation() -> bool:
    """Whether a backward pass is running in this thread, so that a forward pass is a repetition."""
    return torch._C._current_graph_task_id() != -1


@torch.library.custom_op("headwise::is_recomputation", mutates_args=())
def recomputation_flag(x: Tensor) -> Tensor:
    """`is_recomputation` as a bool tensor () on the device of x: an operator, so that a compiled
    layer asks at each call.
    """
    return torch.full((), is_recomputation(), device=x.device)


@recomputation_flag.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((), dtype=torch.bool)
