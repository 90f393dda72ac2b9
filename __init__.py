"""Headwise: pipelines for domain data on one shared core of attention and mixture-of-experts
modules.

`kernels`, `models`, `data`, `pipelines` and `longcontext` (plans for language models) load on first
use, so `import headwise` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from types import ModuleType

    from .pipelines.engine.runs.run import Accelerator, Run

__version__ = "0.1.0"
_ROOMS = ("data", "kernels", "longcontext", "models", "pipelines")


def open(path: str | os.PathLike[str], accelerator: Accelerator = "auto") -> Run:
    """Open a finished run of any task, to predict, evaluate or export with it.

    >>> run = headwise.open("runs/x")    # doctest: +SKIP
    >>> table = run.predict("new.csv")   # doctest: +SKIP

    accelerator: auto, cpu, cuda or mps. Raises `InputError` for a folder that is no run.
    """
    from .pipelines.engine.runs.run import Run

    return Run(path, accelerator)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_ROOMS, "open", "__version__"]
