"""Headwise: pipelines for domain data on one shared core of attention and mixture-of-experts
modules.

`kernels`, `models`, `data` and `pipelines` load on first use, so `import headwise` is cheap.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
_ROOMS = ("data", "kernels", "models", "pipelines")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_ROOMS, "__version__"]
