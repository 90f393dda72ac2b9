"""Which rows a training sees, and which numbers leave it: held of every task by one run of each."""

import csv
import dataclasses
import json
import os
import re
import shutil
import typing
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.inference.plan import make_plan
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.tests.contract import from_predictions
from headwise.tests.contract.conftest import UNTRAINED, sample_of

CLOSE = 1e-6


def opened(task, path):
    """The parts of the run's own data."""
    loaded = load_run(task.load(), str(path), "cpu")
    return task.load().open_data(
        dataclasses.replace(loaded.options, data=str(sample_of(path))), loaded.spec
    )


def fingerprint(task, options):
    """By which a prediction knows rows that it may keep."""
    return make_plan(task.load(), options).fingerprint


def value_of(metrics, name):
    for part in name.split("/"):
        metrics = metrics[part]
    return float(metrics)


def of_tasks(*names):
    """Mark of a test that is of these tasks alone."""
    return pytest.mark.parametrize("run_of_task", names, indirect=True)


def test_no_row_of_the_test_part_is_read_before_the_final_review(run_of_task):
    assert run_of_task.early_reads == []


@of_tasks(*from_predictions.OF)
def test_predictions_of_the_test_rows_give_the_metrics(trained):
    task, path = trained
    rows = pl.read_parquet(path / "predictions.parquet")
    assert set(rows["status"]) == {"ok"}
    metrics = json.loads((path / "metrics.json").read_text())
    recomputed = from_predictions.OF[task.name](rows, opened(task, path), sample_of(path))
    stored = {name: value_of(metrics, name) for name in recomputed}
    assert recomputed == pytest.approx(stored, abs=CLOSE)


