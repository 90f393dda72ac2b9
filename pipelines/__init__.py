"""End-to-end pipelines, one task a file, on the engine.

```python
from headwise import pipelines
run = pipelines.forecast.train(data="my.csv", horizon=96)
```
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.task import Task


@dataclass(frozen=True)
class Entry:
    """A line of the table of tasks."""

    module: str
    summary: str


TASKS = {
    "wsi": Entry(
        "headwise.pipelines.wsi", "classify whole-slide images or bags of instances (ACMIL)"
    ),
    "reid": Entry(
        "headwise.pipelines.reid",
        "find an identity in a gallery, or name a fine-grained class (DCAL)",
    ),
    "saliency": Entry(
        "headwise.pipelines.saliency", "find what is salient in pictures with depth (GL-DMNet)"
    ),
    "medical": Entry(
        "headwise.pipelines.medical",
        "classify chest X-rays, with an audit for shortcuts (MEDUSA-style)",
    ),
    "speech": Entry(
        "headwise.pipelines.speech", "transcribe recordings with word times (Whisper's shape)"
    ),
    "ranking": Entry(
        "headwise.pipelines.ranking", "rank items by predicted clicks of several kinds (INFNet)"
    ),
    "forecast": Entry("headwise.pipelines.forecast", "forecast many series at once (SOFTS)"),
}


def load_task(name: str) -> "Task[Any]":
    """The task of a name; its module has it as `TASK`."""
    return import_module(TASKS[name].module).TASK


def __getattr__(name: str) -> ModuleType:
    if name in TASKS:
        return import_module(TASKS[name].module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*TASKS, "TASKS", "load_task"]
