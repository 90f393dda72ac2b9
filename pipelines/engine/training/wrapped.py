"""Models as a training hands them out: wrapped by Fabric, which casts and shares the work."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def plain_model(model: nn.Module) -> nn.Module:
    """The task's own model, without Fabric's wrapper if it has one."""
    plain = getattr(model, "module", model)
    return plain if isinstance(plain, nn.Module) else model


def call_method(model: nn.Module, method: str, *arguments: Tensor) -> Any:  # noqa: ANN401
    """Call another method through `forward`, so that Fabric's casting and the sharing of gradients
    between devices still apply.
    """
    plain = plain_model(model)
    if plain is model:
        return getattr(model, method)(*arguments)
    plain.forward = getattr(plain, method)
    try:
        return model(*arguments)
    finally:
        del plain.forward
