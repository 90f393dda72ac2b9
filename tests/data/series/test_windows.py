"""Splits, scaling, marks and windows, against plain loops and the published counts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from headwise.base.errors import InputError
from headwise.data.series.clock import future_times
from headwise.data.series.series import Panel, read_panel
from headwise.data.series.split import Borders, split_borders
from headwise.data.series.windows import Scaler, WindowDataset, time_marks

REAL = (
    Path(os.environ.get("HEADWISE_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
    / "forecast"
)
real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (REAL / "ETTh1.csv.gz").exists(), reason="no real data: set HEADWISE_DATA"
    ),
]

# horizon: test windows, repeat-last MSE/MAE, repeat-24h MSE/MAE (the table every paper on ETT
# agrees with)
PUBLISHED = {
    ("ETTh1", 96): (2785, 1.294, 0.713, 0.512, 0.433),
    ("ETTh1", 192): (2689, 1.325, 0.733, 0.581, 0.469),
    ("ETTh1", 336): (2545, 1.330, 0.746, 0.650, 0.501),
    ("ETTh1", 720): (2161, 1.335, 0.755, 0.655, 0.514),
    ("ETTm2", 96): (11425, 0.266, 0.328, 0.263, 0.301),
    ("ETTm2", 192): (11329, 0.340, 0.371, 0.321, 0.337),
    ("ETTm2", 336): (11185, 0.412, 0.410, 0.376, 0.370),
    ("ETTm2", 720): (10801, 0.522, 0.466, 0.471, 0.422),
}


def panel_of(name: str, known: dict[str, Panel] = {}) -> Panel:  # noqa: B006  (a cache on purpose)
    if name not in known:
        known[name] = read_panel(REAL / f"{name}.csv.gz")
    return known[name]


@pytest.mark.parametrize(
    ("name", "horizon"), [pytest.param(*key, marks=real_data) for key in PUBLISHED]
)
def test_windows_and_naive_errors_are_the_published_ones(name: str, horizon: int) -> None:
    panel = panel_of(name)
    (series,) = panel.series
    borders = split_borders(
        len(series.times), "ett", lookback=96, horizon=horizon, frequency=panel.frequency
    )
    scaler = Scaler.fit(series.values[slice(*borders.train)])
    values = torch.tensor(scaler.scale(series.values)[slice(*borders.test)], dtype=torch.float32)
    windows = WindowDataset([(values, None, None)], 96, horizon)
    season = {"1h": 24, "15m": 96}[panel.frequency]
    sums = np.zeros(4)
    for start in range(0, len(windows), 512):
        batch = windows.__getitems__(range(start, min(start + 512, len(windows))))
        day = batch["past"][:, -season:].repeat(1, -(-horizon // season), 1)[:, :horizon]
        last, again = batch["past"][:, -1:] - batch["future"], day - batch["future"]
        sums += [
            float(x)
            for e in (last, again)
            for x in (e.square().double().sum(), e.abs().double().sum())
        ]
    errors = sums / (len(windows) * horizon * 7)
    assert len(windows) == PUBLISHED[name, horizon][0]
    np.testing.assert_allclose(errors, PUBLISHED[name, horizon][1:], atol=0.00051)


def test_protocols_split_as_published() -> None:
    assert split_borders(17420, "ett", lookback=96, horizon=96, frequency="1h") == Borders(
        (0, 8640), (8544, 11520), (11424, 14400)
    )
    assert split_borders(69680, "ett", lookback=96, horizon=96, frequency="15m") == Borders(
        (0, 34560), (34464, 46080), (45984, 57600)
    )
    weather = split_borders(52696, "ratio", lookback=96, horizon=96, frequency="10m")
    assert weather == Borders((0, 36887), (36791, 42157), (42061, 52696))
    assert split_borders(52696, (0.7, 0.1), lookback=96, horizon=96, frequency="10m") == weather
    assert split_borders(26208, "pems", lookback=96, horizon=12, frequency="5m") == Borders(
        (0, 15724), (15724, 20966), (20966, 26208)
    )


@pytest.mark.parametrize("rows", range(300, 340))
def test_ratio_is_that_of_the_official_code(rows: int) -> None:
    train, test = int(rows * 0.7), int(rows * 0.2)
    borders = split_borders(rows, "ratio", lookback=10, horizon=5, frequency="1d")
    assert borders == Borders((0, train), (train - 10, rows - test), (rows - test - 10, rows))
    assert split_borders(rows, (0.7, 0.1), lookback=10, horizon=5, frequency="1d") == borders


@pytest.mark.parametrize(
    ("rows", "protocol", "words"),
    [
        (14399, "ett", r"needs 20 months of 30 days = 14,400 rows of 1h, got 14,399"),
        (
            500,
            "ratio",
            r"validation part has 146 of 500 rows.*96 \+ horizon 96 = 192; "
            "about 960 rows are needed",
        ),
        (100, "pems", r"train part has 60 of 100 rows"),
        (5000, "random", r"'random' is none of ratio, ett, pems"),
        (5000, (0.9, 0.2), r"two positive fractions"),
        (5000, (0.9,), r"two positive fractions"),
    ],
)
def test_splits_that_cannot_be_are_refused(rows: int, protocol, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        split_borders(rows, protocol, lookback=96, horizon=96, frequency="1h")
    assert "\n" not in str(caught.value)


def test_the_rows_asked_for_are_enough() -> None:
    assert split_borders(960, "ratio", lookback=96, horizon=96, frequency="1h").validation == (
        576,
        768,
    )


def test_ett_needs_a_clock_that_divides_the_day() -> None:
    for frequency in ("7h", "1mo", "1w"):
        with pytest.raises(InputError, match="divides a day"):
            split_borders(99999, "ett", lookback=9, horizon=9, frequency=frequency)


def test_scaler_is_that_of_scikit_learn() -> None:
    from sklearn.preprocessing import StandardScaler

    values = np.random.default_rng(0).normal(3, 5, size=(100, 4))
    values[:, 2] = 0.1
    scaler, reference = Scaler.fit(values), StandardScaler().fit(values)
    np.testing.assert_allclose(scaler.scale(values), reference.transform(values), atol=1e-12)
    assert scaler.std[2] == 1
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    np.testing.assert_array_equal(again.std, scaler.std)
    np.testing.assert_allclose(again.restore(again.scale(values)), values)
    for bad in (
        {},
        {"mean": [1.0], "std": [0.0]},
        {"mean": [1.0, 2.0], "std": [1.0]},
        {"mean": "x", "std": [1.0]},
    ):
        with pytest.raises(InputError, match="scaler"):
            Scaler.from_dict(bad)


def test_time_marks_are_those_of_the_official_code() -> None:
    times = np.arange("2019-12-25", "2024-03-02", 7 * 3600 + 61, dtype="datetime64[s]").astype(
        "datetime64[us]"
    )
    plain = [t.timetuple() for t in times.astype("datetime64[s]").tolist()]
    expected = np.array(
        [
            [t.tm_hour / 23, t.tm_wday / 6, (t.tm_mday - 1) / 30, (t.tm_yday - 1) / 365]
            for t in plain
        ]
    )
    np.testing.assert_allclose(time_marks(times), expected - 0.5, atol=1e-7)
    assert time_marks(times).dtype == np.float32
    assert len(future_times(times, "1h", 5)) == 5


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("lengths", [[20], [20, 4, 9, 7, 30]])
def test_batches_are_the_windows_of_a_plain_loop(lengths: list[int], stride: int) -> None:
    random = torch.Generator().manual_seed(0)
    parts = [tuple(torch.randn(n, width, generator=random) for width in (2, 4, 3)) for n in lengths]
    lookback, horizon = 4, 3
    expected = [(s, t) for s, n in enumerate(lengths) for t in range(0, n - 6, stride)]
    windows = WindowDataset(parts, lookback, horizon, stride)  # pyright: ignore[reportArgumentType]
    assert [windows.locate(i) for i in range(len(windows))] == expected
    order = torch.randperm(len(windows), generator=random).tolist()
    batch = windows.__getitems__(order)
    for place, index in enumerate(order):
        series, start = expected[index]
        values, marks, known = parts[series]
        window = windows[index]
        for name, truth in {
            "past": values[start : start + 4],
            "future": values[start + 4 : start + 7],
            "past_marks": marks[start : start + 4],
            "known": known[start : start + 7],
        }.items():
            assert torch.equal(batch[name][place], truth)
            assert torch.equal(window[name], truth)


def test_a_loader_takes_entire_batches_and_drops_nothing() -> None:
    windows = WindowDataset([(torch.arange(30.0)[:, None], None, None)], 4, 2)
    loader = torch.utils.data.DataLoader(windows, batch_size=8, collate_fn=windows.collate)  # pyright: ignore
    batches = list(loader)
    assert [len(b["past"]) for b in batches] == [8, 8, 8, 1]
    assert set(batches[0]) == {"past", "future"}
    assert torch.equal(torch.cat([b["future"] for b in batches])[:, 0, 0], torch.arange(4.0, 29))


def test_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"longest of 2 series has 5 rows.*4 \+ horizon 2 = 6"):
        WindowDataset([(torch.zeros(5, 1), None, None), (torch.zeros(3, 1), None, None)], 4, 2)
    with pytest.raises(InputError, match="at least 1"):
        WindowDataset([(torch.zeros(5, 1), None, None)], 4, 0)
    windows = WindowDataset([(torch.zeros(6, 1), None, None)], 4, 2)
    for call in (
        lambda: windows[1],
        lambda: windows[-1],
        lambda: windows.locate(1),
        lambda: windows.__getitems__([1]),
    ):
        with pytest.raises(IndexError):
            call()
