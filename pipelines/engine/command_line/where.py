"""Which task takes which mechanism and which feed-forward network: `headwise list attention
--where`, `headwise list ffn --where`. Every cell is what the check of the task's options says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast, get_args, get_type_hints

from ....base.errors import InputError
from ... import TASKS, load_task
from ..options import MixingOptions
from ..task import Task
from .parsing import flatten

Mixed = Literal["attention", "ffn"]
# What each feed-forward network is; `build_feedforward` makes all but PVTv2's own.
NETWORKS: Mapping[str, str] = {
    "mlp": "down(gelu(up x))",
    "glu": "down(gelu(gate x) * up x), arXiv 2002.05202",
    "convglu": "a gated unit whose gate is convolved over the grid, arXiv 2311.17132",
    "moe": "a mixture of experts, of which each token uses a few (`headwise list moe`)",
    "convolved": "PVTv2's own, with a convolution between its layers, arXiv 2106.13797",
}


class Answer(NamedTuple):
    """taken: whether a task takes a value; further: the options that it needs for that, () for
    none; why: the reason where it is refused.
    """

    taken: bool
    further: tuple[str, ...] = ()
    why: str = ""


def tasks_that_mix() -> list[Task]:
    """The tasks whose models take mechanisms of the core."""
    tasks = [load_task(name) for name in TASKS]
    return [task for task in tasks if issubclass(task.options, MixingOptions)]


def answer(task: Task, option: Mixed, value: str) -> Answer:
    """Whether the task takes this value of `--attention` or `--ffn`: with its defaults, or with the
    first of the sets of options in `WHERE` of its options.
    """
    kind = cast("type[MixingOptions]", task.options)
    choices = get_args(get_type_hints(kind)[option])
    if choices and value not in choices:
        return Answer(False, why=f"there are {', '.join(choices)}")
    names = [field.name for field in dataclasses.fields(kind)]
    why = ""
    for further in ({}, *kind.WHERE):
        if option in further:
            continue
        try:
            task.check(kind(**{option: value, **further}))  # pyright: ignore[reportArgumentType]
        except InputError as error:
            why = _reason(str(error))
        else:
            return Answer(True, tuple(flatten(further, names, task.name)))
    return Answer(False, why=why)


def _reason(message: str) -> str:
    """The reason in a message such as "--attention tap: channels are no grid; there are ...":
    without the option, and without the choices.
    """
    text = message.partition(": ")[2] or message
    for mark in ("; there are ", "; did you mean "):
        text = text.partition(mark)[0]
    return text


def values_of(option: Mixed) -> list[str]:
    """The mechanisms, or the feed-forward networks."""
    if option == "ffn":
        return list(NETWORKS)
    from ....models.attention import ATTENTION

    return list(ATTENTION)


def taken_by(task: Task, option: Mixed) -> list[str]:
    """The mechanisms, or networks, that a task takes, whatever further options they need."""
    return [value for value in values_of(option) if answer(task, option, value).taken]


def where_rows(option: Mixed) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Rows of values x tasks, the first with the names of the tasks and the last with their
    defaults, and what the letters of their cells mean.
    """
    tasks = tasks_that_mix()
    notes: dict[str, str] = {}
    rows = [("", *(task.name for task in tasks))]
    for value in values_of(option):
        answers = [answer(task, option, value) for task in tasks]
        rows.append((value, *(_cell(each, notes) for each in answers)))
    rows.append(("default", *(getattr(task.options(), option) for task in tasks)))
    return rows, {letter: text for text, letter in notes.items()}


def where_lines(option: Mixed) -> list[str]:
    """The table of values x tasks, and below it what its letters mean."""
    rows, notes = where_rows(option)
    legend = [f"  {letter}  {text}" for letter, text in notes.items()]
    return [*columns(rows), "", f"yes: --{option} NAME is taken as it is.", *legend]


def _cell(answered: Answer, notes: dict[str, str]) -> str:
    """The cell of an answer; its note has a letter in `notes`."""
    if answered.taken and not answered.further:
        return "yes"
    text = f"with {' '.join(answered.further)}" if answered.taken else answered.why
    letter = notes.setdefault(text, chr(ord("a") + len(notes)))
    return f"{'yes' if answered.taken else 'no'} {letter}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines, with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
