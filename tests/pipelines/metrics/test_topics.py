"""Coherence and machine raters against tables worked out by hand and plain loops."""

from math import log

import numpy as np
import pytest

from headwise.pipelines.metrics import topics as metric
from headwise.pipelines.metrics.topics import (
    EPSILON,
    between_minus_within,
    count_occurrences,
    least_similar,
    npmi,
    topic_coherence,
    topic_diversity,
    topic_similarity,
)

Document = tuple[np.ndarray, np.ndarray, int]


def document(*codes: int) -> Document:
    """A text whose tokens have these codes; -1 is another word."""
    places = [place for place, code in enumerate(codes) if code >= 0]
    return np.array(places, int), np.array([codes[p] for p in places], int), len(codes)


def test_npmi_of_documents_worked_out_by_hand() -> None:
    """Four texts: cat dog / cat dog / cat / tax. p(cat) = 3/4, p(dog) = 1/2, p(cat, dog) = 1/2."""
    counts = count_occurrences([document(0, 1), document(1, 0, 0), document(-1, 0), document(2)], 3)
    assert counts.units == 4
    assert counts.singles.tolist() == [3, 2, 1]
    values = npmi(counts)
    assert values[0, 1] == values[1, 0] == pytest.approx(log(0.5 / (0.75 * 0.5)) / -log(0.5))
    assert values[0, 2] == -1  # never together
    assert topic_coherence(values, [[0, 1, 2], [0, 1]]) == pytest.approx(
        [(values[0, 1] - 2) / 3, values[0, 1]]
    )


def test_words_that_do_not_occur_are_left_out_and_ever_present_ones_are_one() -> None:
    values = npmi(count_occurrences([document(0, 1), document(0, 1)], 3))
    assert values[0, 1] == 1
    assert np.isnan(values[0, 2])
    coherence = topic_coherence(values, [[0, 1, 2], [0, 2]])
    assert coherence[0] == 1
    assert np.isnan(coherence[1])


def plain_windows(documents: list[list[int]], words: int, size: int) -> tuple[int, np.ndarray]:
    units, pairs = 0, np.zeros((words, words), int)
    for codes in documents:
        starts = range(max(1, len(codes) - size + 1))
        for start in starts:
            inside = {code for code in codes[start : start + size] if code >= 0}
            units += 1
            for a in inside:
                for b in inside:
                    pairs[a, b] += 1
    return units, pairs


def test_windows_are_counted_as_by_a_plain_loop_however_they_are_batched(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    texts = [
        generator.integers(-3, 5, generator.integers(1, 25)).clip(-1).tolist() for _ in range(40)
    ]
    units, pairs = plain_windows(texts, 5, 6)
    for rows in (1 << 18, 50):
        monkeypatch.setattr(metric, "BATCH_ROWS", rows)
        counts = count_occurrences([document(*codes) for codes in texts], 5, 6)
        assert counts.units == units
        assert np.array_equal(counts.pairs, pairs)


def test_the_form_of_gensim_adds_epsilon_to_pairs_that_never_meet() -> None:
    """Two of four windows hold either word, none both: log(1e-12 / (1/4 * 1/4)) / -log(1e-12)."""
    counts = count_occurrences([document(0), document(1), document(-1), document(-1)], 2, 10)
    expected = log(EPSILON / 0.0625) / -log(EPSILON)
    assert npmi(counts, EPSILON)[0, 1] == pytest.approx(expected)
    assert -0.91 < expected < -0.89


def test_diversity_is_the_share_of_distinct_words() -> None:
    assert topic_diversity([["a", "b"], ["c", "d"]]) == 1
    assert topic_diversity([["a", "b"], ["a", "b"], ["a", "b"]]) == pytest.approx(1 / 3)
    assert np.isnan(topic_diversity([]))


def test_the_machine_picks_the_word_that_points_elsewhere() -> None:
    """Four words near one axis and one on the other, at every place in turn."""
    near = np.array([[1, 0.1], [1, -0.1], [2, 0], [1, 0.2]])
    for place in range(5):
        task = np.insert(near, place, [0.1, 3], axis=0)
        assert least_similar(task[None]).tolist() == [place]


def test_halves_of_one_topic_score_zero_and_of_two_their_difference() -> None:
    """Words on one axis: between 1, within 1. On two axes: between 0, within 1."""
    first, second = np.array([[1.0, 0], [2.0, 0]]), np.array([[0, 1.0], [0, 3.0]])
    scores = between_minus_within(np.stack([first, first]), np.stack([first, second]))
    assert scores == pytest.approx([0, -1])
    # Within is a mean over pairs of different words: cosines 0 and 1, mean 1/2; between 1/2.
    apart = np.array([[1.0, 0], [0, 1.0]])
    assert between_minus_within(apart[None], first[None]) == pytest.approx([0.5 - 0.5])


def test_scores_do_not_depend_on_the_length_of_vectors_nor_on_order() -> None:
    generator = np.random.default_rng(2)
    words = generator.normal(size=(3, 8, 16))
    longer = words * generator.uniform(0.1, 9, (3, 8, 1))
    score = between_minus_within(words[:, :4], words[:, 4:])
    assert between_minus_within(longer[:, 4:], longer[:, :4]) == pytest.approx(score)
    order = generator.permutation(8)
    picked = least_similar(words)
    assert order[least_similar(longer[:, order])].tolist() == picked.tolist()


def test_close_topics_have_a_high_cosine_and_topics_without_vectors_none() -> None:
    similarity = topic_similarity(
        [
            np.array([[1.0, 0], [1, 0.2]]),
            np.array([[3.0, 0.1]]),
            np.array([[0, 1.0]]),
            np.empty((0, 2)),
        ]
    )
    assert similarity[0, 1] > 0.99 > 0.2 > similarity[0, 2]
    assert np.isnan(similarity[3]).all()
