"""Cells with several values, as people and programs write them, and what only fills them up."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwise.base.account import Account, opened
from headwise.base.errors import InputError
from headwise.data.clicks.coding import Rows
from headwise.data.clicks.encoder import ClickEncoder
from headwise.data.clicks.fit import encode_log, fit
from headwise.data.clicks.lists import values_of
from headwise.data.clicks.schema import Schema, schema_of
from headwise.data.clicks.schema_file import parse_schema
from headwise.data.clicks.vocabulary import FIRST
from headwise.tests.data.clicks.saved import saved

LISTS = [[1, 7, 24], [3], [], [24, 1]]


def schema(**sequence: Any) -> Schema:
    return parse_schema(
        {
            "user": "user",
            "item": "item",
            "categorical": ["item"],
            "sequences": {"shown": {"of": "item", "column": "lists", **sequence}},
            "tasks": {"click": "click"},
            "split": {"by": "random"},
        },
        "schema",
    )


def table(lists: Any) -> pl.DataFrame:
    """Items 1 to 24, ten times each, beside these lists again and again."""
    rows = 240
    cells = [lists[row % len(lists)] for row in range(rows)]
    return pl.DataFrame(
        {
            "user": [row % 7 for row in range(rows)],
            "item": [row % 24 + 1 for row in range(rows)],
            "click": [row % 2 for row in range(rows)],
            "lists": cells,
        }
    )


def fitted(path: Path, lists: Any, **sequence: Any) -> tuple[ClickEncoder, Rows, Account]:
    with opened() as account:
        encoder, rows, _ = fit(saved(path, table(lists)), schema(**sequence))
    return encoder, rows, account


def lists_of(encoder: ClickEncoder, rows: Rows, count: int) -> list[list[int | str]]:
    """The first lists of the sequence, by their values."""
    listed, keys = rows.listed["shown"], encoder.vocabularies["item"].keys
    return [
        [
            keys[int(code) - FIRST]
            for code in listed.values[listed.offsets[n] : listed.offsets[n + 1]]
        ]
        for n in range(count)
    ]


@pytest.mark.parametrize(
    "cells",
    [
        ["1 7 24", "3", "", "24 1"],
        ["1,7,24", "3", None, "24,1"],
        ["1, 7, 24", "3", "NA", "24, 1"],
        ["1|7|24", "3", "", "24|1"],
        ["1 | 7 | 24", "3", "", "24 | 1"],
        ["1;7;24", "3", "", "24;1"],
        ["[1, 7, 24]", "[3]", "[]", "[24, 1]"],
        ["[1 7 24]", "[3]", "[]", "[24  1]"],
        ["['1', '7', '24']", "['3']", "[ ]", '["24", "1"]'],
        ["{1,7,24}", "(3,)", "()", "{24,1}"],
        ["[1, null, 7, 24]", "[3, None]", "[nan]", "[24, 1, NA]"],
    ],
)
def test_lists_in_text_are_read_as_they_are_usually_written(tmp_path, cells: list) -> None:
    encoder, rows, _ = fitted(tmp_path / "a.csv", cells)
    assert lists_of(encoder, rows, 4) == LISTS


def test_nulls_in_lists_are_no_events(tmp_path) -> None:
    padded = [[*values, *[None] * (30 - len(values))] for values in LISTS]
    encoder, rows, _ = fitted(tmp_path / "a.parquet", padded)
    assert lists_of(encoder, rows, 4) == LISTS
    start, end = rows.listed["shown"].last(np.arange(4), 20)
    assert (end - start).tolist() == [3, 1, 0, 2]


def test_floats_with_nan_in_lists_are_the_same_ids(tmp_path) -> None:
    padded = [[*map(float, values), float("nan"), None] for values in LISTS]
    encoder, rows, _ = fitted(tmp_path / "a.parquet", padded)
    assert lists_of(encoder, rows, 4) == LISTS


@pytest.mark.parametrize("behind", [True, False])
def test_a_filler_that_no_row_has_as_an_item_is_no_event(tmp_path, behind: bool) -> None:
    filled = [
        values + [0] * (9 - len(values)) if behind else [0] * (9 - len(values)) + values
        for values in LISTS
    ]
    encoder, rows, account = fitted(tmp_path / "a.parquet", filled)
    assert lists_of(encoder, rows, 4) == LISTS
    assert "'0' fills up the lists of lists" in "\n".join(account.lines())
    # The run keeps it: later tables are read alike.
    later = table([[7, 0, 0]])[:1]
    assert schema_of(encoder.schema.as_dict()).sequences["shown"].filler == "0"
    assert len(encoder.rows(later, "later", labels=False).listed["shown"].values) == 1


def test_a_filler_that_is_an_item_too_is_named_and_left_alone(tmp_path) -> None:
    with opened() as account:
        frame = table([[7, 0, 0], [8, 0, 0]]).with_columns(item=pl.col("item") - 1)
        _, rows, _ = fit(saved(tmp_path / "a.parquet", frame), schema())
    assert len(rows.listed["shown"].values) == 3 * len(rows)
    assert "say filler: 0 in the schema" in "\n".join(account.lines())
    _, rows, _ = fit(saved(tmp_path / "a.parquet", frame), schema(filler=0))
    assert len(rows.listed["shown"].values) == len(rows)


def test_lists_whose_values_the_field_does_not_have_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"shown: 100% of its values are no value of item .*split"):
        fitted(tmp_path / "a.csv", ["1-7-24", "24-3"])


def test_lists_that_are_mostly_unseen_later_are_noted(tmp_path) -> None:
    encoder, _, account = fitted(tmp_path / "a.csv", ["1 7", "7 24", "24 1"])
    assert "the lists of lists (shown) are oldest first" in "\n".join(account.lines())
    for cells, noted in ((["1 77", "7 88"], True), (["1 7", "7 88"], False)):
        with opened() as account:
            encode_log(saved(tmp_path / "b.csv", table(cells)), encoder)
        lines = "\n".join(account.lines())
        assert ("50% of the values of shown are no value of item" in lines) == noted


def test_lists_of_lists_are_one_line(tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"a\.parquet: column 'lists' holds lists of List\(Int64\)"
    ):
        fitted(tmp_path / "a.parquet", [[[1, 2]], [[3]]])


def test_a_field_that_holds_lists_needs_to_say_so(tmp_path) -> None:
    plan = parse_schema(
        {
            "user": "user",
            "item": "item",
            "categorical": ["lists"],
            "tasks": {"click": "click"},
            "split": {"by": "random"},
        },
        "schema",
    )
    with pytest.raises(
        InputError, match=r"'lists' holds List\(Int64\), .* say split in the schema"
    ):
        fit(saved(tmp_path / "a.parquet", table(LISTS)), plan)


def test_the_mark_of_the_schema_goes_before_others() -> None:
    column = pl.Series(["a, b|c", "['x, y', 'z']", "d|"])
    values, lengths = values_of(column, "|", "t")
    assert values.to_list() == ["a, b", "c", "x, y", "z", "d"]
    assert lengths.tolist() == [2, 2, 1]
    values, _ = values_of(pl.Series(["a,b c"]), " ", "t", any_mark=True)
    assert values.to_list() == ["a,b", "c"]
    values, _ = values_of(pl.Series(["[Live] a"]), " ", "t", brackets=False)
    assert values.to_list() == ["[Live]", "a"]
