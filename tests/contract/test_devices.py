"""Every task trains in two processes: equal weights on both, and those of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from headwise.pipelines import TASKS
from headwise.tests.contract import watched_steps
from headwise.tests.contract.small_data import BUILDERS

STEPS = 3
SMALL: Mapping[str, Mapping[str, Any]] = {
    "forecast": {"width": 8, "feedforward": 8, "layers": 1, "heads": 2, "batch_size": 6},
    "medical": {"size": (64, 64), "body_size": (16, 16), "batch_size": 7, "balanced": False},
    "ranking": {"width": 4, "towers": (4,), "layers": 1, "batch_size": 64},
    "reid": {"size": (32, 32), "width": 24, "layers": 1, "batch_size": 8},
    "saliency": {"size": (64, 64), "batch_size": 3},
    "speech": {"width": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "batch_size": 3},
    "wsi": {"inner": 8, "branches": 2, "batch_size": 4},
}
"""Sizes, and batches of which one process gets more than the other."""
NO_DRAWS: Mapping[str, Mapping[str, Any]] = {
    "forecast": {"attention": "softmax", "ffn": "moe", "balance": 1.0},
    "medical": dict.fromkeys(("turn", "shift", "zoom", "aspect", "brightness"), 0.0)
    | {"flip": False, "class_weights": True},
    "ranking": {"dropout": 0.0},
    "reid": {"drop_path": 0.0, "pwca": False, "pad": 0, "erase": 0.0}
    | {"flip": False, "triplet": "no", "neck": "no"},
    "saliency": dict.fromkeys(("drop_path", "zoom", "turn", "colour", "blank"), 0.0)
    | {"flip": False},
    "speech": {"dropout": 0.0, "mask_time": 0, "mask_bands": 0},
    "wsi": {"masked": 0, "class_weights": True},
}
"""No random draws, and no loss of several samples together."""
TWO = {"devices": 2, "accelerator": "cpu"}


def train_in_two_processes(jobs: list[dict[str, Any]], folder: Path, seconds: int = 300) -> None:
    """Do the jobs of `watched_steps` one after the other in the same two processes."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    command = [sys.executable, "-m", watched_steps.__name__, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr


def steps_by_rank(run: Path) -> list[list[str]]:
    """The checksums of all steps, by rank."""
    files = sorted(Path(f"{run}-steps").glob("rank-*.json"))
    return [json.loads(file.read_text()) for file in files]


def difference(run: Path, other: Path) -> float:
    """The largest difference of two trainings after their last step."""
    one, two = (load_file(Path(f"{r}-steps") / "weights.safetensors") for r in (run, other))
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


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


@pytest.mark.parametrize("name", list(TASKS))
def test_two_processes_train_the_model_of_one(name, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    shared = {**BUILDERS[name](tmp_path / "data").write(), **SMALL[name], "max_steps": STEPS}
    exact = {**shared, **NO_DRAWS[name], **watched_steps.EXACT}
    alone, both, own = (tmp_path / run for run in ("alone", "both", "own"))
    watched_steps.train({"task": name, "exact": True, "options": {**exact, "run": str(alone)}})
    train_in_two_processes(
        [
            {"task": name, "exact": True, "options": {**exact, **TWO, "run": str(both)}},
            {"task": name, "exact": False, "options": {**shared, **TWO, "run": str(own)}},
        ],
        tmp_path,
    )
    for run in (both, own):
        first, second = steps_by_rank(run)
        assert first == second
        assert len(first) == STEPS
    measured = difference(alone, both)
    assert measured < 1e-7
    with capsys.disabled():
        print(f"\n{name}: weights {measured:.1e} apart after {STEPS} steps")
    one, two = (numbers_of(json.loads((run / "metrics.json").read_text())) for run in (alone, both))
    assert two == pytest.approx(one, rel=1e-5, abs=1e-6, nan_ok=True)
    assert_frame_equal(*(predictions_of(run) for run in (alone, both)), rel_tol=1e-4, abs_tol=1e-5)
