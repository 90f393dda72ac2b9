"""Checks of the options of forecast. Nothing here imports torch."""

from __future__ import annotations

from ...base.errors import InputError
from ..engine.command_line.checks import check_attention, check_least
from .options import BacktestOptions, ForecastOptions


def check(options: object) -> None:
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
            raise InputError(f"--router-temperature {options.router_temperature}: must be positive")
    if isinstance(options, BacktestOptions) and (options.origins < 1 or (options.step or 1) < 1):
        raise InputError("backtest: --origins and --step must be at least 1")
