"""Opening a run that comes from anywhere: bounded by its weights, and without any network."""

from __future__ import annotations

import sys
from typing import NotRequired, TypedDict

import pytest
import torch
from torch import nn

from headwise.base.errors import InputError
from headwise.pipelines import TASKS, load_task
from headwise.pipelines.engine.runs.limits import build_within
from headwise.pipelines.engine.spec import misfit

WEIGHTS = {"weight": torch.zeros(4, 4)}


def test_a_model_may_be_somewhat_larger_than_its_weights(tmp_path) -> None:
    with build_within(WEIGHTS, tmp_path / "model.safetensors"):
        nn.Linear(1000, 1000)


@pytest.mark.parametrize(
    "build",
    [lambda: nn.Linear(10_000, 10_000), lambda: [nn.Linear(1, 1) for _ in range(10_000)]],
    ids=["wide", "deep"],
)
def test_building_stops_where_the_model_outgrows_the_weights(tmp_path, build) -> None:
    with (
        pytest.raises(InputError, match="weights of another model"),
        build_within(WEIGHTS, tmp_path / "model.safetensors"),
    ):
        build()
    nn.Linear(10_000, 2_000)  # outside, nothing is counted


def test_any_failure_of_a_build_is_one_line(tmp_path) -> None:
    with (
        pytest.raises(InputError, match=r"no model can be made of its .*KeyError: 'width'"),
        build_within(WEIGHTS, tmp_path / "model.safetensors"),
    ):
        raise KeyError("width")


def test_no_request_leaves_while_a_model_is_built(tmp_path, monkeypatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    with (
        pytest.raises(InputError, match="no model can be made") as caught,
        build_within(WEIGHTS, tmp_path / "model.safetensors"),
    ):
        hub.hf_hub_download("stranger/model", "config.json", cache_dir=tmp_path)
    assert "connection was opened" not in str(caught.value)
    assert not sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE


@pytest.mark.parametrize("task", TASKS)
def test_a_spec_of_null_lists_and_negative_numbers_is_refused(task) -> None:
    """Each field of each spec is checked: none has a type that `from_json` lets pass."""
    from dataclasses import fields
    from typing import get_type_hints

    spec_class = load_task(task).load().spec_class
    hints = get_type_hints(spec_class)
    for f in fields(spec_class):
        if f.metadata.get("saved", True):
            assert misfit(object(), hints[f.name], f.name), f.name
            assert misfit(-1, hints[f.name], f.name) or "float" in str(hints[f.name]), f.name


@pytest.mark.parametrize(
    ("value", "hint", "problem"),
    [
        (3, int, None),
        (True, int, "x is True, not a whole number"),
        (2**53, int, "x is 9007199254740992, out of range"),
        (3, float, None),
        (float("nan"), float, "x is nan, out of range"),
        ([1, "a"], list[int], "x[1] is 'a', not a whole number"),
        ({"a": [1.5, None]}, dict[str, list[float]], "x.a[1] is None, not a number"),
        (None, int | None, None),
        ("a", int | None, "x is 'a', not a whole number"),
    ],
)
def test_the_first_value_of_another_kind_is_named(value, hint, problem) -> None:
    assert misfit(value, hint, "x") == problem


class LaterFacts(TypedDict):
    """Facts of a spec that gained a key: annotations here are texts, as in the tasks."""

    columns: list[str]
    order: NotRequired[str]


def test_a_key_that_older_runs_lack_is_no_fault() -> None:
    assert misfit({"columns": ["a"]}, LaterFacts, "input") is None
    assert misfit({"columns": ["a"], "order": 3}, LaterFacts, "input") is not None
    assert misfit({"order": "dmy"}, LaterFacts, "input") == "input holds no 'columns'"
