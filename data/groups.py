"""Groups that stay together in one part (patients, speakers, ...), as people write their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from ..base.account import note
from ..base.errors import shown
from .columns import is_named, plain_name
from .items import is_missing, look_alike, one_form, plain_form

_NOBODY = (
    "unknown", "unk", "anonymous", "anonymized", "anonymised", "anonym", "anon", "unnamed",
    "unbekannt", "inconnu", "desconocido", "-", "--", "---", "?", "??", "_", ".", "/",
    "not available", "not known", "not named", "no name",
)  # fmt: skip
"""What stands for a name and names nobody, besides what is missing."""
_FLAGS = {"yes", "no", "y", "n", "true", "false", "positive", "negative", "pos", "neg", "control"}
FEW, MANY = 3, 10  # groups, and items of each, at which a column may say something else
_RUNS = re.compile(r"[^\W\d_]+|\d+")


def read_groups(noun: str, cells: Sequence[str | None], *, divided: bool = True) -> list[str]:
    """The name of each item's group, "" where there is none.

    Words that name nobody, such as "unknown", count as no name, which the account says; the rest is
    as of `one_spelling`. noun: what a group is called. divided: whether the items will be divided
    into parts, for which few groups of many items are a reason to doubt that they are groups.
    """
    names = ["" if is_missing(cell) else str(cell).strip() for cell in cells]
    if nobody := {name: None for name in names if name.lower() in _NOBODY}:
        what = f"words in place of a {noun} name nobody, so each such item counts as its own"
        note("groups", what, map(shown, nobody))
        names = ["" if name in nobody else name for name in names]
    names = one_spelling(f"{noun}s", names)
    filled = [name for name in names if name]
    count = len(set(filled))
    if divided and 1 < count <= FEW and len(filled) >= MANY * count:
        cure = f"if its column says something else, name the right one with --columns {noun}=COLUMN"
        note("groups", f"{len(filled):,} rows name only {count} {noun}s; {cure}")
    return names


def one_spelling(items: str, names: Sequence[str], *, numbers: bool = True) -> list[str]:
    """The names, where 1 and 1.0, and letters composed in two ways, are one name.

    What was joined goes into the account, and names that only look alike, each kind in one line.
    items: what is so called, in the plural. numbers: whether 1 and 1.0 are one.
    """
    written, joined = one_form(names, numbers=numbers)
    if joined:
        note("groups", f"{items} written in several ways, each taken as one", _pairs(joined))
    if alike := names_alike(written):
        note("groups", f"{items} whose names look alike, taken as different", _pairs(alike))
    return written


def names_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that may be one: they differ in case, leading zeros, blanks or marks.

    >>> names_alike(["P-0", "p00", "P1", "1-12", "11-2", "b", "B"])
    [['P-0', 'p00'], ['b', 'B']]
    """
    return look_alike(filter(None, names), _without_marks)


def without_flag_columns(
    names: Sequence[str],
    cells: Callable[[str], Iterable[str | None]],
    field: str,
    chosen: Collection[str] = (),
) -> list[str]:
    """The names of columns without those that could hold the groups of a field, such as `case`, but
    hold answers; they go into the account as not used.

    cells: gives the distinct cells of a column, as text. field: a key of `SYNONYMS`. chosen:
    columns that the user named, which stay.
    """
    doubtful = [n for n in names if is_named(n, field) and n not in chosen]
    flags = [
        name
        for name in doubtful
        if are_flags(distinct := list(cells(name)))
        or (plain_name(name) == "case" and set(one_form(list(map(str, distinct)))[0]) == {"0", "1"})
    ]
    if flags:
        note(
            "columns", f"not used as the {field}, since they hold answers such as yes and no", flags
        )
    return [name for name in names if name not in flags]


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
