"""Every task trains in two processes: equal weights on both, and those of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from headwise.base.files import write_aside
from headwise.pipelines import TASKS
from headwise.tests.contract import watched_steps
from headwise.tests.contract.conftest import UNTRAINED
from headwise.tests.contract.small_data import BUILDERS

STEPS = 3
SMALL: Mapping[str, Mapping[str, Any]] = {
    "finetune": {"batch_size": 5, "modules": ("q", "gate", "up", "down"), "layers": "all"},
    "forecast": {"width": 8, "feedforward": 8, "layers": 1, "heads": 2, "batch_size": 6},
    "medical": {"size": (64, 64), "body_size": (16, 16), "batch_size": 7, "balanced": False},
    "ranking": {"width": 4, "towers": (4,), "layers": 1, "batch_size": 64},
    "recordings": {"width": 8, "heads": 2, "batch_size": 5},
    "reasoning": {"width": 8, "heads": 2, "layers": 1, "batch_size": 5, "trials": 40}
    | {"validation_trials": 9, "test_trials": 3},
    "reid": {"size": (32, 32), "width": 24, "layers": 1, "batch_size": 8},
    "saliency": {"size": (64, 64), "batch_size": 3, "transformer": "none"},
    "speech": {"width": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "batch_size": 3},
    "text": {"width": 8, "batch_size": 5},
    "wsi": {"inner": 8, "branches": 2, "batch_size": 4},
}
"""Sizes, and batches of which one process gets more than the other."""
NO_DRAWS: Mapping[str, Mapping[str, Any]] = {
    "finetune": {"packing": True},
    "forecast": {"attention": "softmax", "ffn": "moe", "balance": 1.0},
    "medical": dict.fromkeys(("turn", "shift", "zoom", "aspect", "brightness"), 0.0)
    | {"flip": False, "imbalance": "diverse"},
    "ranking": {"dropout": 0.0},
    "recordings": {"dropout": 0.0, "imbalance": "pos-weight"},
    "reasoning": {"dropout": 0.0},
    "reid": {"drop_path": 0.0, "pwca": False, "pad": 0, "erase": 0.0}
    | {"flip": False, "triplet": "no", "neck": "no"},
    "saliency": dict.fromkeys(("zoom", "turn", "colour", "blank"), 0.0) | {"flip": False},
    "speech": {"dropout": 0.0, "mask_time": 0, "mask_bands": 0},
    "text": {"dropout": 0.0, "layers": 1, "ffn": "moe", "imbalance": "pos-weight"},
    "wsi": {"masked": 0, "class_weights": True},
}
"""No random draws, and no loss of several samples together."""
TWO = {"devices": 2, "accelerator": "cpu"}
ROUNDING = {"saliency": 1e-5}
"""Largest difference where the loss is taken in 32 bits, which Adam makes larger."""
RESUMED = "forecast"


class TwoProcesses:
    """Two processes that do jobs of `watched_steps` together, one after the other; new ones after a
    job that ended them.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.process = home, None

    def train(self, job: Mapping[str, Any], seconds: float = 300) -> None:
        """Hand over a job and wait until both have done it."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        number, until = self.count, time.monotonic() + seconds
        write_aside(self.folder / f"{number}.json", lambda path: path.write_text(json.dumps(job)))
        self.count += 1
        while not all((self.folder / f"{number}-done-{rank}").exists() for rank in (0, 1)):
            ended = self.process.poll() is not None
            assert not ended, (self.folder / "output").read_text()
            assert time.monotonic() < until, f"{job} takes more than {seconds} s"
            time.sleep(0.02)

    def _start(self) -> None:
        self.end()
        self.folder, self.count = Path(tempfile.mkdtemp(dir=self.home)), 0
        command = [sys.executable, "-m", watched_steps.__name__, str(self.folder)]
        with (self.folder / "output").open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )

    def end(self) -> None:
        """Kill what still runs of them."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def steps_by_rank(run: Path) -> list[list[str]]:
    """The checksums of all steps, by rank."""
    files = sorted(Path(f"{run}-steps").glob("rank-*.json"))
    return [json.loads(file.read_text()) for file in files]


def difference(run: Path, other: Path) -> float:
    """The largest difference of two trainings after their last step."""
    first, second = (load_file(Path(f"{r}-steps") / "weights.safetensors") for r in (run, other))
    assert first.keys() == second.keys()
    apart = [(first[name].double() - second[name].double()).abs() for name in first]
    return max(float(values.max()) for values in apart if values.numel())


