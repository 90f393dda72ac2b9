"""Option values that no data can make right."""

from typing import Any

from ...base.errors import InputError
from ..engine.command_line.checks import check_attention, check_least
from .options import SaliencyOptions, SaliencyPredictOptions


def check(options: Any) -> None:
    """Raise `InputError` for the first of them."""
    if isinstance(options, SaliencyPredictOptions) and not 0 <= options.threshold <= 1:
        raise InputError(f"--threshold {options.threshold}: must be in [0, 1]")
    if not isinstance(options, SaliencyOptions):
        return
    check_least(options, {"frozen_encoder": 0, "frozen_transformer": 0})
    if len(options.size) != 2 or not all(
        32 <= side <= 2048 and side % 32 == 0 for side in options.size
    ):
        raise InputError(
            f"--size {' '.join(map(str, options.size))}: needs height and width, multiples of 32 from 32 to 2048 pixels"
        )
    for name in ("drop_path", "validation_share", "test_share", "zoom", "colour"):
        if not 0 <= getattr(options, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: must be in [0, 1)"
            )
    if not 0 <= options.blank <= 1:
        raise InputError(f"--blank {options.blank}: must be in [0, 1]")
    if not 0 <= options.turn <= 180:
        raise InputError(f"--turn {options.turn}: must be in [0, 180] degrees")
    if not 0 < options.encoder_share <= 100:
        raise InputError(f"--encoder-share {options.encoder_share}: must be in (0, 100]")
    if options.attention != "spatial-reduction":
        check_attention(
            options.attention, fits=("any tokens", "grid"), why="the tokens are the cells of a map"
        )
    if options.frozen_encoder + options.frozen_transformer > options.epochs:
        held = f"--frozen-encoder {options.frozen_encoder} and --frozen-transformer {options.frozen_transformer}"
        raise InputError(f"{held}: are more than --epochs {options.epochs}")
    if options.transformer == "none" and options.frozen_transformer:
        raise InputError("--frozen-transformer: there is no transformer to hold; leave it out")
