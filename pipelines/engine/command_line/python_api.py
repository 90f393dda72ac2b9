"""Verbs from Python: the options of the command line as keyword arguments, with their types."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from ..compare_options import ComparisonOptions
from ..task import Task
from .option_help import option_groups, option_texts

if TYPE_CHECKING:
    from ..experiments.settings import ComparedSettings
    from ..experiments.tune import Tuned
    from ..inference.shards import Predicted
    from ..pipeline import Metrics
    from ..runs.run_directory import RunDirectory

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result", covariant=True)


class PythonVerb(Protocol[Parameters, Result]):
    """A verb as a function: `train(data="my.csv", epochs=5)`, or with a file of options first,
    `train("my.yaml", epochs=5)`.
    """

    __name__: str

    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result: ...
    @overload
    def __call__(
        self, config: str | os.PathLike[str], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result: ...


def run_verb(task: Task, verb: str, options: object) -> object:
    """Carry out a verb; returns what its function returns."""
    if isinstance(options, ComparisonOptions):  # also where the task has a `compare` of its own
        from ..experiments.settings import compare_settings

        return compare_settings(task.load(), options)
    if verb in task.verbs:
        return task.verbs[verb].run(task, options)
    modules = {
        "predict": "inference.shards",
        "export": "inference.export",
        "tune": "experiments.tune",
    }
    module = modules.get(verb, "training.jobs")
    function = getattr(import_module(f"headwise.pipelines.engine.{module}"), verb)
    return function(task.load(), options)


def exit_code(result: object) -> int:
    """3 for a job that finished without some of its items, else 0."""
    return 3 if getattr(result, "failed", 0) else 0


@overload
def python_verb(
    task: Task, verb: Literal["train"], options: Callable[Parameters, object]
) -> PythonVerb[Parameters, RunDirectory]: ...
@overload
def python_verb(
    task: Task, verb: Literal["evaluate"], options: Callable[Parameters, object]
) -> PythonVerb[Parameters, Metrics]: ...
@overload
def python_verb(
    task: Task, verb: Literal["predict"], options: Callable[Parameters, object]
) -> PythonVerb[Parameters, Predicted]: ...
@overload
def python_verb(
    task: Task, verb: Literal["export"], options: Callable[Parameters, object]
) -> PythonVerb[Parameters, str]: ...
@overload
def python_verb(
    task: Task, verb: Literal["tune"], options: Callable[Parameters, object]
) -> PythonVerb[Parameters, Tuned]: ...
@overload
def python_verb(
    task: Task, verb: str, options: Callable[Parameters, object]
) -> PythonVerb[Parameters, Any]: ...
def python_verb(
    task: Task, verb: str, options: Callable[Parameters, object]
) -> PythonVerb[Parameters, Any]:
    """The Python form of a verb, whose keyword arguments are the fields of `options`.

    Type checkers and editors read the arguments from the dataclass; `help()` shows what each means.
    """

    def call(options_file: str | os.PathLike[str] | None = None, /, **values: object) -> object:
        from .parsing import parse

        config = Path(options_file) if options_file else None
        if verb == "train" and not isinstance(values.get("data"), str | os.PathLike | None):
            from ..training.frames import train_on_frame

            return train_on_frame(task, config, values)
        chosen = parse(task, verb, [], config=config, values=values)
        return run_verb(task, verb, chosen)

    dataclass = cast(type, options)
    call.__name__ = call.__qualname__ = verb.replace(" ", "_")
    call.__module__ = f"headwise.pipelines.{task.name}"
    call.__doc__ = _documentation(task, verb, dataclass)
    first = inspect.Parameter("options_file", inspect.Parameter.POSITIONAL_ONLY, default=None)
    fields = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=f.default if f.default is not dataclasses.MISSING else inspect.Parameter.empty,
            annotation=f.type,
        )
        for f in dataclasses.fields(dataclass)
    ]
    call.__signature__ = inspect.Signature([first, *fields])  # pyright: ignore[reportFunctionMemberAccess]
    return cast(PythonVerb[Parameters, Any], call)


def comparison_verb(
    task: Task, options: Callable[Parameters, object]
) -> PythonVerb[Parameters, ComparedSettings]:
    """The Python form of the verb `compare` of a task that has none of its own."""
    return python_verb(task, "compare", options)


def _documentation(task: Task, verb: str, options: type) -> str:
    texts = option_texts(options)
    lines = [
        f"`headwise {task.name} {verb}` from Python.",
        "",
        inspect.cleandoc(options.__doc__ or ""),
        "",
    ]
    lines += ["options_file: a YAML file of options; arguments given here win."]
    for title, names in option_groups(options).items():
        lines += ["", f"{title}:", *(f"    {name}: {texts[name]}" for name in names)]
    return "\n".join(lines)
