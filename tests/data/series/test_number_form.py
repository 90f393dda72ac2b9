"""How the numbers of a table of series are written, and that new files are read as training was."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.series.files import list_items, read_items
from headwise.data.series.number_form import NumberForm, stored_commas
from headwise.data.series.series import Series, read_panel


def saved(path: Path, *cells: str, mark: str = ";") -> Path:
    rows = "".join(f"2024-01-{i:02d}{mark}{cell}\n" for i, cell in enumerate(cells, start=1))
    path.write_text(f"date{mark}v\n{rows}")
    return path


def values(path: Path, form: NumberForm | None = None) -> list[float]:
    return read_panel(path, form=form).series[0].values[:, 0].tolist()


def test_thousands_or_decimals_between_semicolons_are_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.csv", "1.234", "5.678")
    with pytest.raises(InputError, match=r"'v' holds numbers such as 1.234 .*say --decimal comma"):
        values(path)
    assert values(path, NumberForm("comma")) == [1234, 5678]
    assert values(path, NumberForm("point")) == [1.234, 5.678]
    assert values(saved(tmp_path / "b.csv", "1.234", "678")) == [1234, 678]
    with opened() as account:
        assert values(saved(tmp_path / "c.csv", "1.234", "5.678", mark=",")) == [1.234, 5.678]
    assert "1.234 has a decimal point (v)" in " ".join(account.lines())


@pytest.mark.parametrize("comma", [True, False])
def test_a_file_that_leaves_its_mark_open_is_read_as_training_was(
    comma: bool, tmp_path: Path
) -> None:
    trained = read_panel(saved(tmp_path / "a.csv", "1,5" if comma else "1.5", "7"))
    form = NumberForm(commas=stored_commas(trained.form, trained.columns))
    assert values(saved(tmp_path / "b.csv", "1.234", "5.678"), form) == (
        [1234, 5678] if comma else [1.234, 5.678]
    )
    assert values(saved(tmp_path / "c.csv", "1,234", "5,678"), form) == (
        [1.234, 5.678] if comma else [1234, 5678]
    )
    own_evidence = saved(tmp_path / "d.csv", "1.5" if comma else "1,5", "2")
    assert values(own_evidence, form) == [1.5, 2]


def test_the_mark_of_a_table_is_that_of_its_columns_that_do_not_show_it() -> None:
    assert stored_commas(NumberForm(commas={"a": True}), ["a", "b"]) == {"a": True, "b": True}
    both = NumberForm(commas={"a": True, "b": False})
    assert stored_commas(both, ["a", "b", "c"]) == {"a": True, "b": False}
    assert stored_commas(NumberForm(), ["a"]) == {}


def test_another_unit_than_that_of_training_is_refused(tmp_path: Path) -> None:
    euros = read_panel(saved(tmp_path / "a.csv", "5 €", "6 €"))
    assert euros.form.units == {"v": "€"}
    dollars = saved(tmp_path / "b.csv", "$5", "$6")
    with pytest.raises(InputError, match=r"column 'v' is in '\$', .* trained on '€'; convert it"):
        values(dollars, NumberForm(units=euros.form.units))
    assert values(saved(tmp_path / "c.csv", "5", "6"), NumberForm(units=euros.form.units)) == [5, 6]
    mixed = saved(tmp_path / "d.csv", "5 €", "6 €", "$7")
    with pytest.raises(InputError, match=r"'\$7', a number of another unit than .* \('€'\)"):
        values(mixed)


@pytest.mark.parametrize("missing", ["-999", "-999.0", "closed"])
def test_numbers_and_words_that_mean_missing_are_none(missing: str, tmp_path: Path) -> None:
    cell = "Closed" if missing == "closed" else "-999"
    path = saved(tmp_path / "a.csv", "1", cell, "3", "4", "5", cell, "7")
    with pytest.raises(InputError, match=r"holds 'Closed'|holds -999 in 2 rows"):
        values(path)
    with opened() as account:
        panel = read_panel(path, fill="linear", form=NumberForm(missing=(missing,)))
    assert panel.series[0].values[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert "2 cells of v that --missing counts as missing" in " ".join(account.lines())


def test_codes_in_one_series_of_a_long_file_are_an_error_of_that_series(tmp_path: Path) -> None:
    rows = [f"{name},2024-01-{i:02d},{i}" for name in "ab" for i in range(1, 9)]
    rows += ["b,2024-01-09,-999", "b,2024-01-10,-999"]
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "\n".join(rows) + "\n")
    items = list_items(tmp_path / "x.csv")
    sound, refused = read_items(items, targets=["y"], frequency="1d")
    assert isinstance(sound, Series)
    assert isinstance(refused, InputError)
    assert "series 'b': column 'y' holds -999 in 2 rows" in str(refused)
    form = NumberForm(missing=("-999",))
    _, filled = read_items(items, targets=["y"], frequency="1d", fill="forward", form=form)
    assert isinstance(filled, Series)
    assert filled.values[-3:, 0].tolist() == [8, 8, 8]
    _, accepted = read_items(items, targets=["y"], frequency="1d", form=NumberForm(accepted=True))
    assert isinstance(accepted, Series)
    np.testing.assert_array_equal(accepted.values[-2:, 0], [-999, -999])
