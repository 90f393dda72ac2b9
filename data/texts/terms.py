"""Texts as terms that are counted for topics, in any script.

A term is a word, number or symbol as `words` finds them: "e-mail" and "new_york" are two. Scripts
that put no blanks between words give their characters in overlapping pairs instead, as search
engines do, so that a word of several characters is a sequence of terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from .words import in_unspaced_script, word_key, word_spans


def terms_of(text: str) -> list[str]:
    """The terms of a text, in order.

    >>> terms_of("Don't tax Cats; 1999 人工知能")
    ["don't", 'tax', 'cats', '1999', '人工', '工知', '知能']
    """
    terms: list[str] = []
    run: list[str] = []  # characters without blanks, up to `end`
    end = -1
    for start, stop in word_spans(text):
        unspaced = in_unspaced_script(text[start])
        if run and (not unspaced or start != end):
            terms += _pairs(run)
            run = []
        key = word_key(text[start:stop])
        if unspaced:
            run.append(key)
            end = stop
        else:
            terms.append(key)
    return terms + _pairs(run)


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


def _pairs(run: Sequence[str]) -> list[str]:
    """Overlapping pairs of characters; a single one as it is."""
    return [first + second for first, second in pairwise(run)] or list(run)


def _lengths_by_first(sequences: Iterable[tuple[str, ...]]) -> dict[str, list[int]]:
    lengths: dict[str, set[int]] = {}
    for sequence in sequences:
        lengths.setdefault(sequence[0], set()).add(len(sequence))
    return {term: sorted(sizes) for term, sizes in lengths.items()}
