"""Items of a data set and their labels: missing labels, one item listed twice, exact copies."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..base.account import accepts, doubt, note
from ..base.errors import InputError, shown
from .formats.tables import MISSING_WORDS

_NO_LABEL = (*MISSING_WORDS, "#n/a", "#na", "<na>", "nat", "?")  # also of Excel, pandas and UCI

MOST_UNREADABLE = 0.1  # share of the items of a data set

Group = TypeVar("Group", bound=Hashable)


def is_missing(cell: str | None) -> bool:
    """Whether a cell is empty or says in words that it holds nothing ("nan", "None", "NA")."""
    return cell is None or cell.strip().lower() in _NO_LABEL


def read_labels(where: object, cells: Sequence[str | None]) -> list[str]:
    """Labels of the rows of a table, "" for a row without one.

    where: table and column, for messages. Numbers are compared by their value: 1 and 1.0 are one
    class, written as 1. Classes that look alike are named in the account.

    Raises InputError for a row without a label, unless doubts of the kind "missing-labels" are
    accepted; the caller then leaves out the rows whose label is "".
    """
    labels = ["" if is_missing(cell) else str(cell).strip() for cell in cells]
    rows = [row for row, label in enumerate(labels, 1) if not label]
    if rows:
        first = cells[rows[0] - 1]
        more = f" (and {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        cell = "is empty" if first is None or not first.strip() else f"holds {shown(first)}"
        doubt(
            "missing-labels",
            f"{where}, row {rows[0]}{more}",
            f"{cell}, which is no label; fill it or leave the row out, and write a class of "
            "this name in another word",
        )
        note("left out", "rows without a label", [f"row {row}" for row in rows])
    return _one_spelling(where, labels)


def _one_spelling(where: object, labels: Sequence[str]) -> list[str]:
    """The same labels with one spelling of each number and of composed letters."""
    labels, joined = one_form(labels)
    for same in joined:
        named = " and ".join(shown(name) if name.isascii() else ascii(name) for name in same)
        note("values", f"{where}: {named} are one class")
    note_alike(where, labels)
    return labels


def read_folder_classes(where: object, labels: Sequence[str]) -> list[str]:
    """Labels that are names of folders, as `read_labels` gives those of a table, but numbers stay
    as they are: a folder has one name.
    """
    labels, joined = one_form(labels, numbers=False)
    for same in joined:
        note("values", f"{where}: folders {' and '.join(map(ascii, same))} are one class")
    note_alike(where, labels)
    return labels


def note_alike(where: object, labels: Iterable[str]) -> None:
    """Name classes that look alike in the account."""
    for similar in look_alike(labels):
        how = "by case only"
        if len({label.lower() for label in similar}) > 1:
            how = "in case, invisible characters or composed letters only"
        # ascii() shows what differs where nothing can be seen.
        named = " and ".join(
            shown(name) if how == "by case only" else ascii(name) for name in similar
        )
        note("values", f"{where}: the classes {named} differ {how}")


def one_form(names: Sequence[str], *, numbers: bool = True) -> tuple[list[str], list[list[str]]]:
    """The names, in one form where several forms of one occur, and those forms: numbers of one
    value (1 and 1.0), and letters with marks that are composed in two ways.

    A form that occurs alone stays as it is written.

    >>> one_form(["1", "2.0", "1.0"])
    (['1', '2.0', '1'], [['1', '1.0']])
    """
    forms: dict[str, dict[str, None]] = {}
    form_of: dict[str, str] = {}
    for name in dict.fromkeys(names):
        composed = unicodedata.normalize("NFC", name)
        form_of[name] = _number(composed) if numbers else composed
        forms.setdefault(form_of[name], {})[name] = None
    written = [form_of[name] if len(forms[form_of[name]]) > 1 else name for name in names]
    return written, [list(same) for same in forms.values() if len(same) > 1]


def plain_form(name: str) -> str:
    """A name without regard to case, characters that cannot be seen, blanks around and how letters
    with marks are composed.
    """
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    return " ".join(plain.split())


def look_alike(labels: Iterable[str], form: Callable[[str], str] = plain_form) -> list[list[str]]:
    """Labels that people read as one: they differ in case, in characters that cannot be seen, or in
    how letters with marks are composed.

    form: what is equal for those that are read as one.

    >>> look_alike(["a", "b", "A", "b\u200b", "c"])
    [['a', 'A'], ['b', 'b\u200b']]
    """
    similar: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        similar.setdefault(form(label), []).append(label)
    return [names for names in similar.values() if len(names) > 1]


def _number(label: str) -> str:
    try:
        value = float(label)
    except ValueError:
        return label
    digits = label.lstrip("+-")
    if not np.isfinite(value) or (digits[:1] == "0" and digits[1:2].isdigit()):
        return label  # "01" is a code, not the number 1
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def check_items(
    where: object,
    noun: str,
    items: Sequence[str],
    labels: Sequence[str],
    parts: Sequence[str | None] = (),
) -> list[int]:
    """The rows to use, in their order, of a table in which an item may stand more than once.

    where: the table. noun: what an item is called. items: what tells items apart, such as a path.
    labels: of each row; parts: of each row, or none.

    Raises InputError for an item with two labels (the doubt "two-labels") and for one that is
    listed more than once (the doubt "copies"). Where they are accepted, all rows of the item are
    used in the first case, and the first row of each part in the second.
    """
    first: dict[tuple[str, str], int] = {}
    label_of: dict[str, str] = {}
    rows_used: list[int] = []
    repeated: dict[str, None] = {}
    conflicts: dict[str, None] = {}
    for row, (item, label) in enumerate(zip(items, labels, strict=True)):
        part = str(parts[row] or "") if parts else ""
        if label_of.setdefault(item, label) != label:
            if item not in conflicts and not accepts("two-labels"):
                both = f"{shown(label_of[item])} and {shown(label)}"
                doubt("two-labels", where, f"{noun} {shown(item)} has the labels {both}; keep one")
            conflicts[item] = None
        elif (item, part) in first:
            repeated[item] = None
            continue
        first.setdefault((item, part), row)
        rows_used.append(row)
    part_of: dict[str, str] = {}
    for item, part in first:
        if part_of.setdefault(item, part) != part:
            repeated[item] = None
    if repeated:
        name = next(iter(repeated))
        doubt(
            "copies",
            where,
            f"{noun} {shown(name)} is listed more than once"
            + (f", and so are {len(repeated) - 1:,} others" if len(repeated) > 1 else "")
            + "; list each once, in one part",
        )
        note("items", f"{noun}s that are listed more than once", repeated)
    if conflicts:
        note("items", f"{noun}s with two labels", conflicts)
    return rows_used


def readable_rows(items: str, names: Sequence[str], problems: Mapping[int, str]) -> list[int]:
    """The rows of a data set without those that are missing or cannot be read, which go into the
    account.

    items: what they are called, in the plural. problems: by row; "" for none. Raises InputError
    where they are more than `MOST_UNREADABLE` of all: then something else is wrong than a few
    files.
    """
    bad = {row: problem for row, problem in problems.items() if problem}
    if len(bad) > MOST_UNREADABLE * len(names):
        first = next(iter(bad.values()))
        if len(bad) == 1:
            raise InputError(first)
        share = f"{len(bad):,} of {len(names):,} {items} cannot be read"
        raise InputError(f"{first} ({share}; at most {MOST_UNREADABLE:.0%} are left out)")
    if bad:
        what = f"{items} that are missing or cannot be read"
        note("left out", what, [f"{names[row]}: {problem}" for row, problem in bad.items()])
    return [row for row in range(len(names)) if row not in bad]


def digest(*arrays: np.ndarray) -> str:
    """What tells the contents of items apart: equal for equal arrays of equal types and shapes."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def join_copies(
    where: object,
    noun: str,
    names: Sequence[str],
    digests: Iterable[str],
    groups: Sequence[Group],
    labels: Sequence[str],
    parts: Sequence[str | None] = (),
) -> list[Group]:
    """The group of each item, with those of exact copies joined, so that copies share a part.

    digests: what tells the contents of the items apart (`digest`). groups: the groups without
    regard to copies. labels, parts: of each item, as the data says them.

    Raises InputError for copies with different labels (the doubt "two-labels") and for copies that
    the data puts into two parts (the doubt "copies").
    """
    first: dict[str, int] = {}
    joined: dict[Group, Group] = {}

    def root(group: Group) -> Group:
        while joined.get(group, group) != group:
            group = joined[group]
        return group

    copies: dict[str, None] = {}
    for row, content in enumerate(digests):
        other = first.setdefault(content, row)
        if other == row:
            continue
        copies[names[row]] = None
        pair = f"{shown(names[other])} and {shown(names[row])} are exact copies"
        if labels and labels[other] != labels[row]:
            both = f"{shown(labels[other])} and {shown(labels[row])}"
            doubt("two-labels", where, f"{pair} with the labels {both}; keep one")
        if parts and parts[other] and parts[row] and parts[other] != parts[row]:
            doubt("copies", where, f"{pair} in {parts[other]} and in {parts[row]}; keep one")
        joined[root(groups[row])] = root(groups[other])
    if copies:
        note("items", f"exact copies of other {noun}s; copies share a part", copies)
    return [root(group) for group in groups]
