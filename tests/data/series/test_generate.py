"""Generated series are the same every time, and mixing their channels pays."""

from pathlib import Path

import numpy as np
import pytest

from headwise.data.series.generate import (
    KINDS,
    broken_places,
    many_series,
    sample_series,
    write_wide,
)
from headwise.data.series.series import read_panel


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_deterministic_and_readable(kind: str, tmp_path: Path) -> None:
    panel, again = sample_series(kind, rows=800), sample_series(kind, rows=800)
    np.testing.assert_array_equal(panel.series[0].values, again.series[0].values)
    assert panel.series[0].name == f"generated-{kind}"
    assert panel.frequency == KINDS[kind][0]
    assert not np.array_equal(
        panel.series[0].values, sample_series(kind, rows=800, seed=1).series[0].values
    )
    write_wide(panel, tmp_path / "x.csv")
    read = read_panel(tmp_path / "x.csv")
    assert (read.frequency, read.channels) == (panel.frequency, panel.channels)
    np.testing.assert_array_equal(read.series[0].values, panel.series[0].values)
    np.testing.assert_array_equal(read.series[0].times, panel.series[0].times)


def test_other_channels_help_to_forecast() -> None:
    """A linear forecast of the last channel is better from all channels than from its own past."""
    values = sample_series().series[0].values
    values = (values - values.mean(0)) / values.std(0)

    def error(channels: slice) -> float:
        past = np.stack([values[t - 24 : t, channels].ravel() for t in range(24, 1990)])
        past, truth = np.c_[past, np.ones(len(past))], values[29:1995, -1]
        weights = np.linalg.lstsq(past[:1300], truth[:1300], rcond=None)[0]
        return float(np.mean((past[1300:] @ weights - truth[1300:]) ** 2))

    assert error(slice(None)) < 0.8 * error(slice(-1, None))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="hourly"):
        sample_series("yearly")


def test_many_series_is_deterministic(tmp_path: Path) -> None:
    assert many_series(40, 20, tmp_path / "a.csv") == many_series(40, 20, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert broken_places(10_000, 5) == {
        1000: "text",
        3000: "short",
        5000: "missing",
        7000: "duplicate",
        9000: "gap",
    }
    assert broken_places(10, 0) == {}
    header, short, twice, gap = 1, -17, 1, -1
    assert (
        len((tmp_path / "a.csv").read_text().splitlines()) == 40 * 20 + header + short + twice + gap
    )
