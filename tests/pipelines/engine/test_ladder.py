"""The choice of what predicts, by scores on the validation part."""

import numpy as np
import pytest
import torch
from torch import nn

from headwise.pipelines.engine.choice import choose
from headwise.pipelines.engine.ladder import (
    Ladder,
    LadderFacts,
    LadderScores,
    Rung,
    RungFacts,
    ladder_metrics,
    refitted,
    verdict,
)


def scores(
    values: dict[str, float], spread: float = 0.0, blocks: int = 50, larger: bool = False
) -> LadderScores:
    """spread: of the paired differences to the naive rung, over draws."""
    generator = np.random.default_rng(0)
    shared = generator.normal(size=1000)
    draws = {
        name: value + 5 * shared + spread * generator.normal(size=1000)
        for name, value in values.items()
    }
    return LadderScores("AUC" if larger else "MSE", larger, values, draws, blocks)


class TestChoice:
    @pytest.mark.parametrize(
        ("values", "chosen"),
        [
            ({"naive": 1.0, "simple": 0.5, "model": 0.6, "blend": 0.55}, "simple"),
            ({"naive": 1.0, "simple": 0.6, "model": 0.5, "blend": 0.55}, "model"),
            ({"naive": 1.0, "simple": 0.6, "model": 0.6, "blend": 0.5}, "blend"),
            ({"naive": 1.0, "simple": 1.1, "model": 1.2, "blend": 1.1}, "naive"),
            ({"naive": 1.0, "simple": 0.5004, "model": 0.5003, "blend": 0.5}, "simple"),
        ],
    )
    def test_the_best_is_chosen_or_the_simplest_that_is_as_good(
        self, values: dict[str, float], chosen: str
    ) -> None:
        assert choose(scores(values))[0] == chosen
        turned = {name: -value for name, value in values.items()}
        assert choose(scores(turned, larger=True))[0] == chosen

    def test_a_gain_within_chance_leaves_the_naive_answer(self) -> None:
        values = {"naive": 1.0, "simple": 0.99, "model": 0.98}
        assert choose(scores(values, spread=0.5))[0] == "naive"
        assert choose(scores(values, spread=0.001))[0] == "model"

    def test_what_is_proven_by_more_rows_need_not_be_shown_again(self) -> None:
        """The simple rung and the blend of it, unless they are worse beyond doubt here."""
        values = {"naive": 1.0, "simple": 0.99, "model": 0.97, "blend": 0.98}
        assert choose(scores(values, spread=0.5))[0] == "naive"
        assert choose(scores(values, spread=0.5), proven=True)[0] == "blend"
        worse = {"naive": 1.0, "simple": 1.5, "model": 0.97, "blend": 1.3}
        assert choose(scores(worse, spread=0.1), proven=True)[0] == "naive"
        unlucky = {"naive": 1.0, "simple": 1.01, "model": 1.3}
        assert choose(scores(unlucky, spread=0.5), proven=True)[0] == "simple"

    def test_too_few_blocks_choose_the_blend(self) -> None:
        values = {"naive": 1.0, "simple": 0.5, "model": 0.6, "blend": 0.52}
        rung, why = choose(scores(values, blocks=3))
        assert rung == "blend"
        assert "3 blocks" in why

    def test_intervals_are_of_paired_draws(self) -> None:
        paired = scores({"naive": 1.0, "simple": 0.5}, spread=0.01)
        gain = paired.gain_interval("simple", "naive")
        assert gain is not None
        assert gain[0] == pytest.approx(0.5, abs=0.05)
        assert gain[1] == pytest.approx(0.5, abs=0.05)
        alone = paired.interval("simple")
        assert alone is not None
        assert alone[1] - alone[0] > 10  # both scores move together by far more

    def test_below_eight_blocks_there_is_no_interval(self) -> None:
        few = scores({"naive": 1.0, "simple": 0.5}, blocks=7)
        assert few.interval("simple") is None
        assert few.gain_interval("simple", "naive") is None


def ladder(chosen: str, names: list[str]) -> Ladder:
    rungs = {
        name: RungFacts(short=f"the {name}", words=name, facts={}, validation=1.0) for name in names
    }
    return Ladder({}, LadderFacts(chosen=chosen, why="the best", metric="MSE", rungs=rungs))


class Joined(nn.Module):
    def __init__(self, model: nn.Module, simple: nn.Module) -> None:
        super().__init__()
        self.model, self.simple = model, simple


class TestRefit:
    def test_the_simple_model_is_replaced_in_the_blend_too_and_it_is_said(self) -> None:
        first, later, model = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)
        before = ladder("blend", ["naive", "simple", "model", "blend"])
        models = {"simple": first, "model": model, "blend": Joined(model, first)}
        rung = Rung("simple", later, {"trees": 3})
        fitted = Ladder(models, before.facts, {"simple": 0.0}, lambda: rung)
        after = refitted(fitted, torch.device("cpu"))
        assert after.models["simple"] is later
        assert after.predictor.simple is later
        assert after.predictor.model is model
        assert not later.training
        assert after.words("simple") == "simple, in the end of the training and the validation part"
        assert after.facts["rungs"]["simple"]["facts"] == {"trees": 3}
        assert after.facts["rungs"]["simple"]["validation"] == 1.0  # of before, held out
        assert before.words("simple") == "simple"
        assert after.seconds["simple"] > 0

    def test_a_model_that_cannot_be_fitted_again_stays(self) -> None:
        before = ladder("simple", ["naive", "simple"])
        assert refitted(before, torch.device("cpu")) is before


class TestWords:
    def test_smaller_errors_are_ratios_and_worse_is_said(self) -> None:
        values = {"naive": 2.0, "simple": 0.5, "model": 0.8}
        text = verdict(ladder("model", list(values)), scores(values), "forecast")
        assert text == (
            "Forecast by the model, the best. MSE 0.800: 2.5 times smaller than the naive (2.000), "
            "WORSE, 1.6 times larger than the simple (0.500)"
        )

    def test_differences_within_chance_are_level(self) -> None:
        values = {"naive": 0.8, "simple": 0.79}
        text = verdict(
            ladder("simple", list(values)), scores(values, spread=0.5, larger=True), "forecast"
        )
        assert text.endswith("AUC 0.790: level with the naive (0.800)")

    def test_metrics_hold_the_paired_gain_of_the_chosen_rung(self) -> None:
        values = {"naive": 2.0, "simple": 0.5}
        metrics = ladder_metrics(ladder("simple", list(values)), scores(values, spread=0.01))
        assert metrics["chosen"] == "simple"
        naive = metrics["rungs"]["naive"]  # pyright: ignore
        assert naive["gain_of_chosen"] == 1.5
        assert naive["gain_interval_95"] == pytest.approx([1.5, 1.5], abs=0.05)
