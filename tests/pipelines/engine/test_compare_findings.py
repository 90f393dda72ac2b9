"""What a comparison says of scores that are given: the best setting, the level, the certain."""

import numpy as np
import pytest

from headwise.pipelines.engine.experiments.differences import compare_trainings
from headwise.pipelines.engine.experiments.findings import (
    best_words,
    comparison_table,
    finding,
    findings_of,
    header,
    written_rows,
)
from headwise.pipelines.engine.experiments.seeded import Seeded
from headwise.pipelines.engine.ladder import LadderScores
from headwise.pipelines.figures.settings import SettingPoint, settings_figure
from headwise.pipelines.figures.style import save_png

WORDS = {"naive": "the mean", "simple": "ridge", "model": "net", "blend": "blend of both"}


def trained(
    score,
    *,
    loss=1.0,
    validation=None,
    spread=0.001,
    blocks=20,
    larger=False,
    chosen="model",
    **others,
):
    """A training whose model has this test score; others: the test scores of further rungs."""
    generator = np.random.default_rng(int(1000 * abs(score)))
    values = {**others, "model": score}
    shared = np.random.default_rng(0).normal(size=1000)
    draws = {
        rung: value + shared + spread * generator.normal(size=1000)
        for rung, value in values.items()
    }
    test = LadderScores("error", larger, values, draws, blocks)
    on_validation = {**values, "model": score if validation is None else validation}
    return Seeded(
        WORDS, chosen, on_validation, test, {"seconds": 1.0, "epochs": 2.0, "validation_loss": loss}
    )


def said(first, second, **changes):
    """What is found of the setting b, whose trainings are the second ones."""
    compared = compare_trainings({"a": first, "b": second}, [1, 2, 3][: len(first)], "a")
    return finding(next(row for row in compared.rows if row.setting == "b"), compared)


@pytest.mark.parametrize(("larger", "word"), [(False, "better"), (True, "worse")])
def test_a_difference_in_all_draws_and_seeds_is_beyond_doubt(larger, word):
    a = [trained(0.5 + 0.01 * k, larger=larger) for k in range(3)]
    b = [trained(0.4 + 0.01 * k, larger=larger) for k in range(3)]
    assert said(a, b) == f"b is {word} than a beyond doubt"
    assert said(a[:1], b[:1]) == f"b is {word} than a beyond doubt, with this one seed"


def test_a_difference_within_the_draws_is_level():
    a, b = [trained(0.50, spread=0.1)], [trained(0.49, spread=0.1)]
    assert said(a, b) == "b and a are level: the interval of the difference holds 0"
    assert said(a, a) == "b and a are level: their scores are the same"


def test_a_difference_that_turns_with_the_seed_is_not_beyond_doubt():
    a = [trained(0.5), trained(0.5), trained(0.5)]
    b = [trained(0.3), trained(0.3), trained(0.51)]
    assert said(a, b) == "b is better than a on average, but not with every seed"


def test_with_too_few_blocks_only_seeds_speak():
    a = [trained(0.5 + 0.001 * k, blocks=7) for k in range(3)]
    b = [trained(0.4 - 0.001 * k, blocks=7) for k in range(3)]
    assert said(a, b) == (
        "b is better than a on these rows, whatever the seed; how it is on others is open: 7 "
        "separate blocks of rows"
    )
    wide = [trained(value, blocks=7) for value in (0.2, 0.6, 0.4)]
    assert said(a, wide) == "b and a are level: the interval over 3 seeds holds 0"
    assert said(a[:1], b[:1]) == (
        "b and a cannot be told apart: one seed, and 7 separate blocks of rows"
    )
    compared = compare_trainings({"a": a, "b": b}, [1, 2, 3], "a")
    assert "95 % over blocks" not in header(compared)
    assert {len(cells) for cells in written_rows(compared)} == {len(header(compared))}


