"""Options of the verb `tune`: those of the training of a task, and how to search."""

from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass
from functools import lru_cache
from typing import TypeVar, cast

from ...base.errors import InputError
from .options import TrainOptions
from .search_space import parse_space

UNREAD = ("run", "resume", "checkpoint_every", "keep", "logger")
OptionsT = TypeVar("OptionsT", bound=TrainOptions)


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How to search."""

    output: str
    """Folder for the trials, the table, the picture and best.yaml. The same command with more
    --trials goes on where it stopped.
    """
    trials: int = 20
    """Trainings in all, those of an earlier call with the same --output included."""
    space: tuple[str, ...] = ()
    """What is searched, such as lr=1e-4:1e-2 layers=1:4 width=64,128 marks=on,off. Without it the
    options that matter most for the task, but those that have another value than their default.
    """
    timeout: float | None = None
    """Seconds after which no further training begins."""
    processes: int = 1
    """Trainings at the same time, which share the cores of this machine."""


def tune_options(options: type[OptionsT]) -> Callable[..., OptionsT]:
    """The class of the options of `tune` for a task, whose options of training these are."""
    return cast(Callable[..., OptionsT], tune_class(options))


@lru_cache
def tune_class(options: type[TrainOptions]) -> type:
    """As `tune_options`, as a class."""
    groups = {"search": ("trials", "space", "timeout"), **getattr(options, "GROUPS", {})}
    text = (
        "Search for options with a better validation score, by trainings that end early where they "
        "are bad; the test part is not read."
    )
    return make_dataclass(
        options.__name__.removesuffix("Options") + "TuneOptions",
        [],
        bases=(TuneOptions, options),
        namespace={"__doc__": text, "__module__": __name__, "GROUPS": groups},
        frozen=True,
        kw_only=True,
    )


def training_options(options: object, kind: type[OptionsT]) -> OptionsT:
    """The options of training among those of `tune`."""
    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})


def check_tuning(options: object, kind: type[TrainOptions]) -> None:
    """Raise `InputError` for values of `tune` that no data can make right; other verbs' options are
    left alone.
    """
    if not isinstance(options, TuneOptions):
        return
    # Not above: the package command_line imports this module.
    from .command_line.checks import check_least, check_unread

    check_least(options, {"trials": 1, "processes": 1})
    if options.timeout is not None and not 0 < options.timeout < float("inf"):
        raise InputError(f"--timeout {options.timeout}: must be a positive number of seconds")
    check_unread(options, UNREAD, "train; tune writes to --output and goes on by itself")
    parse_space(options.space, kind)
