"""Every item comes out once, in its order, by the model and the input that the job began with: by
the tiny task.
"""

import json
import os
import shutil

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import exit_code, parse, run_verb
from headwise.tests.pipelines.engine.averages import call

ITEMS = 41


@pytest.fixture
def job(averages, tmp_path):
    """A task with a finished run, and a file of numbers to predict for."""
    task = averages()
    call(task, "train", run=tmp_path / "run", accelerator="cpu", epochs=1, bias=0.25)
    task.asked.clear()
    write(tmp_path, range(ITEMS))
    return task


def write(tmp_path, numbers, name="in.json"):
    path = tmp_path / name
    path.write_text(json.dumps(list(numbers)))
    os.utime(path, ns=(1_700_000_000_000_000_000,) * 2)  # the same time whenever it is written


def predict(task, tmp_path, output="o.parquet", **options):
    values = {
        "run": tmp_path / "run",
        "input": tmp_path / "in.json",
        "output": tmp_path / output,
        **options,
    }
    return call(task, "predict", **values)


def values_of(tmp_path, numbers, factor=1.0):
    weight = float(load_file(tmp_path / "run" / "model.safetensors")["weight"][0])
    return [step * factor * (number * weight + 0.25) for number in numbers for step in (1, 2)]


@pytest.mark.parametrize("size", [1, 7, 20, 40, 41, 42, 1000])
def test_every_item_comes_out_once_and_in_its_order(job, tmp_path, size):
    done = predict(job, tmp_path, shard_size=size)
    table = done.table()
    assert (done.items, done.failed, done.complete) == (ITEMS, 0, True)
    assert table["item"].to_list() == [f"n{k}" for k in range(ITEMS) for _ in range(2)]
    assert table["step"].to_list() == [1, 2] * ITEMS
    assert table["value"].to_list() == pytest.approx(values_of(tmp_path, range(ITEMS)))
    asked = [name for event in job.asked if event[0] == "predict" for name in event[1]]
    assert asked == [f"n{k}" for k in range(ITEMS)], "no item is predicted twice"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("o.")) == [
        "o.parquet",
        "o.parquet.account.json",
    ]


def test_items_that_fail_are_rows_in_their_place(job, tmp_path):
    numbers = [*range(10), None, *range(11, 30), "raise", *range(31, ITEMS)]
    write(tmp_path, numbers)
    options = parse(
        job.task,
        "predict",
        [],
        values={
            "run": tmp_path / "run",
            "input": tmp_path / "in.json",
            "output": tmp_path / "o.parquet",
            "shard_size": 20,
        },
    )
    assert exit_code(run_verb(job.task, "predict", options)) == 3
    table = pl.read_parquet(tmp_path / "o.parquet")
    wrong = table.filter(pl.col("status") == "error")
    assert dict(wrong.select("item", "error").rows()) == {
        "n10": "holds no number",
        "n30": "one of them upset the whole",
    }
    assert wrong["value"].null_count() == wrong["step"].null_count() == 2
    assert table["item"].unique(maintain_order=True).to_list() == [f"n{k}" for k in range(ITEMS)]
    good = table.filter(pl.col("status") == "ok")
    assert good["error"].null_count() == len(good)
    assert good["value"].to_list() == pytest.approx(
        values_of(tmp_path, [n for n in numbers if isinstance(n, int)])
    )
    assert predict(job, tmp_path, shard_size=20).failed == 2, (
        "a done output still says how many failed"
    )


def test_a_job_that_was_killed_does_what_is_left_only(job, tmp_path, capfd):
    unbroken = predict(job, tmp_path, "whole.parquet", shard_size=20).table()
    job.asked.clear()
    rows, calls = job._rows, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return rows(*arguments)

    job._rows = killed
    with pytest.raises(KeyboardInterrupt):
        predict(job, tmp_path, shard_size=20)
    job._rows = rows
    job.asked.clear()
    assert_frame_equal(predict(job, tmp_path, shard_size=20).table(), unbroken)
    assert [event[1] for event in job.asked] == [[f"n{k}" for k in range(20, 40)], ["n40"]]
    assert "20 of 41 items were done before" in capfd.readouterr().err


