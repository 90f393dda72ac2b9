"""A run opened from Python, and trainings in memory, which must be those of `train`."""

import json
import os

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.series.generate import sample_series, write_wide
from headwise.pipelines.engine.inference import shards
from headwise.pipelines.engine.runs import loaded
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.training.quick import fit
from headwise.pipelines.forecast.options import ForecastOptions

SMALL = {
    "horizon": 12,
    "lookback": 24,
    "width": 16,
    "core": 8,
    "feedforward": 16,
    "layers": 1,
    "epochs": 2,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_wide(sample_series(rows=600, channels=3), folder / "wide.csv")
    return pipelines.forecast.train(data=folder / "wide.csv", run=folder / "run", **SMALL)


@pytest.fixture
def run(trained):
    return headwise.open(trained.path)


def test_a_run_knows_its_task_and_predicts_what_the_verb_predicts(run, trained):
    assert run.task.name == "forecast"
    data = trained.config()["data"]
    expected = pl.read_parquet(trained.path / "predictions.parquet")
    assert_frame_equal(run.predict(data), expected)
    assert_frame_equal(run.predict([data, data]), pl.concat([expected, expected]))


def test_items_are_predicted_as_they_are_listed(run, trained, tmp_path):
    options = run.task.predict_options(
        run=str(trained.path), input=trained.config()["data"], output="o"
    )
    (item,) = run.pipeline.list_items(options, run.loaded.spec)
    table = run.predict([item], output=tmp_path / "o.parquet")
    assert_frame_equal(table, run.predict(trained.config()["data"]))
    assert_frame_equal(pl.read_parquet(tmp_path / "o.parquet"), table)


def test_a_path_with_an_output_is_the_verb_predict(run, trained, tmp_path):
    run.predict(trained.config()["data"], tmp_path / "o.parquet", shard_size=7)
    run.predict(trained.config()["data"], tmp_path / "o.parquet", shard_size=7)  # done already
    with pytest.raises(InputError, match="made by another model or input"):
        run.predict(trained.config()["data"], tmp_path / "o.parquet", shard_size=8)


def test_a_path_with_an_output_loads_the_run_once(run, trained, tmp_path, monkeypatch):
    loads = []

    def counting(*arguments):
        loads.append(arguments)
        return load_run(*arguments)

    for module in (loaded, shards):
        monkeypatch.setattr(module, "load_run", counting)
    data = trained.config()["data"]
    first, second = (run.predict(data, tmp_path / f"{name}.parquet") for name in "ab")
    assert_frame_equal(first, second)
    assert len(loads) == 1
    os.utime(trained.path / "model.safetensors")  # as after further training
    run.predict(data, tmp_path / "c.parquet")
    run.predict(data, tmp_path / "c.parquet")  # done already
    assert len(loads) == 2
    headwise.open(trained.path).predict(data, tmp_path / "c.parquet")  # nothing to load for
    assert len(loads) == 2
    run.predict(data, tmp_path / "d.parquet", accelerator="cpu")
    assert len(loads) == 3


def test_evaluate_and_export_are_the_verbs(run, trained, tmp_path):
    metrics = json.loads((trained.path / "metrics.json").read_text())
    scored = run.evaluate()
    assert {name: scored[name] for name in metrics} == metrics
    assert run.evaluate(part="validation")["part"] == "validation"
    path = run.export(tmp_path / "model.pt2")
    arguments, _ = run.pipeline.export_example(
        run.loaded.model, run.pipeline.open_data(run.loaded.options, run.loaded.spec)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            torch.export.load(path).module()(*arguments), run.loaded.model(*arguments)
        )


def test_mistakes_are_named(run, trained, tmp_path):
    with pytest.raises(InputError, match="did you mean batch_size"):
        run.predict(trained.config()["data"], bach_size=3)
    with pytest.raises(InputError, match="no items"):
        run.predict([])
    with pytest.raises(InputError, match="no such run"):
        headwise.open(tmp_path / "x")
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "environment.json").write_text('{"task": "cooking"}')
    with pytest.raises(InputError, match="task 'cooking', which is unknown"):
        headwise.open(tmp_path)


def test_a_training_in_memory_gives_the_weights_of_the_run(run, trained):
    pipeline, options = run.pipeline, ForecastOptions(data=trained.config()["data"], **SMALL)
    splits = pipeline.open_data(options)
    model, facts = fit(
        pipeline,
        options,
        splits.train,
        splits.spec,
        torch.device("cpu"),
        validation=splits.validation,
    )
    expected = load_file(trained.path / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    history = pl.read_csv(trained.path / "history.csv")
    best = history.filter(pl.col("val_mse") == history["val_mse"].min()).row(-1, named=True)
    assert facts == {
        "epochs": len(history),
        "steps": history["step"][-1],
        "best_epoch": best["epoch"],
        "validation_mse": best["val_mse"],
    }


def test_a_training_in_memory_without_validation_keeps_the_last_weights(run, trained):
    pipeline, options = run.pipeline, ForecastOptions(data=trained.config()["data"], **SMALL)
    splits = pipeline.open_data(options)
    model, facts = fit(pipeline, options, splits.train, splits.spec, torch.device("cpu"))
    best, _ = fit(
        pipeline,
        options,
        splits.train,
        splits.spec,
        torch.device("cpu"),
        validation=splits.validation,
    )
    assert facts == {"epochs": 2, "steps": facts["steps"]}
    newest = load_file(
        sorted((trained.path / "checkpoints").glob("step-*"))[-1] / "model.safetensors"
    )
    assert all(torch.equal(value, newest[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert not best.training


def test_a_loss_that_is_not_finite_ends_a_training_in_memory(run, trained):
    options = ForecastOptions(data=trained.config()["data"], **{**SMALL, "lr": 1e25})
    splits = run.pipeline.open_data(options)
    with pytest.raises(InputError, match=r"the loss became .* at step \d+; try a smaller --lr"):
        fit(run.pipeline, options, splits.train, splits.spec, torch.device("cpu"))
