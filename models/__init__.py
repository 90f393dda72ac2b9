"""Domain models, one a file, on the shared core (`attention`, `moe`, `blocks`). Names resolve on
first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bags.acmil import ACMIL, MaxPool, MeanPool
    from .series.softs import SOFTS
    from .vision.cca import ConditionalEmbedder
    from .vision.dcal import DCAL
    from .vision.gldmnet import GLDMNet

_MODELS = {
    "ACMIL": "bags.acmil",
    "ConditionalEmbedder": "vision.cca",
    "DCAL": "vision.dcal",
    "GLDMNet": "vision.gldmnet",
    "MaxPool": "bags.acmil",
    "MeanPool": "bags.acmil",
    "SOFTS": "series.softs",
}

__all__ = ["ACMIL", "ConditionalEmbedder", "DCAL", "GLDMNet", "MaxPool", "MeanPool", "SOFTS"]


def __getattr__(name: str) -> Any:
    if name in _MODELS:
        return getattr(import_module(f"{__name__}.{_MODELS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
