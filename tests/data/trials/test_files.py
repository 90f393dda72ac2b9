"""Files of trials, in words and in the published form."""

import json

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.trials.coding import coded
from headwise.data.trials.files import read_trials, trial_line
from headwise.data.trials.generate import trial
from headwise.data.trials.kinds import TrialKind
from headwise.data.trials.trial import ANSWERS
from headwise.data.trials.words import answer_number, answer_words, question_words

WORDS = {"rule": ["exist red c"], "scene": ["red c 4,7"], "answer": "true"}
TRIALS = [trial(TrialKind("official", (1, 3, 5, 7)), 0, 0, index) for index in range(80)]


def line(**changes):
    return json.dumps({k: v for k, v in {**WORDS, **changes}.items() if v is not None})


@pytest.mark.parametrize("published", [False, True])
def test_what_is_written_is_read(published):
    lines = [
        trial_line(each, id=f"t{k}", part="test", level="x", published=published)
        for k, each in enumerate(TRIALS)
    ]
    trials = read_trials("f", lines)
    assert [each.trial for each in trials] == TRIALS
    assert {(each.part, each.level, each.published) for each in trials} == {
        ("test", "x", published)
    }
    assert [each.id for each in trials] == [f"t{k}" for k in range(len(TRIALS))]
    assert all(each.by_rule == each.trial.answer and each.has_answer for each in trials)


def test_the_published_form_is_read_under_its_names_with_time_as_an_axis_and_transposed():
    row = json.loads(trial_line(TRIALS[0], published=True))
    rule, stim = np.array(row["rule"], float), np.array(row["stim"], float)
    for names in (
        ("rule_inputs", "stim_inputs", "target_outputs"),
        ("rule_array", "stim", "target_idx"),
    ):
        values = (rule.tolist(), stim[..., None].tolist(), [row["target"]])
        assert read_trials("f", [json.dumps(dict(zip(names, values)))])[0].trial == TRIALS[0]
    transposed = {"rule": rule.T.tolist(), "stim": stim.T.tolist(), "target": float(row["target"])}
    assert read_trials("f", [json.dumps(transposed)])[0].trial == TRIALS[0]
    grid = {"rule": rule.tolist(), "stim": stim[:100, :2].reshape(10, 10, 2).tolist(), "target": 1}
    assert read_trials("f", [json.dumps(grid)])[0].trial[:2] == TRIALS[0][:2]
    listed = json.dumps([rule.tolist(), stim.tolist(), row["target"], 5])
    assert read_trials("f", [listed])[0].trial == TRIALS[0]


def test_a_published_trial_by_hand():
    """Letter 3 and colour 1 in row 4 and column 7; the cell's answer counts columns first."""
    stim = np.zeros((101, 3), int)
    stim[47, :2], stim[100, 2] = (1, 3), 1
    rule = [[2, 3, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]]
    row = {"rule": rule, "stim": stim.tolist(), "target": 2 + 10 * 7 + 4}
    (each,) = read_trials("f", [json.dumps(row)])
    assert question_words(each.trial.rule) == "where is red c?"
    assert answer_words(each.trial.answer) == "4,7"
    assert each.by_rule == each.trial.answer
    # What is not asked for is 1, as the first colour is.
    rule[0] = [3, 3, 1, 1, 0, 0, 0, 0]
    (each,) = read_trials("f", [json.dumps({**row, "rule": rule, "target": 128})])
    assert question_words(each.trial.rule) == "which colour has c?"
    assert (answer_words(each.trial.answer), each.by_rule) == ("red", 128)


def test_zeros_after_a_shorter_rule_are_padding():
    row = json.loads(trial_line(TRIALS[0], published=True))
    row["rule"] += [[0] * 8] * 9
    assert read_trials("f", [json.dumps(row)])[0].trial == TRIALS[0]


def test_all_answers_have_words_of_their_own():
    words = [answer_words(answer) for answer in range(ANSWERS)]
    assert len(set(words)) == ANSWERS
    assert [answer_number(word) for word in words] == list(range(ANSWERS))
    assert answer_number("(4, 7)") == answer_number("4,7")


