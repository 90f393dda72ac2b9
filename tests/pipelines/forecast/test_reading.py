"""A run keeps how its table wrote numbers and what meant missing; new tables are read alike."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.series.files import list_items
from headwise.data.series.series import Series
from headwise.pipelines.forecast.data import ForecastSpec, open_splits, reading_of
from headwise.pipelines.forecast.options import ForecastOptions, ForecastPredictOptions
from headwise.pipelines.forecast.prediction import read_series

DAYS = pl.date_range(pl.date(2022, 1, 1), pl.date(2022, 12, 31), eager=True)
NUMBERS = 1500 + 200 * np.sin(np.arange(len(DAYS)) / 5)


def saved(path: Path, cells: list[str], mark: str = ";") -> Path:
    pl.DataFrame({"date": DAYS.head(len(cells)), "v": cells}).write_csv(path, separator=mark)
    return path


def spec_of(path: Path, **options: object) -> ForecastSpec:
    """The spec of a run, as its file holds it."""
    chosen = ForecastOptions(data=str(path), horizon=4, lookback=8, **options)  # pyright: ignore
    spec = open_splits(chosen, None, False).spec
    return ForecastSpec.from_json(json.loads(json.dumps(spec.to_json())))


def read(spec: ForecastSpec, path: Path, **options: object) -> Series | InputError:
    chosen = ForecastPredictOptions(run="r", input=str(path), output="o.csv", **options)  # pyright: ignore
    return read_series(list_items(path)[:], chosen, spec)[0]


def thousands(number: float, mark: str) -> str:
    return f"{number:,.0f}".replace(",", mark)


@pytest.mark.parametrize("comma", [True, False])
def test_predictions_read_the_decimal_mark_that_training_read(comma: bool, tmp_path: Path) -> None:
    decimals = [f"{number:.2f}".replace(".", "," if comma else ".") for number in NUMBERS]
    spec = spec_of(saved(tmp_path / "a.csv", decimals))
    assert spec.reading.get("decimal_comma") == {"v": comma}
    unclear = saved(tmp_path / "b.csv", [thousands(number, ".") for number in NUMBERS[:20]])
    series = read(spec, unclear)
    assert isinstance(series, Series)
    factor = 1 if comma else 1000
    np.testing.assert_allclose(series.values[:, 0] * factor, NUMBERS[12:20].round())
    stated = read(spec, unclear, decimal="point" if comma else "comma")
    assert isinstance(stated, Series)
    np.testing.assert_allclose(stated.values[:, 0] * 1000 / factor, NUMBERS[12:20].round())


def test_a_table_that_leaves_its_mark_open_is_asked_for(tmp_path: Path) -> None:
    unclear = saved(tmp_path / "a.csv", [thousands(number, ".") for number in NUMBERS])
    with pytest.raises(InputError, match="say --decimal comma, or --decimal point"):
        spec_of(unclear)
    spec = spec_of(unclear, decimal="comma")
    assert spec.scaler is not None
    assert 1400 < spec.scaler["mean"][0] < 1600
    series = read(spec, unclear)
    assert isinstance(series, Series)
    assert series.values.max() > 1000


def test_predictions_take_what_means_missing_from_the_run(tmp_path: Path) -> None:
    cells = [str(-999 if i % 50 == 9 else round(n, 2)) for i, n in enumerate(NUMBERS)]
    path = saved(tmp_path / "a.csv", cells, ",")
    with pytest.raises(InputError, match=r"holds -999 in 8 rows.*--missing -999"):
        spec_of(path)
    spec = spec_of(path, missing=("-999",), fill="forward")
    assert spec.scaler is not None
    assert spec.scaler["mean"][0] > 1400
    series = read(spec, path)
    assert isinstance(series, Series)
    assert series.values.min() > 1000
    older = spec_of(saved(tmp_path / "b.csv", [f"{n:.2f}" for n in NUMBERS], ","))
    refused = read(older, path)
    assert isinstance(refused, InputError)
    assert "say --missing -999" in str(refused)
    named = read(older, path, missing=("-999",), fill="linear")
    assert isinstance(named, Series)
    with opened(["missing-codes"]):
        accepted = spec_of(path)
    assert isinstance(read(accepted, path), Series)


def test_a_run_of_an_older_version_says_nothing_of_numbers(tmp_path: Path) -> None:
    spec = spec_of(saved(tmp_path / "a.csv", [f"{n:.2f}" for n in NUMBERS], ","))
    for key in ("decimal_comma", "units", "missing", "codes_accepted"):
        del spec.reading[key]  # pyright: ignore
    form = reading_of(spec).form
    assert (form.commas, form.units, form.missing, form.accepted) == ({}, {}, (), False)
    assert isinstance(read(spec, tmp_path / "a.csv"), Series)
