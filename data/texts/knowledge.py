"""Texts of knowledge: descriptions of the terms that a text names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..columns import find_columns
from ..formats.tables import collect, scan_table
from .table import TEXT_SYNONYMS
from .words import word_key, word_spans

MOST_TERMS = 16  # descriptions of a text
NAMES = ("label", "name", "tag", "class")


def read_descriptions(path: str, kind: str, synonyms: Sequence[str] = ()) -> dict[str, str]:
    """The description of each label or term of a table with the columns `kind` and text. synonyms:
    of the column `kind`. Raises InputError for two descriptions of one.
    """
    frame, names = scan_table(path)
    columns = find_columns(
        path,
        names,
        (kind, "text"),
        required=(kind, "text"),
        synonyms={**TEXT_SYNONYMS, kind: (kind, *synonyms)},
    )
    cells = [pl.col(columns[name]).cast(pl.String).str.strip_chars() for name in (kind, "text")]
    table = collect(path, frame.select(cells[0].alias(kind), cells[1].alias("text")))
    texts: dict[str, str] = {}
    for name, text in table.drop_nulls().rows():
        if texts.setdefault(name, text) != text:
            raise fail(path, f"{kind} {shown(name)} has two descriptions; keep one")
    return texts


class Terms:
    """Terms with descriptions, found in texts as whole words, without regard to case; where several
    begin at a word, the longest, and none within another.

    texts: description by term.

    >>> Terms({"heat pump": "moves heat", "heat": "energy"}).knowledge("Heat pumps heat")
    'heat: energy'
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = dict(texts)
        self._terms: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for term in self.texts:
            if words := _words(term):
                self._terms.setdefault(words[0], []).append((words, term))
        for terms in self._terms.values():
            terms.sort(key=lambda pair: -len(pair[0]))

    def knowledge(self, text: str) -> str:
        """A line `term: description` for each term that a text names, in the order in which they
        first occur, at most MOST_TERMS of them; "" where it names none.
        """
        return "\n".join(f"{term}: {self.texts[term]}" for term in self.named(text)[:MOST_TERMS])

    def named(self, text: str) -> list[str]:
        """The terms that a text names, each once, in the order in which they first occur."""
        words, place, named = _words(text), 0, dict[str, None]()
        while place < len(words):
            step = 1
            for term_words, term in self._terms.get(words[place], ()):
                if words[place : place + len(term_words)] == term_words:
                    named.setdefault(term)
                    step = len(term_words)
                    break
            place += step
        return list(named)


def read_terms(path: str) -> Terms:
    """Terms of a table with the columns term and text. Raises InputError where no term has one, and
    for two descriptions of a term.
    """
    texts = {term: text for term, text in read_descriptions(path, "term", NAMES).items() if text}
    if wordless := [term for term in texts if not _words(term)]:
        note("left out", "terms without a word, which no text can name", map(shown, wordless))
        texts = {term: text for term, text in texts.items() if term not in wordless}
    if not texts:
        raise fail(path, "has no term with a text")
    alike: dict[tuple[str, ...], str] = {}
    for term, text in texts.items():
        other = alike.setdefault(_words(term), term)
        if texts[other] != text:
            problem = f"terms {shown(other)} and {shown(term)} are the same words"
            raise fail(path, f"{problem}, with two descriptions; keep one")
    note("read", "terms with a text of knowledge", count=len(texts))
    return Terms(texts)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word_key(text[start:end]) for start, end in word_spans(text))
