"""Texts as terms that are counted, in any script.

A term is a run of letters and digits with at least one letter, in lower case (case-folded, NFKC),
with apostrophes inside; `-` and `_` divide terms, so that "e-mail" is two of them. Scripts that put
no blanks between words (Han, Kana, Thai and others) give their letters in overlapping pairs
instead, as search engines do, so that a word of several letters is a sequence of terms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_BLANKLESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # Han
)
_RUN = re.compile(rf"[{_BLANKLESS}]+|(?:(?![{_BLANKLESS}_])[\w\u0300-\u036f\u0900-\u0dff'’])+")
_BLANKLESS_LETTER = re.compile(rf"[{_BLANKLESS}]")
_LETTER = re.compile(r"[^\W\d_]")


def terms_of(text: str) -> list[str]:
    """The terms of a text, in order.

    >>> terms_of("Don't tax Cats; 1999 人工知能")
    ["don't", 'tax', 'cats', '人工', '工知', '知能']
    """
    terms = []
    for match in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        if _BLANKLESS_LETTER.match(run):
            terms += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
        elif _LETTER.search(run) and (term := run.replace("’", "'").strip("'")):
            terms.append(term)
    return terms


class Vocabulary:
    """Finds given words, which may be of several terms, in texts.

    words: as someone wrote them ("New York", "new_york" and "e-mail" are sequences of two terms).
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self._by_terms: dict[tuple[str, ...], list[int]] = {}
        for code, word in enumerate(words):
            if sequence := tuple(terms_of(word)):
                self._by_terms.setdefault(sequence, []).append(code)
        self._lengths: Mapping[str, list[int]] = _lengths_by_first(self._by_terms)

    def find(self, terms: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
        """Where the words are in a text: places (n,) of their first terms, codes (n,), and how
        many terms the text has.
        """
        places: list[int] = []
        codes: list[int] = []
        for place, term in enumerate(terms):
            for length in self._lengths.get(term, ()):
                for code in self._by_terms.get(tuple(terms[place : place + length]), ()):
                    places.append(place)
                    codes.append(code)
        return np.array(places, np.int64), np.array(codes, np.int64), len(terms)


def document_counts(texts: Iterable[Sequence[str]]) -> dict[str, int]:
    """In how many texts each term occurs; texts: the terms of each."""
    counts: dict[str, int] = {}
    for terms in texts:
        for term in set(terms):
            counts[term] = counts.get(term, 0) + 1
    return counts


def _lengths_by_first(sequences: Iterable[tuple[str, ...]]) -> dict[str, list[int]]:
    lengths: dict[str, set[int]] = {}
    for sequence in sequences:
        lengths.setdefault(sequence[0], set()).add(len(sequence))
    return {term: sorted(sizes) for term, sizes in lengths.items()}
