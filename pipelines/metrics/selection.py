"""Choosing few sentences that stand for many: facility location and determinantal point process.

Both build their choice sentence by sentence, so that a choice under a larger budget begins with the
one under a smaller budget, and covers no less. Shapes: N sentences; similarity: (N, N), 1 on its
diagonal. Equal gains go to the sentence that comes first: whoever sorts the sentences by what they
hold gets the same ones in whatever order their texts came.

Sources: lazy greedy, Minoux 1978 (Accelerated greedy algorithms); the bound of 1 - 1/e, Nemhauser,
Wolsey and Fisher 1978; gain per word, Lin and Bilmes 2010 (Multi-document summarization via
budgeted maximization of submodular functions); greedy determinantal selection, Chen, Zhang and Zhou
2018 (arXiv 1709.05135).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.sparse import csr_array

from ...data.texts.words import word_key, word_spans

VectorsOf: TypeAlias = Callable[[Sequence[str]], np.ndarray]
"""Texts to their vectors (N, D), such as those of a sentence encoder."""
TextVectors: TypeAlias = "np.ndarray | csr_array"
"""Vectors (N, D) of length 1, or 0."""
_TINY = 1e-10


class Choice(NamedTuple):
    """Places of the chosen sentences, best first, and what each added to the score."""

    order: np.ndarray
    gain: np.ndarray


def words_of(text: str) -> list[str]:
    """The words of a text, as `data.texts.words` tells them; where no spaces part them, as in
    Chinese, overlapping pairs of characters.

    >>> words_of("The cat's 東京都")
    ['the', "cat's", '東京', '京都']
    """
    words, runs = list[str](), list[list[int]]()
    for start, end in word_spans(text):
        if runs and runs[-1][-1] == start:
            runs[-1].append(end)
        else:
            runs.append([start, end])
    for places in runs:
        pairs = zip(places, places[2:]) if len(places) > 2 else [(places[0], places[1])]
        words += [word_key(text[start:end]) for start, end in pairs]
    return words


def text_vectors(
    texts: Sequence[str], vectors_of: VectorsOf | None = None, *, further: Sequence[str] = ()
) -> TextVectors:
    """Vectors of length 1 (N, D) of texts and further texts, float64; one that is 0 stays 0.

    vectors_of: by default tf-idf: words that are in many of `texts` weigh little; those of further
    texts weigh as they do in `texts`. Such vectors are sparse. Raises ValueError where `vectors_of`
    gives another number of vectors, or values that are not finite.
    """
    everything = [*texts, *further]
    if vectors_of is None:
        return _word_vectors(everything, len(texts))
    vectors = np.asarray(vectors_of(everything), np.float64)
    if vectors.ndim != 2 or len(vectors) != len(everything):
        raise ValueError(f"vectors_of gave an array {vectors.shape} for {len(everything)} texts")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors_of gave values that are not finite")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)


def _word_vectors(texts: Sequence[str], fitted: int) -> TextVectors:
    """tf-idf with the weights of the first `fitted` texts."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    if not any(words_of(text) for text in texts):
        return np.zeros((len(texts), 1))
    counter = CountVectorizer(analyzer=words_of)  # pyright: ignore[reportArgumentType]
    counts = csr_array(counter.fit_transform(texts))
    weighting = TfidfTransformer(sublinear_tf=True).fit(counts[:fitted])
    return csr_array(weighting.transform(counts))


def similarities(
    first: TextVectors, second: TextVectors | None = None, *, least: float = 0
) -> np.ndarray:
    """Cosines of vectors of length 1 (N, D) with others (M, D), by default each other; those below
    `least` count as it. A text is always alike to itself, also one without words.
    """
    product = first @ (first if second is None else second).T
    dense = product if isinstance(product, np.ndarray) else product.toarray()
    cosine = np.clip(dense, least, 1)
    if second is None:
        np.fill_diagonal(cosine, 1)
    return cosine


def statement_weights(similarity: np.ndarray) -> np.ndarray:
    """Weights (N,) by which each statement counts about once, however many sentences repeat it:
    1 / (sum of the similarities of a sentence with all, itself among them).
    """
    return 1 / similarity.sum(1)


