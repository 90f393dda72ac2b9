"""Forecast errors do not depend on the batch size, and are those of scikit-learn."""

import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error

from headwise.pipelines.metrics.forecasting import (
    ForecastErrors,
    mase,
    naive_scale,
    repeat_last,
    season_of,
    seasonal,
)

N, H, C = 101, 6, 3


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(N, H, C, generator=random), torch.randn(N, H, C, generator=random)


def gathered(forecast: torch.Tensor, truth: torch.Tensor, batch: int) -> ForecastErrors:
    errors = ForecastErrors(C, H)
    for start in range(0, len(forecast), batch):
        errors.update(forecast[start : start + batch], truth[start : start + batch])
    return errors


@pytest.mark.parametrize("batch", [1, 7, 32, 101])
def test_equal_to_scikit_learn_for_every_batch_size(
    pair: tuple[torch.Tensor, torch.Tensor], batch: int
) -> None:
    forecast, truth = pair
    summary = gathered(forecast, truth, batch).compute()
    flat = truth.reshape(N, -1).double(), forecast.reshape(N, -1).double()
    assert summary.windows == N
    assert summary.mse == pytest.approx(mean_squared_error(*flat), rel=1e-12)
    assert summary.mae == pytest.approx(mean_absolute_error(*flat), rel=1e-12)
    for axis, mse, mae in (
        (1, summary.mse_by_step, summary.mae_by_step),
        (2, summary.mse_by_channel, summary.mae_by_channel),
    ):
        for i in range(truth.shape[axis]):
            values = [t.double().select(axis, i).reshape(-1) for t in pair]
            assert mse[i].item() == pytest.approx(
                mean_squared_error(values[1], values[0]), rel=1e-12
            )
            assert mae[i].item() == pytest.approx(
                mean_absolute_error(values[1], values[0]), rel=1e-12
            )


def test_low_precision_is_summed_in_float64() -> None:
    errors = ForecastErrors(1, 1)
    for _ in range(200):
        errors.update(
            torch.full((100, 1, 1), 1.0, dtype=torch.bfloat16),
            torch.zeros(100, 1, 1, dtype=torch.bfloat16),
        )
    assert errors.compute().mse == 1.0


def test_refusals() -> None:
    errors = ForecastErrors(2, 3)
    with pytest.raises(ValueError, match="no forecast"):
        errors.compute()
    for shape in ((1, 3, 1), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"must both be \(batch, 3, 2\)"):
            errors.update(torch.zeros(1, 3, 2), torch.zeros(shape))


def test_naive_forecasts() -> None:
    past = torch.arange(10.0)[None, :, None]
    assert repeat_last(past, 3).flatten().tolist() == [9, 9, 9]
    assert seasonal(past, 7, 3).flatten().tolist() == [7, 8, 9, 7, 8, 9, 7]
    assert torch.equal(seasonal(past, 4, 1), repeat_last(past, 4))
    for season in (0, 11):
        with pytest.raises(ValueError, match="does not fit"):
            seasonal(past, 4, season)


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        ("1h", 24),
        ("15m", 96),
        ("10m", 144),
        ("5m", 288),
        ("1m", 1440),
        ("1d", 7),
        ("1w", 52),
        ("1mo", 12),
        ("1q", 4),
        ("1y", 1),
        ("2h", 12),
        ("7h", 1),
        ("12h", 2),
        ("1s", 3600),
        ("1ms", 1),
        ("30s", 120),
    ],
)
def test_seasons(frequency: str, season: int) -> None:
    assert season_of(frequency) == season


def test_season_of_nonsense() -> None:
    for text in ("hourly", "0h", ""):
        with pytest.raises(ValueError, match="not a frequency"):
            season_of(text)


def test_mase_of_the_naive_forecast_is_one() -> None:
    history = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    scale = naive_scale(history, 24)
    errors = ForecastErrors(2, 1)
    errors.update(history[:-24, None], history[24:, None])
    torch.testing.assert_close(
        mase(errors.compute().mae_by_channel, scale), torch.ones(2, dtype=torch.float64)
    )
    assert naive_scale(torch.ones(10, 1), 1).isnan().all()
    with pytest.raises(ValueError, match="more than 10 rows"):
        naive_scale(torch.ones(10, 1), 10)