def numbers_of(metrics: object, name: str = "") -> dict[str, float]:
    """The numbers of a metrics.json, by their place in it."""
    if isinstance(metrics, bool) or metrics is None or isinstance(metrics, str):
        return {}
    if isinstance(metrics, int | float):
        return {name: float(metrics)}
    items = metrics.items() if isinstance(metrics, dict) else enumerate(metrics)  # pyright: ignore
    return {k: v for key, value in items for k, v in numbers_of(value, f"{name}/{key}").items()}


def predictions_of(run: Path) -> pl.DataFrame:
    """The predictions of a run, without the mark of the exact weights that they are by."""
    return pl.read_parquet(run / "predictions.parquet").drop("model", strict=False)


@dataclass
class Runs:
    """One training by one process, and the same by two: as copies and as one model in parts.

    by_default: with what the task draws at random, as copies, and stopped after its steps; resumed:
    in parts, stopped after two steps and resumed; None: not tried for this task.
    """

    name: str
    alone: Path
    copies: Path
    parts: Path
    by_default: Path
    resumed: Path | None


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Iterator[TwoProcesses]:
    """One pair for all tasks: starting it takes longer than training in it."""
    pair = TwoProcesses(tmp_path_factory.mktemp("two-processes"))
    yield pair
    pair.end()


@pytest.fixture(scope="module", params=[task for task in TASKS if task not in UNTRAINED])
def runs(request, two_processes, tmp_path_factory) -> Runs:
    """All trainings of a task."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    (folder / "data").mkdir()
    default = {**BUILDERS[name](folder / "data").write(), **SMALL[name], "max_steps": STEPS}
    exact = {**default, **NO_DRAWS[name], **watched_steps.EXACT}
    parts = {**exact, "strategy": "fsdp"}
    names = ("alone", "copies", "parts", "default", "resumed")
    alone, copies, in_parts, by_default, resumed = (folder / run for run in names)

    def job_of(run: Path, options: Mapping[str, Any], **named: Any) -> dict[str, Any]:
        return {"task": name, "exact": True, "options": {**options, "run": str(run)}, **named}

    jobs = [
        job_of(copies, exact | TWO),
        job_of(in_parts, parts | TWO),
        job_of(by_default, default | TWO, exact=False, stop_after=STEPS),
    ]
    if name == RESUMED:
        often = {**parts, **TWO, "checkpoint_every": 1}
        jobs += [job_of(resumed, often, stop_after=2), job_of(resumed, often | {"resume": True})]
    watched_steps.train(job_of(alone, exact))
    for job in jobs:
        two_processes.train(job)
    return Runs(name, alone, copies, in_parts, by_default, resumed if name == RESUMED else None)


def test_both_processes_hold_the_same_weights_after_every_step(runs):
    for run in (runs.copies, runs.parts, runs.by_default):
        first, second = steps_by_rank(run)
        assert len(first) == STEPS
        assert first == second


def test_two_processes_train_the_model_of_one(runs, capsys):
    apart = {
        sharing: difference(runs.alone, run)
        for sharing, run in (("copies", runs.copies), ("in parts", runs.parts))
    }
    with capsys.disabled():
        words = ", ".join(f"{sharing} {value:.1e}" for sharing, value in apart.items())
        print(f"\n{runs.name}: weights apart after {STEPS} steps: {words}")
    assert max(apart.values()) < ROUNDING.get(runs.name, 1e-7)


def test_two_processes_score_and_predict_as_one(runs):
    expected = numbers_of(json.loads((runs.alone / "metrics.json").read_text()))
    for run in (runs.copies, runs.parts):
        numbers = numbers_of(json.loads((run / "metrics.json").read_text()))
        assert numbers == pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True)
        assert_frame_equal(
            predictions_of(run), predictions_of(runs.alone), rel_tol=1e-3, abs_tol=1e-4
        )


def test_a_model_in_parts_is_resumed_where_it_stopped(runs):
    if runs.resumed is None:
        pytest.skip(f"{RESUMED} stands for all tasks")
    assert steps_by_rank(runs.resumed)[0] == steps_by_rank(runs.parts)[0][2:]
    assert difference(runs.resumed, runs.parts) == 0
    assert_frame_equal(predictions_of(runs.resumed), predictions_of(runs.parts))
