"""Items that a run was trained on are known again where they come as new data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwise.base.account import opened
from headwise.pipelines.engine.inference.members import read_members
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.runs.run_directory import MEMBERS
from headwise.pipelines.engine.training.jobs import note_known
from headwise.tests.contract.conftest import sample_of


def test_items_of_the_training_are_known_in_data_to_evaluate(trained: tuple[Any, Path]) -> None:
    task, run = trained
    if task.name == "reasoning":
        pytest.skip("its trials are generated, and have no names")
    pipeline = task.load()
    loaded = load_run(pipeline, str(run), "cpu")
    options = replace(loaded.options, data=str(sample_of(run)))
    of_training = pipeline.open_data(options, loaded.spec)
    splits = pipeline.open_data(options, loaded.spec, as_test=True)
    parts = pipeline.training_parts(splits, read_members(run / MEMBERS))
    if not (named := len(splits.test) <= len(of_training.test)):  # else the data names its parts
        assert (parts == "train").sum() == len(of_training.train)
    if task.name != "forecast":  # which knows the rows that it has seen
        assert (parts == "test").sum() == len(of_training.test)
    with opened() as account:
        note_known(pipeline, splits, loaded.run)
    assert any("items are in the train part" in line for line in account.lines()) != named
