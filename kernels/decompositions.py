"""Decompositions of our operators into plain PyTorch, so that an exported program runs where
Headwise is absent.
"""

from collections.abc import Callable
from importlib import import_module

import torch

from . import KERNELS
from .register import EXPORT_FORMS


def plain_decompositions() -> dict[torch._ops.OperatorBase, Callable[..., object]]:
    """Table for `torch.export.ExportedProgram.run_decompositions`: our inference operators in plain
    PyTorch.

    The operators that were registered with a form for export. Those that draw belong to training
    and stay opaque: a graph has no plain form of them that a seed decides. So do the operators on
    windows of a grid.
    """
    for kernel in KERNELS.values():
        import_module(f"{__package__}.{kernel.module}")
    return {**EXPORT_FORMS}
