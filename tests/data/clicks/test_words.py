"""Words and types of cells: missing cells, answers, moments, and one value in several types."""

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.clicks import log as logs
from headwise.data.clicks.cells import task_labels
from headwise.data.clicks.fit import fit
from headwise.data.clicks.log import Log
from headwise.data.clicks.marks import NumberMarks, with_points
from headwise.data.clicks.schema import Schema, schema_of
from headwise.data.clicks.times import moments, seconds
from headwise.data.clicks.vocabulary import Vocabulary, bucketed, clean, equal_counts
from headwise.tests.data.clicks.saved import click_schema, saved

COUNTRIES = ["DE", "NA", "FR", "null", "None", "nan", "US", "n/a"]


def schema(**changes: Any) -> Schema:
    return click_schema(**{"split": {"by": "time"}, **changes})


def table(rows: int = 80, **columns: Any) -> pl.DataFrame:
    plain = {
        "user": [row % 5 for row in range(rows)],
        "item": [row % 8 for row in range(rows)],
        "time": [1_700_000_000 + 60 * row for row in range(rows)],
        "click": [row % 3 == 0 for row in range(rows)],
    }
    return pl.DataFrame(plain | columns)


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(COUNTRIES)])
def test_words_for_missing_cells_are_missing_or_values_in_every_type(tmp_path, kind) -> None:
    cells = pl.Series("country", COUNTRIES * 10, dtype=pl.String).cast(kind)
    log = saved(tmp_path / "a.parquet", table(country=cells))
    with opened() as account:
        encoder, rows, _ = fit(log, schema(categorical={"country": {}}))
    assert sorted(encoder.vocabularies["country"].keys) == ["DE", "FR", "US"]
    assert (rows.fields[:, 0] == 0).tolist() == [
        cell not in ("DE", "FR", "US") for cell in COUNTRIES * 10
    ]
    assert "cells of country hold a word that counts as missing" in "\n".join(account.lines())
    plan = schema(categorical={"country": {"missing_words": False}})
    encoder, rows, _ = fit(log, plan)
    assert sorted(encoder.vocabularies["country"].keys) == sorted(COUNTRIES)
    assert rows.fields.min() > 1
    assert schema_of(plan.as_dict()) == plan
    same = encoder.codes("country", pl.Series(["NA", " null ", ""]), "t")[0][:, 0].tolist()
    keys = encoder.vocabularies["country"].keys.to_list()
    assert same == [keys.index("NA") + 2, keys.index("null") + 2, 0]


def test_users_of_such_names_are_users_where_the_schema_says_so(tmp_path) -> None:
    log = saved(tmp_path / "a.csv", table(user=["null", "NA", "x", "y"] * 20))
    with opened() as account:
        _, rows, _ = fit(log, schema())
    assert (rows.user < 0).sum() == 40
    assert "40 rows without a known user" in "\n".join(account.lines())
    encoder, rows, _ = fit(log, schema(categorical={"user": {"missing_words": False}}))
    assert (rows.user >= 0).all()
    assert set(encoder.users.keys) == {"null", "NA", "x", "y"}


def test_a_vocabulary_that_has_a_word_keeps_it() -> None:
    """Runs of earlier versions learned words from columns of categories."""
    words = Vocabulary(pl.Series("key", ["DE", "NA"]))
    assert words.codes(pl.Series(["NA", "DE", "null", ""])).tolist() == [3, 2, 1, 0]


def test_one_value_has_one_code_in_every_type_of_column() -> None:
    numbers = Vocabulary().grown(pl.Series([7, 0, 1]))
    assert numbers.codes(pl.Series(["7.0", "7", "7.5", "07.0"])).tolist() == [2, 2, 1, 1]
    assert numbers.codes(pl.Series([7.0, 1.0])).tolist() == [2, 4]
    text = Vocabulary().grown(pl.Series(["7.0", "8.5"]))
    assert text.codes(pl.Series([7, 9])).tolist() == text.codes(pl.Series([7.0, 9.0])).tolist()
    assert text.codes(pl.Series([7])).tolist() == [2]
    flags = Vocabulary().grown(pl.Series([True, False]))
    assert flags.codes(pl.Series(["TRUE", "false", "maybe"])).tolist() == [2, 3, 1]
    words = Vocabulary().grown(pl.Series(["False", "True"]))
    assert words.codes(pl.Series([True, False, None])).tolist() == [3, 2, 0]


@pytest.mark.parametrize(
    ("yes", "no"), [("true", "false"), ("True", "False"), ("YES", "no"), ("y", "N"), ("1", "0")]
)
@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
def test_answers_in_words_are_labels(yes: str, no: str, kind) -> None:
    frame = pl.DataFrame({"click": pl.Series([yes, no, None, f" {yes} ", "NA"]).cast(kind)})
    plan = schema(tasks={"click": "click", "not": {"column": "click", "equals": False}})
    with opened() as account:
        labels = task_labels(frame, plan, "t")
    assert labels.T.tolist() == [[1, 0, -1, 1, -1], [0, 1, -1, 0, -1]]
    assert (f"in click that count as 1 ({yes})" in "\n".join(account.lines())) == (yes != "1")


