"""Several labels a picture: one finding told from all others; `several` keeps them all.

Public sets write them in two ways: one cell with all labels (NIH: `Effusion|Infiltration`), or a
column for each finding with 1, 0, -1 for uncertain, or nothing (CheXpert, MIMIC-CXR).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

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
_OTHERS = (
    "Effusion", "Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural Thickening",
    "Hernia", "Aortic enlargement", "Calcification", "Clavicle fracture", "Enlarged PA", "ILD",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pulmonary fibrosis",
    "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Tuberculosis", "Other diseases",
    "Other disease",
)  # fmt: skip
"""Further findings that have columns in tables made of NIH's, and in VinDr-CXR's."""
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
    """The columns of a table that are findings of CheXpert, NIH or VinDr-CXR."""
    plain = {plain_name(name) for name in (*CHEXPERT, *_OTHERS)}
    return [column for column in columns if plain_name(column) in plain]


class Flag(Enum):
    """What a cell in the column of a finding says."""

    YES = "1"
    NO = "0"
    UNSURE = "-1"
    EMPTY = ""


def flags_of(where: object, cells: Sequence[str]) -> list[Flag]:
    """What the cells in the column of a finding say: 1, 0, -1 or nothing.

    where: table and column. Raises InputError for other cells, and for a column without any.
    """
    flags = []
    for row, cell in enumerate(cells, 1):
        word = cell.strip().lower()
        if word in _POSITIVE:
            flags.append(Flag.YES)
        elif word in _NEGATIVE:
            flags.append(Flag.NO)
        elif word in _UNCERTAIN:
            flags.append(Flag.UNSURE)
        elif is_missing(cell):
            flags.append(Flag.EMPTY)
        else:
            raise fail(f"{where}, row {row}", f"{shown(cell)} is none of 1, 0, -1 and empty")
    if flags.count(Flag.EMPTY) == len(flags):
        raise fail(where, "is empty in all rows")
    return flags


def flags_as_labels(
    where: object, cells: Sequence[str], finding: str, uncertain: Uncertain | None
) -> list[str]:
    """Labels of a column with 1, 0, -1 or nothing: the two classes of the finding, "" for rows to
    leave out.

    where: table and column. Raises InputError for other cells, and for -1 where it is not said what
    that counts as.
    """
    without, with_it = classes_of(finding)
    choice = {"positive": with_it, "negative": without}.get(uncertain or "", "")
    labels = []
    flags = flags_of(where, cells)
    for flag in flags:
        if flag is Flag.UNSURE:
            labels.append(choice)
        else:
            labels.append(with_it if flag is Flag.YES else without)
    unsure, empty = flags.count(Flag.UNSURE), flags.count(Flag.EMPTY)
    if unsure and uncertain is None:
        cure = "say --uncertain positive, negative or leave-out"
        raise fail(where, f"{unsure:,} rows are uncertain (-1); {cure}")
    if unsure and choice:
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
                f"--findings all learns all of them, --finding {shown(names[0])} tells one from "
                "the rest, --classes takes some alone"
            )
            raise fail(where, f"{problem}; {cure}")
