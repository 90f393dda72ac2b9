"""Options of forecasting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.errors import InputError
from ..engine.command_line.checks import changed_options, check_least, check_shares, check_unread
from ..engine.mechanisms import check_mixing
from ..engine.options import MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

DateOrder = Literal["auto", "dmy", "mdy", "ymd"]
# Options that only one choice of another option reads.
READ_BY = {
    "experts": ("ffn", "moe"),
    "active": ("ffn", "moe"),
    "router": ("ffn", "moe"),
    "balance": ("ffn", "moe"),
    "router_temperature": ("router", "similarity"),
}
OF_STAR = {"core": "--core", "stochastic": "--stochastic"}  # options of the mechanism
STAR_ONLY = ("core", "stochastic")  # named in the account, since comparisons hold them fixed


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(MixingOptions):
    """Train SOFTS on a table of series: test errors compared with naive baselines, prediction
    intervals, and forecasts past the end of the table.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("horizon", "lookback", "split", "date", "date_order", "id_column", "targets",
                 "known", "frequency", "decimal", "missing", "fill", "series", "short"),
        "model": ("attention", "attention_options", "layers", "width", "core",
                  "feedforward", "heads", "dropout", "stochastic", "normalise", "marks"),
        "experts": ("ffn", "experts", "active", "router", "router_temperature", "balance"),
        "intervals": ("levels",),
    }  # fmt: skip
    SEARCH: ClassVar[Space] = {
        "width": Choices((128, 256, 512)),
        "layers": Range(1, 4),
        "dropout": Range(0.0, 0.4),
        "lookback": Choices((None, 48, 192, 336), reopens=True),
    }

    horizon: int | None = None
    """Steps to forecast. none: 96, or what a shorter table allows."""
    lookback: int | None = None
    """Past steps that the model sees. none: 96, or what a shorter table allows."""
    split: Literal["ratio", "ett", "pems"] = "ratio"
    """Train/validation/test: 70/10/20 % of the rows; 12/4/4 months of 30 days (ETT); 60/20/20 %
    (PEMS).
    """
    date: str | None = None
    """Column of dates. It is recognised if it has a usual name or comes first."""
    date_order: DateOrder = "auto"
    """Order of day, month and year in dates such as 01/02/2024; auto reads them where only one
    order fits all. Predictions of the run read dates in the same order.
    """
    id_column: tuple[str, ...] | None = None
    """Column that names the series of a long table (usually unique_id), or several such columns
    (store item). It is recognised if it has a usual name.
    """
    targets: tuple[str, ...] = ()
    """Columns to forecast; all numeric ones if none is named."""
    known: tuple[str, ...] = ()
    """Columns whose future is known (prices, holidays); their values go on past the last row of the
    targets.
    """
    frequency: str | None = None
    """Time between two rows, such as 15m, 1h, 1d, 1mo. It is inferred from the dates; a table
    without dates needs it.
    """
    decimal: Literal["auto", "point", "comma"] = "auto"
    """Decimal mark of the numbers of a text table; auto: as its cells show it. Predictions of the
    run read what a file leaves open in the same way.
    """
    missing: tuple[str, ...] = ()
    """Numbers and words that mean a missing value, besides the usual words: -999 -. Predictions of
    the run read them in the same way.
    """
    fill: Literal["error", "forward", "linear", "zero", "as-is"] = "error"
    """What to do with missing rows and values: stop with an error, repeat the last value, draw a
    straight line (which looks at both sides), put 0, or take the rows as they are.
    """
    series: Literal["apart", "together"] = "apart"
    """Long tables: each series on its own, or all of them as channels of one series."""
    short: Literal["skip", "error"] = "skip"
    """Series of a long table that are too short for the look-back and the horizon: leave them out
    and say so, or stop with an error.
    """
    attention: str = "star"
    """What mixes the channels: any mechanism of `headwise list attention`
    except those on grids.
    """
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward part of a layer: a two-layer network, a gated one, or a mixture of experts whose
    active experts are together as large as mlp.
    """
    experts: int = 8
    """Experts of a layer with --ffn moe."""
    active: int = 2
    """Experts that a token uses."""
    router: Literal["token", "similarity"] = "token"
    """How experts are chosen: by each token on its own, or by tokens that agree with similar ones
    (arXiv 2505.00792).
    """
    router_temperature: float | None = None
    """For --router similarity: how evenly a token listens to the others. none: the square root of
    --width.
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
    """Attention heads, for mechanisms that have heads."""
    dropout: float = 0.0
    """Share of activations that are set to 0 in training."""
    stochastic: bool = True
    """In training, STAR draws one channel per core feature, as in the paper; off: it takes the
    weighted mean.
    """
    normalise: bool = True
    """Scale each window by its own mean and standard deviation, and back."""
    marks: bool = True
    """Give the model hour, weekday, day of the month and day of the year as extra channels."""
    levels: tuple[float, ...] = (0.8, 0.95)
    """Levels of the prediction intervals (split conformal, calibrated on the validation part)."""


