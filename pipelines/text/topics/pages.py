"""A folder of results on topics, and its summary as Markdown and HTML.

All is written into OUTPUT.part, which gets the name OUTPUT at the end, so a folder of results is
always complete.
"""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ....base.account import Account
from ....base.errors import InputError
from ....base.files import clear_aside, held, write_text
from ....base.own_files import ASIDE
from ...engine.accounts import publish
from ...engine.command_line.where import columns
from ...engine.inference.output import refuse_input_as_output
from ...figures.classifier import interval_text
from ...metrics.agreement import Score

ACCOUNT, MARKDOWN, PAGE = "account.json", "summary.md", "summary.html"
LOCK = ".lock"
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;text-align:left;"
    "border-bottom:1px solid #e5e7eb;vertical-align:top}img{max-width:100%}"
)


@contextmanager
def results_folder(
    output: str, names: Collection[str], *, overwrite: bool, read: Iterable[str | None]
) -> Iterator[Path]:
    """A folder to write results into; it is renamed to `output` when the block has ended well.

    names: of what the verb writes. Raises InputError for a folder that is not empty, unless its
    results are to be replaced and it holds nothing else, and where `read` would be replaced. After
    any error nothing is left.
    """
    home = Path(os.path.realpath(output))
    refuse_input_as_output(output, [path for path in read if path])
    names = {*names, ACCOUNT, MARKDOWN, PAGE}
    _check_output(home, output, names, overwrite)
    part = home.with_name(f"{home.name}.part")
    _refuse_foreign(part, {*names, LOCK})
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror})") from None
    with held(part, Path(output)):
        _clear(part)
        clear_aside(home.parent, home.name)
        try:
            yield part
            _replace(part, home)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    (home / LOCK).unlink(missing_ok=True)


def _refuse_foreign(part: Path, names: Collection[str]) -> None:
    for path in sorted(part.iterdir()) if part.is_dir() else ():
        if path.name not in names and not path.name.startswith(ASIDE):
            raise InputError(f"{part}: holds {path.name}, which is no such result; move it away")


def _clear(part: Path) -> None:
    """Remove what a job that was killed has left."""
    for leftover in part.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name != LOCK:
            leftover.unlink()


def _check_output(home: Path, output: str, names: Collection[str], overwrite: bool) -> None:
    if home.exists() and not home.is_dir():
        raise InputError(f"--output {output}: is a file; name a folder")
    present = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
    if not present:
        return
    if not overwrite:
        raise InputError(f"--output {output}: is not empty; choose another, or --overwrite")
    # A job that was killed at its very end has left its lock.
    if foreign := [name for name in present if name not in {*names, LOCK}]:
        raise InputError(
            f"--output {output}: holds {foreign[0]}, which is no such result; choose another"
        )


def _replace(part: Path, home: Path) -> None:
    """Give the finished folder its name; the previous one is removed after that."""
    aside = None
    if home.is_dir():
        aside = tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{home.name}", dir=home.parent)
        os.replace(home, aside)
    os.replace(part, home)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def write_summary(
    folder: Path,
    title: str,
    tables: Mapping[str, pl.DataFrame],
    *,
    notes: Sequence[str],
    picture: str | None,
    account: Account,
) -> None:
    """Write summary.md, summary.html and account.json.

    tables: by their titles; notes: sentences below the title; picture: name of a file in the
    folder.
    """
    from ...engine.runs.report import markdown  # only at the end: it imports torch

    publish(account, folder / ACCOUNT, shown=False)
    read = [line[:1].upper() + line[1:] for line in account.lines()]
    text = [f"# {title}", *notes]
    body = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    for name, table in tables.items():
        text += [f"## {name}", markdown(table)]
        body += [f"<h2>{html.escape(name)}</h2>", _html_table(table)]
    if picture is not None:
        text.append(f"![{title}]({picture})")
        body.append(f'<img src="{html.escape(picture)}" alt="{html.escape(title)}">')
    text += ["## What was read", *read]
    body += ["<h2>What was read</h2>", *(f"<p>{html.escape(line)}</p>" for line in read)]
    write_text(folder / MARKDOWN, "\n\n".join(text) + "\n")
    head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
    write_text(folder / PAGE, f"{head}<style>{_STYLE}</style>" + "\n".join(body) + "\n")


def with_interval(score: Score) -> str:
    """A score and its interval, as text.

    >>> with_interval(Score(0.868, 0.81, 0.92))
    '0.868 (0.810 to 0.920)'
    """
    value, *interval = score
    return interval_text(value, interval) if interval[0] == interval[0] else _cell(value)


def as_json(scores: Mapping[str, Score]) -> dict[str, object]:
    """Scores with their intervals, as JSON can hold them."""
    return {
        name: {"value": score.value, "interval": [score.low, score.high]}
        for name, score in scores.items()
    }


def terminal_table(table: pl.DataFrame) -> list[str]:
    """The lines of a table for the terminal, in columns."""
    return columns([table.columns, *([_cell(cell) for cell in row] for row in table.rows())])


def _html_table(table: pl.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) + "</tr>"
        for row in table.rows()
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    # Without the sign of a zero.
    return f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value)
