"""Event logs that cannot be used: one line that names the file and the cause."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.clicks.fit import fit
from headwise.data.clicks.log import Log
from headwise.data.clicks.schema import Schema
from headwise.data.clicks.schema_file import parse_schema
from headwise.tests.data.clicks.saved import saved


def schema(**changes: Any) -> Schema:
    values: dict[str, Any] = {
        "user": "user",
        "item": "item",
        "time": "time",
        "categorical": {"user": {}, "item": {}},
        "sequences": {"all": {"of": "item"}},
        "tasks": {"click": "click", "good": {"column": "rating", "at_least": 4}},
    }
    return parse_schema(values | changes, "schema")


def table(rows: int = 60) -> pl.DataFrame:
    random = np.random.default_rng(0)
    names = {"user": 5, "item": 8, "time": 999, "rating": 6, "click": 2, "price": 50}
    frame = pl.DataFrame(
        {name: random.integers(highest, size=rows) for name, highest in names.items()}
    )
    return frame.with_columns(tags=pl.lit("a b"), part=pl.lit("train"))


FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"user": "usr"}, {}, "there is no column 'usr'; did you mean 'user'"),
    (
        {"categorical": {"itme": {}, "item": {}}},
        {},
        "there is no column 'itme'; did you mean 'time'",
    ),
    ({"numeric": {"price": {}}}, {"price": "cheap"}, "column 'price' holds 'cheap', not a number"),
    ({}, {"click": "1"}, r"task click \(click\): every label of the training part is 1"),
    ({}, {"click": "2"}, "column 'click': row 1 .* holds 2, not 0 or 1"),
    ({}, {"rating": "x"}, "column 'rating': row 1 .* holds 'x', not a number"),
    ({}, {"time": "noon"}, "time 'time': row 1 .* holds 'noon', not a time in s"),
    ({}, {"time": "-5"}, "holds '-5', not a time"),
    (
        {"tasks": {"a": {"column": "click", "only_where": {"column": "rating", "at_least": 9}}}},
        {},
        "no row .* counts",
    ),
    (
        {"sequences": {"never": {"of": "item", "where": {"column": "rating", "at_least": 9}}}},
        {},
        "never: is empty on",
    ),
    (
        {"sequences": {"never": {"of": "item", "column": "tags"}}},
        {"tags": ""},
        "never: is empty on every row",
    ),
    (
        {"split": {"column": "part"}},
        {"part": "trian"},
        "column part: holds 'trian', not train, validation, test",
    ),
    ({"split": {"column": "part"}}, {"part": "train"}, "the validation part is empty"),
]


@pytest.mark.parametrize(("changes", "cells", "words"), FAULTS)
def test_faults_are_named_on_one_line(tmp_path, changes, cells, words: str) -> None:
    frame = table(60).with_columns(**{name: pl.lit(value) for name, value in cells.items()})
    with pytest.raises(InputError, match=rf"a\.csv: .*{words}") as caught:
        fit(saved(tmp_path / "a.csv", frame), schema(**changes))
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(tmp_path) -> None:
    saved(tmp_path / "a.parquet", table())
    content = (tmp_path / "a.parquet").read_bytes()
    for broken in (
        content[: len(content) // 2],
        content[:4] + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :],
    ):
        (tmp_path / "a.parquet").write_bytes(broken)
        with pytest.raises(
            InputError, match=r"a\.parquet: (is damaged parquet|it cannot be read)"
        ) as caught:
            fit(Log.open(tmp_path / "a.parquet"), schema())
        assert "\n" not in str(caught.value)


def test_lines_of_json_whose_last_line_differs_are_read_as_they_are_or_refused(tmp_path) -> None:
    rows = [{**row, "user": k % 5} for k, row in enumerate(table(12_000).drop("rating").to_dicts())]
    rows[-1] |= {"user": "u", "rating": 5}
    lines = [json.dumps(row) for row in rows]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines))
    read = [part for part, _ in Log.open(path).parts(["user", "rating"])]
    assert read[-1].row(-1) == ("u", 5)
    assert sum(part.height for part in read) == len(rows)
    path.write_text("\n".join([*lines, lines[-1][:-1] + ', "user": "v"}']))
    with pytest.raises(InputError, match=r"'user' appears more than once in line 12001"):
        Log.open(path).parts(["user"]).__next__()
