"""Which columns name the series and the dates, and what the account says about a table."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.series.files import list_items, read_items
from headwise.data.series.series import Series, read_panel


def sales(path: Path, stores: tuple[str, ...] = ("north", "south"), days: int = 5) -> Path:
    rows = [
        {"store": store, "sku": sku, "day": f"2024-01-{day:02d}", "sold": 10.0 * place + day + sku}
        for place, store in enumerate(stores)
        for sku in (7, 8)
        for day in range(1, days + 1)
    ]
    pl.DataFrame(rows).write_csv(path)
    return path


def test_several_usual_columns_name_the_series_and_are_said(tmp_path: Path) -> None:
    with opened() as account:
        panel = read_panel(sales(tmp_path / "x.csv"))
    assert panel.ids == ("store", "sku")
    assert [series.name for series in panel.series] == ["north/7", "north/8", "south/7", "south/8"]
    assert panel.series[3].parts == ("south", "8")
    np.testing.assert_array_equal(panel.series[3].values[:, 0], 18 + np.arange(1.0, 6))
    text = " ".join(account.lines())
    assert "'day' is taken as the date" in text
    assert "'store' and 'sku' are taken as the name of the series" in text


def test_a_usual_column_that_is_the_same_in_each_series_is_never_forecast(tmp_path: Path) -> None:
    sales(tmp_path / "x.csv", ("north",))
    panel = read_panel(tmp_path / "x.csv")
    assert (panel.ids, panel.channels) == (("store", "sku"), ("sold",))


def test_named_columns_make_the_name_in_their_order(tmp_path: Path) -> None:
    path = sales(tmp_path / "x.csv")
    panel = read_panel(path, id_column=("sku", "store"))
    assert panel.series[0].name == "7/north"
    items = list_items(path, id_column=("sku", "store"))
    (result,) = read_items(
        items[2:3], id_column=("sku", "store"), targets=["sold"], frequency="1d", last=2
    )
    assert isinstance(result, Series)
    assert (result.name, result.parts) == ("7/south", ("7", "south"))
    np.testing.assert_array_equal(result.values[:, 0], [21, 22])
    with pytest.raises(InputError, match="no column 'shop'"):
        read_panel(path, id_column=("shop", "sku"))


def test_names_with_the_mark_in_them_stay_apart(tmp_path: Path) -> None:
    rows = [("a/b", "c"), ("a", "b/c")]
    text = "".join(f"{s},{i},2024-01-{d},1\n" for s, i in rows for d in ("01", "02"))
    (tmp_path / "x.csv").write_text("store,item,ds,y\n" + text)
    panel = read_panel(tmp_path / "x.csv", id_column=("store", "item"))
    assert [series.parts for series in panel.series] == rows
    assert len({series.name for series in panel.series}) == 2


def test_a_wide_table_with_such_a_column_stays_wide(tmp_path: Path) -> None:
    """A column of measurements that is called store, or a repeated hour, makes no long table."""
    wide = "ds,store,y\n" + "".join(f"2024-01-{d:02d},{d}.5,{d}\n" for d in range(1, 10))
    (tmp_path / "x.csv").write_text(wide)
    assert read_panel(tmp_path / "x.csv").channels == ("store", "y")
    (tmp_path / "y.csv").write_text(wide + "2024-01-09,7,9\n")
    with pytest.raises(InputError, match="appears more than once"):
        read_panel(tmp_path / "y.csv")


def test_whole_numbers_in_a_decimal_column_keep_their_name(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"unique_id": [12.0, 12.0], "ds": ["2024-01-01", "2024-01-02"], "y": [1, 2]}
    )
    frame.write_parquet(tmp_path / "x.parquet")
    assert read_panel(tmp_path / "x.parquet").series[0].name == "12"


def test_the_account_tells_what_was_read_filled_and_left_out(tmp_path: Path) -> None:
    text = (
        "Unnamed: 0,date,a,b,remark,spare\n"
        "7,2024-01-01,1,1,ok,1\n,,,,,\n3,2024-01-02,2,,fine,1\n2,2024-01-04,4,4,,1\n"
    )
    (tmp_path / "x.csv").write_text(text)
    with opened() as account:
        panel = read_panel(tmp_path / "x.csv", fill="linear")
    assert panel.channels == ("a", "b", "spare")
    assert panel.series[0].values.shape == (4, 3)
    entries = {(e["topic"], e["what"]): e for e in account.to_json()}
    assert entries["read", "rows"]["count"] == 3
    assert entries["read", "columns to forecast"]["count"] == 3
    assert ("read", "dates from 2024-01-01 to 2024-01-04 in steps of 1d") in entries
    assert entries["left out", "blank rows"]["count"] == 1
    assert entries["columns", "not used"]["names"] == ["Unnamed: 0"]
    assert entries["columns", "with words instead of numbers, not used"]["names"] == ["remark"]
    assert entries["values", "missing steps filled (linear)"]["count"] == 1
    assert entries["values", "missing values filled (linear)"]["count"] == 1
    with opened() as account:
        read_panel(tmp_path / "x.csv", fill="linear", targets=["a"])
    names = {e["what"]: e["names"] for e in account.to_json()}["not used"]
    assert names == ["b", "remark", "spare", "Unnamed: 0"]


def test_the_account_counts_repeated_timestamps_and_items(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-02,3\n")
    with opened() as account:
        read_panel(tmp_path / "x.csv", fill="as-is")
        list_items(sales(tmp_path / "y.csv"), usual_ids=("store", "sku"))
    entries = {e["what"]: e["count"] for e in account.to_json()}
    assert entries["rows with a repeated timestamp, taken as they are"] == 1
    assert entries["series to forecast"] == 4
    assert entries["files"] == 1
    with opened() as account:
        (tmp_path / "z.csv").write_text("a,b\n1,2\n2,3\n")
        read_panel(tmp_path / "z.csv", frequency="1h")
    assert any("begins on 2000-01-01" in line for line in account.lines())


def test_the_account_tells_of_series_and_of_times_without_a_zone(tmp_path: Path) -> None:
    with opened() as account:
        read_panel(sales(tmp_path / "x.csv"))
    entries = {e["what"]: e["count"] for e in account.to_json()}
    assert entries["series"] == 4
    assert not any("time zone" in line for line in account.lines()), "days have none"
    hours = "".join(f"2024-01-01 {hour:02d}:00,{hour}\n" for hour in range(9))
    (tmp_path / "y.csv").write_text("ds,y\n" + hours)
    with opened() as account:
        read_panel(tmp_path / "y.csv")
    assert any("times without a time zone" in line for line in account.lines())


def test_blanks_around_a_name_are_no_part_of_it_and_names_that_look_alike_are_said(
    tmp_path: Path,
) -> None:
    rows = [("West" if day < 15 else "West ", day) for day in range(10, 20)]
    rows += [(name, day) for name in ("North", "north") for day in range(10, 20)]
    text = "".join(f"{name},2024-01-{day},{day}\n" for name, day in rows)
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + text)
    with opened() as account:
        panel = read_panel(tmp_path / "x.csv")
    assert sorted(series.name for series in panel.series) == ["North", "West", "north"]
    alike = [e for e in account.to_json() if "look alike" in e["what"]]
    assert [e["names"] for e in alike] == [["North", "north"]]
    assert not any("series end before" in line for line in account.lines())


def test_series_that_end_before_the_others_are_said(tmp_path: Path) -> None:
    rows = [("a", day) for day in range(10, 20)] + [("b", day) for day in range(10, 16)]
    text = "".join(f"{name},2024-01-{day},{day}\n" for name, day in rows)
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + text)
    with opened() as account:
        read_panel(tmp_path / "x.csv")
    ended = [e for e in account.to_json() if e["what"].startswith("series end before 2024-01-19")]
    assert [e["names"] for e in ended] == [["b"]]