def test_other_words_for_labels_are_asked_for() -> None:
    frame = pl.DataFrame({"click": ["clicked", "shown"]})
    with pytest.raises(InputError, match=r"holds 'clicked', .*say equals: clicked in the schema"):
        task_labels(frame, schema(), "t")


def test_rows_without_a_label_are_counted(tmp_path) -> None:
    cells = ["1", "0", "nan", "None", "NA", "", "0", "1"] * 10
    with opened() as account:
        _, rows, _ = fit(saved(tmp_path / "a.csv", table(click=cells)), schema())
    assert rows.labels is not None
    assert rows.labels[:8, 0].tolist() == [1, 0, -1, -1, -1, -1, 0, 1]
    assert "40 rows without a label of click" in "\n".join(account.lines())


MOMENTS = {
    "2023-11-14 22:13:54": 1_700_000_034,
    "2023-11-14T22:13:54Z": 1_700_000_034,
    "2023-11-14T22:13:54.987654": 1_700_000_034,
    "2023-11-14 23:13:54+01:00": 1_700_000_034,
    "2023-11-14 16:43:54-0530": 1_700_000_034,
    "2023-11-14 22:13:54 UTC": 1_700_000_034,
    "2023/11/14 22:13": 1_699_999_980,
    "2023-11-14": 1_699_920_000,
    "1970-01-01": 0,
    "2023-02-30": None,
    "2023-11-14 24:00": None,
    "23-11-14": None,
    "14.11.2023": None,
    "11/14/2023 10:13 PM": None,
    "noon": None,
    "": None,
}


@pytest.mark.parametrize("text", MOMENTS)
def test_moments_in_text_are_seconds_in_utc(text: str) -> None:
    assert moments(pl.Series([text])).to_list() == [MOMENTS[text]]


