"""End-to-end pipelines on the engine, one task a folder.

```python
from headwise import pipelines
run = pipelines.forecast.train(data="my.csv", horizon=96)
```
"""

import re
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


def summary_of(name: str) -> str:
    """What a task does, as its card says: read without importing the task and all its options."""
    text = (Path(__file__).parent / name / "__init__.py").read_text(encoding="utf-8")
    line = re.search(r'^ *summary="(.*)",$', text, re.MULTILINE)
    return line[1] if line else load_task(name).summary


def __getattr__(name: str) -> ModuleType:
    if name in TASKS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*TASKS, "TASKS", "load_task", "summary_of"]
