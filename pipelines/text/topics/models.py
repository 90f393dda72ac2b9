"""Topic models: non-negative factors of tf-idf, and k-means with the words of c-TF-IDF.

Shapes: T texts, V terms, K topics.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer
from sklearn.preprocessing import normalize

from ....base.account import note
from ....base.errors import InputError
from ....data.texts.terms import document_counts
from .word_vectors import WordVectors

STORED_WORDS = 50  # of each topic
ENGLISH_SHARE = 0.2  # of the terms of English texts are at least stop words
DIMENSIONS = 100  # of the vectors of texts without word vectors
STARTS = 4  # of k-means


@dataclass(frozen=True)
class FittedTopics:
    """words, weights: of each topic, the most important first. shares: (T, K), what part of a text
    is of each topic (nmf, rows sum to 1), or the cosine to each centre (kmeans); NaN for texts
    without any of the words used. topic: (T,) the largest, -1 for those texts.
    """

    words: Sequence[Sequence[str]]
    weights: Sequence[Sequence[float]]
    shares: np.ndarray
    topic: np.ndarray


@dataclass(frozen=True)
class TermTable:
    """counts (T, V) of the terms that are used, of every text."""

    counts: sparse.csr_matrix
    terms: Sequence[str]


def count_terms(
    corpus: Sequence[Sequence[str]], least: int, most_share: float, stop_words: Collection[str]
) -> TermTable:
    """Count the terms that are in at least `least` texts, in at most `most_share` of them, and are
    neither numbers nor stop words; what is left out is noted.

    corpus: the terms of each text. Raises InputError where fewer than 2 remain.
    """
    frequency = document_counts(corpus)
    usable = {
        term: n for term, n in frequency.items() if term not in stop_words and not _number(term)
    }
    rare = sum(n < least for n in usable.values())
    common = [term for term, n in usable.items() if n > most_share * len(corpus)]
    terms = sorted(t for t, n in usable.items() if least <= n <= most_share * len(corpus))
    if rare:
        note("left out", f"words in fewer than {least} texts", count=rare)
    if common:
        note("left out", f"words in more than {most_share:.0%} of the texts", common)
    if len(terms) < 2:
        raise InputError(
            f"{len(terms)} of {len(frequency):,} words are in {least} texts or more and in at most "
            f"{most_share:.0%} of them; lower --least-texts or raise --most-share"
        )
    code = {term: place for place, term in enumerate(terms)}
    rows = [row for row, text in enumerate(corpus) for term in text if term in code]
    columns = [code[term] for text in corpus for term in text if term in code]
    shape = (len(corpus), len(terms))
    cells = (np.ones(len(rows)), (np.array(rows, int), np.array(columns, int)))
    return TermTable(sparse.csr_matrix(cells, shape=shape), terms)


def _number(term: str) -> bool:
    return term.replace(",", "").replace(".", "").isdecimal()


def stop_words_of(choice: str, corpus: Sequence[Sequence[str]]) -> frozenset[str]:
    """The stop words that `auto`, `english` or `none` stand for."""
    if choice == "none":
        return frozenset()
    total = sum(map(len, corpus))
    stopped = sum(term in ENGLISH_STOP_WORDS for text in corpus for term in text)
    if choice == "english" or stopped >= ENGLISH_SHARE * max(total, 1):
        if choice == "auto":
            note("assumed", "the texts are English, whose stop words are not used (--stop-words)")
        return frozenset(ENGLISH_STOP_WORDS)
    return frozenset()


def fit_nmf(table: TermTable, count: int, seed: int) -> FittedTopics:
    """Non-negative factors of tf-idf (Lee and Seung 1999): texts are sums of topics."""
    weights = _tf_idf(table)
    model = NMF(count, init="nndsvda", max_iter=400, random_state=seed)  # pyright: ignore[reportArgumentType]
    loadings = model.fit_transform(weights)
    total = loadings.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = np.where(total > 0, loadings / total, np.nan)
    return _fitted(table, model.components_, shares)


def fit_kmeans(
    table: TermTable, count: int, vectors: WordVectors | None, seed: int
) -> FittedTopics:
    """k-means on vectors of the texts; the words of a topic are those with the largest c-TF-IDF.

    vectors: a text is the mean of the vectors of its words, weighted by tf-idf; None takes tf-idf
    reduced to 100 numbers. c-TF-IDF (Grootendorst 2022): tf of the term in the topic's texts taken
    as one, times log(1 + A / f), A the mean number of terms of a topic, f the term's number in all.
    """
    positions = np.asarray(normalize(_text_vectors(table, vectors, seed)))
    usable = np.flatnonzero((positions != 0).any(axis=1))
    if len(usable) < count:
        raise InputError(f"{len(usable)} texts have vectors, fewer than --count {count}")
    model = KMeans(count, n_init=STARTS, random_state=seed)  # pyright: ignore[reportArgumentType]
    model.fit(positions[usable])
    shares = np.full((len(positions), count), np.nan)
    shares[usable] = positions[usable] @ np.asarray(normalize(model.cluster_centers_)).T
    labels = np.full(len(positions), -1)
    labels[usable] = model.labels_
    return _fitted(table, class_tf_idf(table.counts, labels, count), shares)


def class_tf_idf(counts: sparse.csr_matrix, labels: np.ndarray, count: int) -> np.ndarray:
    """c-TF-IDF of terms in topics, (K, V): counts (T, V), labels (T,) with -1 for no topic."""
    member = labels[:, None] == np.arange(count)
    by_topic = np.asarray(sparse.csr_matrix(member.astype(np.float64)).T.dot(counts).todense())
    size = by_topic.sum(1, keepdims=True)
    overall = by_topic.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        frequency = np.where(size > 0, by_topic / size, 0.0)
        rarity = np.where(overall > 0, np.log1p(size.mean() / overall), 0.0)
    return frequency * rarity


def _tf_idf(table: TermTable) -> sparse.csr_matrix:
    return sparse.csr_matrix(TfidfTransformer(sublinear_tf=True).fit_transform(table.counts))


def _text_vectors(table: TermTable, vectors: WordVectors | None, seed: int) -> np.ndarray:
    weights = _tf_idf(table)
    if vectors is None:
        dimensions = min(DIMENSIONS, len(table.terms) - 1)
        return TruncatedSVD(dimensions, random_state=seed).fit_transform(weights)
    words = vectors(table.terms)
    unknown = ~np.isfinite(words).all(axis=1)
    if unknown.any():
        note("left out", "words without a vector", count=int(unknown.sum()))
    return np.asarray(weights @ np.nan_to_num(words))


def _fitted(table: TermTable, weights: np.ndarray, shares: np.ndarray) -> FittedTopics:
    words, values = [], []
    for row in weights:
        order = np.argsort(-row, kind="stable")[:STORED_WORDS]
        order = order[row[order] > 0]
        words.append([table.terms[place] for place in order])
        values.append([float(row[place]) for place in order])
    without = np.isnan(shares).all(axis=1)
    topic = np.where(without, -1, np.nan_to_num(shares, nan=-np.inf).argmax(1))
    if without.any():
        note("left out", "texts without any of the words used", count=int(without.sum()))
    return FittedTopics(words, values, shares, topic)


def topic_sizes(topic: np.ndarray, count: int) -> Mapping[int, int]:
    """How many texts each topic is the largest of; topic (T,), -1 for none."""
    return dict(enumerate(np.bincount(topic[topic >= 0], minlength=count).tolist()))
