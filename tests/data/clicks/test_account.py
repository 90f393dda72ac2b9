"""What the account says of a log, and what is refused as it would make a result wrong."""

import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.clicks.account import empty_cells
from headwise.data.clicks.fit import encode_log, fit
from headwise.data.clicks.layouts import open_log
from headwise.data.clicks.log import Log
from headwise.data.clicks.row_parts import RowParts
from headwise.data.clicks.schema import Schema
from headwise.data.clicks.schema_file import parse_schema
from headwise.data.clicks.split import PARTS
from headwise.data.clicks.times import check_as_in_log
from headwise.tests.data.clicks.saved import click_schema as schema
from headwise.tests.data.clicks.saved import saved


def table(rows: int = 400, **columns: Any) -> pl.DataFrame:
    random = np.random.default_rng(0)
    plain = {
        "user": random.integers(10, size=rows),
        "item": random.integers(20, size=rows),
        "time": np.sort(random.choice(10**6, rows, replace=False)),
        "click": random.integers(2, size=rows),
    }
    return pl.DataFrame(plain | columns)


def lines_of(log: Log, plan: Schema) -> str:
    with opened() as account:
        fit(log, plan)
    return "\n".join(account.lines())


def test_what_was_read_and_what_was_not_used(tmp_path) -> None:
    frame = table(extra=pl.Series(["x"] * 400), free=pl.Series([1] * 400))
    lines = lines_of(saved(tmp_path / "a.csv", frame), schema())
    assert "read: 400 events; 10 users; 20 items" in lines
    assert "columns: 2 not used (extra, free)" in lines
    assert "of each user's rows in time, the first 80% train" in lines
    log = Log((str(tmp_path / "a.csv"),) * 2, tmp_path)
    assert "read: 2 files of the log; 800 events" in lines_of(log, schema())


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"by": "time"}, "of all rows in time"),
        ({"by": "random"}, "at random .*: what came later may help to predict what came before"),
    ],
)
def test_the_split_is_said(tmp_path, split: dict, words: str) -> None:
    lines = lines_of(saved(tmp_path / "a.csv", table()), schema(split=split))
    assert re.search(words, lines)


def test_missing_and_unseen_values_are_shares_of_fields(tmp_path) -> None:
    rows = np.arange(400)
    frame = table(
        late=np.where(rows < 360, "old", "new"),
        price=[None if row % 4 == 0 else row % 9 for row in rows],
    )
    plan = schema(categorical=["late"], numeric=["price"], split={"by": "time"})
    lines = lines_of(saved(tmp_path / "a.csv", frame), plan)
    assert "1 fields with missing cells (price 25.0%)" in lines
    assert "fields with values that the training part does not have (late 50.0%)" in lines


def test_events_that_stand_there_twice_are_counted(tmp_path) -> None:
    frame = table()
    twice = pl.concat([frame, frame[:30], frame[30:40].with_columns(click=1 - pl.col("click"))])
    lines = lines_of(saved(tmp_path / "a.csv", twice), schema(split={"by": "random"}))
    assert "40 rows that repeat an event" in lines
    assert "10 such events with two labels" in lines
    assert "such events in two parts" in lines
    assert "repeat an event" not in lines_of(saved(tmp_path / "a.csv", frame), schema())
    no_time = parse_schema(
        {
            "user": "user",
            "item": "item",
            "categorical": ["item"],
            "tasks": {"click": "click"},
            "split": {"by": "random"},
        },
        "s",
    )
    assert "repeat an event" not in lines_of(saved(tmp_path / "a.csv", twice), no_time)


def test_a_part_with_one_label_is_named(tmp_path) -> None:
    frame = table()
    only_no = frame.with_columns(click=pl.when(pl.int_range(400) < 360).then("click").otherwise(0))
    lines = lines_of(saved(tmp_path / "a.csv", only_no), schema(split={"by": "time"}))
    assert "click has no AUC on the test part: every label of the test part is 0" in lines


def test_a_log_of_what_was_taken_alone_says_what_it_lacks(tmp_path) -> None:
    log = saved(tmp_path / "a.csv", table(click=[1] * 400))
    with pytest.raises(InputError, match=r"every label .* is 1; .* rows, too, on which nothing"):
        fit(log, schema())


