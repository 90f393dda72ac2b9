"""Event logs as codes and histories, against plain loops over the rows."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.clicks import fit as fitting
from headwise.data.clicks import log as logs
from headwise.data.clicks.batches import ClickRows
from headwise.data.clicks.coding import Rows
from headwise.data.clicks.encoder import ClickEncoder
from headwise.data.clicks.fit import encode_log, fit
from headwise.data.clicks.log import Log
from headwise.data.clicks.schema import Schema
from headwise.data.clicks.schema_file import parse_schema
from headwise.data.clicks.split import TEST, TRAIN
from headwise.data.clicks.times import NOW
from headwise.data.clicks.vocabulary import MISSING, UNSEEN
from headwise.tests.data.clicks.saved import saved

SEQUENCES: dict[str, Any] = {
    "all": {"of": "item", "length": 50},
    "good": {"of": "item", "where": {"column": "rating", "at_least": 4}, "length": 3},
    "passed": {"of": "item", "where": {"column": "click", "equals": 0}, "length": 4},
}
MEETS = {
    "all": lambda row: True,
    "good": lambda row: row["rating"] >= 4,
    "passed": lambda row: row["click"] == 0,
}


def schema(**changes: Any) -> Schema:
    values: dict[str, Any] = {
        "user": "user",
        "item": "item",
        "time": "time",
        "categorical": {"user": {}, "item": {}},
        "sequences": SEQUENCES,
        "tasks": {"click": "click", "good": {"column": "rating", "at_least": 4}},
    }
    return parse_schema(values | changes, "schema")


def table(rows: int = 240) -> pl.DataFrame:
    """A log in no order, with many events in one second, some of no user, none twice."""
    random = np.random.default_rng(0)
    users = [None if user == 6 else f"u{user}" for user in random.integers(7, size=rows)]
    tags = [
        None if random.random() < 0.1 else "|".join(random.choice(list("abcde"), 3))
        for _ in range(rows)
    ]
    listed = [
        "|".join(map(str, random.integers(8, size=random.integers(5)))) or None for _ in range(rows)
    ]
    frame = pl.DataFrame(
        {
            "user": users,
            "item": random.integers(8, size=rows),
            "time": random.integers(40, size=rows) * 3600,
            "rating": random.integers(1, 6, size=rows),
            "click": random.integers(2, size=rows),
            "tags": tags,
            "price": pl.Series(random.normal(size=rows).round(3)).set(
                pl.Series(random.random(rows) < 0.1), None
            ),
            "listed": listed,
            "part": random.choice(["train", "train", "validation", "test"], rows),
        }
    )
    return frame.unique(["user", "item", "time"], keep="first", maintain_order=True)


RICH: dict[str, Any] = {
    "tasks": {"click": "click"},  # the rating is a field
    "categorical": {
        "user": {"hash": 50},
        "item": {},
        "tags": {"split": "|", "length": 2},
        "rating": {},
    },
    "numeric": {"price": {"buckets": 4}},
    "time_fields": ["hour", "weekday"],
    "sequences": SEQUENCES
    | {"listed": {"of": "item", "column": "listed", "split": "|", "length": 3}},
}


def histories(
    encoder: ClickEncoder, rows: Rows, which: np.ndarray | None = None
) -> list[dict[str, list[str]]]:
    """For each row, the values of each sequence."""
    data = ClickRows(encoder, rows)
    batch = data.batch(np.arange(len(rows)) if which is None else which)
    names, by_row = list(encoder.schema.sequences), []
    offsets = batch["offsets"].tolist()
    words = ["", "?", *encoder.vocabularies["item"].keys.cast(pl.String)]
    for segment, (start, end) in enumerate(pairwise(offsets)):
        if segment % len(names) == 0:
            by_row.append({})
        codes = batch["events"][start:end] - data.start["item"]
        by_row[-1][names[segment % len(names)]] = [words[code] for code in codes]
    return by_row


def plain_histories(frame: pl.DataFrame) -> list[dict[str, list[str]]]:
    rows, by_row = frame.to_dicts(), []
    for row in rows:
        before = [
            event
            for event in rows
            if event["user"] == row["user"] is not None and event["time"] < row["time"]
        ]
        before.sort(key=lambda event: event["time"])
        items = {
            name: [str(event["item"]) for event in before if MEETS[name](event)]
            for name in SEQUENCES
        }
        by_row.append({name: items[name][-SEQUENCES[name]["length"] :] for name in SEQUENCES})
    return by_row


Fit = tuple[ClickEncoder, Rows, np.ndarray]


def equal_fits(fit_1: Fit, fit_2: Fit) -> None:
    (encoder_1, rows_1, part_1), (encoder_2, rows_2, part_2) = fit_1, fit_2
    for name, known in encoder_1.vocabularies.items():
        assert known.keys.to_list() == encoder_2.vocabularies[name].keys.to_list()
    for name in ("fields", "user", "item", "time", "labels"):
        np.testing.assert_array_equal(getattr(rows_1, name), getattr(rows_2, name), name)
    np.testing.assert_array_equal(part_1, part_2)
    for name, events in encoder_1.events.items():
        np.testing.assert_array_equal(events.keys, encoder_2.events[name].keys)
        np.testing.assert_array_equal(events.codes, encoder_2.events[name].codes)
    for name, lists in rows_1.listed.items():
        np.testing.assert_array_equal(lists.values, rows_2.listed[name].values)
        np.testing.assert_array_equal(lists.offsets, rows_2.listed[name].offsets)
    for side in ("user", "item"):
        for name in ("side_codes", "trained", "last"):
            np.testing.assert_array_equal(
                getattr(encoder_1, name)[side], getattr(encoder_2, name)[side]
            )


def test_histories_hold_only_what_came_before_the_second(tmp_path) -> None:
    frame = table()
    encoder, rows, _ = fit(saved(tmp_path / "a.csv", frame), schema())
    expected = plain_histories(frame)
    assert histories(encoder, rows) == expected
    some = np.array([200, 3, 3, 77])
    assert histories(encoder, rows, some) == [expected[place] for place in some]
    twice = frame.select("user", "time").drop_nulls().is_duplicated().sum()
    assert twice > 50  # so that an event of the same second would be seen


def test_ages_are_powers_of_two_of_seconds(tmp_path) -> None:
    frame = pl.DataFrame(
        {
            "user": [1] * 6,
            "item": [1, 2, 3, 4, 5, 6],
            "time": [0, 90, 97, 99, 100, 100],
            "rating": [4, 5, 1, 4, 1, 4],
            "click": [0, 1, 0, 1, 0, 1],
        }
    )
    log = saved(tmp_path / "a.csv", frame)
    encoder, rows, _ = fit(
        log, schema(sequences={"all": {"of": "item"}}, split={"train": 0.6, "validation": 0.2})
    )
    batch = ClickRows(encoder, rows).batch(np.array([5]))
    assert batch["ages"].tolist() == [7, 4, 2, 1]  # 100, 10, 3, 1 seconds
    assert batch["labels"].tolist() == [[1, 1]]


def test_text_and_parquet_and_several_files_give_the_same_codes(tmp_path) -> None:
    frame = table()
    known = fit(saved(tmp_path / "a.csv", frame), schema(**RICH))
    equal_fits(known, fit(saved(tmp_path / "a.parquet", frame), schema(**RICH)))
    (tmp_path / "parts").mkdir()
    for name, part in (("1.parquet", frame[:50]), ("2.csv", frame[50:51]), ("3.csv", frame[51:])):
        saved(tmp_path / "parts" / name, part)
    equal_fits(known, fit(Log.open(tmp_path / "parts"), schema(**RICH)))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_reading_in_parts_changes_nothing(tmp_path, monkeypatch, kind: str) -> None:
    frame = table().with_columns(
        rating=pl.Series(np.random.default_rng(1).integers(1, 11, len(table()))) / 2
    )
    log = saved(tmp_path / f"a.{kind}", frame)
    at_once = fit(log, schema(**RICH))
    monkeypatch.setattr(logs, "PART", 7)
    equal_fits(at_once, fit(log, schema(**RICH)))
    equal_fits(at_once, encode_log(log, at_once[0])[:1] + at_once[1:])
    monkeypatch.setattr(fitting, "CODES_IN_MEMORY", 0)
    equal_fits(at_once, fit(log, schema(**RICH)))


def test_splits_by_user_and_time_and_column_are_those_of_plain_loops(tmp_path) -> None:
    frame = table()
    log, users = saved(tmp_path / "a.csv", frame), frame["user"].to_list()
    expected = np.full(len(frame), -1)
    for user in set(users):
        of_user = sorted(
            (row for row in range(len(frame)) if users[row] == user),
            key=lambda row: frame["time"][row],
        )
        for place, row in enumerate(of_user):
            n = len(of_user)
            expected[row] = 0 if place < n * 7 // 10 else 1 if place < n * 9 // 10 else 2
    _, rows, part = fit(log, schema(split={"by": "user", "train": 0.7, "validation": 0.2}))
    np.testing.assert_array_equal(part, expected)
    for row in np.flatnonzero(part == 0):
        assert (rows.time[(rows.user == rows.user[row]) & (part > 0)] >= rows.time[row]).all()
    _, rows, part = fit(log, schema(split={"by": "time", "train": 0.5, "validation": 0.25}))
    n = len(rows)
    assert np.bincount(part).tolist() == [n // 2, n * 3 // 4 - n // 2, n - n * 3 // 4]
    assert rows.time[part == 0].max() <= rows.time[part == 1].min() <= rows.time[part == 1].max()
    assert rows.time[part == 1].max() <= rows.time[part == 2].min()
    for words in ({}, {"train": "Training", "validation": "dev"}):
        log = saved(tmp_path / "a.csv", frame.with_columns(pl.col("part").replace(words)))
        _, _, part = fit(log, schema(split={"column": "part"}))
        assert [("train", "validation", "test")[code] for code in part] == frame["part"].to_list()


def test_only_the_training_part_makes_vocabularies_and_rare_values_are_unseen(tmp_path) -> None:
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "c", "a", "b"],
            "item": ["x", "x", "y", None, "z", "x"],
            "time": [1, 2, 3, 4, 5, 6],
            "rating": [5, 1, 5, 1, 5, 1],
            "click": [1, 0, 1, 0, 1, 0],
            "part": ["train", "train", "train", "train", "validation", "test"],
        }
    )
    fields = {"user": {}, "item": {"min_count": 2}, "short": {"column": "part", "prefix": 1}}
    encoder, rows, _ = fit(
        saved(tmp_path / "a.csv", frame), schema(split={"column": "part"}, categorical=fields)
    )
    assert encoder.vocabularies["item"].keys.to_list() == ["x"]
    assert encoder.vocabularies["short"].keys.to_list() == ["t"]
    assert rows.fields[:, 1].tolist() == [2, 2, UNSEEN, MISSING, UNSEEN, 2]
    assert rows.fields[:, 2].tolist() == [2, 2, 2, 2, UNSEEN, 2]
    assert encoder.trained["item"].tolist() == [True, True, False]  # x, y; z comes later
    later = pl.DataFrame({"user": ["new", "b"], "item": ["x", " NaN "], "part": ["q", ""]})
    newer = encoder.rows(later, "t", labels=False)
    assert newer.fields.tolist() == [[UNSEEN, 2, UNSEEN], [3, MISSING, MISSING]]
    assert newer.user.tolist() == [-1, 1]
    assert (newer.time == NOW).all()


def test_cells_with_several_values_and_sequences_listed_in_the_table(tmp_path) -> None:
    frame = table()
    encoder, rows, _ = fit(saved(tmp_path / "a.csv", frame), schema(**RICH))
    words = ["", "?", *encoder.vocabularies["tags"].keys]
    tags = [[words[code] for code in row[2:4]] for row in rows.fields.tolist()]
    assert tags == [(cell or "|").split("|")[:2] for cell in frame["tags"].to_list()]
    assert [row["listed"] for row in histories(encoder, rows)] == [
        cell.split("|")[-3:] if cell else [] for cell in frame["listed"].to_list()
    ]


def test_a_grown_log_keeps_its_codes_and_events(tmp_path) -> None:
    frame = table()
    first, second = (
        saved(tmp_path / "1.csv", frame[:120]),
        saved(tmp_path / "2.csv", frame[80:].with_columns(tags=pl.lit("z|a"))),
    )
    plan = schema(**RICH | {"sequences": SEQUENCES})
    base, before, _ = fit(first, plan)
    grown, rows, _ = fit(second, plan, base)
    for name, known in base.vocabularies.items():
        assert grown.vocabularies[name].keys[: len(known.keys)].to_list() == known.keys.to_list()
    assert grown.vocabularies["tags"].keys[-1] == "z"
    assert (grown.users.keys[: len(base.users.keys)] == base.users.keys).all()
    np.testing.assert_array_equal(grown.edges["price"], base.edges["price"])
    np.testing.assert_array_equal(grown.rows(frame[:120], "t").fields, before.fields)
    assert histories(grown, rows) == plain_histories(frame)[80:]
    again, rows, _ = encode_log(second, base)
    assert histories(again, rows) == plain_histories(frame)[80:]
    assert (encode_log(second, base, split=False)[2] == TEST).all()


def test_joined_tables_also_describe_what_no_row_has(tmp_path) -> None:
    pl.DataFrame({"user": ["u1", "u0", "new"], "age": [30, 20, 99]}).write_csv(
        tmp_path / "users.csv"
    )
    pl.DataFrame({"item": [7, 0, 99], "kind": ["p q", "q", "q r"]}).write_csv(
        tmp_path / "items.csv"
    )
    frame = table()
    plan = schema(
        join=[{"table": "users.csv", "on": "user"}, {"table": "items.csv", "on": "item"}],
        categorical={"item": {}, "kind": {"split": " ", "length": 2}},
        numeric={"age": {"buckets": 10}},
    )
    encoder, rows, _ = fit(saved(tmp_path / "a.csv", frame), plan)
    assert [(c.name, c.side) for c in encoder.columns] == [
        ("item", "row"),
        ("age", "user"),
        ("kind", "item"),
    ]
    kinds = {key: 2 + place for place, key in enumerate(encoder.vocabularies["kind"].keys)}
    assert set(kinds) == {
        "p",
        "q",
    }  # the value of an item that nobody met is no value of the training part
    who = encoder.items.codes(pl.Series([99, 7, 0, 3, 1234])) - 2
    assert encoder.side("item", np.maximum(who, -1)).tolist() == [
        [kinds["q"], UNSEEN],
        [kinds["p"], kinds["q"]],
        [kinds["q"], MISSING],
        [MISSING] * 2,
        [MISSING] * 2,
    ]
    batch = ClickRows(encoder, rows).batch(np.arange(len(rows)))
    start = ClickRows(encoder, rows).start
    has = {"u0": 2, "u1": encoder.size("age") - 1}
    assert (batch["fields"][:, 1] - start["age"]).tolist() == [
        has.get(user, 0) for user in frame["user"]
    ]
    asked = encoder.rows(
        pl.DataFrame({"user": ["new"], "item": [99], "kind": ["p"]}), "t", labels=False
    )
    assert ClickRows(encoder, asked).batch(np.array([0]))["fields"].tolist() == [
        [UNSEEN, start["age"] + has["u1"], start["kind"] + kinds["p"], start["kind"] + MISSING]
    ]
    pl.DataFrame({"item": [7, 7], "kind": ["p", "q"]}).write_csv(tmp_path / "items.csv")
    with pytest.raises(InputError, match=r"items\.csv: item '7' appears more than once"):
        fit(Log.open(tmp_path / "a.csv"), plan)


def test_a_row_without_a_time_is_just_after_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    table().write_csv(path)
    encoder, rows, _ = fit(Log.open(path), schema())
    late = Rows(rows.fields[:1], np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([NOW]))
    after = Rows(late.fields, late.user, late.item, np.array([rows.time.max() + 1]))
    batch, expected = (
        ClickRows(encoder, row).batch(np.zeros(1, np.int64)) for row in (late, after)
    )
    assert len(batch["ages"])
    for name in ("events", "ages", "offsets"):
        assert batch[name].tolist() == expected[name].tolist()


MOMENTS = pl.Series([1_700_000_000 + 3_600 * 7 * place for place in range(40)])
"""Seconds since 1970, seven hours apart, so that hours and weekdays differ."""
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def written_times(kind: str, unit: str) -> pl.Series:
    """The moments in a unit: as integers, as fractions, as text, or with a gap in the
    column.
    """
    integers = MOMENTS * PER_SECOND[unit]
    if kind == "fractions":
        return integers.cast(pl.Float64) + 0.25
    return integers.cast(pl.String) if kind == "text" else integers


def log_of_moments(
    path: Path, time: pl.Series, unit: str = "s"
) -> tuple[ClickEncoder, Rows, np.ndarray]:
    frame = pl.DataFrame(
        {
            "user": [1] * 40,
            "item": range(40),
            "time": time,
            "rating": [1, 5] * 20,
            "click": [0, 1] * 20,
        }
    )
    frame.write_parquet(path)
    return fit(
        Log.open(path),
        schema(time={"column": "time", "unit": unit}, time_fields=["hour", "weekday", "month"]),
    )


def assert_moments(encoder: ClickEncoder, rows: Rows) -> None:
    np.testing.assert_array_equal(rows.time, MOMENTS.to_numpy())
    moment = pl.from_epoch(MOMENTS, "s")
    hour, weekday, month = rows.fields[:, 2:].T
    np.testing.assert_array_equal(hour, 2 + moment.dt.hour().to_numpy())
    np.testing.assert_array_equal(weekday, 1 + moment.dt.weekday().to_numpy())
    np.testing.assert_array_equal(month, 1 + moment.dt.month().to_numpy())
    assert [encoder.size(name) for name in ("hour", "weekday", "month")] == [26, 9, 14]


@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize("kind", ["integers", "fractions", "text"])
def test_a_time_is_the_same_second_in_every_unit(tmp_path: Path, kind: str, unit: str) -> None:
    encoder, rows, _ = log_of_moments(tmp_path / "a.parquet", written_times(kind, unit), unit)
    assert_moments(encoder, rows)
    gap = pl.DataFrame(
        {"user": [1, 1], "item": [3, 4], "time": [written_times(kind, unit)[9], None]}
    )
    asked = encoder.rows(gap, "t", labels=False)
    assert asked.time.tolist() == [MOMENTS[9], NOW]
    assert (asked.fields[1, 2:] == MISSING).all()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "America/New_York"])
def test_a_typed_time_keeps_its_zone(tmp_path: Path, zone: str | None, unit: str) -> None:
    moment = pl.from_epoch(MOMENTS, "s").cast(pl.Datetime(unit))
    if zone is not None:
        moment = moment.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    assert_moments(*log_of_moments(tmp_path / "a.parquet", moment)[:2])


def test_fields_labels_and_histories_stay_with_their_rows(tmp_path: Path) -> None:
    """Of rows in any order, and of some of them, as a loader asks for them; none is lost."""
    frame = table()
    clicked = {"column": "click", "only_where": {"column": "part", "equals": "train"}}
    tasks = {"good": {"column": "rating", "at_least": 4}, "click": clicked}
    encoder, rows, part = fit(saved(tmp_path / "a.csv", frame), schema(tasks=tasks))
    assert len(rows) == len(part) == len(frame)
    which = np.random.default_rng(0).permutation(len(frame))[:150]
    asked = [4, 149, 0, 77, 4]
    data = ClickRows(encoder, rows, which)
    assert len(data) == 150
    batch, truth = data.__getitems__(asked), frame[which[asked].tolist()]
    words = {
        name: [None, "?", *encoder.vocabularies[name].keys.cast(pl.String)]
        for name in ("user", "item")
    }
    for place, name in enumerate(("user", "item")):
        codes = (batch["fields"][:, place] - data.start[name]).tolist()
        expected = truth[name].cast(pl.String).to_list()
        assert all(words[name][code] in (value, "?") for code, value in zip(codes, expected))
        assert [words[name][code] for code in codes if code > 1]
    assert batch["labels"][:, 0].tolist() == (truth["rating"] >= 4).cast(pl.Float32).to_list()
    counts = (truth["part"] == "train").to_list()
    assert batch["counts"].tolist() == [[True, counted] for counted in counts]
    assert batch["labels"][:, 1].tolist() == [
        float(click) if counted else 0.0 for click, counted in zip(truth["click"], counts)
    ]
    assert histories(encoder, rows, which[asked]) == [
        plain_histories(frame)[row] for row in which[asked]
    ]


@pytest.mark.parametrize("joined", [False, True])
def test_buckets_come_from_the_training_part_alone(tmp_path: Path, joined: bool) -> None:
    """Edges of numbers, whether the log holds them or a joined table does, counted by rows of the
    training part.
    """
    rng = np.random.default_rng(2)
    train, later = rng.normal(size=60).round(3), rng.normal(50, 1, 40).round(3)
    part = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
    frame = pl.DataFrame(
        {
            "user": range(100),
            "item": range(100),
            "time": range(100),
            "rating": [1, 5] * 50,
            "click": [0, 1] * 50,
            "part": part,
            "size": np.r_[train, later],
        }
    )
    options: dict[str, Any] = {
        "numeric": {"size": {"buckets": 5}},
        "split": {"column": "part"},
        "sequences": {},
    }
    if joined:
        frame.select("item", "size").write_csv(tmp_path / "items.csv")
        frame, options["join"] = frame.drop("size"), [{"table": "items.csv", "on": "item"}]
    encoder, rows, fitted_part = fit(
        saved(tmp_path / "a.csv", frame.sample(fraction=1, shuffle=True, seed=4)), schema(**options)
    )
    np.testing.assert_allclose(
        encoder.edges["size"], np.unique(np.quantile(train, [0.2, 0.4, 0.6, 0.8]))
    )
    for side, who in (("user", rows.user), ("item", rows.item)):
        assert encoder.trained[side].sum() == 60
        np.testing.assert_array_equal(encoder.trained_on(side, who), fitted_part == TRAIN)


def test_the_last_row_of_each_is_the_newest(tmp_path: Path) -> None:
    """Of users and of items, in any order of the log; of one second, the later row."""
    frame = table()
    log = saved(tmp_path / "a.csv", frame)
    encoder, rows, _ = fit(log, schema(**RICH))
    for side, who in (("user", rows.user), ("item", rows.item)):
        for place in range(len(encoder.last[side])):
            rows_of = np.flatnonzero(who == place)
            newest = rows_of[np.argsort(rows.time[rows_of], kind="stable")[-1]]
            np.testing.assert_array_equal(encoder.last[side][place], rows.fields[newest])
    first = saved(tmp_path / "1.csv", frame[:150])
    base = fit(first, schema(**RICH))[0]
    later = frame[150:].with_columns(time=pl.col("time") + 10**6)
    grown, rows, _ = fit(saved(tmp_path / "2.csv", later), schema(**RICH), base)
    newer = {int(rows.user[row]): rows.fields[row] for row in np.argsort(rows.time, kind="stable")}
    for user, before in enumerate(base.last["user"]):
        np.testing.assert_array_equal(grown.last["user"][user], newer.get(user, before))


def test_places_of_a_listed_sequence_are_its_ages(tmp_path: Path) -> None:
    """The last entry is the newest: 1 from the end, then 2, 3, ... by powers of two."""
    frame = pl.DataFrame(
        {
            "user": [1, 1, 2] * 10,
            "item": [1, 2, 3] * 10,
            "time": range(30),
            "rating": [5, 1, 5] * 10,
            "click": [0, 1, 0] * 10,
            "listed": ["1|2|3|1|2", "3", None] * 10,
        }
    )
    listed = {"listed": {"of": "item", "column": "listed", "split": "|", "length": 4}}
    encoder, rows, _ = fit(saved(tmp_path / "a.csv", frame), schema(sequences=listed))
    batch = ClickRows(encoder, rows).batch(np.array([0, 1, 2, 0]))
    assert batch["offsets"].tolist() == [0, 4, 5, 5, 9]
    assert batch["ages"].tolist() == [3, 2, 2, 1, 1, 3, 2, 2, 1]  # 4, 3, 2, 1 from the end
