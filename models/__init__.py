"""Domain models, one a file, on the shared core (`attention`, `moe`, `blocks`). Names resolve on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .acmil import ACMIL, MaxPool, MeanPool
    from .cca import ConditionalEmbedder
    from .dcal import DCAL
    from .gldmnet import GLDMNet
    from .softs import SOFTS

_MODELS = {
    "ACMIL": "acmil", "ConditionalEmbedder": "cca", "DCAL": "dcal", "GLDMNet": "gldmnet", "MaxPool": "acmil",
    "MeanPool": "acmil", "SOFTS": "softs",
}  # fmt: skip

__all__ = ["ACMIL", "ConditionalEmbedder", "DCAL", "GLDMNet", "MaxPool", "MeanPool", "SOFTS"]


def __getattr__(name: str) -> Any:
    if name in _MODELS:
        return getattr(import_module(f"{__name__}.{_MODELS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
