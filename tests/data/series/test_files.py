"""Batch inference: listing and reading items; a broken one does not stop the others."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.series.files import ItemList, list_items, read_items
from headwise.data.series.generate import BREAKS, many_series, sample_series, write_wide
from headwise.data.series.series import Series, read_panel

WORDS = {
    "text": "'oops', not a number",
    "short": "has 3 rows, but the look-back of the model needs 24",
    "missing": "no finite value",
    "duplicate": "more than once",
    "gap": "1 of 60 steps of 1h are missing",
}


@pytest.fixture(scope="module", params=["csv", "csv.gz", "parquet"])
def many(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("many")
    broken = many_series(200, 60, folder / "many.csv")
    path = folder / f"many.{request.param}"
    if request.param == "csv.gz":
        import gzip

        path.write_bytes(gzip.compress((folder / "many.csv").read_bytes()))
    elif request.param == "parquet":
        pl.read_csv(folder / "many.csv", infer_schema=False).write_parquet(path)
    return path, broken


@pytest.mark.parametrize("group", [200, 7])
def test_broken_series_do_not_stop_the_others(
    many: tuple[Path, dict[str, str]], group: int
) -> None:
    path, broken = many
    items = list_items(path)
    assert len(items) == 200
    assert (
        json.loads(json.dumps(items[3]))
        == {"file": str(path), "id": "series-000003"}
        == items[-197]
    )
    assert sorted(broken.values()) == sorted(BREAKS)
    for start in range(0, 200, group):
        asked = items[start : start + group]
        for item, result in zip(
            asked,
            read_items(asked, targets=["y"], frequency="1h", last=24, minimum=24),
            strict=True,
        ):
            how = broken.get(item["id"] or "")
            if how is None:
                assert isinstance(result, Series), result
                assert result.name == item["id"]
                assert result.values.shape == (24, 1)
                assert str(result.times[-1]) == "2024-01-03T11:00:00.000000"
            else:
                assert isinstance(result, InputError)
                assert WORDS[how] in str(result)
                assert str(item["id"]) in str(result)
                assert "\n" not in str(result)


def test_row_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "unique_id,ds,y\na,2024-01-01,1\nb,2024-01-01,1\nb,2024-01-02,x\n"
    )
    (result,) = read_items(list_items(tmp_path / "x.csv")[1:], targets=["y"], frequency="1d")
    assert "row 3 (2024-01-02 00:00:00)" in str(result)


def test_order_repeats_and_vanished_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "unique_id,ds,y\nb,2024-01-01,1\na,2024-01-01,2\nb,2024-01-02,3\na,2024-01-02,4\n,2024-01-01,1\n"
    )
    items = list_items(path)
    assert [item["id"] for item in items] == ["b", "a", ""]
    asked = [items[1], items[0], items[1], {"file": str(path), "id": "gone"}, items[2]]
    results = read_items(asked, targets=["y"], frequency="1d")
    assert [result.name for result in results[:3] if isinstance(result, Series)] == ["a", "b", "a"]
    assert "not there any more" in str(results[3])
    assert "is empty; every row needs an id" in str(results[4])


def test_folders_and_patterns_are_listed(tmp_path: Path) -> None:
    panel = sample_series(rows=50, channels=2)
    for name in ("b.csv", "a.csv"):
        write_wide(panel, tmp_path / name)
    (tmp_path / "bad.csv").write_text("date\n")
    (tmp_path / "notes.md").write_text("not data")
    (tmp_path / "sub.csv").mkdir()
    items = list_items(tmp_path)
    assert [(Path(i["file"]).name, i["id"]) for i in items] == [
        ("a.csv", None),
        ("b.csv", None),
        ("bad.csv", None),
    ]
    results = read_items(items, targets=["sensor_1", "sensor_0"], frequency="1h", last=5)
    assert isinstance(results[0], Series)
    np.testing.assert_array_equal(results[0].values, panel.series[0].values[-5:, ::-1])
    assert "sensor_1" in str(results[2])
    assert len(list_items(tmp_path / "?.csv")) == 2
    with pytest.raises(InputError, match="no file of a kind"):
        list_items(tmp_path / "*.nothing")
    with pytest.raises(InputError, match="no such file"):
        list_items(tmp_path / "missing.csv")


def test_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_wide(sample_series(rows=5), tmp_path / "secret.csv")
    (tmp_path / "in" / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(InputError, match="no file of a kind"):
        list_items(tmp_path / "in")
    write_wide(sample_series(rows=5), tmp_path / "in" / "own.csv")
    assert [item["file"] for item in list_items(tmp_path / "in")] == [
        str(tmp_path / "in" / "own.csv")
    ]


def test_known_rows_after_the_end_are_kept(tmp_path: Path) -> None:
    rows = [f"p,2024-01-{d:02d},{d if d < 7 else ''},{d}" for d in range(1, 10)]
    (tmp_path / "x.csv").write_text("\n".join(["unique_id,ds,y,k", *rows]))
    (result,) = read_items(
        list_items(tmp_path / "x.csv"), targets=["y"], known=["k"], frequency="1d", last=2
    )
    assert isinstance(result, Series)
    np.testing.assert_array_equal(result.known[:, 0], [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(result.values[:, 0], [5, 6])


def test_together_is_one_item(tmp_path: Path) -> None:
    many_series(4, 10, tmp_path / "x.csv", broken=0)
    items = list_items(tmp_path / "x.csv", series="together")
    assert items[:] == [{"file": str(tmp_path / "x.csv"), "id": None}]
    names = read_panel(tmp_path / "x.csv", series="together").channels
    (result,) = read_items(items, targets=names[::-1], frequency="1h", series="together")
    assert isinstance(result, Series)
    assert result.values.shape == (10, 4)


def test_item_list_is_a_sequence() -> None:
    items = ItemList([("a", None), ("b", ["x", "y"])])
    assert [i["id"] for i in items] == [None, "x", "y"]
    with pytest.raises(IndexError):
        items[3]


def test_names_that_are_not_utf8_and_links_to_nothing_stop_no_other_file(tmp_path):
    table = "date,a\n" + "".join(f"2024-01-{day:02d},{day}\n" for day in range(1, 9))
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/n\xff.csv")
    Path(odd).write_text(table)
    (tmp_path / "plain.csv").write_text(table)
    (tmp_path / "gone.csv").symlink_to("nowhere")
    items = list_items(tmp_path)
    answers = read_items(items, targets=["a"], frequency="1d")
    read = dict(zip([item["file"] for item in items], answers, strict=True))
    assert isinstance(read[str(tmp_path / "gone.csv")], InputError)
    assert "is a link to nothing" in str(read[str(tmp_path / "gone.csv")])
    assert np.array_equal(read[odd].values, read[str(tmp_path / "plain.csv")].values)
