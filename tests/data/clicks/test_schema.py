"""Schemas of click logs: what is refused, what a run keeps, and the layouts on real data."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.clicks.cells import task_labels
from headwise.data.clicks.fit import fit
from headwise.data.clicks.generate import SCHEMA, write_sample_clicks
from headwise.data.clicks.layouts import open_log
from headwise.data.clicks.schema import Schema, schema_of
from headwise.data.clicks.schema_file import parse_schema, read_schema

REAL = (
    Path(os.environ.get("HEADWISE_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
    / "recsys"
)
GOOD = "user: u\nitem: i\ntime: t\ncategorical: [u, i]\ntasks: {a: c}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user: [", "not readable as YAML"),
        ("[1, 2]", "should hold names and values"),
        ("user: u\nitem: i\n", "has no 'tasks'"),
        (GOOD + "numerics: {}", "no key 'numerics'; did you mean 'numeric'"),
        (GOOD.replace("time: t", "time: {column: t, unit: m}"), "unknown unit 'm'"),
        (GOOD.replace("time: t", "time: {unit: s}"), "time: should be the name of a column"),
        (GOOD + "numeric: [u]", "both categorical and numeric"),
        (GOOD + "numeric: {x: {buckets: 1}}", "buckets must be 2 to"),
        (GOOD + "numeric: {x: {buckets: many}}", "buckets should be int"),
        (GOOD + "time_fields: [hours]", "unknown 'hours'; did you mean 'hour'"),
        (GOOD + "sequences: {s: {of: j}}", "of 'j' is no categorical field"),
        (GOOD + "sequences: {s: {length: 5}}", "needs of"),
        (GOOD + "sequences: {s: {of: i, column: h, where: c}}", "not both"),
        (GOOD.replace("time: t\n", "") + "sequences: {s: {of: i}}", "needs time"),
        (GOOD.replace("time: t\n", ""), "split: by user needs time"),
        (GOOD + "split: {train: 0.9, validation: 0.1}", "leave a rest"),
        (GOOD + "split: {by: item}", "user, time or random"),
        (GOOD + "join: [{table: x.csv, on: z}]", "on must be the user's or item's id"),
        (GOOD + "join: [{table: x.csv}]", "needs on"),
        (GOOD.replace("{a: c}", "{a: {at_least: 3}}"), "needs column"),
        (GOOD.replace("{a: c}", "{a: {column: c, at_least: 3, equals: 4}}"), "give one of"),
    ],
)
def test_what_does_not_fit_is_named_on_one_line(tmp_path, text: str, words: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"s\.yaml: .*{words}") as caught:
        read_schema(path)
    assert "\n" not in str(caught.value)


def test_the_documented_join_is_read(tmp_path) -> None:
    (tmp_path / "s.yaml").write_text(GOOD + "join: [{table: x.csv, on: u}]")
    (join,) = read_schema(tmp_path / "s.yaml").join
    assert (join.table, join.on) == ("x.csv", "u")


def test_a_run_keeps_its_schema(tmp_path) -> None:
    (tmp_path / "s.yaml").write_text(SCHEMA)
    schema = read_schema(tmp_path / "s.yaml")
    assert schema_of(json.loads(json.dumps(schema.as_dict()))) == schema
    assert list(schema.events) == ["clicked", "liked", "passed"]
    with pytest.raises(InputError, match="the file is damaged"):
        schema_of({"user": "u"})


def test_the_generated_log_is_read_by_its_schema(tmp_path) -> None:
    write_sample_clicks(tmp_path)
    encoder, rows, part = fit(*open_log(str(tmp_path / "generated.csv")))
    assert len(rows) == 8000
    assert np.bincount(part).min() > 500
    assert rows.labels is not None
    np.testing.assert_array_equal(
        rows.labels[:, 1] >= 0, rows.labels[:, 0] == 1
    )  # like counts on clicked rows
    assert len(encoder.events["clicked"].codes) + len(encoder.events["passed"].codes) == 8000


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="no real data: set HEADWISE_DATA")
@pytest.mark.parametrize(
    ("data", "tasks", "parts"),
    [
        ("ml-100k", ["like", "love"], [79619, 9942, 10439]),
        ("kuairand_sample.csv", ["click"], [160, 20, 20]),
        ("fuxictr_tiny_mtl/train.csv", ["click", "conversion"], [80, 10, 10]),
        ("criteo_train.tiny.csv", ["click"], [1599, 200, 200]),
    ],
)
def test_known_layouts_read_real_logs(data: str, tasks: list[str], parts: list[int]) -> None:
    log, schema = open_log(str(REAL / data))
    assert schema_of(json.loads(json.dumps(schema.as_dict()))) == schema
    assert list(schema.tasks) == tasks
    if "conversion" in tasks:  # nobody bought anything in this sample
        with pytest.raises(
            InputError, match=r"task conversion .*: every label of the training part is 0"
        ):
            fit(log, schema)
        schema = replace(schema, tasks={"click": schema.tasks["click"]})
    encoder, rows, part = fit(log, schema)
    assert np.bincount(part).tolist() == parts
    assert rows.fields.min() >= 0
    assert all(
        (rows.fields[:, p] < c.codes).all()
        for p, c in enumerate(encoder.of_side("row"))
        if c.width == 1
    )


def test_a_layout_that_the_log_is_not_of_is_refused(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    for schema, words in (
        ("auto", "has no schema"),
        ("criteo", "not laid out as criteo"),
        ("criteoo", "neither a"),
    ):
        with pytest.raises(InputError, match=words):
            open_log(str(tmp_path / "a.csv"), schema)


def with_tasks(tasks: dict) -> Schema:
    plain = {"user": "u", "item": "i", "categorical": {"u": {}}, "split": {"by": "random"}}
    return parse_schema(plain | {"tasks": tasks}, "schema")


@pytest.mark.parametrize(
    ("asked", "holds_for"),
    [
        ({"at_least": 3}, [False, True, True, None]),
        ({"at_most": 3}, [True, True, False, None]),
        ({"equals": 3}, [False, True, False, None]),
    ],
)
@pytest.mark.parametrize("kind", [pl.Float64, pl.String])
def test_conditions_hold_at_their_bounds(asked: dict, holds_for: list, kind: pl.DataType) -> None:
    """Bounds belong to what holds; an empty cell is no answer and does not count."""
    frame = pl.DataFrame(
        {"rating": pl.Series([2.5, 3.0, 3.5, None]).cast(kind), "shown": [1, 1, 0, 1]}
    )
    tasks = {
        "asked": {"column": "rating", **asked},
        "shown": {"column": "rating", **asked, "only_where": "shown"},
    }
    labels = task_labels(frame, with_tasks(tasks), "t")
    expected = [-1 if answer is None else int(answer) for answer in holds_for]
    assert labels[:, 0].tolist() == expected
    assert labels[:, 1].tolist() == [
        label if shown else -1 for label, shown in zip(expected, frame["shown"])
    ]


def test_words_and_flags_are_conditions() -> None:
    frame = pl.DataFrame({"kind": [" buy ", "view", "NA", None], "flag": [True, False, None, True]})
    unflagged = {"column": "flag", "equals": False}
    tasks = {
        "bought": {"column": "kind", "equals": "buy"},
        "flagged": "flag",
        "unflagged": unflagged,
    }
    assert task_labels(frame, with_tasks(tasks), "t").T.tolist() == [
        [1, 0, -1, -1],
        [1, 0, -1, 1],
        [0, 1, -1, 0],
    ]
