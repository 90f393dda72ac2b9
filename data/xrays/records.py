"""Listed X-rays: one by one as a layout gives them, and as the lists of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ...base.errors import fail
from ..item_sets import ItemSet, of_record

Uncertain: TypeAlias = Literal["positive", "negative", "ignore", "leave-out"]
"""What a label of -1 (uncertain, as in CheXpert) counts as; to ignore it leaves out the label of
this finding, and the picture only where it has no other."""
ALL = "all"
"""In place of the names of findings: all that the data has."""


@dataclass(frozen=True)
class Reading:
    """How a data set is to be read.

    classes     the classes to use; by default all
    columns     columns of a table by the field that they hold, where their names do not say it
    images      folder of the pictures of a table; by default the table's own
    finding     the finding that is told from all others, where a picture has several labels
    findings    the findings that are told of each picture, by name or `ALL`, where a picture has
                several labels; none: a picture has one label
    uncertain   what a label of -1 counts as; it must be said where there are any
    strict      whether a finding that no picture has, and a column that does not exist, are errors;
                not so for other data than that of a training
    use_labels  whether anything is to be learned of the labels; if not, no label is refused
    need_label  whether pictures must have labels; without, pictures that a list names and that are
                not there are listed all the same, with the problem
    """

    classes: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    images: str | None = None
    finding: str | None = None
    findings: tuple[str, ...] = ()
    uncertain: Uncertain | None = None
    strict: bool = True
    use_labels: bool = True
    need_label: bool = True


@dataclass(frozen=True)
class Xray:
    """A picture as a layout lists it; "" where the layout does not say."""

    name: str
    file: str
    label: str
    part: str = ""
    patient: str = ""
    view: str = ""
    source: str = ""
    place: tuple[str, int] | None = None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class XraySet(ItemSet):
    """N pictures; all lists have N entries, "" where the data does not say. The layout is
    "classes", "table", "medmnist" or "covidx".
    """

    files: list[str] = field(metadata=of_record("file"))
    # Array and row in a MedMNIST file.
    places: list[tuple[str, int] | None] = field(metadata=of_record("place"))
    labels: list[str] = field(metadata=of_record("label"))
    # From the table, or numbers; by default each picture is its own patient.
    patients: list[str] = field(metadata=of_record("patient"))
    views: list[str] = field(metadata=of_record("view"))
    sources: list[str] = field(metadata=of_record("source"))
    # Why a picture cannot be read, as far as the list tells.
    problems: list[str] = field(metadata=of_record("problem"))
    findings: list[str] = field(default_factory=list)  # of which a label holds several, not by row


def xray_set(where: object, layout: str, xrays: Sequence[Xray]) -> XraySet:
    """The pictures of a layout as lists. Raises InputError where there are none."""
    if not xrays:
        raise fail(where, "holds no pictures")
    return XraySet.of_records(where, layout, xrays)
