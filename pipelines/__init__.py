"""End-to-end pipelines on the engine, one task a folder.

```python
from headwise import pipelines
run = pipelines.forecast.train(data="my.csv", horizon=96)
```
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import forecast, medical, ranking, reid, saliency, speech, wsi  # noqa: F401
    from .engine.task import Task

# A task is a folder with a `prediction.py`; there is no other list of them.
TASKS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/prediction.py")))


def load_task(name: str) -> "Task":
    """The card of a task; its module has it as `TASK`."""
    return import_module(f"{__name__}.{name}").TASK


def __getattr__(name: str) -> ModuleType:
    if name in TASKS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*TASKS, "TASKS", "load_task"]
