"""A comparison trains on the training part, scores on the test part, pairs equal seeds: by the tiny
task.
"""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.experiments.compare import Plan, compare_variants
from headwise.pipelines.engine.experiments.jobs import Job
from headwise.pipelines.engine.experiments.table import Training, summarise, t_interval
from headwise.tests.pipelines.engine.averages import Averages, AveragesOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(AveragesOptions):
    """Compare."""

    output: str = ""
    """Folder."""
    models: tuple[str, ...] = ("slow", "quick")
    """Variants."""
    seeds: int = 3
    """Seeds."""


class Compared(Averages):
    """The tiny task with `train` as the verb that has the options of a comparison."""

    train_options = CompareOptions


VARIANTS = {"slow": {}, "quick": {"lr": 0.3}}


def scored(trained):
    """The distance from the rows of the test part, and which seed and rate it was trained with."""
    test, options, model = trained.splits.test, trained.options, trained.model
    test.asked.append(("score", trained.variant, options.seed, options.lr, model.training))
    distance = float((model.weight.detach() - test.rows).double().square().sum(1).mean())
    return {trained.variant: {"distance": distance, "seed": float(options.seed)}}


def compare(pipeline, tmp_path, **values):
    values = {"output": tmp_path / "c", "noise": 0.2, "seed": 5, "accelerator": "cpu", **values}
    options = parse(pipeline.task, "train", [], values=values)
    plan = Plan(
        output=options.output,
        seeds=options.seeds,
        variants={name: VARIANTS[name] for name in options.models},
        score=scored,
    )
    return compare_variants(
        pipeline,
        options,
        plan,
        baseline="slow",
        untrained=lambda splits: {"floor": {"distance": 9.0}},
        title="Averages",
        unit="rows",
    )


def test_every_variant_is_trained_by_its_options_and_seeds_and_scored_on_the_test_part(tmp_path):
    pipeline = Compared()
    table = compare(pipeline, tmp_path)
    scores = [call[1:] for call in pipeline.asked if call[0] == "score"]
    assert scores == [
        (name, seed, rate, False)
        for seed in (5, 6, 7)
        for name, rate in (("slow", 0.1), ("quick", 0.3))
    ]
    read = {call[1] for call in pipeline.asked if call[0] == "row"}
    assert read == {"train", "validation"}, "the test part is for the scores alone"
    stored = {
        name: [
            json.loads((tmp_path / "c" / "trainings" / f"{name}-seed{seed}.json").read_text())
            for seed in (5, 6, 7)
        ]
        for name in ("slow", "quick")
    }
    assert all(
        training["scores"][name]["seed"] == training["seed"]
        for name, trainings in stored.items()
        for training in trainings
    )
    distances = {
        name: np.array([training["scores"][name]["distance"] for training in trainings])
        for name, trainings in stored.items()
    }
    assert len(set(distances["slow"])) == 3
    slow, quick, floor = table.rows(named=True)
    for row, name in ((slow, "slow"), (quick, "quick")):
        assert row["distance"] == pytest.approx(distances[name].mean())
        assert row["distance_sd"] == pytest.approx(distances[name].std(ddof=1))
    gaps = distances["quick"] - distances["slow"]
    assert quick["shift"] == pytest.approx(gaps.mean())
    assert (quick["low"], quick["high"]) == pytest.approx(t_interval(gaps))
    assert quick["low"] < quick["shift"] < quick["high"]
    assert np.isnan(slow["shift"])
    assert (floor["model"], floor["seeds"], floor["distance"]) == ("floor", 0, 9.0)
    assert pl.read_csv(tmp_path / "c" / "comparison.csv")["model"].to_list() == [
        "slow",
        "quick",
        "floor",
    ]


def test_trainings_that_stand_are_not_made_again_and_those_of_other_options_are_refused(tmp_path):
    first = compare(Compared(), tmp_path, seeds=2)
    pipeline = Compared()
    again = compare(pipeline, tmp_path, seeds=3)
    assert [call[1:3] for call in pipeline.asked if call[0] == "score"] == [
        ("slow", 7),
        ("quick", 7),
    ]
    assert again["distance"][0] != first["distance"][0]
    for changed in ({"noise": 0.3}, {"epochs": 4}, {"batch_size": 5}):
        with pytest.raises(InputError, match="is of other options or data"):
            compare(Compared(), tmp_path, seeds=2, **changed)


def test_a_data_set_without_validation_is_scored_by_its_last_weights(tmp_path):
    data = {"train": [[1.0, 0.0], [0.0, 1.0]], "validation": [], "test": [[0.0, 0.0]]}
    (tmp_path / "rows.json").write_text(json.dumps(data))
    compare(
        Compared(),
        tmp_path,
        data=tmp_path / "rows.json",
        models=("slow",),
        seeds=1,
        epochs=50,
        noise=0.0,
    )
    stored = json.loads((tmp_path / "c" / "trainings" / "slow-seed5.json").read_text())
    assert stored["epochs"] == 50
    assert stored["scores"]["slow"]["distance"] == pytest.approx(0.5, abs=0.1)


def test_a_row_that_a_variant_adds_is_paired_by_its_seeds():
    trainings = {
        Job(name, seed): Training(
            {name: {"score": value}, f"{name}+": {"score": value + 1}},
            epochs=1,
            weights=3,
            seconds=2.0,
        )
        for name, values in (("a", (1.0, 4.0)), ("b", (3.0, 7.0)))
        for seed, value in enumerate(values)
    }
    rows = {row["model"]: row for row in summarise(trainings, {}, "a").rows(named=True)}
    assert list(rows) == ["a", "a+", "b", "b+"]
    assert [rows[name]["shift"] for name in ("a+", "b", "b+")] == [1.0, 2.5, 3.5]
    assert [rows[name]["score"] for name in rows] == [2.5, 3.5, 5.0, 6.0]
