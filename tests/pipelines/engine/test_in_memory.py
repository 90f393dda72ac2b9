"""Tables, pictures and recordings in memory as inputs, and what a notebook shows of a run."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.frames import write_frame
from headwise.data.series.generate import sample_series, write_wide
from headwise.pipelines.engine.runs.inputs import MemoryInputs
from headwise.pipelines.engine.runs.notebook import run_html
from headwise.pipelines.engine.runs.run_directory import RunDirectory
from headwise.tests.pipelines.engine.small_forecast import SMALL


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pl.DataFrame:
    path = tmp_path_factory.mktemp("data") / "wide.csv"
    write_wide(sample_series(rows=300, channels=2), path)
    return pl.read_csv(path, try_parse_dates=True)


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return headwise.open(pipelines.forecast.train(data=table, run=folder, **SMALL).path)


def test_a_table_trains_and_lies_in_the_run(run, table) -> None:
    data = Path(run.directory.config()["data"])
    assert data == run.directory.path / "data.parquet"
    assert_frame_equal(pl.read_parquet(data), table)
    assert json.loads((run.directory.path / "card.json").read_text())["data"] == str(data)
    run.evaluate()
    assert run.evaluate(data=table)["data"].endswith("frame.parquet")


def test_tables_of_polars_and_pandas_are_predicted_as_their_file_is(run, table, tmp_path) -> None:
    table.write_csv(tmp_path / "x.csv")
    expected = run.predict(tmp_path / "x.csv").drop("file", "item")
    pandas = table.to_pandas()
    for frame in (table, table.lazy(), pandas, pandas.set_index("date")):
        rows = run.predict(frame)
        assert set(rows["file"]) == set(rows["item"]) == {"frame"}
        assert_frame_equal(rows.drop("file", "item"), expected)


def test_a_list_names_its_items_by_their_place(run, table, tmp_path) -> None:
    table.write_csv(tmp_path / "x.csv")
    rows = run.predict([table, tmp_path / "x.csv", table.select("date")], tmp_path / "o.parquet")
    assert rows["item"].unique(maintain_order=True).to_list() == ["frame 0", "x.csv", "frame 2"]
    assert rows["error"][-1].startswith("frame 2: there is no column")
    assert_frame_equal(pl.read_parquet(tmp_path / "o.parquet"), rows)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "int is nothing to predict for"),
        ([{"a": 1}], "^frame 0: column 'a' of the table cannot be read"),
        (np.zeros(9), "^array: samples of a recording need sample_rate="),
        (np.zeros((4, 4, 3), np.uint8), r"^array: unknown kind of file"),
        (pl.DataFrame(), "^frame: the table has no columns"),
    ],
)
def test_what_cannot_be_predicted_for_is_one_line(run, value, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run.predict(value)
    assert "/" not in str(caught.value)


def test_no_output_in_python_replaces_what_is_read(run, table, tmp_path) -> None:
    table.write_csv(tmp_path / "x.csv")
    before = (tmp_path / "x.csv").read_bytes()
    for items in (tmp_path / "x.csv", [tmp_path / "x.csv"]):
        with pytest.raises(InputError, match=r"x\.csv: is read by this command"):
            run.predict(items, output=tmp_path / "x.csv", overwrite=True)
    assert (tmp_path / "x.csv").read_bytes() == before


def test_no_table_is_printed_in_a_message(table, tmp_path) -> None:
    with pytest.raises(InputError, match="targets should be a plain value or a path, not a Data"):
        pipelines.forecast.train(data="x.csv", targets=table)
    with pytest.raises(InputError, match=r"^data: a list is no data"):
        pipelines.forecast.train(data=[1, 2])


def test_nothing_is_left_of_a_table_that_cannot_be_trained_on(table, tmp_path) -> None:
    with pytest.raises(InputError, match="no column left to forecast"):
        pipelines.forecast.train(data=table.select("date"), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.parquet").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        pipelines.forecast.train(data=table, run=tmp_path / "mine")
    assert (tmp_path / "mine" / "data.parquet").read_text() == "mine"


def test_pictures_are_written_with_their_pixels(tmp_path) -> None:
    inputs = MemoryInputs(tmp_path)
    for array in (
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        np.arange(8, dtype=np.uint8).reshape(2, 4),
        np.arange(0, 64_000, 8_000, dtype=np.uint16).reshape(2, 4),
    ):
        path = inputs.write(array, 0)
        assert path.name == "array 0.png"
        np.testing.assert_array_equal(np.asarray(Image.open(path)), array)
    picture = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
    assert Image.open(inputs.write(picture, None)).size == (2, 2)
    for array, message in (
        (np.zeros((3, 4, 4), np.uint8), "colours last"),
        (np.zeros((4, 4)), "holds float64"),
        (np.zeros((0, 4), np.uint8), "has the shape"),
    ):
        with pytest.raises(InputError, match=message):
            inputs.write(array, None)


def test_recordings_are_written_with_their_samples_and_rate(tmp_path) -> None:
    soundfile = pytest.importorskip("soundfile")
    samples = np.sin(np.arange(100) / 5)
    written, rate = soundfile.read(MemoryInputs(tmp_path, 8000).write(samples, None))
    np.testing.assert_array_equal(written, samples.astype(np.float32))
    assert rate == 8000
    with pytest.raises(InputError, match="holds 3 values of bool"):
        MemoryInputs(tmp_path, 8000).write(np.zeros(3, bool), None)
    with pytest.raises(InputError, match="sample_rate 0"):
        MemoryInputs(tmp_path, 0).write(samples, None)


def test_an_index_of_pandas_is_a_column_where_it_says_something(tmp_path) -> None:
    pd = pytest.importorskip("pandas")
    path = tmp_path / "x.parquet"
    days = pd.date_range("2024-01-01", periods=2)
    for index, names in (
        (days, ["date", "a"]),
        (days.rename("day"), ["day", "a"]),
        ([5, 7], ["a"]),
        (pd.Index([5, 7], name="key"), ["key", "a"]),
    ):
        write_frame(pd.DataFrame({"a": [1.5, None]}, index=index), path)
        assert pl.read_parquet(path).columns == names
        assert pl.read_parquet(path)["a"].to_list() == [1.5, None]
    with pytest.raises(InputError, match="two columns 'a'"):
        write_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]), path)
    with pytest.raises(InputError, match="column 'a' of the table cannot be read"):
        write_frame(pd.DataFrame({"a": [1, "x"]}), path)


def test_a_notebook_shows_headline_figures_and_report(run) -> None:
    page = run._repr_html_()
    assert page == run.directory._repr_html_()
    assert "<td>mse</td>" in page
    assert (run.directory.path / "report.html").as_uri() in page


def test_what_files_of_a_run_hold_is_escaped(tmp_path) -> None:
    directory = RunDirectory(tmp_path / "<b>")
    assert run_html(directory) == (
        f"<div><b>{tmp_path}/&lt;b&gt;</b><p>not finished, or damaged</p></div>"
    )
    directory.path.mkdir()
    for name, values in {
        "environment": {"task": "<i>"},
        "card": {"headline": "<script>"},
        "metrics": {"<u>": "<img>", "inner": {"a": 1.23456, "none": None, "many": [1]}},
    }.items():
        (directory.path / f"{name}.json").write_text(json.dumps(values))
    page = run_html(directory)
    for word in ("<i>", "<script>", "<u>", "<img>"):
        assert word not in page
    assert "<td>inner: a</td><td>1.235</td>" in page
    assert "many" not in page
