"""Several labels a picture: one finding told from all others.

Public sets write them in two ways: one cell with all labels (NIH: `Effusion|Infiltration`), or a
column for each finding with 1, 0, -1 for uncertain, or nothing (CheXpert, MIMIC-CXR).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..columns import plain_name
from ..items import is_missing
from .records import Uncertain

CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""The columns of CheXpert and MIMIC-CXR."""
_POSITIVE = ("1", "1.0", "true", "yes", "positive")
_NEGATIVE = ("0", "0.0", "false", "no", "negative")
_UNCERTAIN = ("-1", "-1.0", "uncertain")


def classes_of(finding: str) -> tuple[str, str]:
    """The two classes that a finding makes, the one without it first.

    >>> classes_of("Effusion")
    ('no Effusion', 'Effusion')
    """
    return f"no {finding}", finding


def split_findings(label: str) -> list[str]:
    """The findings in one cell, separated by "|" or ";", or written as a list.

    >>> split_findings("Effusion|Infiltration"), split_findings("['normal', 'chronic changes']")
    (['Effusion', 'Infiltration'], ['normal', 'chronic changes'])
    """
    text = label.strip()
    if text.startswith("[") and text.endswith("]"):
        words = [word.strip().strip("'\"") for word in text[1:-1].split(",")]
    else:
        words = text.replace(";", "|").split("|")
    return [word.strip() for word in words if word.strip()]


def finding_column(columns: Sequence[str], finding: str) -> str | None:
    """The column of a table that has the name of a finding, None where there is none."""
    fitting = [column for column in columns if plain_name(column) == plain_name(finding)]
    return finding if finding in fitting else next(iter(fitting), None)


def listed_findings(columns: Sequence[str]) -> list[str]:
    """The columns of a table that are findings of CheXpert."""
    plain = {plain_name(name) for name in CHEXPERT}
    return [column for column in columns if plain_name(column) in plain]


def flags_as_labels(
    where: object, cells: Sequence[str], finding: str, uncertain: Uncertain | None
) -> list[str]:
    """Labels of a column with 1, 0, -1 or nothing: the two classes of the finding, "" for rows to
    leave out.

    where: table and column. Raises InputError for other cells, and for -1 where it is not said what
    that counts as.
    """
    without, with_it = classes_of(finding)
    choice = {"positive": with_it, "negative": without, "leave-out": "", None: ""}[uncertain]
    labels, empty, unsure = [], 0, 0
    for row, cell in enumerate(cells, 1):
        word = cell.strip().lower()
        if word in _POSITIVE:
            labels.append(with_it)
        elif word in _NEGATIVE:
            labels.append(without)
        elif word in _UNCERTAIN:
            unsure += 1
            labels.append(choice)
        elif is_missing(cell):
            empty += 1
            labels.append(without)
        else:
            raise fail(f"{where}, row {row}", f"{shown(cell)} is none of 1, 0, -1 and empty")
    if empty == len(labels):
        raise fail(where, "is empty in all rows")
    if unsure and uncertain is None:
        cure = "say --uncertain positive, negative or leave-out"
        raise fail(where, f"{unsure:,} rows are uncertain (-1); {cure}")
    if unsure and uncertain != "leave-out":
        note("values", f"rows with uncertain {finding} (-1) that count as {choice}", count=unsure)
    elif unsure:
        note("left out", f"rows with uncertain {finding} (-1)", count=unsure)
    if empty:
        note("assumed", f"rows in which {finding} is empty count as {without}", count=empty)
    return labels


def one_against_rest(
    where: object, labels: Sequence[str], finding: str, *, required: bool = True
) -> list[str]:
    """Labels as the two classes of a finding; labels of several findings are split.

    required: whether a finding that no picture has is an error (InputError).
    """
    without, with_it = classes_of(finding)
    known = {name for label in set(labels) for name in split_findings(label)}
    wanted = plain_name(finding)
    if required and not any(plain_name(name) == wanted for name in known):
        raise fail(where, f"no picture has the finding {shown(finding)}{nearest(finding, known)}")
    has_it = {
        label: any(plain_name(name) == wanted for name in split_findings(label))
        for label in set(labels)
    }
    note("values", f"labels are read as {with_it} or {without}")
    return [with_it if has_it[label] else without for label in labels]


def refuse_several(where: object, labels: Sequence[str]) -> None:
    """Raise InputError where pictures have several labels each.

    A label with "|" counts as several only if one of its parts is also in another label.
    """
    count: dict[str, int] = {}
    for label in set(labels):
        for name in set(split_findings(label)):
            count[name] = count.get(name, 0) + 1
    for label in labels:
        names = split_findings(label)
        if len(names) > 1 and any(count[name] > 1 for name in names):
            problem = f"{shown(label)} is several labels of one picture"
            cure = (
                f"--finding {shown(names[0])} tells one from the rest, --classes takes some alone"
            )
            raise fail(where, f"{problem}; {cure}")
