"""A run of labels, of classes and of a number, each trained once."""

from pathlib import Path

import pytest

from headwise.tests.pipelines.text.messages import classed, messages, numbered, train, write_rows


@pytest.fixture(scope="session")
def labels_run(tmp_path_factory) -> Path:
    """Of the generated messages, in table.jsonl beside it."""
    folder = tmp_path_factory.mktemp("labels")
    data = write_rows(folder / "table.jsonl", messages())
    train(data, folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def class_run(tmp_path_factory) -> Path:
    """Of messages with one class, in table.csv beside it."""
    folder = tmp_path_factory.mktemp("classes")
    data = write_rows(folder / "table.csv", classed())
    train(data, folder / "run", columns=("id=id",))
    return folder / "run"


@pytest.fixture(scope="session")
def number_run(tmp_path_factory) -> Path:
    """Of texts with a number, and a column beside them, in table.csv beside it."""
    folder = tmp_path_factory.mktemp("numbers")
    data = write_rows(folder / "table.csv", numbered())
    train(data, folder / "run", table=("pages",))
    return folder / "run"