def test_an_answer_that_is_not_that_of_the_rule_is_read_and_known():
    (each,) = read_trials("f", [line(answer="false")])
    assert (answer_words(each.trial.answer), answer_words(each.by_rule)) == ("false", "true")


def test_a_missing_answer_is_that_of_the_rule_and_said():
    with opened() as account:
        (each,) = read_trials("f", [line(answer=None), ""])
    assert answer_words(each.trial.answer) == "true"
    assert not each.has_answer
    assert "answers that the file lacks" in " ".join(account.lines())


def test_a_split_that_is_no_part_is_a_level():
    (each,) = read_trials("f", [line(split="d1_40")])
    assert (each.part, each.level) == ("", "d1_40")
    (each,) = read_trials("f", [line(split="val")])
    assert (each.part, each.level) == ("validation", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": None}, "has no rule"),
        ({"scene": None}, "has no scene"),
        ({"rule": ["exists red c"]}, "is no operator; nearest is exist"),
        ({"rule": ["exist red"]}, "does not fit its letter"),
        ({"rule": ["exist red c + blue k"]}, "asks about 2 objects"),
        ({"rule": ["go red c", "switch", "exist red c", "exist red c"]}, "not true or false"),
        ({"rule": ["exist red c"] * 4}, "a switch must be there"),
        ({"rule": ["exist red c"] * 2}, "a rule has 1, 4, 10, 22 nodes, not 2"),
        ({"rule": ["go blue k"]}, "asks about no object"),
        ({"rule": [[1, 2, 3]]}, "each node needs 8 numbers"),
        ({"rule": [[1, 30, 1, 1, 0, 0, 0, 0]]}, "no object has letter 30"),
        ({"rule": {"a": 1}}, "is no array of numbers"),
        ({"scene": ["red c 4,10"]}, "lies outside of the grid"),
        ({"scene": ["red 4,1"]}, "is no object"),
        ({"scene": ["red c 4,7", "blue c 4,7"]}, "two objects are in one cell"),
        ({"scene": [[1, 2]]}, "needs 2 or 3 numbers of each of 100 cells"),
        ({"scene": [[0.5, 2]] * 100}, "numbers that are not whole"),
        ({"scene": [[float("nan"), 2]] * 100}, "numbers that are not whole"),
        ({"answer": "maybe"}, "is no answer"),
        ({"answer": 138}, "0 to 137"),
        ({"answer": 1e300}, "0 to 137"),
        ({"answer": [1, 2, 3]}, "0 to 137"),
        ({"part": "later"}, "is none of train, validation, test"),
    ],
)
def test_a_line_that_is_no_trial_is_refused_on_one_line_with_its_place(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read_trials("f.jsonl", [line(), line(**changes)])
    assert str(caught.value).startswith("f.jsonl, line 2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "7", '"a"', "[" * 5000])
def test_a_line_that_is_no_object_is_refused(text):
    with pytest.raises(InputError, match=r"line 1: .* is no JSON"):
        read_trials("f", [text])


def test_arrays_hold_what_the_trials_hold():
    rules, scenes, answers = coded(TRIALS)
    assert rules.shape == (len(TRIALS), 22, 5)
    for each, rule, scene, answer in zip(TRIALS, rules, scenes, answers, strict=True):
        count = len(each.rule)
        assert [node.operator for node in each.rule] == rule[:count, 0].tolist()
        for node, row in zip(each.rule, rule, strict=False):
            numbers = [number for selector in node.selectors for number in selector]
            assert row[1:].tolist() == numbers + [0] * (4 - len(numbers))
        assert not rule[count:].any()
        assert [(c, k, y, x) for y, x, c, k in each.scene] == [
            tuple(row) for row in scene[: len(each.scene)].tolist()
        ]
        assert not scene[len(each.scene) :].any()
        assert answer == each.answer
    assert coded([]).scenes.shape == (0, 1, 4)