def difference_weights(similarity: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """`statement_weights` (N,) times 1 - (how far the other groups say the same): what all say
    counts 0, what only one says counts most. How far: the mean over the other groups of the highest
    similarity to a sentence of theirs.

    groups: of each sentence, (N,), from 0, such as its article. Without differences, or with one
    group, the plain `statement_weights`.
    """
    member = np.asarray(groups, np.int64)
    count = int(member.max(initial=-1)) + 1
    weights = statement_weights(similarity)
    if count < 2:
        return weights
    nearest = np.stack([similarity[:, member == k].max(1, initial=0) for k in range(count)], 1)
    nearest[np.arange(len(member)), member] = 0
    different = weights * np.clip(1 - nearest.sum(1) / (count - 1), 0, 1)
    return different if different.max() > _TINY else weights


def facility_score(similarity: np.ndarray, weights: np.ndarray, chosen: Sequence[int]) -> float:
    """How well sentences are stood for: the weighted sum, over all, of the similarity to the
    nearest one chosen.
    """
    if not len(chosen):
        return 0.0
    return float(weights @ similarity[:, list(chosen)].max(1))


def facility_location(
    similarity: np.ndarray,
    weights: np.ndarray,
    sizes: np.ndarray | None = None,
    *,
    most: int | None = None,
) -> Choice:
    """Order in which sentences are chosen, each the one that raises `facility_score` most, until
    nothing raises it or `most` are chosen. Gains are evaluated lazily: an old gain is an upper
    bound of the new one.

    sizes: where given, (N,) positive, gains are compared by size: for budgets of words.
    """
    count = len(similarity)
    most = count if most is None else most
    scale = np.ones(count) if sizes is None else sizes.astype(np.float64)
    best = np.zeros(count)  # of each sentence: its similarity to the nearest one chosen
    waiting = [(-gain, place) for place, gain in enumerate(weights @ similarity / scale)]
    heapq.heapify(waiting)
    order, gains = list[int](), list[float]()
    while waiting and len(order) < most:
        _, place = heapq.heappop(waiting)
        gain = float(weights @ np.maximum(similarity[:, place] - best, 0))
        entry = (-gain / scale[place], place)
        if waiting and entry > waiting[0]:
            heapq.heappush(waiting, entry)
            continue
        if gain <= _TINY * weights.sum():
            break
        order.append(place)
        gains.append(gain)
        best = np.maximum(best, similarity[:, place])
    return Choice(np.array(order, np.int64), np.array(gains))


def determinantal(kernel: np.ndarray, most: int) -> Choice:
    """Order in which sentences are chosen, each the one that raises the log determinant of the
    kernel of those chosen most (greedy MAP of a determinantal point process), by an incremental
    Cholesky decomposition: O(N most²).

    kernel: (N, N), symmetric and positive semi-definite. Gains are logarithms, and may be negative.
    Ends before `most` where every further sentence is a mixture of those chosen.
    """
    count = len(kernel)
    rest = np.diag(kernel).astype(np.float64).copy()  # variance not explained by those chosen
    least = _TINY * max(float(rest.max(initial=0)), _TINY)
    rows = np.zeros((min(most, count), count))
    order, gains = list[int](), list[float]()
    for step in range(len(rows)):
        place = int(rest.argmax())
        if rest[place] <= least:
            break
        row = (kernel[place] - rows[:step, place] @ rows[:step]) / np.sqrt(rest[place])
        order.append(place)
        gains.append(float(np.log(rest[place])))
        rows[step] = row
        rest = rest - row**2
        rest[order] = -np.inf
    return Choice(np.array(order, np.int64), np.array(gains))


def determinantal_kernel(similarity: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Kernel of a determinantal point process: quality (N,) times similarity times quality."""
    return quality[:, None] * similarity * quality[None]


def centrality(similarity: np.ndarray) -> np.ndarray:
    """Quality (N,) in (0, 1]: mean similarity of a sentence with all, 1 for the most central."""
    mean = similarity.mean(1)
    return np.maximum(mean / mean.max(initial=_TINY), 1e-3)


def first_of_each(groups: Sequence[int]) -> np.ndarray:
    """Order of the plainest summary: the first member of each group, then the second of each, ...

    groups: of each sentence, (N,), from 0; sentences of a group are in their order.
    """
    seen_before = dict[int, int]()
    rounds = []
    for group in groups:
        rounds.append(seen_before.get(group, 0))
        seen_before[group] = rounds[-1] + 1
    return np.lexsort((np.asarray(groups, np.int64), np.asarray(rounds, np.int64)))


def within_budget(order: np.ndarray, sizes: np.ndarray, budget: float) -> np.ndarray:
    """The longest beginning of an order whose sizes (N,) sum to no more than the budget.

    What comes after the first sentence that does not fit is not tried: else a larger budget could
    hold other sentences, and cover less.
    """
    return order[: int(np.searchsorted(np.cumsum(sizes[order]), budget + _TINY, side="right"))]
