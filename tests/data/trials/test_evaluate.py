"""The evaluator, against one that shares nothing with it, and what must not change an answer."""

from dataclasses import replace
from random import Random

import pytest

from headwise.data.trials.evaluate import evaluate
from headwise.data.trials.generate import trial
from headwise.data.trials.kinds import TrialKind
from headwise.data.trials.trial import (
    EXIST,
    PRODUCT_EVEN,
    PRODUCT_ODD,
    SIDE,
    SUM_EVEN,
    SUM_ODD,
    Node,
    SceneObject,
    levels_of,
    question_place,
    switch_place,
)
from headwise.data.trials.words import answer_number, answer_words, node_of_words
from headwise.tests.data.trials.plain import plain_answer

KINDS = [
    TrialKind(rules, (depth,), most=most)
    for rules in ("repaired", "official")
    for depth, most in ((1, 40), (3, 5), (5, 20), (7, 5))
]
NEGATED = {SUM_EVEN: SUM_ODD, PRODUCT_EVEN: PRODUCT_ODD}
NEGATED |= {second: first for first, second in NEGATED.items()}


def trials(kind, count=150):
    return [trial(kind, 5, 3, index) for index in range(count)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_answers_are_those_of_a_plain_evaluator(kind):
    for each in trials(kind):
        assert answer_words(each.answer) == plain_answer(each)


@pytest.mark.parametrize(
    ("words", "answer", "asked", "well_posed"),
    [
        ("exist red c", "true", (1,), True),
        ("exist red d", "false", (), True),
        ("go blue c", "2,1", (2,), True),
        ("getshape blue", "c", (2,), True),
        ("getcolor d", "green", (0,), True),
        ("getcolor c", "red", (1,), False),  # the first by row and column
        ("sumeven red c", "true", (1,), True),
        ("sumodd red c + blue c", "true", (1, 2), True),
        ("productodd red c", "true", (1,), True),
        ("producteven red c + blue c", "true", (1, 2), True),
    ],
)
def test_each_operator_on_a_scene_by_hand(words, answer, asked, well_posed):
    scene = (SceneObject(0, 9, 2, 4), SceneObject(1, 3, 1, 3), SceneObject(2, 1, 3, 3))
    outcome = evaluate((node_of_words(words),), scene)
    assert outcome == (answer_number(answer), (0,), asked, well_posed)


def test_a_tree_asks_along_the_path_of_its_answers():
    words = ["exist red c", "switch", "sumeven blue c", "exist red d"]
    scene = (SceneObject(1, 3, 1, 3), SceneObject(2, 1, 3, 3))
    rule = tuple(map(node_of_words, words))
    assert evaluate(rule, scene)[:3] == (answer_number("false"), (0, 2), (0, 1))
    assert evaluate(rule, scene[1:])[:3] == (answer_number("false"), (0, 3), ())


def test_a_question_about_nothing_is_refused_with_its_place():
    with pytest.raises(ValueError, match=r"node 1 \(go\) asks about no object"):
        evaluate((node_of_words("go red c"),), ())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_order_of_the_objects_changes_nothing(kind):
    random = Random(0)
    for each in trials(kind, 50):
        order = random.sample(range(len(each.scene)), len(each.scene))
        shuffled = [each.scene[place] for place in order]
        first, second = evaluate(each.rule, each.scene), evaluate(each.rule, shuffled)
        assert (first.answer, first.path, first.well_posed) == second[:2] + second[3:]
        assert {each.scene[k] for k in first.asked} == {shuffled[k] for k in second.asked}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_object_that_no_selector_fits_changes_nothing(kind):
    random, tried = Random(1), 0
    for each in trials(kind, 50):
        taken = {(thing.y, thing.x) for thing in each.scene}
        y, x = next((y, x) for y in range(SIDE) for x in range(SIDE) if (y, x) not in taken)
        extra = SceneObject(y, x, random.randrange(1, 11), random.randrange(1, 27))
        if any(
            s.colour in (0, extra.colour) and s.letter in (0, extra.letter)
            for node in each.rule
            for s in node.selectors
        ):
            continue
        tried += 1
        assert evaluate(each.rule, (*each.scene, extra)).answer == each.answer
    assert tried >= 10


def swapped(rule):
    """The rule with the negation of its first condition and its two branches exchanged."""
    nodes, levels = list(rule), levels_of(len(rule))
    nodes[0] = Node(NEGATED[rule[0].operator], rule[0].selectors)
    for level in range(1, levels):
        half = 2 ** (level - 1)
        for number in range(2**level):
            other = (number + half) % (2 * half)
            nodes[question_place(level, number)] = rule[question_place(level, other)]
            if level < levels - 1:
                nodes[switch_place(level, number)] = rule[switch_place(level, other)]
    return tuple(nodes)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.depths != (1,)], ids=str)
def test_swapped_branches_under_the_negated_condition_give_the_same(kind):
    negatable = [each for each in trials(kind) if each.rule[0].operator != EXIST]
    assert len(negatable) > 50
    for each in negatable:
        assert evaluate(swapped(each.rule), each.scene).answer == each.answer


def test_a_kind_is_plain_data():
    kind = TrialKind("repaired")
    assert replace(kind, most=3).pairs == kind.pairs