@dataclass(frozen=True, kw_only=True)
class ForecastPredictOptions(PredictOptions):
    """Forecast past the end of every series of the input, in original units, with intervals."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("fill", "date_order", "decimal", "missing")
    }

    date_order: Literal["run", "auto", "dmy", "mdy", "ymd"] = "run"
    """Order of day, month and year in dates such as 01/02/2024; run: as training read them."""
    decimal: Literal["run", "point", "comma"] = "run"
    """Decimal mark of the numbers of a text table; run: as its cells show it, else as training read
    them.
    """
    missing: tuple[str, ...] = ()
    """Numbers and words that mean a missing value, besides those that training was told."""
    fill: Literal["run", "error", "forward", "linear", "zero", "as-is"] = "run"
    """What to do with missing steps and values; run: as in training."""


@dataclass(frozen=True, kw_only=True)
class BacktestOptions:
    """Forecast from several past moments and compare with what came."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"moments": ("origins", "step")}

    run: str
    """Run directory of the trained model; its weights stay as they are."""
    data: str | None = None
    """Data to go through; by default the data that the run was trained on."""
    origins: int = 10
    """How many moments to forecast from: the last ones with a full horizon after them."""
    step: int | None = None
    """Rows between two moments. none: one horizon, so that no row is forecast twice."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to run on."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    if isinstance(options, ForecastOptions):
        at_least_one = ("horizon", "lookback", "layers", "width", "core", "feedforward", "heads")
        check_least(options, dict.fromkeys(at_least_one, 1))
        check_shares(options, ("dropout",))
        levels = " ".join(["--levels", *map(str, options.levels)])
        if any(not 0 < level < 1 for level in options.levels):
            raise InputError(f"{levels}: each must lie between 0 and 1")
        if not options.levels or len({f"{level * 100:g}" for level in options.levels}) < len(
            options.levels
        ):
            raise InputError(f"{levels}: give at least one, and none twice")
        check_mixing(
            options, fits=("any tokens", "sequence"), why="channels are no grid", elsewhere=OF_STAR
        )
        _check_read(options)
        if not 1 <= options.active <= options.experts:
            raise InputError(
                f"--active {options.active}: must lie between 1 and --experts {options.experts}"
            )
        if options.balance < 0:
            raise InputError(f"--balance {options.balance}: must not be negative")
        if options.router_temperature is not None and options.router_temperature <= 0:
            raise InputError(f"--router-temperature {options.router_temperature}: must be positive")
    if isinstance(options, BacktestOptions) and (options.origins < 1 or (options.step or 1) < 1):
        raise InputError("backtest: --origins and --step must be at least 1")


def _check_read(options: ForecastOptions) -> None:
    """Raise `InputError` for an option that the chosen model does not read."""
    for name, (chooser, choice) in READ_BY.items():
        chosen = getattr(options, chooser)
        if chosen != choice:
            check_unread(options, (name,), f"--{chooser} {choice}, not by --{chooser} {chosen}")


def unread_sizes(options: ForecastOptions) -> list[str]:
    """Options that only STAR reads and that were set with another mechanism."""
    if options.attention == "star":
        return []
    changed = changed_options(options)
    return [f"--{name}" for name in STAR_ONLY if name in changed]
