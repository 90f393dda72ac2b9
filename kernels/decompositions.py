"""Decompositions of our operators into plain PyTorch, so that an exported program runs where
Headwise is absent.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import torch
from torch.overrides import TorchFunctionMode

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


class PlainForms(TorchFunctionMode):
    """Within, our inference operators run, and are traced, in their plain form:

        with PlainForms():
            program = torch.export.export(model, arguments)

    The program is that of `run_decompositions` with `plain_decompositions`, which would trace all
    of it once more.
    """

    def __init__(self) -> None:
        super().__init__()
        # A call may name the operator (a packet) or its one overload.
        plain = plain_decompositions()
        packets = {overload.overloadpacket: form for overload, form in EXPORT_FORMS.items()}
        self.forms: dict[object, Callable[..., object]] = {**plain, **packets}

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return self.forms.get(func, func)(*args, **(kwargs or {}))
