"""Two processes, or a batch in two parts, give what one process gives, within rounding."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

# No draw depends on the layout: another mechanism than STAR, no dropout.
WORDS = [
    "forecast",
    "train",
    "--horizon",
    "12",
    "--lookback",
    "24",
    "--width",
    "16",
    "--feedforward",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--attention",
    "attention",
    "--batch-size",
    "8",
    "--max-steps",
    "6",
]
PYTHON = [sys.executable, "-m", "headwise.pipelines.engine"]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "-m",
    "headwise.pipelines.engine",
    "--",
]
LAYOUTS = {
    "a batch in two parts": (PYTHON, ["--accumulate", "2"]),
    "two gloo processes": (PYTHON, ["--devices", "2", "--accelerator", "cpu", "--strategy", "ddp"]),
    "two gloo processes, batches in two parts, loader": (
        PYTHON,
        ["--devices", "2", "--accelerator", "cpu", "--accumulate", "2", "--workers", "1"],
    ),
    "two gloo processes under torchrun": (TORCHRUN, ["--accelerator", "cpu"]),
}
SHORT = "two gloo processes"


@pytest.fixture(scope="module")
def alone(launch, data, tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    code, command = launch.run(*WORDS, "--data", data, "--run", run)
    assert code == 0, command.text()
    return run


def loss(run: Path) -> float:
    with (run / "history.csv").open() as file:
        return float(next(csv.DictReader(file))["train_loss"])


@pytest.mark.parametrize(
    "layout", [x if x == SHORT else pytest.param(x, marks=pytest.mark.slow) for x in LAYOUTS]
)
def test_f2_another_layout_gives_the_same_training(tally, alone, data, tmp_path, layout):
    start, more = LAYOUTS[layout]
    run = tmp_path / "run"
    command = [*start, *WORDS, "--data", str(data), "--run", str(run), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    alone_weights, run_weights = (
        load_file(alone / "model.safetensors"),
        load_file(run / "model.safetensors"),
    )
    difference = max(
        float((alone_weights[name] - run_weights[name]).abs().max()) for name in alone_weights
    )
    losses = abs(loss(alone) - loss(run))
    print(f"{layout}: losses {losses:.1e} apart, weights {difference:.1e} at most")
    tally(
        "F2 another layout, same loss and weights",
        losses < 1e-5 and difference < 1e-4,
        f"{layout}: {losses} {difference}",
    )
