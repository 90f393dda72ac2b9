"""A run of the built-in sample, and the tiny model behind it."""

from pathlib import Path

import pytest

from headwise.models.language.generated import write_generated_model
from headwise.pipelines import longcontext


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A plan in which some heads are full, in a finished run of the sample."""
    path = tmp_path_factory.mktemp("longcontext") / "run"
    longcontext.train(run=path, choose="model", share=0.6)
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """The generated model as a folder in Hugging Face's form."""
    return write_generated_model(tmp_path_factory.mktemp("model"))
