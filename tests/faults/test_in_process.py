"""Faults that need no kill: they are put in by hand, in this process."""

import contextlib
import csv
import json
import math
import subprocess
import warnings

import pytest
import torch

from headwise.base.files import checksum
from headwise.pipelines.engine.runs import checkpoint
from headwise.pipelines.engine.training.loop import Trainer
from headwise.pipelines.forecast.pipeline import ForecastPipeline


@pytest.fixture
def small(train):
    return [*train, "--epochs", "1", "--max-steps", "12"]


def test_f6_a_worker_dies_in_the_middle_of_a_step(tally, headwise, small, tmp_path, monkeypatch):
    """Torch raises in its handler of SIGCHLD, wherever the training is just then."""

    def step(*_):
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    monkeypatch.setattr(Trainer, "_step", step)
    code, lines = headwise(*small, "--run", tmp_path / "run")
    assert "a loader process died" in lines[-1], lines
    tally("F6 dead loader worker", code == 2 and "Traceback" not in "".join(lines), lines)


def test_f6_a_workers_death_arrives_while_its_broken_connection_is_handled(
    tally, headwise, small, tmp_path, monkeypatch
):
    """The connection breaks first, and torch's handler of SIGCHLD raises in ours."""
    loader_died, calls = Trainer._loader_died, []

    def step(*_):
        raise ConnectionResetError("Connection reset by peer")

    def interrupted(trainer, error):
        calls.append(error)
        if len(calls) == 1:
            raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")
        return loader_died(trainer, error)

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(Trainer, "_loader_died", interrupted)
    code, lines = headwise(*small, "--run", tmp_path / "run")
    assert "a loader process died (DataLoader worker (pid 5)" in lines[-1], lines
    tally("F6 dead loader worker", code == 2 and "Traceback" not in "".join(lines), lines)


def test_f7_one_bad_batch_is_skipped_and_counted(tally, headwise, small, tmp_path, monkeypatch):
    loss, calls = ForecastPipeline.loss, []

    def poisoned(self, *arguments):
        calls.append(1)
        return loss(self, *arguments) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(ForecastPipeline, "loss", poisoned)
    run = tmp_path / "run"
    code, lines = headwise(*small, "--run", run, "--nan", "skip")
    (entry,) = json.loads((run / "nan.json").read_text())
    with (run / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    newest = checkpoint.load_newest(run / "checkpoints")
    assert newest is not None
    ok = (
        code == 0
        and entry["step"] == 3
        and len(entry["samples"]) == 8
        and newest["progress"]["skipped"] == 1
    )
    ok = (
        ok
        and newest["progress"]["skipped_in_a_row"] == 0
        and math.isfinite(float(row["train_loss"]))
    )
    tally(
        "F7 loss that is not finite", ok and any("batch skipped" in line for line in lines), lines
    )


def weights(value):
    return {"w": torch.full((4,), float(value))}, {"state": {}, "param_groups": []}, {}


def test_f5_a_damaged_newest_does_not_outlive_the_next_save(tally, tmp_path):
    """With --keep 1, the damaged one must not be kept as the newest in place of the one just
    written.
    """
    for step in (10, 20):
        checkpoint.save(tmp_path, step, *weights(step))
    (tmp_path / "step-000000020" / "state.json").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = checkpoint.load_newest(tmp_path)
        assert state is not None
        assert state["step"] == 10
    checkpoint.save(tmp_path, 15, *weights(15))  # resumed with another --checkpoint-every
    checkpoint.prune(tmp_path, 1, None)
    state = checkpoint.load_newest(tmp_path)
    tally("F5 damaged newest checkpoint", state is not None and state["step"] == 15, state)


@pytest.fixture
def disk(tmp_path):
    """A file system of 400 kB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here (needs root on Linux)")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_f4_a_small_disk_runs_full(tally, headwise, small, disk):
    """ENOSPC from the file system itself: in the tensors of a checkpoint first, then in a small
    text file.
    """
    run, filler = disk / "run", disk / "filler"
    code, lines = headwise(*small, "--run", run, "--width", "128")
    error_lines = [line for line in lines if line.startswith("headwise: ")]
    ok = (
        code == 2
        and len(error_lines) == 1
        and str(run / "checkpoints") in error_lines[0]
        and "No space left" in error_lines[0]
    )
    names = [path.name for path in (run / "checkpoints").iterdir()]
    tally(
        "F4 disk full while a checkpoint is saved",
        ok and all(not name.startswith(".") for name in names),
        lines,
    )
    before = {path: checksum(path) for path in run.rglob("*.safetensors")}
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 512):
            pass
    code, lines = headwise(*small, "--run", disk / "other")
    error_lines = [line for line in lines if line.startswith("headwise: ")]
    ok = code == 2 and len(error_lines) == 1 and str(disk / "other") in error_lines[0]
    ok = ok and {path: checksum(path) for path in before} == before
    tally("F4 disk full while a checkpoint is saved", ok, lines)
