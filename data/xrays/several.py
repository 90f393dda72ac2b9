"""Several findings of one picture: which it has, which it has not, and which are not known.

The label of a picture is one text: the findings that it has and, marked by "?", those of which
nothing is known, as in `Edema|?Mass`; `(no finding)` where there is neither. Shapes: N pictures, F
findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..columns import plain_name
from .findings import Flag, flags_of, split_findings
from .records import ALL, Uncertain

NOTHING = "(no finding)"
_UNKNOWN = "?"
# What tables call a picture that has none of the findings.
_NO_FINDING = ("no_finding", "no_findings", "normal", "none", "no_abnormality", "healthy")


def label_text(present: Iterable[str], unknown: Iterable[str] = ()) -> str:
    """The label of a picture; see the module.

    >>> label_text(["Edema"], ["Mass"]), label_text([])
    ('Edema|?Mass', '(no finding)')
    """
    words = [*present, *(f"{_UNKNOWN}{name}" for name in unknown)]
    return "|".join(words) or NOTHING


def findings_in(label: str) -> tuple[list[str], list[str]]:
    """The findings that a picture of this label has, and those of which nothing is known.

    >>> findings_in("Edema|?Mass"), findings_in("['edema', 'mass']")
    ((['Edema'], ['Mass']), (['edema', 'mass'], []))
    """
    words = [word for word in dict.fromkeys(split_findings(label)) if word != NOTHING]
    unknown = [word.removeprefix(_UNKNOWN) for word in words if word.startswith(_UNKNOWN)]
    return [word for word in words if not word.startswith(_UNKNOWN)], unknown


def is_no_finding(name: str) -> bool:
    """Whether a label says that there is no finding, as "No Finding" of NIH does."""
    return plain_name(name) in _NO_FINDING


def joined_labels(items: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[str]:
    """Labels of a table with several rows for a picture, one for each finding or reader: a picture
    has what one of its rows says, and its later rows get "", which leaves them out.

    items: picture and part of each row. A picture in two parts keeps a row in each.
    """
    present: dict[str, dict[str, None]] = {}
    unknown: dict[str, dict[str, None]] = {}
    for (picture, _), label in zip(items, labels, strict=True):
        has, unsure = findings_in(label)
        present.setdefault(picture, {}).update(dict.fromkeys(has))
        unknown.setdefault(picture, {}).update(dict.fromkeys(unsure))
    first: dict[tuple[str, str], int] = {}
    for row, (item, label) in enumerate(zip(items, labels, strict=True)):
        if label:
            first.setdefault(item, row)
    rows = set(first.values())
    repeated = {item[0] for row, item in enumerate(items) if labels[row] and row not in rows}
    if repeated:
        what = "pictures with several rows, joined: they have what one of the rows says"
        note("items", what, sorted(repeated))
    return [
        label_text(present[picture], [k for k in unknown[picture] if k not in present[picture]])
        if row in rows
        else ""
        for row, (picture, _) in enumerate(items)
    ]


def flags_as_several(
    where: object, cells: Mapping[str, Sequence[str]], uncertain: Uncertain | None
) -> list[str]:
    """Labels of a table with a column for each finding, with 1, 0, -1 or nothing; "" for rows to
    leave out.

    where: the table. cells: of each finding's column. An empty cell counts as without the finding.
    Raises InputError for other cells, and for -1 where it is not said what that counts as.
    """
    flags = {
        finding: flags_of(f"{where}: column {finding!r}", column)
        for finding, column in cells.items()
    }
    unsure = {name: kinds.count(Flag.UNSURE) for name, kinds in flags.items()}
    empty = {name: kinds.count(Flag.EMPTY) for name, kinds in flags.items()}
    if any(unsure.values()) and uncertain is None:
        total, cure = (
            sum(unsure.values()),
            "say --uncertain ignore, positive, negative or leave-out",
        )
        raise fail(where, f"{total:,} cells are uncertain (-1); {cure}")
    _note_flags(flags, unsure, empty, uncertain)
    labels = []
    for kinds in zip(*flags.values(), strict=True):
        row = dict(zip(flags, kinds, strict=True))
        doubtful = [name for name, kind in row.items() if kind is Flag.UNSURE]
        if doubtful and uncertain == "leave-out":
            labels.append("")
            continue
        positive = (Flag.YES, Flag.UNSURE) if uncertain == "positive" else (Flag.YES,)
        present = [name for name, kind in row.items() if kind in positive]
        labels.append(label_text(present, doubtful if uncertain == "ignore" else ()))
    return labels


def _note_flags(
    flags: Mapping[str, Sequence[Flag]],
    unsure: Mapping[str, int],
    empty: Mapping[str, int],
    uncertain: Uncertain | None,
) -> None:
    """Say what uncertain and empty cells count as, finding by finding."""
    counts = [f"{name} {count:,}" for name, count in unsure.items() if count]
    total = sum(unsure.values())
    if total and uncertain == "leave-out":
        rows = sum(Flag.UNSURE in kinds for kinds in zip(*flags.values(), strict=True))
        note("left out", "rows with an uncertain finding (-1)", count=rows)
    elif total and uncertain == "ignore":
        what = f"uncertain cells (-1) are in no loss and no score: {', '.join(counts)}"
        note("values", what, count=total)
    elif total:
        what = "with" if uncertain == "positive" else "without"
        what = f"uncertain cells (-1) count as {what} the finding: {', '.join(counts)}"
        note("values", what, count=total)
    if total := sum(empty.values()):
        counts = [f"{name} {count:,}" for name, count in empty.items() if count]
        what = f"empty cells (not mentioned) count as without the finding: {', '.join(counts)}"
        note("assumed", what, count=total)


def several_findings(
    where: object, labels: Sequence[str], wanted: Sequence[str], *, strict: bool = True
) -> tuple[list[str], list[str]]:
    """(findings, labels): what is to be told of each picture, and the labels with these alone.

    labels: in any spelling that `split_findings` reads. wanted: names, or `ALL`: then all that a
    picture has, in alphabetical order, but those that say that there is nothing ("No Finding").
    strict: whether a finding that no picture has is an error (InputError); else nothing is known of
    it. Names that differ by case and marks are one finding.
    """
    parsed = {label: findings_in(label) for label in set(labels)}
    spellings: dict[str, Counter[str]] = {}
    for label, count in Counter(labels).items():
        for name in parsed[label][0]:
            spellings.setdefault(plain_name(name), Counter())[name] += count
    for names in spellings.values():
        if len(names) > 1:
            note("values", f"{' and '.join(map(shown, sorted(names)))} are one finding")
    usual = {plain: min(names, key=lambda n: (-names[n], n)) for plain, names in spellings.items()}
    if tuple(wanted) == (ALL,):
        named = {plain: name for plain, name in usual.items() if not is_no_finding(name)}
        named = {plain: named[plain] for plain in sorted(named, key=named.__getitem__)}
        if len(named) < 2:
            listed = ", ".join(named.values()) or "none"
            raise fail(where, f"--findings all: has fewer than two findings ({listed})")
        if without := [name for plain, name in usual.items() if plain not in named]:
            note("values", "labels that say that a picture has no finding", sorted(without))
    else:
        named = {plain_name(name): name for name in wanted}
        _check_names(where, named, usual, strict=strict)
    missing = [name for plain, name in named.items() if plain not in usual]
    if missing:
        note("values", "findings that this data does not know, which are not scored", missing)
    texts = {
        label: label_text(
            [named[p] for p in dict.fromkeys(map(plain_name, present)) if p in named],
            [*(named[p] for p in map(plain_name, unknown) if p in named), *missing],
        )
        for label, (present, unknown) in parsed.items()
    }
    return list(named.values()), [texts[label] for label in labels]


def _check_names(
    where: object, named: Mapping[str, str], usual: Mapping[str, str], *, strict: bool
) -> None:
    """Raise InputError for a finding that no picture has; note those that are not learned."""
    missing = [name for plain, name in named.items() if plain not in usual]
    if missing and (strict or len(missing) == len(named)):
        known = ", ".join(sorted(usual.values())[:40])
        hint = f"{nearest(missing[0], list(usual.values()))}; it has {known}"
        raise fail(where, f"no picture has the finding {shown(missing[0])}{hint}")
    others = sorted(name for plain, name in usual.items() if plain not in named)
    if others:
        note("values", "labels that are none of the findings", others)


def truth_of(labels: Sequence[str], findings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(truth, known), bool (N, F): whether a picture has each finding, and whether that is known;
    truth is False where it is not.

    >>> truth, known = truth_of(["Edema|?Mass", "(no finding)"], ["Edema", "Mass"])
    >>> truth.tolist(), known.tolist()
    ([[True, False], [False, False]], [[True, False], [True, True]])
    """
    place = {name: k for k, name in enumerate(findings)}
    truth = np.zeros((len(labels), len(findings)), bool)
    known = np.ones_like(truth)
    for row, label in enumerate(labels):
        present, unknown = findings_in(label)
        truth[row, [place[name] for name in present if name in place]] = True
        known[row, [place[name] for name in unknown if name in place]] = False
    return truth, known
