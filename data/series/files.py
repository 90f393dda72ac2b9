"""Items for batch inference: listing them without reading values, and reading them a group at a
time.

An item is a small dict that JSON can hold: {"file": path as given, "id": unique_id, or None for a
file that is one item}. One broken item never stops the others: `read_items` answers with an
`InputError` in its place."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict, overload

import polars as pl

from ...base.errors import InputError, fail
from ..formats.tables import collect, list_files, require_columns, scan_table, suffix_of
from .cells import ID_NAME, SERIES_SUFFIXES, cells_of, find_columns
from .clock import Step, parse_frequency
from .series import Fill, Series, one_series, read_panel

ROW_NUMBER = "\x1frow"  # no header can hold this name: a control character is not typed into one


class Item(TypedDict):
    """One thing to forecast: a file, or one series in a long file."""

    file: str
    id: str | None


class ItemList(Sequence[Item]):
    """A fixed order of items that keeps one string an item in memory."""

    def __init__(self, files: Sequence[tuple[str, Sequence[str] | None]]) -> None:
        """`files`: each file with its ids, or with None when it is one item."""
        self._files = files
        self._ends: list[int] = []
        total = 0
        for _, ids in files:
            total += 1 if ids is None else len(ids)
            self._ends.append(total)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
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
    id_column: str | None = None,
    series: Literal["apart", "together"] = "apart",
) -> ItemList:
    """List what there is to forecast, in a fixed order, without reading values.

    path       a file; a folder (its files of a readable kind, by name, not its sub-folders); or a pattern with * or ?
    id_column  as in `read_panel`; a file with it holds one item per id, in order of appearance, else it is one item
    series     "together": a long file, too, is one item

    A file that cannot be listed is an item that fails when read, unless it is the only one: then
    `InputError` is raised at once, as it is for an empty folder and for links that lead out of the
    folder."""
    files = list_files(path, SERIES_SUFFIXES)
    listed: list[tuple[str, Sequence[str] | None]] = []
    for file in files:
        try:
            listed.append((file, _ids(file, id_column, series)))
        except InputError:
            if len(files) == 1:
                raise
            listed.append((file, None))
    return ItemList(listed)


def _ids(file: str, id_column: str | None, series: str) -> Sequence[str] | None:
    """The ids of a long file in order of appearance; None for a file that is one item."""
    if suffix_of(Path(file)) == ".npz":
        return None
    frame, names = scan_table(file)
    if id_column is not None:
        require_columns(file, [id_column], names)
    elif ID_NAME not in names:
        return None
    if series == "together":
        return None
    name = id_column or ID_NAME
    ids = collect(
        file, frame.select(pl.col(name).cast(pl.String).fill_null("")).unique(maintain_order=True)
    )[name]
    if not len(ids):
        raise fail(file, "has column names but no rows")
    return ids.to_list()


def read_items(
    items: Iterable[Item],
    *,
    targets: Sequence[str],
    frequency: str,
    known: Sequence[str] = (),
    date: str | None = None,
    id_column: str | None = None,
    fill: Fill = "error",
    series: Literal["apart", "together"] = "apart",
    last: int | None = None,
    minimum: int = 1,
) -> list[Series | InputError]:
    """Read a group of items, in their order; a broken one becomes the `InputError` that says why.

    The options are those of `read_panel`; `frequency` is that of the model, and is checked. Every
    row of an item is checked, then only the `last` rows of its values are kept (with the known rows
    beside and after them). Fewer than `minimum` rows are an error. Each file is scanned once, and
    only the rows of the group come into memory."""
    items = list(items)
    step = parse_frequency(frequency)
    found: list[Series | InputError] = [InputError("not read")] * len(items)
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        if item["id"] is None:
            try:
                panel = read_panel(
                    item["file"],
                    date=date,
                    id_column=id_column,
                    targets=targets if series == "apart" else None,
                    known=known,
                    frequency=frequency,
                    fill=fill,
                    series=series,
                )
                found[place] = _whole_file(item["file"], panel.channels, panel.series, targets)
            except InputError as error:
                found[place] = error
        else:
            groups.setdefault(item["file"], []).append(place)
    for file, places in groups.items():
        ids = [str(items[place]["id"]) for place in places]
        try:
            read = _read_ids(file, ids, targets, known, date, id_column, frequency, step, fill)
        except InputError as error:
            read = dict.fromkeys(ids, error)
        for place, name in zip(places, ids, strict=True):
            found[place] = read.get(name) or fail(
                file, f"series {name!r} is not there any more; list the items again"
            )
    return [_trimmed(items[i], one, last, minimum) for i, one in enumerate(found)]


def _whole_file(
    file: str, channels: tuple[str, ...], found: tuple[Series, ...], targets: Sequence[str]
) -> Series:
    """The one series of a file, its channels in the order of the model."""
    if len(found) != 1:
        raise fail(file, f"holds {len(found)} series where one was expected; list the items again")
    if channels == tuple(targets):
        return found[0]
    require_columns(file, targets, channels)
    return replace(found[0], values=found[0].values[:, [channels.index(name) for name in targets]])


def _read_ids(
    file: str,
    ids: Sequence[str],
    targets: Sequence[str],
    known: Sequence[str],
    date: str | None,
    id_column: str | None,
    frequency: str,
    step: Step,
    fill: Fill,
) -> dict[str, Series | InputError]:
    """The series of one long file with the given ids."""
    frame, names = scan_table(file)
    columns = find_columns(file, frame, names, date, id_column, targets, known, frequency)
    if columns.id is None:
        raise fail(file, f"there is no column {ID_NAME!r} any more; list the items again")
    wanted = pl.col(columns.id).cast(pl.String).fill_null("").is_in(ids)
    numbered = frame.select(columns.names).with_row_index(ROW_NUMBER)
    table = collect(file, numbered.filter(wanted))
    row_numbers = table[ROW_NUMBER].to_numpy()
    # Day/month order is decided by a whole file; here only a group is seen, and groups must not
    # disagree.
    cells = replace(cells_of(file, table, columns, slashed=False), row_numbers=row_numbers)
    read: dict[str, Series | InputError] = {}
    for index, name in enumerate(cells.names):
        try:
            read[name] = one_series(cells, index, step, fill)
        except InputError as error:
            read[name] = error
    return read


def _trimmed(
    item: Item, one: Series | InputError, last: int | None, minimum: int
) -> Series | InputError:
    if isinstance(one, InputError):
        return one
    rows = len(one.times)
    if rows < minimum:
        where = item["file"] if item["id"] is None else f"{item['file']}: series {item['id']!r}"
        return fail(
            where,
            f"has {rows} rows, but the look-back of the model needs {minimum}; give more rows",
        )
    if last is None or rows <= last:
        return one
    # Copies, so that a group can be let go while a few of its rows are still in use.
    start = rows - last
    return Series(
        one.name, one.times[start:].copy(), one.values[start:].copy(), one.known[start:].copy()
    )
