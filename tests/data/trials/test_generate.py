"""Both generators: what is promised of repaired trials, and the faults of published ones."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from headwise.data.trials.evaluate import evaluate
from headwise.data.trials.generate import random_trial, trial
from headwise.data.trials.kinds import (
    ALL_TREES,
    AS_TRAINED,
    CROSSED_TREES,
    TRAINED_TREES,
    TrialKind,
    pairs_of,
    split_kinds,
)
from headwise.data.trials.trial import (
    CONDITIONS,
    EXIST,
    GET_COLOUR,
    GET_LETTER,
    KINDS,
    NODES,
    PARITIES,
    PRODUCT_EVEN,
    PRODUCT_ODD,
    QUESTIONS,
    SUM_EVEN,
    SUM_ODD,
    TRUE,
    check_rule,
    endings,
    kind_of_answer,
)

COUNT = 1200


def trials(kind, count=COUNT):
    return [trial(kind, 1, 2, index) for index in range(count)]


def share_true(made, operator):
    answers = [each.answer == TRUE for each in made if each.rule[0].operator == operator]
    return np.mean(answers), 2.6 * np.sqrt(0.25 / len(answers))  # 99 % of chance


@pytest.mark.parametrize("rules", ["repaired", "official"])
@pytest.mark.parametrize("depth", NODES)
def test_rules_and_scenes_are_well_formed(rules, depth):
    for each in trials(TrialKind(rules, (depth,), 2, 7), 200):
        check_rule(each.rule)
        assert len(each.rule) == NODES[depth]
        cells = [(thing.y, thing.x) for thing in each.scene]
        assert len(set(cells)) == len(cells)
        assert list(each.scene) == sorted(each.scene)
        assert all(0 <= y < 10 and 0 <= x < 10 for y, x in cells)
        assert len({thing[2:] for thing in each.scene}) == len(each.scene)


@pytest.mark.parametrize("depth", NODES)
def test_repaired_trials_are_well_posed_whichever_path_is_taken(depth):
    for each in trials(TrialKind("repaired", (depth,), 0, 40), 300):
        for node in each.rule:
            for colour, letter in node.selectors:
                fitting = [
                    thing
                    for thing in each.scene
                    if colour in (0, thing.colour) and letter in (0, thing.letter)
                ]
                assert len(fitting) <= 1
                assert fitting or node.operator == EXIST
        assert evaluate(each.rule, each.scene).well_posed


def test_repaired_answers_are_true_as_often_as_false():
    made = trials(TrialKind("repaired", most=40), 4000)
    for operator in CONDITIONS:
        share, error = share_true(made, operator)
        assert abs(share - 0.5) < error, operator


def test_repaired_trees_take_each_branch_as_often():
    made = trials(TrialKind("repaired", (5,)))
    ends = Counter(evaluate(each.rule, each.scene).path[-1] for each in made)
    assert sorted(ends) == [6, 7, 8, 9]
    assert max(ends.values()) < 1.3 * min(ends.values())


def test_published_parities_are_unbalanced_and_existence_leans_to_true():
    made = trials(TrialKind("official"), 4000)
    for operator, expected in {
        PRODUCT_EVEN: 0.75, PRODUCT_ODD: 0.25, SUM_EVEN: 0.5, SUM_ODD: 0.5, EXIST: 0.5
    }.items():  # fmt: skip
        share, error = share_true(made, operator)
        assert abs(share - expected) < error, operator
    many = trials(TrialKind("official", fewest=40, most=40), 4000)
    share, error = share_true(many, EXIST)
    assert abs(share - 0.57) < error


@pytest.mark.parametrize(
    ("depth", "fewest", "most", "expected", "near"),
    [
        (1, 40, 40, 40 - 2.34, 0.15),
        (3, 0, 5, 2.5 + 3.58, 0.15),
        (5, 0, 5, 2.5 + 8.06, 0.25),
        (7, 0, 5, 2.5 + 16.82, 0.3),
    ],
)
def test_published_scenes_hold_as_many_objects_as_the_reference(
    depth, fewest, most, expected, near
):
    """The means of files that the published code wrote."""
    made = trials(TrialKind("official", (depth,), fewest, most), 2000)
    assert np.mean([len(each.scene) for each in made]) == pytest.approx(expected, abs=near)


@pytest.mark.parametrize(("depth", "expected"), [(1, 0.0), (3, 0.16), (5, 0.51), (7, 0.72)])
def test_published_questions_for_colours_and_letters_are_as_ambiguous_as_the_reference(
    depth, expected
):
    asked, unclear = 0, 0
    for each in trials(TrialKind("official", (depth,))):
        for node in each.rule:
            if node.operator in (GET_COLOUR, GET_LETTER):
                ((colour, letter),) = node.selectors
                fitting = sum(
                    colour in (0, thing.colour) and letter in (0, thing.letter)
                    for thing in each.scene
                )
                asked, unclear = asked + 1, unclear + (fitting > 1)
    assert unclear / asked == pytest.approx(expected, abs=0.06)


def test_a_trial_is_a_function_of_seed_stream_and_number():
    kind = TrialKind("repaired", (3,))
    assert trial(kind, 1, 0, 10**12) == trial(kind, 1, 0, 10**12)
    others = {trial(kind, *place) for place in product((1, 2), (0, 1), (0, 1, 2))}
    assert len(others) == 12


def test_operators_may_be_fixed():
    from random import Random

    operators = [SUM_EVEN, 9, GET_COLOUR, GET_LETTER]
    for rules in ("repaired", "official"):
        made = random_trial(TrialKind(rules), Random(0), operators)
        assert [node.operator for node in made.rule] == operators


def test_a_scene_that_cannot_hold_so_many_objects_is_refused():
    with pytest.raises(ValueError, match="no scene holds 100 objects"):
        trial(TrialKind("repaired", fewest=100, most=100), 0, 0, 0)


def pairs_asked(made):
    """Operator, colour and letter of the object that a rule of one node asks about."""
    pairs = set()
    for each in made:
        outcome = evaluate(each.rule, each.scene)
        for place in outcome.asked:
            thing = each.scene[place]
            pairs.add((each.rule[0].operator, thing.colour, thing.letter))
    return pairs


def test_the_repaired_split_of_operators_shares_no_pair_and_has_all_words():
    split = split_kinds("operators")
    trained, crossed = (pairs_asked(trials(kind)) for kind in split.test.values())
    assert len(trained) > 200
    assert len(crossed) > 200
    assert not trained & crossed
    for pairs in (trained, crossed):
        for operator in QUESTIONS:
            assert {pair[1] for pair in pairs if pair[0] == operator} == set(range(1, 11))
            assert {pair[2] for pair in pairs if pair[0] == operator} == set(range(1, 11))


def test_the_published_split_of_operators_shares_a_quarter_of_all_pairs():
    for operator in QUESTIONS:
        train, test = (set(pairs_of(kind, operator)) for kind in ("leaky", "leaky-crossed"))
        assert (len(train), len(test), len(train & test)) == (50, 50, 25)
        clean, crossed = (set(pairs_of(kind, operator)) for kind in ("half", "crossed"))
        assert (len(clean), len(crossed), len(clean & crossed)) == (50, 50, 0)


def test_subtrees_of_the_test_part_are_in_no_tree_of_the_training():
    combined = [
        {
            pair
            for conditions, ends in families
            for pair in product(conditions, ends)
        }
        for families in (TRAINED_TREES, CROSSED_TREES)
    ]  # fmt: skip
    assert [len(pairs) for pairs in combined] == [20, 20]
    assert not combined[0] & combined[1]
    split = split_kinds("subtrees")
    for kind, allowed in zip(split.test.values(), combined, strict=True):
        for each in trials(kind, 200):
            assert {(each.rule[0].operator, end.operator) for end in endings(each.rule)} <= allowed


def test_splits_differ_in_what_they_name():
    distractors = split_kinds("distractors", distractors=(10, 40))
    assert list(distractors.test) == [AS_TRAINED, "10 distractors", "40 distractors"]
    assert {kind.most for kind in distractors.test.values()} == {5, 10, 40}
    deep = split_kinds("depth", depth=7)
    assert deep.train.depths == (1, 3)
    assert deep.test["depth 7"].depths == (7,)
    assert {len(each.rule) for each in trials(deep.train, 100)} == {1, 4}
    assert split_kinds("depth", "official").train.rules == "official"
    assert split_kinds("depth").train.families == ALL_TREES


def test_answers_of_all_kinds_come():
    counts = Counter(kind_of_answer(each.answer) for each in trials(TrialKind("repaired", (3,))))
    assert sorted(counts) == list(range(len(KINDS)))


def test_two_objects_are_asked_about_in_trees_only():
    single = trials(TrialKind("repaired"), 300)
    trees = trials(TrialKind("repaired", (3,)), 300)
    most = [
        max(len(node.selectors) for each in made for node in each.rule) for made in (single, trees)
    ]
    assert most == [1, 2]
    assert all(
        len(node.selectors) < 2 or node.operator in PARITIES for each in trees for node in each.rule
    )
