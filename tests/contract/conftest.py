"""A run of every task, trained once for all tests of the contract, while its test part is
watched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headwise import pipelines
from headwise.data.slides.generate import write_sample_slides
from headwise.data.speech.generate import write_sample_speech
from headwise.pipelines import TASKS, load_task
from headwise.pipelines.engine.cluster import own_cluster
from headwise.tests.undrawn import pictures

STEPS = 2
# Tasks whose default method is fitted without an optimiser, so that there are no epochs.
UNTRAINED = ("longcontext",)
# Options of the runs by which a mistake shows that the defaults would hide.
TELLING: dict[str, dict[str, Any]] = {
    "finetune": {"new_tokens": 6},
    "forecast": {"levels": (0.95, 0.8)},  # not in their order
    "medical": {"positive": "clear"},  # the first class, not the last
    "reasoning": {"parameters": 60_000},  # a width that no option names
    # Near things are dark, not bright; and less of the network, which exports trace twice.
    "saliency": {"near": "dark", "transformer": "none", "fusion": "position"},
    "text": {"weights": "none", "width": 32},  # whatever was fetched before
}


# Samples that are large enough for what is held of all tasks; by where their size is read.
SMALLER: dict[str, Any] = {
    "headwise.data.persons.generate.TRAINED": 12,
    "headwise.data.persons.generate.SEARCHED": 12,
    "headwise.data.scenes.generate.TRAINED": 32,
    "headwise.data.scenes.generate.TESTED": 12,
    "headwise.pipelines.speech.pipeline.write_sample_speech": partial(
        write_sample_speech, strings=96
    ),
    "headwise.pipelines.wsi.pipeline.write_sample_slides": partial(
        write_sample_slides, slides=16, side=512
    ),
}


@contextmanager
def smaller_samples() -> Iterator[None]:
    """Samples in a fraction of their size."""
    with pytest.MonkeyPatch.context() as patch:
        for place, value in SMALLER.items():
            patch.setattr(place, value)
        yield


@pytest.fixture(scope="module", autouse=True)
def sizes_of_samples() -> Iterator[None]:
    """The samples of the runs, also where a test writes them again."""
    with smaller_samples():
        yield


@dataclass
class Watched:
    """A data set that notes what is asked of it before it is released."""

    dataset: Any
    reads: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        self.reads.append(f"row {index}")
        return self.dataset[index]

    def __iter__(self) -> Any:
        self.reads.append("all rows")
        return iter(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__getitems__":
            raise AttributeError(name)
        value = getattr(self.dataset, name)
        self.reads.append(name)
        return value


@dataclass
class Trained:
    """A finished run of a task on its own sample."""

    task: Any
    path: Path
    early_reads: list[str]
    """What was read of the test part before the final review."""
    contrasts: list[float]
    """The deviation of the grey of each picture of its report, as the training left it."""


def sample_of(run: Path) -> Path:
    """The generated sample that a run was trained on: what --data takes."""
    return run / "sample" / (run / "sample" / "PATH").read_text()


def train_watched(name: str, path: Path) -> Trained:
    """Train for a few steps, pictures included; until the review the test part is a data set that
    notes what is asked of it.
    """
    task, reads = load_task(name), []
    pipeline_class = type(task.load())
    opened, reviewed = pipeline_class.open_data, pipeline_class.review
    rungs_of, done = pipeline_class.rungs, []

    def open_watched(*arguments: Any, **named: Any) -> Any:
        splits = opened(*arguments, **named)
        return replace(splits, test=Watched(splits.test, reads))

    def review_released(pipeline: Any, model: Any, dataset: Any, context: Any) -> Any:
        done.append("review")
        released = dataset.dataset if isinstance(dataset, Watched) else dataset
        return reviewed(pipeline, model, released, context)

    def rungs_released(pipeline: Any, spec: Any) -> Any:
        """The rungs are scored on the test part after the review, never before."""
        rungs = rungs_of(pipeline, spec)
        if rungs is not None:
            scored = rungs.scores

            def scored_released(models: Any, dataset: Any, context: Any) -> Any:
                released = dataset.dataset if done and isinstance(dataset, Watched) else dataset
                return scored(models, released, context)

            rungs.scores = scored_released
        return rungs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_class, "open_data", open_watched)
        patch.setattr(pipeline_class, "review", review_released)
        patch.setattr(pipeline_class, "rungs", rungs_released)
        with pictures(as_dots=False), smaller_samples():
            run = getattr(pipelines, name).train(run=path, max_steps=STEPS, **TELLING.get(name, {}))
    assert run.path == path
    files = sorted((path / "figures").glob("*.png"))
    contrasts = [float(np.asarray(Image.open(file).convert("L")).std()) for file in files]
    return Trained(task, path, reads, contrasts)


@pytest.fixture(scope="session", params=list(TASKS))
def run_of_task(request, tmp_path_factory) -> Trained:
    """A run of each task: two training steps on its own sample."""
    return train_watched(request.param, tmp_path_factory.mktemp(request.param) / "run")


@pytest.fixture(scope="session")
def trained(run_of_task) -> tuple[Any, Path]:
    """A task, and a run of it."""
    return run_of_task.task, run_of_task.path


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One cluster, which predictions by all tasks find; to start it takes longer than any of them.
    That `--engine ray` starts its own is tested with kills.
    """
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    with own_cluster("tests"):
        yield
