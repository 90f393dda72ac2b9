"""Verbs from Python: the same options with the same names and defaults as the command line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..task import Task
from .parsing import options_class, parse


def run_verb(task: Task, verb: str, options: Any, *, from_command: bool = False) -> Any:
    """Carry out a verb. From the command line `predict` answers with its exit code."""
    if verb in task.verbs:
        result = task.verbs[verb].run(task, options)
        return _exit_code(result) if from_command else result
    if verb == "predict":
        from ..inference.shards import predict

        result = predict(task.load(), options)
        return _exit_code(result) if from_command else result
    if verb == "export":
        from ..inference.export import export

        return (
            _exit_code(export(task.load(), options))
            if from_command
            else export(task.load(), options)
        )
    from ..training import jobs

    result = getattr(jobs, verb)(task.load(), options)
    return _exit_code(result) if from_command else result


def _exit_code(result: Any) -> int:
    """3 for what finished without some of its items."""
    return 3 if getattr(result, "failed", 0) else 0


def python_verb(task: Task, verb: str, options: type) -> Callable[..., Any]:
    """The Python form of a verb: keyword arguments with the names and defaults of the command
    line.
    """

    def call(config: str | os.PathLike[str] | None = None, **values: Any) -> Any:
        options = parse(task, verb, [], config=Path(config) if config else None, values=values)
        return run_verb(task, verb, options)

    call.__name__ = verb
    call.__doc__ = (
        f"`headwise {task.name} {verb}` from Python.\n\nKeyword arguments:\n\n"
        + "\n".join(
            f"- `{f.name}`: default {f.default!r}"
            if f.default is not dataclasses.MISSING
            else f"- `{f.name}` (needed)"
            for f in dataclasses.fields(options_class(task, verb))
        )
    )
    return call
