"""Options of forecasting."""

from dataclasses import dataclass
from typing import Literal

from ..engine.options import PredictOptions, TrainOptions


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(TrainOptions):
    """Train SOFTS on a table of series: test errors beside naive baselines, intervals, forecasts
    past the end.
    """

    horizon: int = 96
    """Steps to forecast."""
    lookback: int = 96
    """Steps that the model sees."""
    split: Literal["ratio", "ett", "pems"] = "ratio"
    """Train/validation/test: 70/10/20 % of the rows; 12/4/4 months of 30 days (ETT); 60/20/20 %
    (PEMS).
    """
    date: str | None = None
    """Column of dates; found by itself where it has a usual name or comes first."""
    id_column: str | None = None
    """Column that tells the series of a long table apart (usually unique_id)."""
    targets: tuple[str, ...] = ()
    """Columns to forecast; without it all numeric ones."""
    known: tuple[str, ...] = ()
    """Columns known in the future (prices, holidays): rows past the end of the targets hold their
    values.
    """
    frequency: str | None = None
    """Step of the clock, such as 15m, 1h, 1d, 1mo; inferred from the dates. A table without dates
    needs it.
    """
    fill: Literal["error", "forward", "linear", "zero", "as-is"] = "error"
    """Missing steps and values: error; the last value; a line (looks at both sides); 0; or rows as
    they lie.
    """
    series: Literal["apart", "together"] = "apart"
    """Long tables: each series by itself, or all of them as the channels of one."""
    attention: str = "star"
    """What mixes the channels: any mechanism of `headwise list attention` but those on grids."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward part of a layer; moe: a mixture of experts, whose active ones are as large
    together as mlp.
    """
    experts: int = 8
    """Experts of a layer with --ffn moe."""
    active: int = 2
    """Experts that a token uses."""
    router: Literal["token", "similarity"] = "token"
    """How experts are chosen: by each token for itself, or by tokens that agree with similar ones
    (2505.00792).
    """
    router_temperature: float | None = None
    """Of --router similarity: how evenly a token listens to the others (default: square root of
    --width).
    """
    balance: float = 0.01
    """Weight of the loss that keeps all experts in use."""
    layers: int = 2
    """Encoder layers."""
    width: int = 256
    """Width of a series' token."""
    core: int = 128
    """Width of the core that STAR pools from all channels."""
    feedforward: int = 256
    """Inner width of the feed-forward part."""
    heads: int = 8
    """Heads of a mechanism that has heads."""
    dropout: float = 0.0
    """Dropout."""
    stochastic: bool = True
    """STAR draws one channel per core feature in training, as in the paper; otherwise the weighted
    mean.
    """
    normalise: bool = True
    """Scale each window by its own mean and deviation, and back."""
    marks: bool = True
    """Give the model hour, weekday, day of the month and day of the year as further channels."""
    levels: tuple[float, ...] = (0.8, 0.95)
    """Levels of the prediction intervals (split conformal, calibrated on the validation part)."""


@dataclass(frozen=True, kw_only=True)
class ForecastPredictOptions(PredictOptions):
    """Forecast past the end of every series of the input, in original units, with intervals."""

    fill: Literal["run", "error", "forward", "linear", "zero", "as-is"] = "run"
    """What to do with missing steps and values; run: as in training."""


@dataclass(frozen=True, kw_only=True)
class BacktestOptions:
    """Forecast from several past moments and compare with what came: how good would it have
    been?
    """

    run: str
    """Run directory of the trained model; its weights stay as they are."""
    data: str | None = None
    """Data to go through; without it the data that the run was trained on."""
    origins: int = 10
    """How many moments to forecast from, the last ones that have a whole horizon after them."""
    step: int | None = None
    """Rows between two moments (default: one horizon, so that no row is forecast twice)."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""
