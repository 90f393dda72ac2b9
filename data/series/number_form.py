"""How the numbers of a table of series are written, and which of them mean a missing value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..formats.tables import MISSING_WORDS, has_semicolons, numbers, unreadable
from ..formats.tables_codes import doubt_codes, without_codes
from ..formats.tables_numbers import decimal_marks
from ..formats.tables_units import column_units, without_units

Decimal = Literal["auto", "point", "comma"]
CURE = "--missing {}"


@dataclass(frozen=True)
class NumberForm:
    """How numbers are read.

    decimal   the decimal mark of all columns; "auto": the one that their cells show
    commas    whether columns have a decimal comma, where a table leaves it open: as a run read it
    units     of columns, as a run read them; those of a table must not be others. Of a table: those
              of its columns, "" for numbers without one
    missing   words and numbers that count as missing, besides the usual words
    accepted  whether numbers that look like codes for a missing value are numbers
    """

    decimal: Decimal = "auto"
    commas: Mapping[str, bool] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    accepted: bool = False


class FileForm(NamedTuple):
    """What all rows of a file say of its numbers: decimal commas and units by column, columns that
    leave open whether 1.234 is a thousand, and whether `;` stands between the cells.
    """

    commas: Mapping[str, bool]
    units: Mapping[str, str]
    open: tuple[str, ...]
    semicolons: bool


def form_of_file(where: object, frame: pl.LazyFrame, names: Sequence[str]) -> FileForm:
    """See `FileForm`. names: columns of numbers. Raises InputError where it cannot be read."""
    try:
        semicolons = has_semicolons(where)
        marks = decimal_marks(frame, names, semicolons=semicolons)
        return FileForm(marks.commas, column_units(frame, names), marks.open, semicolons)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(where, error) from error


def resolved(where: object, form: NumberForm, file: FileForm, names: Sequence[str]) -> NumberForm:
    """The form with what the file says, which comes before what a run read.

    Raises InputError where the marks can be read in two ways, and for units that are not those of
    the run.
    """
    if form.decimal == "auto":
        commas = {**form.commas, **file.commas}
        for name in file.open:
            if name in commas:
                continue
            if file.semicolons:
                problem = f"column {shown(name)} holds numbers such as 1.234 that could be 1234"
                problem += ", as ; stands between the cells"
                raise fail(where, f"{problem}; say --decimal comma, or --decimal point")
            note("assumed", "columns whose 1.234 has a decimal point", [name])
            commas[name] = False
    else:
        commas = dict.fromkeys(names, form.decimal == "comma")
    for name, unit in file.units.items():
        usual = form.units.get(name)
        if usual and unit and usual != unit:
            problem = f"column {shown(name)} is in {shown(unit)}, but the run was trained on"
            raise fail(where, f"{problem} {shown(usual)}; convert it")
    return replace(form, commas=commas, units=file.units)


def stored_commas(form: NumberForm, names: Sequence[str]) -> dict[str, bool]:
    """Decimal commas of columns for a run: the mark of those that show it is that of the others,
    too, where they agree.
    """
    marks = set(form.commas.values())
    return dict.fromkeys(names, marks.pop()) if len(marks) == 1 else dict(form.commas)


def read_column(column: pl.Series, form: NumberForm) -> tuple[np.ndarray, np.ndarray]:
    """As `numbers`, in a form that is resolved; NaN for what counts as missing, too."""
    name = column.name
    if form.missing and column.dtype == pl.String:
        text = column.str.strip_chars().str.to_lowercase()
        words = [word.lower() for word in form.missing if word.lower() not in MISSING_WORDS]
        mask = text.is_in(words).fill_null(False)
        column = column.set(mask, None)
        count = int(mask.sum())
    else:
        count = 0
    values, bad = numbers(column, comma=form.commas.get(name), unit=form.units.get(name))
    values, coded = without_codes(values, form.missing)
    if count + coded:
        note("values", f"cells of {name} that --missing counts as missing", count=count + coded)
    return values, bad


def why_not(column: pl.Series, row: int, form: NumberForm) -> str:
    """Why a cell is no number of its column."""
    cell = column[row : row + 1].cast(pl.String).str.strip_chars()
    bare, _ = without_units(cell)
    if numbers(bare, comma=form.commas.get(column.name))[1][0] or bare[0] is None:
        return "not a number"
    unit = form.units.get(column.name)
    return "a number of another unit than the others" + (f" ({shown(unit)})" if unit else "")


def check_codes(where: object, names: Sequence[str], values: np.ndarray, form: NumberForm) -> None:
    """Raise InputError for numbers that nearly certainly mean a missing value in columns of values
    (n, C), unless they are accepted.
    """
    if not form.accepted:
        for index, name in enumerate(names):
            doubt_codes(where, name, values[:, index], CURE)
