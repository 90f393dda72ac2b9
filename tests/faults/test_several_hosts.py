"""Two hosts, and a cluster of two nodes, train and predict as one process does. Both are on this
machine: two network namespaces with a cable between them, two nodes of Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from headwise.tests.faults.test_several_processes import WORDS

HOSTS = Path(__file__).with_name("two_hosts.sh")
NODES = Path(__file__).with_name("ray_nodes.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(launch, data, tmp_path_factory) -> Path:
    """A run by one process, with its predictions."""
    run = tmp_path_factory.mktemp("alone") / "run"
    code, command = launch.run(*WORDS, "--data", data, "--run", run)
    assert code == 0, command.text()
    return run


def same_weights(run: Path, other: Path) -> float:
    """The largest difference of the weights of two runs."""
    first, second = (load_file(r / "model.safetensors") for r in (run, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def prediction_words(run: Path, data: Path, output: Path) -> list[str]:
    """Words that predict by shards of one item."""
    words = ["forecast", "predict", "--run", run, "--input", data, "--output", output]
    return [*map(str, words), "--shard-size", "1"]


def on_two_hosts(*words: str) -> str:
    """Run words on two hosts; returns what they said. Skips where this machine has no two."""
    needed = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if needed:
        pytest.skip(f"two network namespaces need {', '.join(needed)}")
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    probe = subprocess.run(["unshare", *rights, "--net", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"no network namespaces here: {probe.stderr.decode().strip()}")
    command = ["unshare", *rights, "--net", "bash", str(HOSTS), sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if done.returncode == 77:
        pytest.skip(f"no two network namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_f2_two_hosts_give_the_same_training_and_predictions(tally, alone, data, tmp_path):
    run = tmp_path / "run"
    output = on_two_hosts(*WORDS, "--data", str(data), "--run", str(run), "--accelerator", "cpu")
    assert "Starting with 2 processes" in output
    difference = same_weights(alone, run)
    print(f"two hosts: weights {difference:.1e} apart at most")
    output = tmp_path / "out.parquet"
    on_two_hosts(*prediction_words(run, data, output))
    columns = [pl.read_parquet(file) for file in (output, run / "predictions.parquet")]
    assert_frame_equal(*columns)
    tally("F2 two hosts, same weights and predictions", difference < 1e-4, str(difference))


def test_f2_a_cluster_of_two_nodes_gives_the_same(tally, alone, data, tmp_path):
    pytest.importorskip("ray")
    run, output = tmp_path / "run", tmp_path / "out.parquet"
    train = [*WORDS, "--data", str(data), "--run", str(run), "--accelerator", "cpu"]
    predict = [*prediction_words(run, data, output), "--engine", "ray", "--processes", "2"]
    command = [sys.executable, str(NODES), " ".join(train), " ".join(predict)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "2 nodes" in done.stdout
    difference = same_weights(alone, run)
    print(f"two nodes of Ray: weights {difference:.1e} apart at most")
    columns = [pl.read_parquet(file) for file in (output, run / "predictions.parquet")]
    assert_frame_equal(*columns)
    tally("F2 two nodes of Ray, same weights and predictions", difference < 1e-4, str(difference))
