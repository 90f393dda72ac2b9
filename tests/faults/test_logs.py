"""Faults of event logs: kills while click models are trained, compared, scored and listed."""

from pathlib import Path

import polars as pl
import pytest

from headwise.data.clicks.generate import click_log, write_sample_clicks

SMALL = ["--width", "8", "--layers", "1", "--towers", "8", "--batch-size", "128"]
# Each with a state of its own: two optimisers, rows of embeddings updated alone, a form without one
# part.
RECIPES = {
    "adagrad": ["--embedding-optimizer", "adagrad", "--embedding-lr", "0.05"],
    "sparse": ["--sparse", "yes"],
    "sparse adagrad": ["--sparse", "yes", "--embedding-optimizer", "adagrad"],
    "no gates": ["--no-gated", "--dropout", "0.1"],
    "from a run": ["--from", "RUN"],
}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return write_sample_clicks(tmp_path_factory.mktemp("log"), rows=2_000)


@pytest.fixture(scope="module")
def run(launch, log, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    code, command = launch.run(
        "ranking", "train", "--data", log, "--run", folder, "--epochs", "1", *SMALL
    )
    assert code == 0, command.text()
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_f14_kill_while_training(tally, launch, log, run, tmp_path, recipe):
    words = ["ranking", "train", "--data", log, "--epochs", "2", "--checkpoint-every", "5", *SMALL]
    words += [run if word == "RUN" else word for word in RECIPES[recipe]]
    code, command = launch.run(*words, "--run", tmp_path / "whole")
    assert code == 0, command.text()
    broken = launch.run(
        *words,
        "--run",
        tmp_path / "o",
        die_at=("headwise.pipelines.engine.training.loop", "Trainer._step", 18),
    )
    code, command = launch.run(*words, "--run", tmp_path / "o", "--resume")
    same = code == 0 and all(
        (tmp_path / "o" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes()
        for n in ("model.safetensors", "predictions.parquet")
    )
    ok = (broken[0], code) == (-9, 0) and same
    tally("F14 SIGKILL while a click model is trained", ok, f"{recipe}: {command.text()}")


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_f14_kill_while_scoring_a_table(tally, launch, run, tmp_path, dice, tries):
    click_log(400_000, 120, 200, seed=1).write_parquet(tmp_path / "rows.parquet")
    words = [
        "ranking",
        "predict",
        "--run",
        run,
        "--input",
        tmp_path / "rows.parquet",
        "--shard-size",
        "1",
    ]
    code, command = launch.run(*words, "--output", tmp_path / "whole.parquet")
    assert code == 0, command.text()
    expected = (tmp_path / "whole.parquet").read_bytes()
    for attempt in tries:
        output = tmp_path / f"{attempt}.parquet"
        parts, shards = Path(f"{output}.parts"), dice.randint(0, 6)
        killed = launch.kill_when(
            [*words, "--output", output],
            lambda: len(list(parts.glob("*.parquet"))) >= shards,  # noqa: B023  (called within the same turn)
            dice.uniform(0, 0.1),
        )
        if not killed:
            continue
        tries.done += 1
        code, command = launch.run(*words, "--output", output)
        ok = code == 0 and output.read_bytes() == expected and not parts.exists()
        tally("F14 SIGKILL while a table is scored", ok, command.text())


def test_f14_kill_while_lists_are_made(tally, launch, run, tmp_path):
    """Inside the joining of the parts, the moment at which most lies on the disk."""
    words = ["ranking", "top", "--run", run, "--k", "5"]
    code, command = launch.run(*words, "--output", tmp_path / "whole.parquet")
    assert code == 0, command.text()
    output = tmp_path / "o" / "lists.parquet"
    output.parent.mkdir()
    first, _ = launch.run(
        *words, "--output", output, die_at=("polars", "LazyFrame.sink_parquet", 1)
    )
    temporaries = list(output.parent.glob(".*"))
    code, command = launch.run(*words, "--output", output)
    ok = (
        (first, code) == (-9, 0)
        and bool(temporaries)
        and [path.name for path in output.parent.iterdir()] == [output.name]
    )
    ok = ok and pl.read_parquet(output).equals(pl.read_parquet(tmp_path / "whole.parquet"))
    tally("F14 SIGKILL while lists are made", ok, command.text())


def test_f14_kill_between_trainings_of_a_comparison(tally, launch, log, tmp_path):
    def words(output):
        return [
            "ranking",
            "compare",
            "--data",
            log,
            "--output",
            output,
            "--models",
            "dcnv2",
            "shared-bottom",
            "--seeds",
            "2",
            "--epochs",
            "1",
            "--hidden",
            "16",
            *SMALL,
        ]

    code, command = launch.run(*words(tmp_path / "whole"))
    assert code == 0, command.text()
    first, _ = launch.run(
        *words(tmp_path / "o"),
        die_at=("headwise.pipelines.engine.experiments.jobs", "write_json", 3),
    )
    code, command = launch.run(*words(tmp_path / "o"))
    tables = [
        pl.read_csv(tmp_path / name / "comparison.csv").drop("seconds") for name in ("o", "whole")
    ]
    same = tables[0].equals(tables[1])
    ok = (first, code) == (-9, 0) and same and "2 of 4 trainings were done before" in command.text()
    tally("F14 SIGKILL between trainings of a comparison", ok, command.text())
