"""A generated cohort of slides, and a run trained on it."""

from pathlib import Path

import pytest

from headwise import pipelines
from headwise.data.slides.generate import write_sample_slides


@pytest.fixture(scope="session")
def slides(tmp_path_factory) -> Path:
    return write_sample_slides(tmp_path_factory.mktemp("cohort"), slides=16, side=256)


@pytest.fixture(scope="session")
def small_options() -> dict[str, object]:
    return {"tile": 64, "encoder": "random-filters", "epochs": 2, "inner": 16}


@pytest.fixture(scope="session")
def run(slides, small_options, tmp_path_factory):
    return pipelines.wsi.train(
        data=slides, run=tmp_path_factory.mktemp("run") / "r", seed=3, **small_options
    )
