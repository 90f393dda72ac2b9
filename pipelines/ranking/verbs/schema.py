"""A first schema from the columns of a log, for a person to read and correct."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from ....base.account import note, opened
from ....base.errors import InputError, fail, nearest, shown
from ....base.files import write_text
from ....data.clicks.column_guess import (
    HISTORIES,
    ITEMS,
    USERS,
    ColumnFacts,
    column_named,
    facts_of,
    outcome_labels,
    sides_of,
    time_column,
    unfit,
)
from ....data.clicks.layouts import files_of
from ....data.clicks.log import scan_log
from ....data.clicks.schema import UNITS
from ....data.clicks.schema_file import GAP, parse_schema
from ....data.formats.tables import collect, stem_of
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ..options import SchemaOptions

ROWS = 200_000  # rows looked at
Label = dict[str, object]


def draft(options: SchemaOptions) -> Path:
    """Guess what the columns are and write that as YAML with comments; returns its path.

    What can neither be guessed nor is named by an option is a marked gap, which has to be filled
    before a training. Raises `InputError` for an option that names no column, and if the file
    exists, unless it is the draft with gaps that this verb wrote.
    """
    if options.data.lower().endswith((".yaml", ".yml")):
        raise InputError(f"--data {options.data}: is a schema already; give the log")
    with opened() as account:
        files = files_of(options.data)
        first = files[0]
        name = "schema" if len(files) > 1 else stem_of(first)
        path = Path(options.output or Path(first).parent / f"{name}.yaml")
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise InputError(f"--output {path}: must end in .yaml")
        frame = collect(first, scan_log(first)[0].head(ROWS))
        if not frame.height:
            raise fail(first, "holds no rows")
        roles = roles_of(frame, options, first)
        text = schema_text(frame, roles, files, path)
        if path.exists() and not _is_draft(path, frame, files, options):
            raise InputError(f"{path}: already exists; choose another --output, or remove it")
        if not roles.gaps:
            parse_schema(yaml.safe_load(text), path)
        note("read", "rows", count=frame.height)
        if out := left_out(frame, roles):
            note("columns", "left out of the fields; the end of the schema says why", out)
        if roles.time is None:
            note("assumed", "no column holds times: no histories are drafted, and parts are random")
        publish(account)
    write_text(path, text)
    say(f"schema {path}: a guess from {frame.height:,} rows; read it before you train")
    for line in roles.gap_lines():
        say(line)
    return path


def _is_draft(
    path: Path, frame: pl.DataFrame, files: Sequence[str], options: SchemaOptions
) -> bool:
    """Whether a file is the draft with gaps, as it was written, that is made without naming
    columns: such a draft may be made again with columns named.
    """
    before = roles_of(frame, replace(options, user=None, item=None, task=()), files[0])
    if not before.gaps:
        return False
    try:
        return path.read_text(encoding="utf-8") == schema_text(frame, before, files, path)
    except (OSError, UnicodeDecodeError):
        return False


@dataclass(frozen=True)
class Roles:
    """What the columns of a log seem to be; None or nothing where that cannot be guessed."""

    columns: Sequence[ColumnFacts]
    user: ColumnFacts | None
    item: ColumnFacts | None
    time: ColumnFacts | None
    unit: str
    tasks: dict[str, Label]

    @property
    def gaps(self) -> list[str]:
        """What is not known: user, item, task."""
        roles = {"user": self.user, "item": self.item, "task": self.tasks}
        return [name for name, role in roles.items() if not role]

    def gap_lines(self) -> list[str]:
        """A line for each gap, which says how to fill it."""
        cures = {
            "user": "who saw the row; write its column, or --user COLUMN",
            "item": "what was seen; write its column, or --item COLUMN",
            "task": "what came of it, a column of 0 and 1; write it, or --task COLUMN. A log that "
            "only holds what was taken needs rows, too, that were shown and not taken",
        }
        return [f"gap: the {name} ({cures[name]})" for name in self.gaps]


def roles_of(frame: pl.DataFrame, options: SchemaOptions, where: str) -> Roles:
    """The roles of the columns of a log that begins with these rows: named by an option, or
    guessed. Raises `InputError` for an option that names no column.
    """
    columns = [facts_of(frame[name]) for name in frame.columns]
    by_name = {column.name: column for column in columns}

    def named(option: str, name: str) -> ColumnFacts:
        if name not in by_name:
            hint = nearest(name, by_name)
            raise fail(where, f"--{option} {name}: there is no column {shown(name)}{hint}")
        return by_name[name]

    asked = {
        name: label
        for text in options.task
        for name, label in [_asked_label(text, lambda column: named("task", column), where)]
    }
    labels = {str(label["column"]) for label in asked.values()}
    free = [column for column in columns if column.name not in labels]
    user = named("user", options.user) if options.user else column_named(free, USERS)
    item = named("item", options.item) if options.item else None
    item = item or column_named([column for column in free if column is not user], ITEMS)
    free = [column for column in free if column not in (user, item)]
    time, unit = time_column(free)
    tasks = asked or outcome_labels([column for column in free if column is not time])
    return Roles(columns, user, item, time, unit, tasks)


def _asked_label(text: str, named: Callable[[str], ColumnFacts], where: str) -> tuple[str, Label]:
    """Name and label of a task that an option names: a column, or a condition on it."""
    condition = re.fullmatch(r"\s*(.+?)\s*(>=|<=|==?)\s*(-?[\d.]+)\s*", text)
    if condition:
        name, mark, number = condition.groups()
        key = {">=": "at_least", "<=": "at_most"}.get(mark, "equals")
        column = named(name)
        try:
            value = float(number)
        except ValueError:
            raise fail(where, f"--task {text}: {shown(number)} is no number") from None
        return column.plain, {"column": name, key: int(value) if value % 1 == 0 else value}
    column = named(text)
    if not column.binary:
        problem = f"column {shown(text)} holds {column.distinct} values, not 0 and 1"
        raise fail(where, f"--task {text}: {problem}; say which count, such as '{text}>=4'")
    return column.plain.removeprefix("is_"), {"column": text}


def schema_text(frame: pl.DataFrame, roles: Roles, files: Sequence[str], path: Path) -> str:
    """The YAML of a log that begins with these rows."""
    lines = [
        "# A guess from the columns of the log. Read it before you train: a column that is known "
        "only after the",
        "# click must not be a field. Every key is explained in docs/reference/ranking.md.",
    ]
    if roles.gaps:
        lines.append(f"# {GAP} marks what could not be guessed; put the name of a column there.")
    if len(files) == 1:
        beside = path.parent.resolve() == Path(files[0]).parent.resolve()
        lines.append(
            f"log: {word(Path(files[0]).name if beside else str(Path(files[0]).resolve()))}"
        )
    user, item = (word(GAP if role is None else role.name) for role in (roles.user, roles.item))
    lines += [f"user: {user}", f"item: {item}"]
    if roles.time is not None:
        lines.append(f"time: {flow({'column': roles.time.name, 'unit': roles.unit})}")
    else:
        lines.append(
            "# time: {column: COLUMN, unit: s}   # found none; histories and splits in time need "
            "one"
        )
    lines += [*_field_lines(frame, roles), *_sequence_lines(roles)]
    lines.append(
        "tasks:                          # `only_where: {column: click}` counts a task on clicked "
        "rows only"
    )
    tasks = roles.tasks or {"click": {"column": GAP}}
    lines += [f"  {word(name)}: {flow(label)}" for name, label in tasks.items()]
    lines.append(
        f"split: {{by: {_split(frame, roles)}, train: 0.8, validation: 0.1}}   # user (each one's "
        "rows in time), time or random"
    )
    if out := left_out(frame, roles):
        lines += ["# Left out:"]
        lines += [f"#   {name!r}: {why}".replace("\n", " ") for name, why in out.items()]
    return "\n".join(lines) + "\n"


def left_out(frame: pl.DataFrame, roles: Roles) -> dict[str, str]:
    """The columns that have no role and are no field, and why."""
    labels = {label["column"] for label in roles.tasks.values()}
    return {
        column.name: why
        for column in roles.columns
        if column not in (roles.user, roles.item, roles.time)
        and column.name not in labels
        and not _is_history(column, roles)
        and (why := unfit(column, frame.height))
    }


def _field_lines(frame: pl.DataFrame, roles: Roles) -> list[str]:
    """The lines of the fields."""
    labels = {label["column"] for label in roles.tasks.values()}
    out = left_out(frame, roles)
    ids = [column for column in (roles.user, roles.item) if column is not None]
    sides = sides_of(frame, *(column.name for column in ids)) if len(ids) == 2 else {}
    numeric: list[str] = []
    categorical: list[str] = []
    for column in roles.columns:
        if column is roles.time or column.name in labels or column.name in out:
            continue
        if _is_history(column, roles):
            continue
        side: dict[str, object] = {"side": sides[column.name]} if column.name in sides else {}
        if column not in ids and _as_number(column):
            numeric.append(f"  {word(column.name)}: {flow({'buckets': 10, **side})}")
            continue
        keys: dict[str, object] = {"min_count": 2} if column.distinct > 1000 else {}
        keys |= {"split": " ", "length": 8} if column.kind == "list" else {}
        categorical.append(f"  {word(column.name)}: {flow({**keys, **side})}")
    title = "categorical:                    # names and ids; those rarer than min_count count as "
    lines = [f"{title}unseen", *categorical]
    if numeric:
        lines += ["numeric:                        # numbers, cut into buckets of equal count"]
    return lines + numeric


def _as_number(column: ColumnFacts) -> bool:
    plain = column.kind == "number" and not column.is_id
    return plain and (not column.integers or column.distinct > 100)


def _is_history(column: ColumnFacts, roles: Roles) -> bool:
    """Whether a column seems to hold lists of the items that came before."""
    named = any(word in column.plain for word in HISTORIES)
    return column.kind == "list" and named and roles.item is not None


def _sequence_lines(roles: Roles) -> list[str]:
    """The lines on the clock and on what a user did before."""
    lines: list[str] = []
    if roles.time is not None:
        values = roles.time.values
        low = values.min() if values is not None and len(values) else np.inf
        if low / UNITS[roles.unit] > 1e8:  # counts from 1970, not from the start of the log
            lines.append("time_fields: [hour, weekday]    # of the time, in UTC")
    if roles.item is None:
        return lines
    sequences: dict[str, Label] = {
        column.plain: {"of": roles.item.name, "column": column.name, "length": 50}
        for column in roles.columns
        if _is_history(column, roles)
    }
    if roles.time is not None and roles.tasks:
        name, label = next(iter(roles.tasks.items()))
        sequences[f"past_{name}"] = {"of": roles.item.name, "where": label, "length": 50}
    if sequences:
        lines.append("sequences:                      # what the user did before")
    return lines + [f"  {word(name)}: {flow(keys)}" for name, keys in sequences.items()]


def _split(frame: pl.DataFrame, roles: Roles) -> str:
    if roles.time is None:
        return "random"
    if roles.user is None or frame.height < 5 * frame[roles.user.name].n_unique():
        return "time"
    return "user"


def word(name: str) -> str:
    """A name in YAML, quoted where it must be."""
    return flow([name])[1:-1]


def flow(values: object) -> str:
    """A mapping or list on one line."""
    text = yaml.safe_dump(
        values, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text.strip()