def parts_before_the_join(job, tmp_path):
    """Two of three shards, as a process of several leaves them."""
    plan = {"RANK": "0", "WORLD_SIZE": "2"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in plan.items():
            patch.setenv(name, value)
        done = predict(job, tmp_path, shard_size=20)
    assert not done.complete
    assert not (tmp_path / "o.parquet").exists()
    return sorted((tmp_path / "o.parquet.parts").glob("part-*"))


def test_ranks_share_the_shards(job, tmp_path):
    parts = parts_before_the_join(job, tmp_path)
    assert [path.name for path in parts] == ["part-00000.parquet", "part-00002.parquet"]
    assert predict(job, tmp_path, shard_size=20).complete
    assert [event[1][0] for event in job.asked] == ["n0", "n40", "n20"]


def test_parts_that_lost_an_item_are_not_joined(job, tmp_path):
    parts = parts_before_the_join(job, tmp_path)
    stamp = pl.read_parquet_metadata(parts[0])
    short = pl.read_parquet(parts[0]).filter(pl.col("item") != "n7")
    short.write_parquet(parts[0], metadata={**stamp, "headwise.items": "19"})
    with pytest.raises(InputError, match="its parts hold 40 of 41 items"):
        predict(job, tmp_path, shard_size=20)
    assert not (tmp_path / "o.parquet").exists()


def test_a_part_without_its_number_of_items_is_made_again(job, tmp_path):
    """As one of an earlier version."""
    parts = parts_before_the_join(job, tmp_path)
    stamp = pl.read_parquet_metadata(parts[0])
    del stamp["headwise.items"]
    pl.read_parquet(parts[0]).write_parquet(parts[0], metadata=stamp)
    assert len(predict(job, tmp_path, shard_size=20).table()) == 2 * ITEMS


def test_parts_of_another_model_are_made_again_where_nothing_says_whose_they_are(job, tmp_path):
    parts_before_the_join(job, tmp_path)
    (tmp_path / "o.parquet.parts" / "plan.json").unlink()
    another_calibration(tmp_path)
    job.asked.clear()
    predict(job, tmp_path, shard_size=20)
    assert [len(event[1]) for event in job.asked] == [20, 20, 1]


def other_number(tmp_path):
    write(tmp_path, [*range(ITEMS - 1), 99])  # of equal size and time: only the items tell


def another_time(tmp_path):
    os.utime(tmp_path / "in.json", ns=(1_700_000_001_000_000_000,) * 2)


def another_size(tmp_path):
    path = tmp_path / "in.json"
    path.write_text(path.read_text() + " ")
    os.utime(path, ns=(1_700_000_000_000_000_000,) * 2)


def another_weight(tmp_path):
    path = tmp_path / "run" / "model.safetensors"
    weights = load_file(path)
    weights["weight"][1] += 1e-3
    save_file(weights, path)


def another_calibration(tmp_path):
    save_file({"bias": torch.tensor(0.26)}, tmp_path / "run" / "calibration.safetensors")


def another_spec(tmp_path):
    path = tmp_path / "run" / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "width": 3}))


def another_ladder(tmp_path):
    """Of the model alone, so that the rows are the same."""
    rung = {"short": "m", "words": "m", "facts": {}, "validation": 1.0}
    facts = {"chosen": "model", "why": "w", "metric": "MSE", "rungs": {"model": rung}}
    (tmp_path / "run" / "ladder.json").write_text(json.dumps({**facts, "sha256": {}}))


