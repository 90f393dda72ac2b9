"""How good topics are, measured on a corpus and by word vectors instead of by raters.

Coherence is the mean NPMI of all pairs of a topic's first words (Bouma 2009),

    NPMI(a, b) = log(p(a, b) / (p(a) p(b))) / -log p(a, b),

from -1 (never together) over 0 (independent) to 1 (always together). Tools disagree on it, mostly
because they count other things (an OCTIS user reports -0.127 where gensim gives 0.069). Two counts
are here, and both are reported by name:

- `npmi`: p is a share of documents; a pair that never occurs together counts -1, its limit;
- `c_npmi`: p is a share of windows of 10 words; 1e-12 is added to p(a, b), so that a pair that
  never occurs together counts -0.67, not -1, if each word is in 1 % of the windows. This is the
  form of gensim, which OCTIS calls. gensim differs where a word is twice in a window: it forgets
  the word when the first of the two leaves.

Words that the corpus does not hold have no NPMI and are left out of the mean.

Machine raters do the two tasks of human raters by the cosine of word vectors: word intrusion (Chang
et al. 2009) picks the word that is least similar to the others; topic word mixing (Prouteau et al.
2026) compares the similarity between two halves with that within them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse

BATCH_ROWS = 1 << 18  # occurrences in memory at once
EPSILON = 1e-12  # of gensim
WINDOW = 10


@dataclass(frozen=True)
class Occurrences:
    """How often words occur in units, which are documents or windows.

    units: how many there are; pairs: (V, V), in how many both words occur, symmetric; the diagonal
    says in how many a word occurs.
    """

    units: int
    pairs: np.ndarray

    @property
    def singles(self) -> np.ndarray:
        """In how many units each word occurs, (V,)."""
        return np.diag(self.pairs)


def count_occurrences(
    documents: Iterable[tuple[np.ndarray, np.ndarray, int]], words: int, window: int | None = None
) -> Occurrences:
    """Count units that hold words, and pairs of words.

    documents: of each, the places (n,) of the tokens that count, their codes (n,) from 0 to words -
    1, and how many tokens it has. window: tokens of a window, which moves by one token; a document
    that is not longer is one window; None counts documents. Memory: O(V^2) and a batch.
    """
    units, pairs = count_pairs(documents, words, window)
    return Occurrences(units, np.asarray(pairs.todense()))


def count_pairs(
    documents: Iterable[tuple[np.ndarray, np.ndarray, int]], words: int, window: int | None = None
) -> tuple[int, sparse.csr_matrix]:
    """As `count_occurrences`, for many words: how many units there are, and the pairs (V, V)."""
    pairs = sparse.csr_matrix((words, words), dtype=np.int64)
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    units = start = held = 0
    for places, codes, length in documents:
        count = 1 if window is None else max(1, length - window + 1)
        first, last = _windows_of(np.asarray(places), count, window)
        spans = last - first + 1
        rows.append(units - start + _ranges(first, spans))
        columns.append(np.repeat(codes, spans))
        units += count
        held += int(spans.sum())
        if held > BATCH_ROWS:
            pairs = pairs + _together(rows, columns, units - start, words)
            rows, columns, start, held = [], [], units, 0
    return units, sparse.csr_matrix(pairs + _together(rows, columns, units - start, words))


def npmi(counts: Occurrences, epsilon: float = 0.0) -> np.ndarray:
    """NPMI of all pairs of words, (V, V); NaN for words that do not occur.

    epsilon: added to p(a, b); with 0 a pair that never occurs together has -1, and one that occurs
    in every unit has 1.
    """
    share = counts.pairs / max(counts.units, 1)
    single = np.diag(share)
    joint = share + epsilon
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(joint / np.outer(single, single)) / -np.log(joint)
    if not epsilon:
        values = np.where(share == 0, -1.0, values)
        values = np.where(share == 1, 1.0, values)
    missing = single == 0
    values[missing] = np.nan
    values[:, missing] = np.nan
    return values


def topic_coherence(values: np.ndarray, topics: Sequence[Sequence[int]]) -> np.ndarray:
    """Mean over pairs of a topic's words of values (V, V), for each topic: (K,).

    topics: codes of the words of each topic. Pairs without a value do not count; NaN without any.
    """
    means = np.full(len(topics), np.nan)
    for place, codes in enumerate(topics):
        pairs = np.array([values[i, j] for i, j in combinations(codes, 2)])
        if np.isfinite(pairs).any():
            means[place] = np.nanmean(pairs)
    return means


def topic_diversity(topics: Sequence[Sequence[str]]) -> float:
    """Share of distinct words among the words of all topics (Dieng et al. 2020): 1 where no two
    topics share a word. NaN without words.

    >>> topic_diversity([["cat", "dog"], ["cat", "tax"]])
    0.75
    """
    words = [word for topic in topics for word in topic]
    return len(set(words)) / len(words) if words else float("nan")


def least_similar(vectors: np.ndarray) -> np.ndarray:
    """The place of the word with the least mean cosine to the others, in each of N tasks: (N,).

    vectors: (N, W, D), W >= 2, none of them zero.
    """
    cosine = _cosine(vectors, vectors)
    return (cosine.sum(2) - np.einsum("nww->nw", cosine)).argmin(1)


def between_minus_within(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean cosine between the words of two halves, minus the mean within them, in each of N tasks:
    (N,), high where the halves are of one topic.

    first, second: (N, W, D), W >= 2. Within: the mean over the pairs of both halves.
    """
    size = first.shape[1]
    inside = [_cosine(half, half) for half in (first, second)]
    pairs = np.triu(np.ones((size, size), bool), 1)
    within = np.mean([cosine[:, pairs].mean(1) for cosine in inside], axis=0)
    return _cosine(first, second).mean((1, 2)) - within


def topic_similarity(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Cosine of the mean directions of the words of topics: (K, K); vectors: (n, D) of each topic.

    Topics without vectors have NaN.
    """
    means = [
        _unit(topic).mean(0) if len(topic) else np.full(topic.shape[1], np.nan) for topic in vectors
    ]
    directions = _unit(np.stack(means))
    return directions @ directions.T


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _unit(first) @ _unit(second).swapaxes(-1, -2)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _windows_of(
    places: np.ndarray, count: int, window: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last of a document's `count` windows that hold each place."""
    if window is None:
        return np.zeros_like(places), np.zeros_like(places)
    return np.clip(places - window + 1, 0, count - 1), np.minimum(places, count - 1)


def _ranges(first: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The numbers from each first one on, as many as its span, one after another."""
    ends = np.cumsum(spans)
    return np.repeat(first - (ends - spans), spans) + np.arange(int(spans.sum()))


def _together(
    rows: Sequence[np.ndarray], columns: Sequence[np.ndarray], units: int, words: int
) -> sparse.csr_matrix:
    if not rows:
        return sparse.csr_matrix((words, words), dtype=np.int64)
    row, column = np.concatenate(rows), np.concatenate(columns)
    cells = sparse.csr_matrix((np.ones(len(row), np.int64), (row, column)), shape=(units, words))
    cells.data[:] = 1  # a word counts once in a unit
    return sparse.csr_matrix(cells.T @ cells)