def test_settings_with_other_blocks_have_no_interval_over_blocks():
    a, b = [trained(0.5, blocks=20)] * 2, [trained(0.4, blocks=19)] * 2
    compared = compare_trainings({"a": a, "b": b}, [1, 2], "a")
    assert compared.blocks is None
    assert all(row.gain_interval is None for row in compared.rows)
    assert all(row.interval is not None for row in compared.rows), "each by its own blocks"


def test_a_score_that_is_not_finite_is_said_and_stands_last():
    a, b = [trained(0.5)], [trained(0.4, validation=float("nan"))]
    b[0].test.score["model"] = float("nan")
    compared = compare_trainings({"b": b, "a": a}, [1], "a")
    assert [row.setting for row in compared.rows] == ["a", "b"]
    assert findings_of(compared) == ["b and a cannot be compared: a score is not finite"]


@pytest.mark.parametrize("larger", [False, True])
def test_the_best_is_the_best_of_the_validation_part_whatever_the_test_part_says(larger):
    sign = -1 if larger else 1
    trainings = {
        "a": [trained(sign * 0.1, validation=sign * 0.9, larger=larger)],
        "b": [trained(sign * 0.9, validation=sign * 0.1, larger=larger)],
        "c": [trained(sign * 0.5, validation=sign * 0.5, larger=larger)],
    }
    compared = compare_trainings(trainings, [1], "c")
    assert [row.setting for row in compared.rows] == ["b", "c", "a"]
    assert compared.best.setting == "b"
    assert compared.reference.setting == "c"
    assert compared.best.gain == pytest.approx(-0.4)


def test_of_settings_with_the_same_score_the_one_with_the_smaller_loss_is_the_best():
    trainings = {"a": [trained(1.0, loss=2.5)], "b": [trained(1.0, loss=2.4)]}
    assert compare_trainings(trainings, [1], "a").best.setting == "b"


def test_what_predicts_after_the_trainings_of_the_best_is_said():
    a = [trained(0.5, simple=0.3, chosen="simple"), trained(0.5, simple=0.3)]
    b = [trained(0.6, simple=0.3, chosen="simple")] * 2
    compared = compare_trainings({"a": a, "b": b}, [1, 2], "a")
    assert best_words(compared) == (
        "best on the validation part: a; its ladder predicts with ridge in 1 of 2 trainings"
    )
    ridge = comparison_table(compared).filter(rung="simple")
    assert ridge.select("setting", "chosen", "trainings").rows() == [("all settings", 3, 4)]


def test_a_rung_that_depends_on_the_setting_has_a_row_for_each():
    compared = compare_trainings(
        {"a": [trained(0.5, naive=0.9, simple=0.3)], "b": [trained(0.6, naive=0.9, simple=0.4)]},
        [1],
        "a",
    )
    assert [(row.setting, row.rung) for row in compared.rows[2:]] == [
        ("all settings", "naive"),
        ("a", "simple"),
        ("b", "simple"),
    ]
    said_of = [text.split(" is ")[0] for text in findings_of(compared)]
    assert said_of == ["b", "the mean (all settings)", "ridge (a)"]


def test_the_picture_has_a_place_for_each_row(tmp_path):
    rows = [
        SettingPoint("lr=$1", "best", [0.3, 0.4], 0.35, (0.3, 0.4), [0, 0], 0, None, True),
        SettingPoint("lr=2", "setting", [0.5], 0.5, None, [-0.15], -0.15, (-0.2, -0.1), False),
        SettingPoint("ridge", "rung", [0.2], 0.2, (0.1, 0.3), [0.15], 0.15, None, False),
    ]
    figure = settings_figure("MSE", rows, "lr=$1", "16 blocks of rows")
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["lr=$1", "lr=2", "ridge"]
    assert "16 blocks of rows" in figure.axes[1].get_xlabel()
    bars = [line for line in figure.axes[1].lines if list(line.get_xdata()) == [-0.2, -0.1]]
    assert [list(line.get_ydata()) for line in bars] == [[1, 1]]
    save_png(figure, tmp_path / "settings.png")
    assert (tmp_path / "settings.png").stat().st_size > 1000
