"""Items for batch inference: listed without reading values, then read group by group.

A broken item never stops the others: `read_items` returns an InputError in its place.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypedDict, overload

import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, shown
from ..formats.tables import collect, list_files, require_columns, scan_table, suffix_of
from .cells import NAME, SERIES_SUFFIXES, cells_of, read_dates, with_names
from .columns import ColumnChoice, Columns, find_columns
from .dates import DateOrder, ReadTimes
from .frequency import Step, parse_frequency
from .ids import ID_NAME, id_text, present_ids
from .number_form import FileForm, NumberForm, check_codes, form_of_file, resolved
from .series import Fill, Panel, Series, id_columns, one_series, read_panel
from .told import Tally, note_assumptions, note_fills

ROW_NUMBER = "\x1frow"  # a name that no header has: nobody types a control character


class SeriesItem(TypedDict):
    """One thing to forecast, as JSON holds it.

    file: path as the user named it; id: the unique_id of a series in a long file, or None for a
    file that is one item.
    """

    file: str
    id: str | None


class ItemList(Sequence[SeriesItem]):
    """Items in a fixed order; memory holds one string per item."""

    def __init__(self, files: Sequence[tuple[str, Sequence[str] | None]]) -> None:
        """files: pairs of a file and its ids, or None for a file that is one item."""
        self._files = files
        self._ends: list[int] = []
        total = 0
        for _, ids in files:
            total += 1 if ids is None else len(ids)
            self._ends.append(total)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> SeriesItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[SeriesItem]: ...
    def __getitem__(self, index: int | slice) -> SeriesItem | list[SeriesItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        place = bisect_right(self._ends, index)
        file, ids = self._files[place]
        before = self._ends[place - 1] if place else 0
        return {"file": file, "id": None if ids is None else ids[index - before]}


def list_items(
    path: str | Path,
    *,
    id_column: str | Sequence[str] | None = None,
    usual_ids: Sequence[str] = (),
    series: Literal["apart", "together"] = "apart",
) -> ItemList:
    """List what there is to forecast, in a fixed order, without reading values.

    path       a file; a folder (its files of a readable kind, by name, without its sub-folders); or
               a pattern with * or ?
    id_column  as in `read_panel`; a file with it holds one item per id, in order of appearance
    usual_ids  columns of ids that a file may have, where `id_column` is None; `unique_id` always is
               one. Files without them are one item
    series     "together": a long file, too, is one item

    A file that cannot be listed is an item that fails when read, unless it is the only one. Then
    InputError is raised at once, as for an empty folder and for links that lead out of it.
    """
    files = list_files(path, SERIES_SUFFIXES)
    listed: list[tuple[str, Sequence[str] | None]] = []
    for file in files:
        try:
            listed.append((file, _ids(file, id_columns(id_column), usual_ids, series)))
        except InputError:
            if len(files) == 1:
                raise
            listed.append((file, None))
    items = ItemList(listed)
    note("read", "files", count=len(listed))
    note("read", "series to forecast", count=len(items))
    return items


def _ids(
    file: str, id_column: Sequence[str], usual_ids: Sequence[str], series: str
) -> Sequence[str] | None:
    """The ids of a long file in order of appearance; None for a file that is one item."""
    if suffix_of(Path(file)) == ".npz":
        return None
    frame, names = scan_table(file)
    require_columns(file, id_column, names)
    columns = present_ids(names, id_column, usual_ids)
    if not columns or series == "together":
        return None
    named = frame.select(id_text(frame, columns).alias(NAME)).unique(maintain_order=True)
    ids = collect(file, named)[NAME]
    if not len(ids):
        raise fail(file, "has column names but no rows")
    header = "/".join(columns)  # as a row that repeats the header has it
    return [name for name in ids.to_list() if name != header]


def read_items(
    items: Iterable[SeriesItem],
    *,
    targets: Sequence[str],
    frequency: str,
    known: Sequence[str] = (),
    date: str | None = None,
    id_column: str | Sequence[str] | None = None,
    usual_ids: Sequence[str] = (),
    fill: Fill = "error",
    series: Literal["apart", "together"] = "apart",
    order: DateOrder = "auto",
    local: bool = False,
    month_day: int = 0,
    form: NumberForm | None = None,
    last: int | None = None,
    minimum: int = 1,
) -> list[Series | InputError]:
    """Read a group of items, in their order; a broken one becomes the InputError that says why.

    The options are those of `read_panel` and `list_items`; `frequency` is that of the model, and is
    checked. All
    rows of an item are checked, then only the `last` rows of its values stay (with the known rows
    next to and after them). Fewer than `minimum` rows are an error. Each file is scanned once, and
    only the rows of the group come into memory.
    """
    items = list(items)
    step = parse_frequency(frequency)
    choice = ColumnChoice(date, id_columns(id_column), targets, known, order, local, usual_ids)
    choice = replace(choice, form=form or NumberForm())
    results: list[Series | InputError] = [InputError("not read")] * len(items)
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        if item["id"] is None:
            try:
                panel = read_panel(
                    item["file"],
                    date=date,
                    id_column=id_column,
                    usual_ids=usual_ids,
                    targets=targets if series == "apart" else None,
                    known=known,
                    frequency=frequency,
                    fill=fill,
                    series=series,
                    order=order,
                    local=local,
                    month_day=month_day,
                    form=form,
                )
                results[place] = _only_series(item["file"], panel, targets)
            except InputError as error:
                results[place] = error
        else:
            groups.setdefault(item["file"], []).append(place)
    for file, places in groups.items():
        ids = [str(items[place]["id"]) for place in places]
        try:
            read = _read_ids(file, ids, choice, step, fill, month_day)
        except InputError as error:
            read = dict.fromkeys(ids, error)
        for place, name in zip(places, ids, strict=True):
            results[place] = read.get(name) or fail(
                file, f"series {name!r} is not there any more; list the items again"
            )
    return [
        _trimmed(item, result, last, minimum) for item, result in zip(items, results, strict=True)
    ]


def _only_series(file: str, panel: Panel, targets: Sequence[str]) -> Series:
    """The one series of a file, its channels in the order of the model."""
    if len(panel.series) != 1:
        problem = f"holds {len(panel.series)} series where one was expected"
        raise fail(file, f"{problem}; list the items again")
    (series,) = panel.series
    if panel.channels == tuple(targets):
        return series
    require_columns(file, targets, panel.channels)
    places = [panel.channels.index(name) for name in targets]
    return replace(series, values=series.values[:, places])


def _read_ids(
    file: str, ids: Sequence[str], choice: ColumnChoice, step: Step, fill: Fill, month_day: int
) -> dict[str, Series | InputError]:
    """The series of one long file with these ids."""
    frame, names = scan_table(file)
    choice = replace(choice, ids=present_ids(names, choice.ids, choice.usual_ids))
    if not choice.ids:
        raise fail(file, f"there is no column {ID_NAME!r} any more; list the items again")
    columns = find_columns(file, frame, names, choice, step.text)
    columns, form = _as_in_file(file, columns, choice.form)
    numbered = with_names(frame.with_row_index(ROW_NUMBER), columns, ROW_NUMBER)
    table = collect(file, numbered.filter(pl.col(NAME).is_in(ids)))
    row_numbers = table[ROW_NUMBER].to_numpy()
    cells = cells_of(file, table.drop(ROW_NUMBER), columns, form)
    if cells.row_numbers is not None:
        row_numbers = row_numbers[cells.row_numbers]
    cells, tally = replace(cells, row_numbers=row_numbers), Tally()
    read: dict[str, Series | InputError] = {}
    for index, name in enumerate(cells.names):
        try:
            values = cells.values[cells.rows[index]]
            place = f"{file}: series {shown(name)}"
            check_codes(place, [*columns.targets, *columns.known], values, form)
            read[name] = one_series(cells, index, step, fill, month_day=month_day, tally=tally)
        except InputError as error:
            read[name] = error
    note_assumptions(cells)
    note_fills(tally, fill)
    return read


def _as_in_file(file: str, columns: Columns, form: NumberForm) -> tuple[Columns, NumberForm]:
    """The columns with the order of day and month and the kind of clock, and the form of numbers,
    that the entire file shows: a group of series is only a part of it, and groups must not
    disagree.
    """
    status = os.stat(file)
    read, in_file = _entire(file, status.st_mtime_ns, status.st_size, columns)
    if read is not None and columns.order == "auto":
        columns = replace(columns, order=read.order, local=read.local)
    return columns, resolved(file, form, in_file, [*columns.targets, *columns.known])


@lru_cache(maxsize=64)
def _entire(
    file: str, _changed: int, _size: int, columns: Columns
) -> tuple[ReadTimes | None, FileForm]:
    """The dates of a file, and how it writes numbers."""
    frame, _ = scan_table(file)
    in_file = form_of_file(file, frame, [*columns.targets, *columns.known])
    if columns.date is None or columns.order != "auto":
        return None, in_file
    dates = collect(file, frame.select(columns.dates).unique(maintain_order=True))
    read = read_dates(file, dates, columns)
    # Only what it says about all dates is needed, not the dates themselves.
    return None if read is None else replace(read, times=read.times.head(0)), in_file


def _trimmed(
    item: SeriesItem, result: Series | InputError, last: int | None, minimum: int
) -> Series | InputError:
    if isinstance(result, InputError):
        return result
    rows = len(result.times)
    if rows < minimum:
        where = item["file"] if item["id"] is None else f"{item['file']}: series {item['id']!r}"
        problem = f"has {rows} rows, but the look-back of the model needs {minimum}"
        return fail(where, f"{problem}; give more rows")
    if last is None or rows <= last:
        return result
    # Copies, so that the memory of a group can be released while a few of its rows are in use.
    arrays = (result.times, result.values, result.known)
    times, values, known = (array[rows - last :].copy() for array in arrays)
    return replace(result, times=times, values=values, known=known)
