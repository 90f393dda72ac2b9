"""Tables with a column for each finding, as those of CheXpert, MIMIC-CXR and VinDr-CXR, read for
several findings at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..columns import plain_name
from ..items import is_missing
from .findings import finding_column, listed_findings
from .records import ALL, Reading
from .several import flags_as_several, is_no_finding

# Columns of who read a picture; a table that has one may list a picture once for each reader.
_READERS = ("rad_id", "reader", "reader_id", "radiologist", "radiologist_id", "rater", "rater_id",
            "annotator", "annotator_id")  # fmt: skip


def reader_column(names: Sequence[str]) -> str | None:
    """The column of a table that says who read a picture, None where there is none."""
    return next((name for name in names if plain_name(name) in _READERS), None)


def finding_columns(
    path: Path, names: Sequence[str], columns: Mapping[str, str], reading: Reading
) -> dict[str, str]:
    """The columns that hold a finding each, by finding; none where several findings are not asked
    for, and where one column holds all labels of a picture.

    names: of all columns; columns: those in use, by field. Raises InputError for a finding that has
    no column where others have.
    """
    if not reading.findings or "label" in reading.columns:
        return {}
    free = [name for name in names if name not in columns.values()]
    if reading.findings == (ALL,):
        listed = listed_findings(free)
        if len(listed) > 1:
            note("columns", "taken as findings", listed)
            return {name: name for name in listed}
        if "label" not in columns:
            problem = "has no column of labels, and no columns of usual findings"
            raise fail(path, f"{problem}; name its columns: --findings NAME NAME")
        return {}
    by_name = {finding: finding_column(free, finding) for finding in reading.findings}
    flags = {finding: column for finding, column in by_name.items() if column is not None}
    missing = [finding for finding in by_name if finding not in flags]
    if missing and reading.strict and (flags or "label" not in columns):
        hint = f"{nearest(missing[0], free)}; it has {', '.join(free[:40])}"
        raise fail(path, f"has no column of the finding {shown(missing[0])}{hint}")
    return flags


def labels_of_flags(
    path: Path, cells: Mapping[str, list[str]], flags: Mapping[str, str], reading: Reading
) -> list[str]:
    """The label of each row, "" for rows to leave out; see `several`.

    cells: of the column of each finding. Columns that are empty in all rows are left out where no
    finding is named.
    """
    named = reading.findings != (ALL,)
    empty = [name for name in flags if all(map(is_missing, cells[name]))]
    if empty and not (named and reading.strict):
        note("left out", "findings whose columns are empty", empty)
        cells = {name: column for name, column in cells.items() if name not in empty}
    if not cells:
        raise fail(path, "holds no cell of a finding")
    if not named and (without := [name for name in cells if is_no_finding(name)]):
        note("values", "columns that say that a picture has no finding, not learned", without)
        cells = {name: column for name, column in cells.items() if name not in without}
    return flags_as_several(path, cells, reading.uncertain)