CHANGES = [
    other_number,
    another_time,
    another_size,
    another_weight,
    another_calibration,
    another_spec,
    another_ladder,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("state", ["output", "parts"])
def test_rows_of_another_model_or_input_are_never_taken_for_done(job, tmp_path, change, state):
    if state == "parts":
        parts_before_the_join(job, tmp_path)
    else:
        predict(job, tmp_path, shard_size=20)
    change(tmp_path)
    with pytest.raises(InputError, match="made by another model"):
        predict(job, tmp_path, shard_size=20)
    again = predict(job, tmp_path, shard_size=20, overwrite=True).table()
    numbers = json.loads((tmp_path / "in.json").read_text())
    bias = float(load_file(tmp_path / "run" / "calibration.safetensors")["bias"])
    expected = [
        value + step * (bias - 0.25)
        for value, step in zip(values_of(tmp_path, numbers), [1, 2] * ITEMS)
    ]
    assert again["value"].to_list() == pytest.approx(expected)


@pytest.mark.parametrize(
    "options", [{"factor": 2.0}, {"shard_size": 10}, {"batch_size": 3}], ids=str
)
def test_other_options_of_the_rows_are_never_taken_for_done(job, tmp_path, options):
    predict(job, tmp_path, shard_size=20)
    with pytest.raises(InputError, match="already exists, made by another"):
        predict(job, tmp_path, **{"shard_size": 20, **options})


def test_options_that_change_no_row_leave_a_done_output_alone(job, tmp_path):
    predict(job, tmp_path)
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    job.asked.clear()
    assert (
        predict(job, tmp_path, run=tmp_path / "moved", accelerator="cpu", processes=2).items
        == ITEMS
    )
    assert not job.asked


def test_a_second_file_that_changes_is_seen(job, tmp_path):
    """Of an item that is read from more than one file."""
    (tmp_path / "second").write_text("one")
    items = job.list_items
    job.list_items = lambda *arguments: [
        {**item, "further_files": [str(tmp_path / "second")]} for item in items(*arguments)
    ]
    predict(job, tmp_path)
    (tmp_path / "second").write_text("another")
    with pytest.raises(InputError, match="already exists, made by another"):
        predict(job, tmp_path)


@pytest.mark.parametrize(
    ("part", "name", "rows"),
    [
        ("auto", "test", 3),
        ("train", "train", 10),
        ("validation", "validation", 5),
        ("test", "test", 3),
    ],
)
def test_evaluate_scores_the_part_that_it_is_asked_for(job, tmp_path, part, name, rows):
    metrics = call(job, "evaluate", run=tmp_path / "run", part=part)
    assert (metrics["rows"], metrics["part"], metrics["bias"]) == (rows, name, 0.25)
    assert [event for event in job.asked if event[0] == "review"] == [("review", name, False)]
    weight = load_file(tmp_path / "run" / "model.safetensors")["weight"].numpy()
    part_rows = json.loads((tmp_path / "run" / "sample" / "rows.json").read_text())[name]
    expected = sum(((weight - row) ** 2).sum() for row in part_rows) / rows
    assert metrics["distance"] == pytest.approx(expected, rel=1e-5)
    assert json.loads((tmp_path / "run" / f"evaluation-{name}.json").read_text())["rows"] == rows


def test_evaluate_scores_all_of_other_data_unless_a_part_is_named(job, tmp_path):
    data = {"train": [[1, 2]] * 4, "validation": [[3, 4]] * 2, "test": [[5, 6]]}
    (tmp_path / "other.json").write_text(json.dumps(data))
    metrics = call(job, "evaluate", run=tmp_path / "run", data=tmp_path / "other.json")
    assert (metrics["rows"], metrics["part"]) == (7, "all")
    metrics = call(
        job, "evaluate", run=tmp_path / "run", data=tmp_path / "other.json", part="validation"
    )
    assert (metrics["rows"], metrics["part"]) == (2, "validation")
    assert metrics["data"] == str(tmp_path / "other.json")