@pytest.mark.parametrize(
    "changes",
    [
        {"categorical": {"item": {}, "click": {}}},
        {"numeric": {"same": {"column": "click"}}},
        {"sequences": {"s": {"of": "item", "column": "click"}}},
    ],
)
def test_a_label_among_the_features_is_refused_unless_accepted(tmp_path, changes: dict) -> None:
    log = saved(tmp_path / "a.csv", table())
    with (
        opened(),
        pytest.raises(InputError, match=r"'click' is the label of task click and a feature, too"),
    ):
        fit(log, schema(**changes))
    with opened(["label-as-feature"]) as account:
        fit(log, schema(**changes))
    assert any("a feature, too" in line for line in account.lines())


def test_conditions_of_histories_may_read_a_label(tmp_path) -> None:
    plan = schema(sequences={"clicked": {"of": "item", "where": "click"}})
    assert "feature, too" not in lines_of(saved(tmp_path / "a.csv", table()), plan)


def test_rows_are_recognised_by_what_they_hold(tmp_path) -> None:
    frame = table(400).with_columns(page=pl.lit("p"))
    log = saved(tmp_path / "a.csv", frame)
    encoder, _, part = fit(log, schema(categorical=["user", "item", "page"]))
    names = [list(PARTS)[code] for code in part]
    shuffled = np.random.default_rng(2).permutation(400)
    again = encoder.rows(frame[shuffled.tolist()], "t", labels=False)
    assert encoder.row_parts.names(again).to_list() == [names[row] for row in shuffled]
    other = frame.with_columns(time=pl.col("time") + 1)
    assert encoder.row_parts.names(encoder.rows(other, "t")).null_count() > 390
    assert RowParts().names(again).null_count() == 400


def test_a_row_in_two_parts_is_one_of_the_first(tmp_path) -> None:
    frame = table(200)
    log = saved(
        tmp_path / "a.csv",
        pl.concat([frame, frame]).with_columns(
            part=pl.Series(["test"] * 100 + ["validation"] * 100 + ["train"] * 200)
        ),
    )
    encoder, rows, _ = fit(log, schema(split={"column": "part"}))
    assert set(encoder.row_parts.names(rows)) == {"train"}


def test_later_events_are_accounted_for(tmp_path) -> None:
    encoder, _, _ = fit(saved(tmp_path / "a.csv", table()), schema())
    later = table(50, item=np.arange(50) + 900).with_columns(spare=pl.lit(1))
    with opened() as account:
        encode_log(saved(tmp_path / "b.csv", later), encoder, split=False)
    lines = "\n".join(account.lines())
    assert "read: 50 events" in lines
    assert "1 not used (spare)" in lines
    assert "(item 100.0%)" in lines
    assert "train," not in lines


def test_a_schema_finds_the_log_of_its_name(tmp_path) -> None:
    saved(tmp_path / "clicks.parquet", table())
    (tmp_path / "clicks.yaml").write_text(
        "user: user\nitem: item\ntime: time\ncategorical: [item]\ntasks: {click: click}\n"
    )
    with opened() as account:
        log, _ = open_log(str(tmp_path / "clicks.yaml"))
    assert log.files == (str(tmp_path / "clicks.parquet"),)
    assert "clicks.parquet, which lies next to its schema" in "\n".join(account.lines())
    saved(tmp_path / "clicks.csv", table())
    with pytest.raises(InputError, match="names no log"):
        open_log(str(tmp_path / "clicks.yaml"))


