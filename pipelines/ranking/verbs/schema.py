"""A first schema from the columns of a log, for a person to read and correct."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from ....base.errors import InputError, fail, shown
from ....base.files import write_text
from ....data.clicks.column_guess import (
    ITEMS,
    USERS,
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
from ....data.clicks.schema_file import parse_schema
from ....data.formats.tables import collect, stem_of
from ...engine.command_line.terminal import say
from ..options import SchemaOptions

ROWS = 200_000  # rows looked at


def draft(options: SchemaOptions) -> Path:
    """Guess what the columns are and write that as YAML with comments; returns its path.

    Raises `InputError` if the file exists, or no user, item or task can be guessed.
    """
    if options.data.lower().endswith((".yaml", ".yml")):
        raise InputError(f"--data {options.data}: is a schema already; give the log")
    files = files_of(options.data)
    first = files[0]
    name = "schema" if len(files) > 1 else stem_of(first)
    path = Path(options.output or Path(first).parent / f"{name}.yaml")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--output {path}: must end in .yaml")
    if path.exists():
        raise InputError(f"{path}: already exists; choose another --output, or remove it")
    frame = collect(first, scan_log(first)[0].head(ROWS))
    if not frame.height:
        raise fail(first, "holds no rows")
    text = schema_text(frame, files, path)
    parse_schema(yaml.safe_load(text), path)
    write_text(path, text)
    say(f"schema {path}: a guess from {frame.height:,} rows; read it before you train")
    return path


def schema_text(frame: pl.DataFrame, files: Sequence[str], path: Path) -> str:
    """The YAML of a log that begins with these rows."""
    columns = [facts_of(frame[name]) for name in frame.columns]
    user, item = column_named(columns, USERS), column_named(columns, ITEMS)
    time, unit = time_column(columns)
    tasks = outcome_labels([column for column in columns if column not in (user, item, time)])
    missing = [
        f"{what} (write `{what}: COLUMN`, {hint})" if what != "tasks" else f"task (write {hint})"
        for what, guess, hint in (
            ("user", user, "an id"),
            ("item", item, "an id"),
            (
                "tasks",
                tasks,
                "`tasks: {click: {column: COLUMN}}` with a column of 0 and 1, or with "
                "`at_least: 4`",
            ),
        )
        if not guess
    ]
    if user is None or item is None or missing:
        listed = ", ".join(shown(name) for name in frame.columns[:12])
        raise fail(
            files[0],
            f"cannot guess the {' and the '.join(missing)}; it has {listed}; write the schema by "
            "hand, as in docs/reference/ranking.md, into a .yaml file for --schema",
        )
    labels = {label["column"] for label in tasks.values()}
    fields = [column for column in columns if column is not time and column.name not in labels]
    sides = sides_of(frame, user.name, item.name)
    numeric: list[tuple[str, dict[str, object]]] = []
    categorical: list[tuple[str, dict[str, object]]] = []
    out: list[str] = []
    for column in fields:
        ids = column in (user, item)
        if not ids and (why := unfit(column, frame.height)):
            out.append(f"#   {column.name!r}: {why}".replace("\n", " "))
            continue
        options: dict[str, object] = {}
        as_number = (
            not ids
            and column.kind == "number"
            and not column.is_id
            and (not column.integers or column.distinct > 100)
        )
        if not as_number:
            options |= {"min_count": 2} if column.distinct > 1000 else {}
            options |= {"split": " ", "length": 8} if column.kind == "list" else {}
        options |= {"side": sides[column.name]} if column.name in sides else {}
        (numeric if as_number else categorical).append((column.name, options))
    lines = [
        "# A guess from the columns of the log. Read it before you train: a column that is known "
        "only after the",
        "# click must not be a field. Every key is explained in docs/reference/ranking.md.",
    ]
    if len(files) == 1:
        beside = path.parent.resolve() == Path(files[0]).parent.resolve()
        lines.append(
            f"log: {word(Path(files[0]).name if beside else str(Path(files[0]).resolve()))}"
        )
    lines += [f"user: {word(user.name)}", f"item: {word(item.name)}"]
    if time is not None:
        lines.append(f"time: {flow({'column': time.name, 'unit': unit})}")
    else:
        lines.append(
            "# time: {column: COLUMN, unit: s}   # found none; histories and splits in time need "
            "one"
        )
    lines.append(
        "categorical:                    # names and ids; those rarer than min_count count as "
        "unseen"
    )
    lines += [f"  {word(name)}: {flow(options)}" for name, options in categorical]
    if numeric:
        lines += ["numeric:                        # numbers, cut into buckets of equal count"]
        lines += [
            f"  {word(name)}: {flow({'buckets': 10, **options})}" for name, options in numeric
        ]
    if time is not None:
        low = (
            time.values.min() / UNITS[unit]
            if time.values is not None and len(time.values)
            else np.inf
        )
        if low > 1e8:  # counts from 1970, not from the start of the log
            lines.append("time_fields: [hour, weekday]    # of the time, in UTC")
        lines.append("sequences:                      # what the user did before")
        name, label = next(iter(tasks.items()))
        lines.append(
            f"  {word('past_' + name)}: {flow({'of': item.name, 'where': label, 'length': 50})}"
        )
    lines.append(
        "tasks:                          # `only_where: {column: click}` counts a task on clicked "
        "rows only"
    )
    lines += [f"  {word(name)}: {flow(label)}" for name, label in tasks.items()]
    few = frame.height < 5 * frame[user.name].n_unique()
    by = "random" if time is None else ("time" if few else "user")
    lines.append(
        f"split: {{by: {by}, train: 0.8, validation: 0.1}}   # user (each one's rows in time), "
        "time or random"
    )
    if out:
        lines += ["# Left out:", *out]
    return "\n".join(lines) + "\n"


def word(name: str) -> str:
    """A name in YAML, quoted where it must be."""
    return flow([name])[1:-1]


def flow(values: object) -> str:
    """A mapping or list on one line."""
    text = yaml.safe_dump(
        values, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text.strip()
