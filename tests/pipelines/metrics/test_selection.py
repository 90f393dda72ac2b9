"""Choosing sentences: bounds against trying all, growing budgets, groups of answers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.pipelines.metrics import answer_coverage, selection
from headwise.pipelines.metrics.selection import (
    determinantal,
    facility_location,
    facility_score,
    first_of_each,
    similarities,
    statement_weights,
    text_vectors,
    within_budget,
)

TEXTS = [
    "The mayor closed the bridge on Monday.",
    "On Monday the mayor closed the bridge.",
    "Shops near the river lost half of their customers.",
    "Engineers say the repair takes two years.",
    "The repair will take two years, engineers say.",
    "A union calls the closure a political game.",
]


def random_similarity(seed: int, count: int = 8) -> np.ndarray:
    vectors = np.abs(np.random.default_rng(seed).normal(size=(count, 4)))
    return similarities(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def plain_greedy(similarity, weights, sizes=None):
    chosen = []
    scale = np.ones(len(similarity)) if sizes is None else sizes
    while len(chosen) < len(similarity):
        score = facility_score(similarity, weights, chosen)
        gains = [
            (facility_score(similarity, weights, [*chosen, k]) - score) / scale[k]
            if k not in chosen
            else -1
            for k in range(len(similarity))
        ]
        if max(gains) * scale[int(np.argmax(gains))] < 1e-9:
            break
        chosen.append(int(np.argmax(gains)))
    return chosen


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_greedy_choice_is_within_its_bound_of_the_best_of_all_choices(seed, k) -> None:
    similarity = random_similarity(seed)
    weights = np.random.default_rng(seed + 99).uniform(0.1, 1, 8)
    chosen = facility_location(similarity, weights).order[:k]
    best = max(facility_score(similarity, weights, c) for c in combinations(range(8), k))
    assert facility_score(similarity, weights, chosen) >= (1 - 1 / np.e) * best
    if k == 1:
        assert facility_score(similarity, weights, chosen) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("sized", [False, True])
def test_lazy_gains_choose_what_all_gains_choose(seed, sized) -> None:
    similarity = random_similarity(seed, 15)
    generator = np.random.default_rng(seed)
    weights, sizes = generator.uniform(0.1, 1, 15), generator.integers(1, 9, 15)
    choice = facility_location(similarity, weights, sizes if sized else None)
    assert list(choice.order) == plain_greedy(similarity, weights, sizes if sized else None)
    total = facility_score(similarity, weights, choice.order)
    assert choice.gain.sum() == pytest.approx(total)
    if not sized:
        assert (np.diff(choice.gain) <= 1e-12).all()


@pytest.mark.parametrize("seed", range(10))
def test_the_determinantal_choice_is_that_of_determinants_and_near_the_best(seed) -> None:
    similarity = random_similarity(seed) + 0.2 * np.eye(8)
    quality = np.random.default_rng(seed).uniform(0.3, 1, 8)
    kernel = selection.determinantal_kernel(similarity, quality)

    def score(places):
        return np.linalg.slogdet(kernel[np.ix_(places, places)])[1]

    chosen: list[int] = []
    for _ in range(4):
        chosen.append(
            max((k for k in range(8) if k not in chosen), key=lambda k: score([*chosen, k]))
        )
    choice = determinantal(kernel, 4)
    assert list(choice.order) == chosen
    assert choice.gain.sum() == pytest.approx(score(chosen))
    assert (np.diff(choice.gain) <= 1e-12).all()
    best = max(score(list(c)) for c in combinations(range(8), 4))
    assert score(chosen) <= best + 1e-12
    # The bound for the monotone form: a kernel whose determinants are all above 1.
    scaled = kernel * 60
    assert np.linalg.eigvalsh(scaled).min() > 1
    reached = determinantal(scaled, 3).gain.sum()
    most = max(
        np.linalg.slogdet(scaled[np.ix_(c, c)])[1] for c in map(list, combinations(range(8), 3))
    )
    assert reached >= (1 - 1 / np.e) * most


def test_a_determinantal_choice_ends_where_sentences_repeat_each_other() -> None:
    similarity = similarities(text_vectors([TEXTS[0], TEXTS[0], TEXTS[2]]))
    assert list(determinantal(similarity, 3).order) == [0, 2]


def test_repeated_statements_count_once() -> None:
    similarity = np.kron(np.eye(2), np.ones((3, 3)))[:4, :4]  # three alike, then another
    assert statement_weights(similarity) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    choice = facility_location(similarity, statement_weights(similarity))
    assert list(choice.order) == [0, 3]
    assert choice.gain == pytest.approx([1, 1])


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    budgets=st.tuples(st.integers(0, 80), st.integers(0, 80)),
)
@settings(max_examples=60, deadline=None)
def test_a_larger_budget_keeps_what_a_smaller_one_chose(sizes, budgets) -> None:
    low, high = sorted(budgets)
    order = np.random.default_rng(len(sizes)).permutation(len(sizes))
    small, large = (within_budget(order, np.array(sizes), b) for b in (low, high))
    assert list(large[: len(small)]) == list(small)
    assert sum(sizes[k] for k in large) <= high
    if len(large) < len(sizes):  # nothing more of the order fits
        assert sum(sizes[k] for k in order[: len(large) + 1]) > high


def test_vectors_of_ones_own_replace_the_words() -> None:
    vectors = text_vectors(["a", "b"], lambda texts: np.array([[3.0, 0], [0, 4]]))
    assert vectors == pytest.approx(np.eye(2))
    with pytest.raises(ValueError, match=r"\(1, 2\) for 2 texts"):
        text_vectors(["a", "b"], lambda texts: np.ones((1, 2)))
    with pytest.raises(ValueError, match="not finite"):
        text_vectors(["a"], lambda texts: np.full((1, 2), np.nan))


def test_texts_without_words_are_alike_only_to_themselves() -> None:
    assert similarities(text_vectors(["?!", "..."])) == pytest.approx(np.eye(2))


def test_the_first_sentences_of_all_articles_come_before_the_second_ones() -> None:
    assert list(first_of_each([1, 1, 0, 0, 1, 2])) == [2, 0, 5, 3, 1, 4]


def test_coverage_by_hand() -> None:
    similarity = np.array([[0.9, 0.1, 0.3], [0.2, 0.4, 0.6]])  # two sentences, three answers
    nearest = answer_coverage.nearest_by_group(similarity, [0, 1, 1], 2)
    assert nearest == pytest.approx([0.9, 0.6])
    empty = answer_coverage.nearest_by_group(np.zeros((0, 3)), [0, 1, 1], 2)
    rows = answer_coverage.coverage([nearest, empty, np.zeros(0)], [0.5, 0.7])
    assert [row["coverage"] for row in rows] == pytest.approx([0.5, 0.25])
    assert (rows[0]["covered"], rows[0]["groups"], rows[0]["stories"]) == (2, 4, 2)
    assert rows[0]["low"] == 0
    assert rows[0]["high"] == 1


def test_coverage_of_one_story_has_no_interval() -> None:
    (row,) = answer_coverage.coverage([np.array([0.6])], [0.5])
    assert row["coverage"] == 1
    assert np.isnan(row["low"])


def test_answers_are_consolidated_as_the_official_code_does() -> None:
    answers = ["closed", "shut", "open", "closed", "ajar"]
    scores = {(a, b): 0.0 for a in set(answers) for b in set(answers) if a != b}
    scores |= {("closed", "shut"): 3.5, ("shut", "closed"): 2.1}  # mean 2.8: an edge
    scores |= {("open", "ajar"): 3.4, ("ajar", "open"): 2.1}  # mean 2.75: none
    groups = answer_coverage.consolidate(answers, scores)
    assert groups == [[0, 1, 3], [4], [2]]
    turned = answer_coverage.consolidate(answers[::-1], scores)
    named = [sorted(answers[::-1][k] for k in group) for group in turned]
    assert named == [sorted(answers[k] for k in group) for group in groups]
    del scores["open", "ajar"]
    with pytest.raises(ValueError, match="no score of answer 'open' against 'ajar'"):
        answer_coverage.consolidate(answers, scores)