def test_a_plain_table_has_neither_users_nor_items(tmp_path) -> None:
    frame = table()
    plan = schema(
        user=None, item=None, split={"by": "time"}, numeric=["item"], categorical=["user"]
    )
    with opened() as account:
        encoder, rows, _ = fit(saved(tmp_path / "a.csv", frame), plan)
    assert (rows.user == -1).all()
    assert (rows.item == -1).all()
    assert len(encoder.users.keys) == len(encoder.items.keys) == 0
    lines = "\n".join(account.lines())
    assert "rows are of no user" in lines
    assert "read: 400 events\n" in lines + "\n"
    for changes, words in (
        ({"split": {"by": "user"}}, "by user needs a user"),
        ({"sequences": {"s": {"of": "item"}}}, "needs user, or a column"),
        ({"join": [{"table": "x.csv", "on": "user"}]}, "on must be the user's or item's id"),
    ):
        with pytest.raises(InputError, match=words):
            schema(user=None, item=None, **{"split": {"by": "time"}, **changes})
    with pytest.raises(InputError, match=r"has no 'user'; .*user: null"):
        parse_schema({"item": "i", "tasks": {"a": "b"}, "categorical": ["i"]}, "s")


def test_joined_tables_are_matched_whatever_the_type_of_their_ids(tmp_path) -> None:
    ages = {"user": [f"{user}.0" for user in range(8)] + ["77"], "age": list(range(9))}
    pl.DataFrame(ages).write_csv(tmp_path / "users.csv")
    plan = schema(join=[{"table": "users.csv", "on": "user"}], numeric=["age"])
    log = saved(tmp_path / "a.parquet", table())
    with opened() as account:
        encoder, rows, _ = fit(log, plan)
    assert encoder.users.keys.to_list()[-1] == 77
    assert len(encoder.users.keys) == 11
    codes = encoder.side("user", rows.user)[:, 0]
    assert ((codes == 0) == (table()["user"] >= 8).to_numpy()).all()
    lines = "\n".join(account.lines())
    assert "2 users have no row in users.csv" in lines
    pl.DataFrame({"user": ["u1", "u2"], "age": [1, 2]}).write_csv(tmp_path / "users.csv")
    with pytest.raises(InputError, match=r"users\.csv: column 'user' holds no user of the log"):
        fit(log, plan)


def moments_table(rows: int = 400, *, start: int = 1_700_000_000) -> pl.DataFrame:
    return table(rows).with_columns(time=start + pl.col("time"), colour=pl.lit("red"))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (20_240_110, "runs from 1970-08-23 to 1970-08-23, but that of the run's log from 2023"),
        (45_301, "runs from 1970-01-01 to 1970-01-01, but"),
        (1_700_000_400_000, r"not a time in s since 1970 .*name the unit \(unit: ms\)"),
    ],
    ids=["date", "day of Excel", "milliseconds"],
)
def test_rows_to_score_of_another_clock_are_refused(tmp_path, times: int, words: str) -> None:
    log = saved(tmp_path / "a.csv", moments_table())
    encoder, _, _ = fit(log, schema(categorical=["colour"]))

    def check(frame: pl.DataFrame) -> None:
        coded = encoder.rows(frame, "new", labels=False)
        check_as_in_log(coded.time, encoder.span, encoder.schema, "new")

    with pytest.raises(InputError, match=words):
        check(moments_table(9).with_columns(time=pl.lit(times)))
    check(moments_table(9, start=1_800_000_000))


def test_cells_are_counted_that_are_empty_in_new_rows_alone(tmp_path) -> None:
    frame = moments_table().with_columns(
        shade=pl.when(pl.col("click") > 0).then(pl.lit("dark"))  # has empty cells in training, too
    )
    plan = schema(categorical=["colour", "shade"])
    encoder, _, _ = fit(saved(tmp_path / "a.csv", frame), plan)
    assert encoder.complete == {"colour"}
    new = frame.head(10).with_columns(
        colour=pl.lit(None, pl.String), time=pl.when(pl.col("click") > 0).then(pl.col("time"))
    )
    counts = empty_cells(encoder, encoder.rows(new, "new", labels=False), new.columns)
    clicks = int(new["time"].null_count())
    assert counts == {
        "rows without a readable time, scored as of now, after all events": clicks,
        "empty or unreadable cells of colour, of which the training part has none": 10,
    }
    log = saved(tmp_path / "b.csv", frame.with_columns(colour=pl.lit(None, pl.String)))
    with opened() as account:
        encode_log(log, encoder, split=False)
    assert any("400 empty or unreadable cells of colour" in line for line in account.lines())
