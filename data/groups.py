"""Groups that stay together in one part (patients, speakers, ...), as people write their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from ..base.account import note
from ..base.errors import shown
from .items import is_missing, look_alike, one_form, plain_form

_NOBODY = (
    "unknown", "unk", "anonymous", "anonymized", "anonymised", "anonym", "anon", "unnamed",
    "unbekannt", "inconnu", "desconocido", "-", "--", "---", "?", "??", "_", ".", "/",
    "not available", "not known", "not named", "no name",
)  # fmt: skip
"""What stands for a name and names nobody, besides what is missing."""
_FLAGS = {"yes", "no", "y", "n", "true", "false", "positive", "negative", "pos", "neg", "control"}
_RUNS = re.compile(r"[^\W\d_]+|\d+")


def read_groups(noun: str, cells: Sequence[str | None]) -> list[str]:
    """The name of each item's group, "" where there is none.

    Words that name nobody, such as "unknown", count as no name. 1 and 1.0, and letters composed in
    two ways, are one name. What was joined goes into the account, and names that only look alike,
    each kind in one line. noun: what a group is called.
    """
    names = ["" if is_missing(cell) else str(cell).strip() for cell in cells]
    if nobody := {name: None for name in names if name.lower() in _NOBODY}:
        what = f"words in place of a {noun} name nobody, so each such item counts as its own"
        note("groups", what, map(shown, nobody))
        names = ["" if name in nobody else name for name in names]
    names, joined = one_form(names)
    if joined:
        note("groups", f"{noun}s written in several ways, each taken as one", _pairs(joined))
    if alike := names_alike(names):
        note("groups", f"{noun}s whose names look alike, taken as different", _pairs(alike))
    return names


def names_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that may be one: they differ in case, leading zeros, blanks or marks.

    >>> names_alike(["P-0", "p00", "P1", "1-12", "11-2", "b", "B"])
    [['P-0', 'p00'], ['b', 'B']]
    """
    return look_alike(filter(None, names), _without_marks)


def are_flags(cells: Collection[str | None]) -> bool:
    """Whether the cells of a column answer a question (yes, no), so that they name nobody.

    >>> are_flags(["Yes", "no", None]), are_flags(["anna", "no"])
    (True, False)
    """
    words = {cell.strip().lower() for cell in cells if not is_missing(cell) and cell is not None}
    return bool(words) and words <= {*_FLAGS, "case"}


def _without_marks(name: str) -> str:
    plain = plain_form(name)
    runs = [run.lstrip("0") or "0" for run in _RUNS.findall(plain)]
    # A sign is no mark: -1 is not 1.
    return ("-" if plain.startswith("-") else "") + " ".join(runs) if runs else plain


def _pairs(several: Iterable[Sequence[str]]) -> list[str]:
    """The names of each, by ascii() where they look the same."""
    return [
        " and ".join(map(ascii if len(set(map(plain_form, names))) == 1 else shown, names))
        for names in several
    ]
