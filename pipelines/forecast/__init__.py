"""Forecasting: SOFTS on wide or long tables, with baselines, intervals and forecasts past the end
of the file.

The six answers of the task; the windows are scored in `scoring`, drawn in `figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...base.errors import InputError
from ..engine.command_line import python_verb
from ..engine.command_line.checks import check_attention, check_least
from ..engine.task import Item, Picture, Review, Splits, Task, Verb
from .options import BacktestOptions, ForecastOptions, ForecastPredictOptions

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Forecast(Task[ForecastOptions]):
    """Forecasting."""

    name = "forecast"
    summary = "forecast many series at once"
    options = ForecastOptions
    predict_options = ForecastPredictOptions
    monitor = "mse"
    intended_use = (
        "Forecasts of the columns it was trained on, at the same step of time. The intervals hold on average over "
        "windows like those of the validation part; a change in the process that makes the data breaks them."
    )
    verbs: ClassVar[Mapping[str, Verb]] = {
        "backtest": Verb(
            BacktestOptions,
            "headwise.pipelines.forecast.verbs.backtest:backtest",
            "forecast from past moments and compare",
        )
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        if isinstance(options, ForecastOptions):
            whole = ("horizon", "lookback", "layers", "width", "core", "feedforward", "heads")
            check_least(options, dict.fromkeys(whole, 1))
            if not 0 <= options.dropout < 1:
                raise InputError(f"--dropout {options.dropout}: must be in [0, 1)")
            levels = " ".join(["--levels", *map(str, options.levels)])
            if any(not 0 < level < 1 for level in options.levels):
                raise InputError(f"{levels}: each must lie between 0 and 1")
            if not options.levels or len({f"{level * 100:g}" for level in options.levels}) < len(
                options.levels
            ):
                raise InputError(f"{levels}: give at least one, and none twice")
            check_attention(
                options.attention, fits=("any tokens", "sequence"), why="channels are no grid"
            )
            if not 1 <= options.active <= options.experts:
                raise InputError(
                    f"--active {options.active}: must lie between 1 and --experts {options.experts}"
                )
            if options.balance < 0:
                raise InputError(f"--balance {options.balance}: must not be negative")
            if options.router_temperature is not None and options.router_temperature <= 0:
                raise InputError(
                    f"--router-temperature {options.router_temperature}: must be positive"
                )
        if isinstance(options, BacktestOptions) and (
            options.origins < 1 or (options.step or 1) < 1
        ):
            raise InputError("backtest: --origins and --step must be at least 1")

    def write_sample(self, folder: Path) -> Path:
        """A generated table: hourly, 7 channels that follow each other with lags."""
        from ...data.series.generate import sample_series, write_wide

        path = folder / "generated.csv"
        write_wide(sample_series("hourly"), path)
        return path

    def open(
        self, options: ForecastOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read, check, split, scale on the training rows, cut windows."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: ForecastOptions, spec: dict[str, Any]) -> nn.Module:
        """SOFTS, or its encoder with another mechanism."""
        from ...models.series.softs import SOFTS

        return SOFTS(
            lookback=options.lookback,
            horizon=options.horizon,
            width=options.width,
            core=options.core,
            feedforward=options.feedforward,
            layers=options.layers,
            heads=options.heads,
            dropout=options.dropout,
            normalise=options.normalise,
            stochastic=options.stochastic,
            attention=options.attention,
            ffn=options.ffn,
            moe={
                "experts": options.experts,
                "active": options.active,
                "mixing": "none" if options.router == "token" else options.router,
                "temperature": options.router_temperature,
                "balance": options.balance,
            },
            known=len(spec["known"]),
        )

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: ForecastOptions
    ) -> torch.Tensor:
        """Mean squared error on the scaled values."""
        from torch.nn.functional import mse_loss

        return mse_loss(forward(model, batch), batch["future"])

    def validate(
        self, model: nn.Module, batches: Any, options: ForecastOptions
    ) -> dict[str, float]:
        """MSE and MAE over all validation windows."""
        squared = absolute = count = 0.0
        for batch in batches:
            error = (forward(model, batch) - batch["future"]).double()
            squared += float(error.square().sum())
            absolute += float(error.abs().sum())
            count += error.numel()
        return {"mse": squared / count, "mae": absolute / count}

    def finish(
        self, model: nn.Module, splits: Splits, options: ForecastOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Calibrate the intervals on the validation windows."""
        from .scoring import calibrate

        return calibrate(model, splits.validation, options, device)

    def check_run(self, spec: dict[str, Any], calibration: dict[str, torch.Tensor]) -> None:
        """The scaler and the intervals must be of the run's channels, horizon and levels."""
        from ...data.series.windows import Scaler

        channels = len(spec["channels"])
        if spec["scaler"] is not None and len(Scaler.from_dict(spec["scaler"]).mean) != channels:
            raise InputError(
                f"the scaler in spec.json is not of {channels} channels; the file is damaged"
            )
        found = tuple(calibration["radius"].shape) if "radius" in calibration else None
        if found != (needed := (len(spec["levels"]), spec["horizon"], channels)):
            raise InputError(
                f"calibration.safetensors holds intervals of shape {found}, the run needs {needed}"
            )

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: ForecastOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Errors beside naive baselines, coverage of the intervals, best, median and worst
        windows.
        """
        from .scoring import review

        return review(model, dataset, calibration, options, spec, device)

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """Two windows; the number of windows is free."""
        import torch

        batch = splits.test.__getitems__([0, len(splits.test) - 1])
        given = (batch["past"], batch.get("past_marks"), batch.get("known"))
        rows = torch.export.Dim("batch")
        return given, tuple(None if value is None else {0: rows} for value in given)

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Series of a file, a folder or a pattern."""
        from .prediction import list_series

        return list_series(options, spec)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """channel, step, time, forecast, and a lower and an upper bound for each level."""
        from .prediction import schema

        return schema(spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: Any,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """Forecasts past the end of each series, in original units."""
        from .prediction import forecast_series

        return forecast_series(model, items, calibration, options, spec, device)

    def picture_predictions(
        self, rows: pl.DataFrame, options: ForecastOptions, spec: dict[str, Any]
    ) -> Sequence[Picture]:
        """The forecast past the end of the file, after the last rows of it."""
        from .figures import future_picture

        return future_picture(rows, options, spec)


def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model on a batch of windows: (B, H, C)."""
    return model(batch["past"], batch.get("past_marks"), batch.get("known"))


TASK = Forecast()
train, evaluate, predict, export, backtest = (
    python_verb(TASK, verb) for verb in ("train", "evaluate", "predict", "export", "backtest")
)
