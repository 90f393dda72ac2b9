"""Checks of the options of wsi. Nothing here imports torch."""

from __future__ import annotations

from ...base.errors import InputError
from ..engine.command_line.checks import check_attention, check_least
from .options import CrossvalOptions, FeaturesOptions, WsiOptions, WsiPredictOptions


def check(options: object) -> None:
    """Values that no data can make right."""
    if isinstance(options, CrossvalOptions):
        check_least(options, {"folds": 2, "repeats": 1, "seeds": 1})
        if options.data is None:
            raise InputError("wsi crossval: needs --data, a list of slides or a table of bags")
        if not options.models or len(set(options.models)) < len(options.models):
            raise InputError("--models: give at least one, and none twice")
    if isinstance(options, WsiOptions):
        check_attention(
            options.attention, fits=("any tokens",), why="tiles of a slide are a set", optional=True
        )
    if isinstance(options, WsiOptions | FeaturesOptions):
        least = {
            "tile": 8,
            "inner": 1,
            "branches": 1,
            "masked": 0,
            "encode_batch": 1,
            "threads": 1,
            "layers": 1,
            "heads": 1,
        }
        check_least(options, least)
        for name in ("mask_share", "least_tissue"):
            if not 0 <= getattr(options, name, 0) <= 1:
                raise InputError(
                    f"--{name.replace('_', '-')} {getattr(options, name)}: must be in [0, 1]"
                )
        for name in ("overlap", "dropout"):
            if not 0 <= getattr(options, name, 0) < 1:
                raise InputError(f"--{name} {getattr(options, name)}: must be in [0, 1)")
        for name in ("diversity", "branch_loss"):
            if not 0 <= getattr(options, name, 0) < float("inf"):
                raise InputError(
                    f"--{name.replace('_', '-')} {getattr(options, name)}: must be 0 or more"
                )
        if not 0 < options.tile_mpp < 1000:
            raise InputError(
                f"--tile-mpp {options.tile_mpp}: must be positive, in micrometres a pixel"
            )
    mpp: float | None = getattr(options, "mpp", None)
    if mpp is not None and not 0 < mpp < 1000:
        raise InputError(f"--mpp {mpp}: must be positive, in micrometres a pixel")
    if isinstance(options, WsiPredictOptions) and options.top < 1:
        raise InputError(f"--top {options.top}: must be at least 1")
