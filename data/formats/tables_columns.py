"""The columns and rows of a table as people mean them: without the index that pandas adds, without
empty columns that have no name, and without blank rows at the end.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from .tables_numbers import is_spelt_number

Collect = Callable[[object, pl.LazyFrame], pl.DataFrame]

ROW = "\x1frow"  # a name that no header has: nobody types a control character
_NAMELESS = re.compile(r"|__index_level_\d+__|__UNNAMED__\d+")
_BY_PANDAS = re.compile(r"Unnamed: \d+")


def distinct_columns(path: object, names: Sequence[str]) -> list[str]:
    """Names that polars takes: those without one are numbered behind a control character. Raises
    InputError where a name occurs twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        listed = ", ".join(map(shown, twice[:40]))
        what = f"column {listed} appears" if len(twice) == 1 else f"columns {listed} appear"
        raise fail(path, f"{what} more than once; rename one")
    return [name or f"\x1f{index}" for index, name in enumerate(names)]


def refuse_blanks_between(path: object, names: Sequence[str], head: bytes) -> None:
    """Raise InputError for a text of one column whose rows are words with blanks between them, one
    of which is a number in all rows.

    names: of its columns; head: its first bytes.
    """
    width = len(names[0].split()) if len(names) == 1 else 0
    lines = [line.split() for line in head[:20_000].decode(errors="replace").splitlines()]
    rows = [words for words in lines[1:50] if words]
    if width < 2 or len(rows) < 2 or any(len(words) not in (width, width + 1) for words in rows):
        return
    places = range(1, min(map(len, rows)) + 1)
    if any(all(is_spelt_number(words[-place]) for words in rows[:-1]) for place in places):
        raise fail(path, "has blanks between its cells; write it with commas, ; or tabs")


def without_blank_end(
    path: object, frame: pl.LazyFrame, columns: Sequence[str], collect: Collect
) -> pl.LazyFrame:
    """The table without the rows at its end that hold nothing (noted in the account)."""
    kinds = frame.collect_schema()
    blank = pl.all_horizontal(
        pl.col(name).is_null()
        | ((pl.col(name).str.strip_chars() == "") if kinds[name] == pl.String else False)
        for name in columns
    )
    ends = collect(
        path, frame.with_row_index(ROW).select(last=pl.col(ROW).filter(~blank).max(), rows=pl.len())
    ).row(0)
    kept = 0 if ends[0] is None else ends[0] + 1
    if kept == ends[1]:
        return frame
    note("left out", "blank ends of tables", [f"{path}: {ends[1] - kept} rows"])
    return frame.head(kept)


def with_names(
    path: object,
    frame: pl.LazyFrame,
    columns: Sequence[str],
    names: Sequence[str],
    collect: Collect,
) -> tuple[pl.LazyFrame, list[str]]:
    """The table with a name for each column, and these names.

    columns: of the frame; names: what the file calls them, "" where it says nothing.

    Columns that the file does not name, and those that pandas called "Unnamed: 0", are left out
    where they are empty or only count the rows. The first of the others becomes "index", later
    ones "column 3"; all of this is noted. Raises InputError where most columns have no name, and
    where one without a name holds only a few values.
    """
    doubtful = [
        (index, column)
        for index, (column, name) in enumerate(zip(columns, names, strict=True))
        if _NAMELESS.fullmatch(name) or _BY_PANDAS.fullmatch(name)
    ]
    if not doubtful:
        return frame, list(names)
    facts = _facts(path, frame, [column for _, column in doubtful], collect)
    renamed = dict(zip(columns, names, strict=True))
    nameless = []
    for index, column in doubtful:
        rows, filled, counts = facts[column]
        what = None
        if filled == 0:
            what = "columns without values and name" if not names[index] else None
        elif counts and (index == 0 or names[index]):
            what = "columns that only count the rows (an index)"
        if what:
            note("left out", what, [f"{path}: column {index + 1}"])
            del renamed[column]
        elif _NAMELESS.fullmatch(names[index]):
            if index and not names[index] and filled < rows / 2:
                values = f"{filled} value" + "s" * (filled > 1)
                problem = f"column {index + 1} of {len(names)} has no name, but {values}"
                cure = "name it in the first line, or quote cells that hold the separator"
                raise fail(path, f"{problem}; {cure}")
            nameless.append((index, column))
    if len(nameless) > 1 and 2 * len(nameless) >= len(renamed):
        listed = ", ".join(str(index + 1) for index, _ in nameless[:40])
        problem = f"columns {listed} of {len(names)} have no name"
        raise fail(path, f"{problem}; name them in the first line, and leave no title above it")
    front = []
    for index, column in nameless:
        index_of_pandas = index == 0 or str(names[index]).startswith("__index_level")
        name = "index" if index_of_pandas else f"column {index + 1}"
        while name in renamed.values():
            name += "_"
        renamed[column] = name
        if index_of_pandas:
            front.append(column)
        what = "without a name in the file, called index or by their number"
        note("columns", what, [f"{path}: {name}"])
    order = [*front, *(column for column in renamed if column not in front)]
    chosen = [pl.col(column).alias(renamed[column]) for column in order]
    return frame.select(chosen), [renamed[column] for column in order]


def _facts(
    path: object, frame: pl.LazyFrame, columns: Sequence[str], collect: Collect
) -> dict[str, tuple[int, int, bool]]:
    """Of each column: how many rows and how many values it has, and whether these are 0, 1, 2, ...
    or 1, 2, 3, ...
    """
    table = collect(path, frame.select(columns))
    facts = {}
    for column in columns:
        cells = table[column]
        text = cells.cast(pl.String, strict=False) if not cells.dtype.is_nested() else cells
        if text.dtype == pl.String:
            text = text.str.strip_chars()
            filled = int((text.fill_null("") != "").sum())
        else:
            filled = len(cells) - cells.null_count()
        counts = False
        if filled == len(cells) and text.dtype == pl.String and filled:
            numbers = text.cast(pl.Float64, strict=False)
            steps = numbers.diff().drop_nulls()
            whole = numbers.null_count() == 0 and numbers[0] in (0.0, 1.0)
            counts = whole and bool((steps == 1).all())
        facts[column] = (len(cells), filled, counts)
    return facts