def test_a_log_with_times_in_text_is_that_with_numbers(tmp_path) -> None:
    plain = table()
    text = plain.with_columns(pl.from_epoch("time", "s").dt.strftime("%Y-%m-%d %H:%M:%S"))
    plan = schema(time_fields=["hour"], sequences={"met": {"of": "item"}})
    numbers = fit(saved(tmp_path / "a.csv", plain), plan)
    with opened() as account:
        words = fit(saved(tmp_path / "b.csv", text), plan)
    np.testing.assert_array_equal(numbers[1].time, words[1].time)
    np.testing.assert_array_equal(numbers[1].fields, words[1].fields)
    np.testing.assert_array_equal(numbers[0].events["met"].keys, words[0].events["met"].keys)
    lines = "\n".join(account.lines())
    assert "times without a zone are UTC" in lines
    assert "time runs from 2023-11-14 22:13 to 2023-11-14 23:32 in UTC" in lines


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([dt.timedelta(seconds=1)] * 80, r"holds Duration.*, which names no day"),
        ([dt.time(1)] * 80, r"holds Time, which names no day"),
        ([20_230_101 + row % 28 for row in range(80)], "looks like a date.*; write 2023-01-01"),
        ([1_700_000_000_000 + row for row in range(80)], r"name the unit \(unit: ms\)"),
        (["01/31/2022"] * 80, "not a time in s since 1970 nor like 2024-01-31"),
    ],
)
def test_times_that_are_no_moments_are_one_line(tmp_path, cells: list, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        fit(saved(tmp_path / "a.parquet", table(time=cells)), schema())
    assert "\n" not in str(caught.value)


def test_a_unit_that_makes_the_log_old_is_asked_about(tmp_path) -> None:
    plan = schema(time={"column": "time", "unit": "ms"})
    for factor, asked in ((1, True), (1000, False)):
        log = saved(tmp_path / "a.csv", table().with_columns(time=pl.col("time") * factor))
        with opened() as account:
            fit(log, plan)
        lines = "\n".join(account.lines())
        assert ("In s they would be of our days" in lines) == asked
        assert "numbers are ms" in lines


def test_durations_and_nested_columns_as_fields_are_one_line(tmp_path) -> None:
    spans = table(span=[dt.timedelta(seconds=row) for row in range(80)])
    with pytest.raises(InputError, match=r"column 'span' of span holds Duration.*, not numbers"):
        fit(saved(tmp_path / "a.parquet", spans), schema(numeric=["span"]))
    for cells in ([{"a": 1}] * 80, [b"\xff"] * 80):
        log = saved(tmp_path / "a.parquet", table(odd=cells))
        with pytest.raises(InputError, match=r"column 'odd' holds .*, not one value a cell"):
            fit(log, schema(categorical=["odd"]))


def test_a_time_that_a_prediction_cannot_read_is_counted() -> None:
    frame = pl.DataFrame({"time": ["2023-11-14 22:13:54", "noon", None]})
    time, bad = seconds(frame, schema(), "t", needed=False)
    assert time.tolist() == [1_700_000_034, (1 << 32) - 1, (1 << 32) - 1]
    assert bad.tolist() == [False, True, False]


def test_a_frequent_number_has_a_bucket_of_its_own() -> None:
    random = np.random.default_rng(0)
    rest = random.lognormal(size=80)
    amounts = np.r_[np.zeros(920), rest]
    codes = bucketed(amounts, equal_counts(amounts, 10))
    assert len(set(codes[:920])) == 1
    assert len(equal_counts(amounts, 10)) == 9
    counts = np.bincount(codes)[2:]
    assert counts[0] == 920
    assert counts[1:].min() >= 8
    both = np.r_[np.full(900, 5.0), random.normal(0, 1, 60), random.normal(9, 1, 40)]
    codes = bucketed(both, equal_counts(both, 10))
    assert set(codes[900:]).isdisjoint(codes[:900])
    assert len(set(codes)) == 10
    assert len(set(codes[:900])) == 1


@pytest.mark.parametrize("buckets", [2, 3, 4])
@pytest.mark.parametrize("frequent", [0.0, 5.0, 10.0])
def test_few_buckets_still_tell_something(buckets: int, frequent: float) -> None:
    values = np.r_[np.full(95, frequent), [0, 1, 2, 9, 10]]
    edges = equal_counts(values, buckets)
    assert 1 <= len(edges) <= buckets - 1
    assert (np.diff(edges) > 0).all()
    assert len(set(bucketed(values, edges))) == len(edges) + 1


def test_numbers_without_a_frequent_one_are_cut_as_before() -> None:
    values = np.random.default_rng(0).integers(5, size=1000).astype(float)
    np.testing.assert_array_equal(equal_counts(values, 10), [1, 2, 3, 4])
    assert len(equal_counts(np.ones(9), 10)) == 0


def test_fields_that_say_nothing_are_named(tmp_path) -> None:
    frame = table(price=[7.0] * 80, shop=["a"] * 80, kind=["a", "b"] * 40)
    with opened() as account:
        fit(
            saved(tmp_path / "a.csv", frame),
            schema(categorical=["user", "shop", "kind"], numeric=["price"]),
        )
    (entry,) = [entry for entry in account.entries() if "one value" in entry.what]
    assert set(entry.names) == {"price", "shop"}


def test_columns_of_categories_are_cleaned_as_text() -> None:
    for kind in (pl.Categorical, pl.Enum([" a ", "NaN", "b"])):
        assert clean(pl.Series([" a ", "NaN", "b"]).cast(kind)).to_list() == ["a", None, "b"]


GERMAN = [f"{row // 10}.{row % 1000:03d},{row % 100:02d}" for row in range(80)]
AMERICAN = [f"{row // 10},{row % 1000:03d}.{row % 100:02d}" for row in range(80)]
PLAIN = [row // 10 * 1000 + row % 1000 + row % 100 / 100 for row in range(80)]


@pytest.mark.parametrize("cells", [GERMAN, AMERICAN])
def test_numbers_are_read_by_the_marks_of_their_file(tmp_path, monkeypatch, cells: list) -> None:
    plan = schema(numeric={"price": {"buckets": 8}}, categorical={"user": {}})
    numbers = fit(saved(tmp_path / "a.parquet", table(price=PLAIN)), plan)
    text = fit(saved(tmp_path / "b.csv", table(price=cells)), plan)
    np.testing.assert_array_equal(numbers[0].edges["price"], text[0].edges["price"])
    np.testing.assert_array_equal(numbers[1].fields, text[1].fields)
    # Read in parts, those that could be both are read as the file is.
    monkeypatch.setattr(logs, "PART", 3)
    parts = fit(Log.open(tmp_path / "b.csv"), plan)
    np.testing.assert_array_equal(numbers[1].fields, parts[1].fields)


def test_a_table_that_does_not_say_its_mark_is_read_as_the_log_was(tmp_path) -> None:
    cells = ["1.234", "0,5", "12", "2.000"] * 20
    with opened() as account:
        encoder, _, _ = fit(
            saved(tmp_path / "a.csv", table(price=cells)), schema(numeric={"price": {}})
        )
    assert encoder.marks.commas == {"price": True}
    assert "decimal comma (price)" in "\n".join(account.lines())
    unclear = pl.DataFrame({"price": ["1.234", "3"]})
    saved(tmp_path / "b.csv", unclear)
    read = with_points(unclear, ["price"], str(tmp_path / "b.csv"), encoder.marks)
    assert read["price"].cast(pl.Float64).to_list() == [1234, 3]
    read = with_points(unclear, ["price"], str(tmp_path / "b.csv"), NumberMarks())
    assert read["price"].cast(pl.Float64).to_list() == [1.234, 3]
    clear = pl.DataFrame({"price": ["1.25", "x", None]})
    saved(tmp_path / "c.csv", clear)
    read = with_points(clear, ["price"], str(tmp_path / "c.csv"), encoder.marks)
    assert read["price"].to_list() == ["1.25", "x", None]
