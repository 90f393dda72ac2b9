"""The account: what was read, what was left out and why, and what was assumed on the way.

Whoever starts a job opens an account; every reader below notes in it what it took and what it left
out, without having it handed through:

>>> with opened() as account:
...     note("read", "recordings", count=3)
...     note("left out", "files of other kinds", ["notes.txt"])
>>> account.lines()
['read: 3 recordings', 'left out: 1 files of other kinds (notes.txt)']

What could make a result wrong is a doubt: an error, unless the user accepts doubts of its kind.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast, get_args

from .errors import InputError, one_line

Topic: TypeAlias = Literal[
    "read", "left out", "columns", "values", "items", "groups", "assumed", "accepted"
]
"""read, left out: files, rows and items. columns: used under another name, or not used. values:
missing, unknown, merged. items: duplicates, conflicts. groups: what is kept together in one part.
assumed: conventions such as a time zone or a unit. accepted: doubts that the user accepts."""
Doubt: TypeAlias = Literal[
    "copies", "two-labels", "missing-labels", "label-as-feature", "links", "missing-codes"
]
"""copies: one item listed more than once, or in two parts. two-labels: one item with two labels.
missing-labels: rows without a label, which are left out. label-as-feature: a column of labels among
the features. links: links that lead out of their folder, which are followed. missing-codes: numbers
such as -999 that look like codes for a missing value, which are taken as numbers."""

_EXAMPLES = 3  # names in a line for the terminal; the file has all of them


@dataclass
class Entry:
    """One statement of an account."""

    topic: Topic
    what: str
    names: dict[str, None] = field(default_factory=dict)
    """What it is said of, in the order in which it was noted."""
    counted: int = 0

    @property
    def count(self) -> int:
        """How many things it is said of; 0 for a statement about no single thing."""
        return max(self.counted, len(self.names))

    def line(self) -> str:
        """The statement in words, with the first few names."""
        head = f"{self.count:,} {self.what}" if self.count else self.what
        listed = list(self.names)[:_EXAMPLES]
        more = ["…"] if len(self.names) > len(listed) else []
        return one_line(f"{head} ({', '.join(listed + more)})" if listed else head)


class Account:
    """Statements by topic. Noting the same thing twice counts it once.

    accept: the kinds of doubt that are no errors here. homes: absolute paths of folders that the
    user named; what lies in them is called as in there, since the same path before every name says
    nothing.
    """

    def __init__(self, accept: Collection[str] = (), homes: Collection[str] = ()) -> None:
        if unknown := [kind for kind in accept if kind not in get_args(Doubt)]:
            raise InputError(f"--accept {unknown[0]}: there are {', '.join(get_args(Doubt))}")
        self.accept = frozenset(accept)
        self._homes = sorted(homes, key=len, reverse=True)
        self._entries: dict[tuple[Topic, str], Entry] = {}
        self._lock = threading.Lock()

    def note(
        self, topic: Topic, what: str, names: Iterable[object] = (), *, count: int | None = None
    ) -> None:
        """See the function `note`."""
        what, short = self._within(what), [self._within(str(name)) for name in names]
        with self._lock:
            entry = self._entries.setdefault((topic, what), Entry(topic, what))
            entry.names.update(dict.fromkeys(short))
            entry.counted = max(entry.counted, count or 0)

    def _within(self, text: str) -> str:
        """A text without the folders that the user named before the names of what lies in them."""
        for home in self._homes:
            # Not within another path: /data is no part of /mnt/data/a.png.
            text = re.sub(rf"(?<![^\s('\"]){re.escape(home + os.sep)}", "", text)
        return text

    def recount(self, topic: Topic, what: str, count: int) -> None:
        """See the function `recount`."""
        with self._lock:
            self._entries.setdefault((topic, what), Entry(topic, what)).counted = count

    def part(self) -> Account:
        """An empty account with the same doubts and homes."""
        return Account(self.accept, self._homes)

    def merge(self, entries: Iterable[Mapping[str, object]]) -> None:
        """Add the statements of another account, as its `to_json` gives them; counts add up."""
        for other in entries:
            topic, what = cast(Topic, other["topic"]), str(other["what"])
            names = cast(list[str], other["names"])
            with self._lock:
                entry = self._entries.setdefault((topic, what), Entry(topic, what))
                entry.names.update(dict.fromkeys(names))
                if not names:
                    entry.counted += cast(int, other["count"])

    def entries(self) -> list[Entry]:
        """All statements, by topic."""
        order = {topic: number for number, topic in enumerate(get_args(Topic))}
        return sorted(self._entries.values(), key=lambda entry: order[entry.topic])

    def lines(self, before: Collection[Entry] = ()) -> list[str]:
        """A line for each topic, for the terminal. before: statements that were shown already."""
        shown = {entry.line() for entry in before}
        by_topic: dict[str, list[str]] = {}
        for entry in self.entries():
            if entry.line() in shown:
                continue
            by_topic.setdefault(entry.topic, []).append(entry.line())
        return [f"{topic}: {'; '.join(texts)}" for topic, texts in by_topic.items()]

    def to_json(self) -> list[dict[str, object]]:
        """All statements with all names, as JSON can hold them."""
        return [
            {
                "topic": entry.topic,
                "what": entry.what,
                "count": entry.count,
                "names": list(entry.names),
            }
            for entry in self.entries()
        ]


_current: ContextVar[Account | None] = ContextVar("account", default=None)


@contextmanager
def opened(accept: Collection[str] = (), homes: Collection[str] = ()) -> Iterator[Account]:
    """An account that all readers called within note in.

    accept: the kinds of doubt that are no errors here. homes: see `Account`. Raises InputError for
    an unknown kind.
    """
    account = Account(accept, homes)
    token = _current.set(account)
    try:
        yield account
    finally:
        _current.reset(token)


@contextmanager
def part_of_account() -> Iterator[None]:
    """Notes within it are those of one part of many: their counts add up with those of the other
    parts, where otherwise the largest holds.
    """
    account = _current.get()
    if account is None:
        yield
        return
    part = account.part()
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)
        account.merge(part.to_json())


def note(
    topic: Topic, what: str, names: Iterable[object] = (), *, count: int | None = None
) -> None:
    """Note a statement in the account that is open; without one nothing happens.

    what: in words that follow a number, such as "files of other kinds". names: what it is said of
    (files, columns, items); names of several calls are joined. count: how many things there are,
    where naming them says nothing; the largest count of several calls holds.
    """
    account = _current.get()
    if account is not None:
        account.note(topic, what, names, count=count)


def recount(topic: Topic, what: str, count: int) -> None:
    """Correct the count of a statement without names, where less is used than was listed: the
    account says what is used.
    """
    account = _current.get()
    if account is not None:
        account.recount(topic, what, count)


def accepts(kind: Doubt) -> bool:
    """Whether doubts of this kind are accepted by the account that is open."""
    account = _current.get()
    return account is not None and kind in account.accept


def doubt(kind: Doubt, where: object, what: str) -> None:
    """Raise InputError "where: what", or note it where doubts of this kind are accepted."""
    if not accepts(kind):
        raise InputError(one_line(f"{where}: {what}; --accept {kind} goes on all the same"))
    note("accepted", one_line(f"{where}: {what}"))
