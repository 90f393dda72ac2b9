"""Texts as counted terms with tf-idf weights: words, pairs of words and, where asked, pieces of
words.

Shapes: N texts, V terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from scipy.sparse import csr_matrix

from .words import word_key, word_spans

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

Span: TypeAlias = tuple[int, int]
PIECES = (3, 4, 5)  # characters of the pieces of a word, with the blanks around it
PIECE_MARK = "#"  # begins a piece, which no word begins with


@dataclass(frozen=True)
class CountedTerms:
    """The terms that a model knows, and how much each weighs.

    terms: V, each once; weights: float64 (V,), idf: log((1 + n) / (1 + texts with the term)) + 1;
    pieces: whether pieces of words are terms.
    """

    terms: list[str]
    weights: np.ndarray
    pieces: bool

    @classmethod
    def learn(
        cls, texts: Sequence[str], *, pieces: bool, most: int, least: int = 2
    ) -> CountedTerms:
        """The terms of some texts that are in at least `least` of them, at most `most`: those in
        the most texts. Raises ValueError where no term is left.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        # scikit-learn takes a function here, which its types do not say.
        names = cast(str, partial(_names, pieces=pieces))
        vectorizer = TfidfVectorizer(analyzer=names, min_df=min(least, len(texts)))
        vectorizer.fit(texts)
        terms, weights = vectorizer.get_feature_names_out(), vectorizer.idf_
        if len(terms) > most:
            chosen = np.sort(np.argsort(weights, kind="stable")[:most])
            terms, weights = terms[chosen], weights[chosen]
        return cls(terms.tolist(), weights, pieces)

    def rows(self, texts: Sequence[str]) -> csr_matrix:
        """The terms of some texts, float32 (N, V): (1 + log count) · weight, scaled to length 1 for
        each text.
        """
        return csr_matrix(self._vectorizer.transform(texts), dtype=np.float32)

    def places(self, text: str) -> dict[int, list[tuple[Span, ...]]]:
        """Where each known term stands in a text: by its number, the spans of its words or of its
        piece, once for each time that it occurs.
        """
        places: dict[int, list[tuple[Span, ...]]] = {}
        for name, spans in terms_of(text, pieces=self.pieces):
            if name in self.numbers:
                places.setdefault(self.numbers[name], []).append(spans)
        return places

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each term."""
        return {term: place for place, term in enumerate(self.terms)}

    @cached_property
    def _vectorizer(self) -> TfidfVectorizer:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer=cast(str, partial(_names, pieces=self.pieces)),
            vocabulary=self.numbers,
            sublinear_tf=True,
        )
        vectorizer.idf_ = self.weights
        return vectorizer


def terms_of(text: str, *, pieces: bool) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """All terms of a text in their order, with the characters of each."""
    before: tuple[str, Span] | None = None
    for start, end in word_spans(text):
        word, span = word_key(text[start:end]), (start, end)
        yield word, (span,)
        if before is not None:
            yield f"{before[0]} {word}", (before[1], span)
        before = word, span
        if pieces:
            padded = f" {word} "
            for size in PIECES:
                for first in range(max(1, len(padded) - size + 1)):
                    yield PIECE_MARK + padded[first : first + size], (span,)
                if size >= len(padded):  # a short word is one piece, once
                    break


def _names(text: str, *, pieces: bool) -> Iterator[str]:
    # One after the other: a long text has millions of them.
    return (name for name, _ in terms_of(text, pieces=pieces))


def padded_rows(rows: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Terms of each text as int64 (N, F) and their amounts as float32 (N, F), filled up with 0."""
    counts = np.diff(rows.indptr)
    present = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
    features = np.zeros(present.shape, np.int64)
    amounts = np.zeros(present.shape, np.float32)
    features[present], amounts[present] = rows.indices, rows.data
    return features, amounts
