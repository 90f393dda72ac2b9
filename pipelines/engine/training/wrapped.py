"""Models as a training hands them out: wrapped by Fabric, which casts to the precision asked for.

`sharing.py` shares the work between devices, around all that is done here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor, nn

ArgumentsP = ParamSpec("ArgumentsP")
ResultT = TypeVar("ResultT")


def plain_model(model: nn.Module) -> nn.Module:
    """The task's own model, without Fabric's wrapper if it has one."""
    plain = getattr(model, "module", model)
    return plain if isinstance(plain, nn.Module) else model


def call(
    model: nn.Module,
    work: Callable[Concatenate[Any, ArgumentsP], ResultT],
    *arguments: ArgumentsP.args,
    **options: ArgumentsP.kwargs,
) -> ResultT:
    """`work` of the task's own model and of the arguments, as one `forward`, so that Fabric's
    casting still applies.
    """
    plain = plain_model(model)
    if plain is model:
        return work(model, *arguments, **options)

    def forward(*values: ArgumentsP.args, **named: ArgumentsP.kwargs) -> ResultT:
        del plain.forward  # the work may call the model's own
        return work(plain, *values, **named)

    plain.forward = forward
    try:
        return model(*arguments, **options)
    finally:
        vars(plain).pop("forward", None)


def call_method(model: nn.Module, method: str, *arguments: Tensor) -> Any:  # noqa: ANN401
    """As `call`, another method of the task's own model."""
    return call(model, lambda plain, *values: getattr(plain, method)(*values), *arguments)
