"""Trains as the command line does, while each process notes its weights after every step.

`python -m headwise.tests.contract.watched_steps FOLDER` does the jobs FOLDER/0.json, FOLDER/1.json,
… as they appear, and writes FOLDER/0-done-0, … (number, rank) after each, so that the two processes
of many tests are started once. A job is {"task", "options"}; options are those of `train`, `run`
among them. For each job RUN-steps/ gets rank-R.json, the checksum of the entire state by step, and,
of rank 0, weights.safetensors, the state after the last step."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from headwise import pipelines
from headwise.pipelines.engine.training.loop import Trainer
from headwise.tests.undrawn import pictures

EXACT = {"precision": "64-true"}
"""So that rounding, which Adam makes large where a gradient is 0, stays out of sight."""


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a model, in full where this process holds a part only."""
    state = model.state_dict()
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in state.items()
    }


@contextmanager
def fixed_statistics() -> Iterator[None]:
    """Batch normalisation by its running statistics, also in training."""
    before = _BatchNorm.train
    _BatchNorm.train = lambda self, mode=True: nn.Module.train(self, False)  # pyright: ignore
    try:
        yield
    finally:
        _BatchNorm.train = before


@contextmanager
def watched(folder: Path, stop_after: int | None = None) -> Iterator[None]:
    """Note the state of each `Trainer` in this process after each of its steps.

    stop_after: the step after which `StoppedError` is raised.
    """
    sums: list[str] = []
    step: Callable[..., None] = Trainer._step

    def step_watched(trainer: Trainer[Any, Any, Any], *arguments: object) -> None:
        step(trainer, *arguments)
        state = state_of(trainer.plain)
        digest = hashlib.sha256()
        for value in state.values():
            digest.update(value.contiguous().numpy().tobytes())
        sums.append(digest.hexdigest())
        folder.mkdir(exist_ok=True, parents=True)
        rank = trainer.fabric.global_rank
        (folder / f"rank-{rank}.json").write_text(json.dumps(sums))
        if rank == 0:
            copies = {name: value.contiguous() for name, value in state.items()}
            save_file(copies, folder / "weights.safetensors")
        if trainer.progress.step == stop_after:
            raise StoppedError

    Trainer._step = step_watched
    try:
        yield
    finally:
        Trainer._step = step


class StoppedError(Exception):
    """A job has done the steps after which it was to stop."""


def train(job: Mapping[str, Any]) -> None:
    """Do a job, without drawing pictures.

    "exact" jobs keep the statistics of batch normalisation fixed; "stop_after": the step after
    which the training breaks off.
    """
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in job["options"].items()
    }
    fixed = fixed_statistics() if job["exact"] else nullcontext()
    steps = watched(Path(f"{options['run']}-steps"), job.get("stop_after"))
    with suppress(StoppedError), steps, fixed, pictures(as_dots=True):
        getattr(pipelines, job["task"]).train(**options)


def work(folder: Path) -> None:
    """Do the jobs of a folder, in their order, until this process is killed."""
    for number in itertools.count():
        job = folder / f"{number}.json"
        while not job.exists():
            time.sleep(0.02)
        train(json.loads(job.read_text()))
        (folder / f"{number}-done-{os.environ.get('LOCAL_RANK', 0)}").touch()


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
