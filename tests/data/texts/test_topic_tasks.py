"""Tasks for raters: what they are made of, balanced, and the same by the same seed."""

from collections import Counter

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.data.texts.topic_tasks import (
    CLEAR_GROUPS,
    SIZE,
    assigned,
    balanced,
    closest_pairs,
    control_tasks,
    intrusion_tasks,
    mixing_tasks,
)
from headwise.data.texts.topics import Topic


def topic(name: str, words: int = 20) -> Topic:
    return Topic(name, tuple(f"{name}{place}" for place in range(words)))


TOPICS = [topic("a"), topic("b"), topic("c")]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_an_intrusion_has_the_first_words_and_one_that_leads_another_topic() -> None:
    for task, of in zip(intrusion_tasks("m", TOPICS, generator()), TOPICS, strict=True):
        assert set(task.words) - {task.truth} == set(of.words[:SIZE])
        others = {word for other in TOPICS if other is not of for word in other.words[:SIZE]}
        assert task.truth in others


def test_the_intruder_is_about_as_frequent_and_known() -> None:
    frequency = {f"{name}{place}": place for name in "abc" for place in range(20)}
    # The mean of ranks 0 to 3 is 1.5: candidates of rank 1 and 2 are equally near, the first wins.
    tasks = intrusion_tasks("m", TOPICS, generator(), frequency=frequency)
    assert {task.truth[1:] for task in tasks} == {"1"}
    tasks = intrusion_tasks(
        "m", TOPICS, generator(), frequency=frequency, known=lambda word: word.endswith("3")
    )
    assert {task.truth[1:] for task in tasks} == {"3"}


def test_an_intruder_is_never_among_the_topics_own_words() -> None:
    """b leads with words that a has at ranks 30, within its first half of 120 words."""
    first = topic("a", 120)
    second = Topic("b", (*first.words[30:34], *(f"b{place}" for place in range(4, 30))))
    with opened() as account:
        tasks = intrusion_tasks("m", [first, second], generator())
    assert [task.topics for task in tasks] == [("b",)]
    assert "without 4 words or an intruder" in " ".join(account.lines())


def test_a_single_is_one_topic_and_a_mixed_two_that_are_closest() -> None:
    similarity = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    tasks = mixing_tasks("m", TOPICS, similarity, generator())
    assert Counter(task.truth for task in tasks) == {"single": 3, "mixed": 2}
    for task in tasks:
        first, second = ({word[0] for word in half} for half in task.halves)
        assert len(first) == len(second) == 1
        assert (first == second) == (task.truth == "single")
        top = 2 * SIZE if task.truth == "single" else SIZE
        assert all(int(word[1:]) < top for word in task.words)
    assert {frozenset(t.topics) for t in tasks if t.truth == "mixed"} == {
        frozenset("ab"), frozenset("bc")
    }  # fmt: skip


def test_a_word_of_both_topics_is_replaced_by_the_next() -> None:
    second = Topic("b", ("a0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"))
    similarity = np.array([[1, 0.5], [0.5, 1]])
    tasks = mixing_tasks("m", [topic("a"), second], similarity, generator())
    (mixed,) = [task for task in tasks if task.truth == "mixed"]
    assert set(mixed.words) == {"a0", "a1", "a2", "a3", "b1", "b2", "b3", "b4"}


def test_pairs_are_mixed_once_and_unknown_ones_never() -> None:
    assert closest_pairs(np.array([[1, 0.9], [0.9, 1]])) == [(0, 1)]
    assert closest_pairs(np.full((2, 2), np.nan)) == []
    assert closest_pairs(np.ones((1, 1))) == []


@pytest.mark.parametrize("kind", ["intrusion", "mixing"])
def test_controls_are_beyond_doubt(kind) -> None:
    group_of = {word: place for place, group in enumerate(CLEAR_GROUPS) for word in group}
    assert len(group_of) == sum(map(len, CLEAR_GROUPS)), "no word is of two groups"
    tasks = control_tasks(kind, CLEAR_GROUPS, 20, generator())
    assert len(tasks) == 20
    for task in tasks:
        assert task.control
        assert len(set(task.words)) == len(task.words)
        groups = [group_of[word] for word in task.words]
        if kind == "intrusion":
            counts = Counter(groups)
            assert sorted(counts.values()) == [1, SIZE]
            assert counts[group_of[task.truth]] == 1
        else:
            first, second = (Counter(groups[:SIZE]), Counter(groups[SIZE:]))
            assert len(first) == len(second) == 1
            assert (first == second) == (task.truth == "single")
    if kind == "mixing":
        assert Counter(task.truth for task in tasks) == {"single": 10, "mixed": 10}


def test_models_and_kinds_have_as_many_tasks_each() -> None:
    similarity = np.ones((3, 3))
    tasks = [
        task
        for model, topics in (("m", TOPICS), ("n", TOPICS[:2]))
        for task in (
            *intrusion_tasks(model, topics, generator()),
            *mixing_tasks(model, topics, similarity[: len(topics), : len(topics)], generator()),
        )
    ]
    with opened() as account:
        chosen = balanced(tasks, None, generator())
    counts = Counter((t.model, t.truth if t.kind == "mixing" else t.kind) for t in chosen)
    each = {"intrusion": 2, "single": 1, "mixed": 1}
    assert counts == {(model, what): count for model in "mn" for what, count in each.items()}
    assert f"{len(tasks) - len(chosen)} tasks" in " ".join(account.lines())
    assert len(balanced(tasks, 1, generator())) == 6


def test_every_task_goes_to_as_many_raters_and_loads_are_even() -> None:
    orders = assigned(11, 4, 3, generator())
    assert Counter(task for order in orders for task in order) == dict.fromkeys(range(11), 3)
    assert all(len(set(order)) == len(order) for order in orders)
    assert max(map(len, orders)) - min(map(len, orders)) <= 1


def test_a_seed_gives_the_same_tasks_and_another_seed_others() -> None:
    first, again, other = (intrusion_tasks("m", TOPICS, generator(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
