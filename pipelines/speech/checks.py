"""Option values that no data can make right."""

from typing import Any

from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_mechanism
from .options import DigitsOptions, SaliencyOptions, SpeechOptions, SpeechPredictOptions

CAUSAL = (
    "combiner",
    "differential",
    "fixed-sequence",
    "moh",
    "position-only",
    "query-free",
    "random",
    "softmax",
    "static",
    "taylor",
)
CROSSING = (
    "agent-learned",
    "differential",
    "induced",
    "moh",
    "query-free",
    "signed-root",
    "softmax",
    "star",
    "taylor",
    "tensor",
)


def check(options: Any) -> None:
    """Raise `InputError` for the first of them."""
    if isinstance(options, SpeechOptions):
        _check_training(options)
    if isinstance(options, SpeechPredictOptions):
        check_least(options, {"beams": 1})
        if len(set(options.formats)) < len(options.formats):
            raise InputError(f"--formats {' '.join(options.formats)}: names one twice")
    if isinstance(options, SaliencyOptions):
        _check_saliency(options)
    if isinstance(options, DigitsOptions):
        check_least(options, {"strings": 1, "least": 1, "seed": 0})
        if options.most < options.least:
            raise InputError(f"--most {options.most}: must be at least --least {options.least}")
        if not 0 <= options.shortest_pause <= options.longest_pause < 60:
            raise InputError(
                f"--shortest-pause {options.shortest_pause:g}, --longest-pause {options.longest_pause:g}: "
                "must rise, between 0 and 60 seconds"
            )


def _check_saliency(options: SaliencyOptions) -> None:
    check_least(options, {"masks": 0, "input_masks": 0, "chunk": 1, "batch_size": 1, "seed": 0})
    if not options.masks and not options.input_masks and not options.gradients:
        raise InputError("--masks 0 --input-masks 0 --no-gradients: nothing is left to do")
    if 0 < options.masks < 2 or 0 < options.input_masks < 2 * len(options.segments):
        raise InputError(
            f"--masks {options.masks}, --input-masks {options.input_masks}: take 2 or more (of each size "
            "of segments), or 0"
        )
    if not 0 < options.hidden < 1:
        raise InputError(f"--hidden {options.hidden:g}: must lie between 0 and 1")
    if not options.segments or min(options.segments) < 2:
        raise InputError("--segments: needs sizes of 2 or more")
    if not 0 <= options.margin <= 60:
        raise InputError(f"--margin {options.margin:g}: must lie between 0 and 60 seconds")


def _check_training(options: SpeechOptions) -> None:
    check_least(
        options,
        {
            "features": 8,
            "width": 2,
            "heads": 1,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "hidden": 1,
            "kernel": 1,
            "audio_positions": 10,
            "text_positions": 8,
            "experts": 1,
            "mask_time": 0,
            "mask_bands": 0,
            "vocabulary": 258,
        },
    )
    if options.width % 2 or options.width % options.heads:
        raise InputError(
            f"--width {options.width}: must be even and a multiple of --heads {options.heads}"
        )
    if options.kernel % 2 == 0:
        raise InputError(f"--kernel {options.kernel}: must be odd")
    if not 1 <= options.active <= options.experts:
        raise InputError(
            f"--active {options.active}: must lie between 1 and --experts {options.experts}"
        )
    for name in ("dropout", "smoothing", "warp_bands", "validation_share", "test_share"):
        if not 0 <= getattr(options, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: must be in [0, 1)"
            )
    for name in ("ctc", "balance"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise InputError(f"--{name} {getattr(options, name)}: must be 0 or more")
    from ...models.attention import ATTENTION, REGISTERED, accepts_option

    rows = [name for name, row in ATTENTION.items() if row.fits in ("any tokens", "sequence")]
    causal = [name for name in REGISTERED if accepts_option(name, "causal")]
    crossing = [name for name, mechanism in REGISTERED.items() if mechanism.crosses]
    for option, fitting, why in (
        ("encoder_attention", rows, "does not fit tokens in a row"),
        ("decoder_attention", [*CAUSAL, *causal], "has no causal form"),
        ("cross_attention", [*CROSSING, *crossing], "takes no context"),
    ):
        flag = f"--{option.replace('_', '-')}"
        check_mechanism(flag, getattr(options, option), fitting, why=why)
    named = (options.encoder_attention, options.decoder_attention, options.cross_attention)
    if options.weights is not None and set(named) != {"softmax"}:
        raise InputError(
            "--weights: are of softmax attention; leave out --encoder-attention, --decoder-attention and "
            "--cross-attention"
        )