@of_tasks("forecast")
def test_forecasts_of_a_table_cut_short_are_those_of_its_windows(trained, tmp_path):
    """The table cut at the start of each window's future: its forecasts are as far off as
    `evaluate` says of them.
    """
    _, path = trained
    spec = json.loads((path / "spec.json").read_text())
    table = pl.read_csv(sample_of(path))
    windows = 5
    last = table[-(spec["lookback"] + spec["horizon"] + windows - 1) :]
    last.write_csv(tmp_path / "truth.csv")
    (tmp_path / "cut").mkdir()
    for start in range(windows):
        last[: start + spec["lookback"]].write_csv(tmp_path / "cut" / f"{start}.csv")
    metrics = pipelines.forecast.evaluate(run=path, data=tmp_path / "truth.csv")
    rows = pipelines.forecast.predict(
        run=path, input=tmp_path / "cut", output=tmp_path / "o.parquet"
    ).table()
    deviation = np.array(spec["scaler"]["std"])
    errors, inside, widths = [], {80: [], 95: []}, {80: [], 95: []}
    for start in range(windows):
        of_file = rows.filter(pl.col("item") == f"{start}.csv")
        truth = last[start + spec["lookback"] :][: spec["horizon"]]
        for place, channel in enumerate(spec["channels"]):
            of_channel = of_file.filter(pl.col("channel") == channel).sort("step")
            assert of_channel["step"].to_list() == list(range(1, spec["horizon"] + 1))
            assert of_channel["time"].dt.strftime("%Y-%m-%d %H:%M:%S").to_list() == [
                str(moment)[:19].replace("T", " ") for moment in truth[truth.columns[0]]
            ]
            came = truth[channel].to_numpy()
            errors.append((of_channel["forecast"].to_numpy() - came) / deviation[place])
            for level in inside:
                low, high = (
                    of_channel[f"lower_{level}"].to_numpy(),
                    of_channel[f"upper_{level}"].to_numpy(),
                )
                np.testing.assert_allclose((low + high) / 2, of_channel["forecast"], rtol=1e-9)
                inside[level].append((low <= came) & (came <= high))
                widths[level].append((high - low) / deviation[place])
    assert metrics["windows"] == windows
    assert metrics["mse"] == pytest.approx(np.square(errors).mean(), rel=1e-4)
    assert metrics["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    intervals = {round(100 * interval["level"]): interval for interval in metrics["intervals"]}
    assert intervals.keys() == inside.keys()
    for level, interval in intervals.items():
        assert interval["coverage"] == pytest.approx(np.mean(inside[level]), abs=1e-3)
        assert interval["mean_width"] == pytest.approx(np.mean(widths[level]), rel=1e-5)
    assert np.mean(widths[80]) < np.mean(widths[95])


VALIDATED = {
    "forecast": {"val_mse": "mse", "val_mae": "mae"},
    "wsi": {"val_loss": "log_loss", "val_auc": "auc"},
    "medical": {"val_auc": "auc"},
    "recordings": {"val_accuracy": "accuracy", "val_balanced_accuracy": "balanced_accuracy"},
    "ranking": {"val_auc": "click/auc like/auc"},  # the logits are calibrated after the training
}


@of_tasks(*VALIDATED)
def test_evaluating_the_validation_part_gives_the_score_of_the_best_epoch(
    trained, headwise, tmp_path
):
    """Of the domain model, whatever predicts."""
    task, run = trained
    path = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    if (facts := path / "ladder.json").exists():
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"chosen": "model"}))
    assert headwise(task.name, "evaluate", "--run", path, "--part", "validation")[0] == 0
    metrics = json.loads((path / "evaluation-validation.json").read_text())
    with (path / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    for name, of in VALIDATED[task.name].items():
        expected = np.mean([value_of(metrics, key) for key in of.split()])
        assert float(row[name]) == pytest.approx(expected, abs=1e-5), name


def test_every_item_of_the_input_comes_out_once_and_in_order(trained):
    task, path = trained
    sample = sample_of(path)
    home = sample if sample.is_dir() else sample.parent
    files = {
        "finetune": "generated-answers.jsonl",
        "forecast": "generated.csv",
        "longcontext": "generated-prompts.jsonl",
        "medical": "pictures/*.png",
        "ranking": "generated.csv",
        "recordings": "*.wav",
        "reasoning": "generated-trials.jsonl",
        "reid": "**/*.jpg",
        "saliency": "**/RGB/*.jpg",
        "speech": "*.wav",
        "text": "generated-messages.jsonl",
        "wsi": "*.tiff",
    }
    expected = sorted(file.relative_to(home).as_posix() for file in home.glob(files[task.name]))
    items = (
        pl.read_parquet(path / "predictions.parquet")["item"].unique(maintain_order=True).to_list()
    )
    plain = list(dict.fromkeys(name.split(":")[0] for name in items))
    if task.name in ("speech", "wsi"):  # named without their ending
        plain, expected = ([Path(name).stem for name in names] for names in (plain, expected))
    assert plain == expected


def changed(value, kind):
    """Another value of an option of this kind; None where none is known."""
    choices = typing.get_args(kind)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + (1 if isinstance(value, int) else 0.125)
    if isinstance(value, str) and choices and value in choices:
        return next(choice for choice in choices if choice != value)
    return None


def test_the_fingerprint_of_a_prediction_sees_weights_calibration_spec_and_every_option_of_its_rows(
    trained, tmp_path
):
    task, path = trained
    run = shutil.copytree(
        path, tmp_path / "run", ignore=shutil.ignore_patterns("sample", "checkpoints", "*.maps")
    )
    options = parse(
        task,
        "predict",
        [],
        values={"run": run, "input": sample_of(path), "output": tmp_path / "o.parquet"},
    )
    first = fingerprint(task, options)
    assert (
        fingerprint(task, dataclasses.replace(options, run=str(path), processes=2, overwrite=True))
        == first
    )
    hints = typing.get_type_hints(type(options))
    tried = 0
    for option in dataclasses.fields(options):
        other_value = changed(getattr(options, option.name), hints[option.name])
        if (
            option.name in ("engine", "processes", "overwrite", "accelerator")
            or other_value is None
        ):
            continue
        try:
            changed_fingerprint = fingerprint(
                task, dataclasses.replace(options, **{option.name: other_value})
            )
        except InputError:  # refused for this run
            continue
        assert changed_fingerprint != first, option.name
        tried += 1
    assert tried >= 2
    for name in ("model.safetensors", "calibration.safetensors"):
        before = (run / name).read_bytes()
        tensors = load_file(run / name)
        if not tensors:
            continue
        last = list(tensors)[-1]
        tensors[last] = (tensors[last].double() + 1).to(tensors[last].dtype)
        save_file(tensors, run / name)
        assert fingerprint(task, options) != first, name
        (run / name).write_bytes(before)
    spec = json.loads((run / "spec.json").read_text())
    facts = {**spec["input"], "more": "1"}
    (run / "spec.json").write_text(json.dumps({**spec, "input": facts}))
    assert fingerprint(task, options) != first
    (run / "spec.json").write_text(json.dumps(spec))
    assert fingerprint(task, options) == first


def later(file: Path) -> None:
    """Give a file another time, as a new content of equal size has."""
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def inputs_of(name: str, sample: Path, home: Path):
    """Options of a prediction, and the files that its rows come from: those that --input names, and
    others.
    """
    if name in ("forecast", "ranking"):
        first = Path(shutil.copy(sample.with_suffix(".csv"), home / "one.csv"))
        second = Path(shutil.copy(first, home / "two.csv"))
        return (
            ({"input": first, "log": second}, [first, second])
            if name == "ranking"
            else ({"input": first}, [first])
        )
    if name in ("finetune", "longcontext", "reasoning", "text"):
        table = Path(shutil.copy(sample, home / "one.jsonl"))
        return {"input": table}, [table]
    copy = Path(shutil.copytree(sample if sample.is_dir() else sample.parent, home / "in"))
    if name == "saliency":
        return {"input": copy}, [next(copy.glob("test/RGB/*")), next(copy.glob("test/depth/*"))]
    if name == "medical":
        return {"input": copy / "labels.csv"}, [copy / "pictures" / "generated-002.png"]
    if name == "reid":
        pictures = sorted(copy.glob("query/*.jpg"))
        table = home / "table.csv"
        table.write_text("\n".join(["image", *(path.name for path in pictures)]))
        return {"input": table, "images": copy / "query"}, [pictures[1]]
    if name == "wsi":
        features = next(copy.glob("features-*")).rename(home / "features")
        (home / "none").mkdir()
        return {
            "input": copy / "labels.csv",
            "features": features,
            "slides": home / "none",
        }, sorted(features.glob("*.h5"))[:1]
    return {"input": copy}, [next(copy.glob("*.wav"))]


def test_the_fingerprint_of_a_prediction_sees_every_file_that_its_rows_come_from(trained, tmp_path):
    task, path = trained
    inputs, files = inputs_of(task.name, sample_of(path), tmp_path)
    options = parse(
        task, "predict", [], values={"run": path, "output": tmp_path / "o.parquet", **inputs}
    )
    marks = [fingerprint(task, options)]
    assert fingerprint(task, options) == marks[0]
    for file in files:
        later(file)
        marks.append(fingerprint(task, options))
    assert len(set(marks)) == len(files) + 1


def test_the_weights_of_the_run_are_those_of_its_best_checkpoint(trained):
    task, path = trained
    if task.name in UNTRAINED:
        pytest.skip("nothing is trained: what `Pipeline.complete` makes is in no checkpoint")
    stored = load_file(path / "checkpoints" / "step-000000002" / "model.safetensors")
    of_run = load_file(path / "model.safetensors")
    for name, weight in stored.items():
        # What `Pipeline.complete` changes: the scale of a click model's logits.
        if task.name != "ranking" or not re.fullmatch(r"towers\.towers\.\d\.1\.\w+", name):
            torch.testing.assert_close(of_run[name], weight, rtol=0, atol=0)
    # What it adds: the mean vectors of re-identification.
    assert all(name.startswith("centre_") for name in of_run.keys() - stored.keys())


# What early stopping goes by, from the other figures of an epoch: smaller is better for each of
# them.
MONITORS = {
    "forecast": lambda row: row["val_mse"],
    "ranking": lambda row: 1 - row["val_auc"],
    "reid": lambda row: 1 - row["val_mAP"],
    "saliency": lambda row: (row["val_mae"] + 1 - row["val_s_measure"]) / 2,
}


@of_tasks(*MONITORS)
def test_what_early_stopping_goes_by_falls_as_the_model_gets_better(trained):
    task, path = trained
    with (path / "history.csv").open() as file:
        (row,) = (
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
        )
    assert row[f"val_{task.load().monitor}"] == pytest.approx(MONITORS[task.name](row), abs=1e-9)


def rows_and_groups(name, part):
    """The names of a part's rows, and the groups that must stay together."""
    if name in ("medical", "saliency"):
        return part.column("names"), part.column("patients" if name == "medical" else "groups")
    if name == "reid":
        return part.names(), [Path(item).name.split("_")[0] for item in part.names()]
    if name == "speech":
        return [item.name for item in part.utterances], [item.speaker for item in part.utterances]
    if name == "finetune":
        return [d.id for d in part.dialogues], [d.group for d in part.dialogues]
    if name == "longcontext":
        return [p.id for p in part.prompts], [p.group for p in part.prompts]
    if name == "text":
        return part.table.ids, part.table.groups
    if name == "recordings":
        return part.names, part.speakers
    return (
        (part.names, part.patients.tolist())
        if name == "wsi"
        else (part.which.tolist(), part.which.tolist())
    )


@of_tasks(
    "finetune",
    "longcontext",
    "medical",
    "ranking",
    "recordings",
    "reid",
    "saliency",
    "speech",
    "text",
    "wsi",
)
def test_every_row_is_in_one_part_and_no_group_is_in_two(trained):
    task, path = trained
    splits = opened(task, path)
    parts = [
        rows_and_groups(task.name, getattr(splits, name))
        for name in ("train", "validation", "test")
    ]
    rows = [row for names, _ in parts for row in names]
    assert len(rows) == len(set(rows)) == len(pl.read_parquet(path / "predictions.parquet"))
    groups = [set(groups_of_part) for _, groups_of_part in parts]
    assert all(groups)
    assert sum(map(len, groups)) == len(set().union(*groups))


@of_tasks("forecast")
def test_what_is_forecast_in_one_part_comes_after_all_rows_of_the_part_before(trained):
    task, path = trained
    splits = opened(task, path)
    lookback = json.loads((path / "spec.json").read_text())["lookback"]
    table = pl.read_csv(sample_of(path), try_parse_dates=True)
    train, validation, test = (
        part.times[0] for part in (splits.train, splits.validation, splits.test)
    )
    futures = np.concatenate([train, validation[lookback:], test[lookback:]])
    assert (
        futures.astype("datetime64[s]") == table["date"].to_numpy().astype("datetime64[s]")
    ).all()
