"""Values of options of speech to text that no data can make right."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_mechanism
from .options import (
    CAUSAL,
    CROSSING,
    DigitsOptions,
    SaliencyOptions,
    SpeechOptions,
    SpeechPredictOptions,
)

LEAST = {
    "features": 8, "width": 2, "heads": 1, "encoder_layers": 1, "decoder_layers": 1, "hidden": 1,
    "kernel": 1, "audio_positions": 10, "text_positions": 8, "experts": 1, "mask_time": 0,
    "mask_bands": 0, "vocabulary": 258,
}  # fmt: skip
# Options of a new model, which weights decide.
OF_WEIGHTS = (
    "features", "width", "heads", "encoder_layers", "decoder_layers", "hidden", "audio_positions",
    "text_positions", "encoder", "kernel", "ffn", "experts", "active", "balance", "tokens",
    "vocabulary",
)  # fmt: skip


def check(options: object) -> None:
    """Raise `InputError` for the first value that no data can make right."""
    if isinstance(options, SpeechOptions):
        _check_training(options)
    elif isinstance(options, SpeechPredictOptions):
        check_least(options, {"beams": 1})
        if options.known_text:
            _refuse_unread(options, ("beams",), "read where there is no --known-text")
            each = "known text is that of a recording, not of a channel"
            _refuse_unread(options, ("channels",), f"read where there is no --known-text; {each}")
        if len(set(options.formats)) < len(options.formats):
            raise InputError(f"--formats {' '.join(options.formats)}: names one twice")
    elif isinstance(options, SaliencyOptions):
        _check_saliency(options)
    elif isinstance(options, DigitsOptions):
        _check_digits(options)


def _check_digits(options: DigitsOptions) -> None:
    check_least(options, {"strings": 1, "least": 1, "seed": 0})
    if options.most < options.least:
        raise InputError(f"--most {options.most}: must be at least --least {options.least}")
    if not 0 <= options.shortest_pause <= options.longest_pause < 60:
        raise InputError(
            f"--shortest-pause {options.shortest_pause:g}, --longest-pause "
            f"{options.longest_pause:g}: must rise, between 0 and 60 seconds"
        )


def _refuse_unread(options: object, names: Sequence[str], reader: str) -> None:
    """Raise `InputError` for the first of these options that is not at its default."""
    defaults = {field.name: field.default for field in fields(options)}  # pyright: ignore[reportArgumentType]
    for name in names:
        value = getattr(options, name)
        if value != defaults[name]:
            raise InputError(f"--{name.replace('_', '-')} {value}: is only {reader}")


def _refuse_unread_of_training(options: SpeechOptions) -> None:
    """A finished run may hold such options from an earlier version, and still opens."""
    if options.run is not None and (Path(options.run) / "config.yaml").is_file():
        return
    if options.weights is not None:
        _refuse_unread(options, OF_WEIGHTS, "read without --weights, which decide it")
        return
    _refuse_unread(options, ("tokenizer", "language"), "read with --weights")
    if options.encoder != "conformer":
        _refuse_unread(options, ("kernel",), "read by --encoder conformer")
    if options.ffn != "moe":
        _refuse_unread(options, ("experts", "active", "balance"), "read by --ffn moe")
    if options.tokens != "bpe":
        _refuse_unread(options, ("vocabulary",), "read by --tokens bpe")


def _check_saliency(options: SaliencyOptions) -> None:
    check_least(options, {"masks": 0, "input_masks": 0, "chunk": 1, "batch_size": 1, "seed": 0})
    if not options.masks and not options.input_masks and not options.gradients:
        raise InputError("--masks 0 --input-masks 0 --no-gradients: nothing is left to do")
    if 0 < options.masks < 2 or 0 < options.input_masks < 2 * len(options.segments):
        raise InputError(
            f"--masks {options.masks}, --input-masks {options.input_masks}: take 2 or more (of "
            "each size of segments), or 0"
        )
    if not 0 < options.hidden < 1:
        raise InputError(f"--hidden {options.hidden:g}: must be between 0 and 1")
    if not options.masks:
        _refuse_unread(options, ("chunk",), "read with --masks")
    if not options.input_masks:
        _refuse_unread(options, ("segments",), "read with --input-masks")
    if not options.segments or min(options.segments) < 2:
        raise InputError("--segments: needs sizes of 2 or more")
    if not 0 <= options.margin <= 60:
        raise InputError(f"--margin {options.margin:g}: must be between 0 and 60 seconds")


def _check_training(options: SpeechOptions) -> None:
    check_least(options, LEAST)
    if options.width % 2 or options.width % options.heads:
        raise InputError(
            f"--width {options.width}: must be even and a multiple of --heads {options.heads}"
        )
    if options.kernel % 2 == 0:
        raise InputError(f"--kernel {options.kernel}: must be odd")
    if not 1 <= options.active <= options.experts:
        raise InputError(
            f"--active {options.active}: must be between 1 and --experts {options.experts}"
        )
    for name in ("dropout", "smoothing", "warp_bands", "validation_share", "test_share"):
        if not 0 <= getattr(options, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} {getattr(options, name)}: must be in [0, 1)")
    for name in ("ctc", "balance"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise InputError(f"--{name} {getattr(options, name)}: must be 0 or more")
    _check_mechanisms(options)
    _refuse_unread_of_training(options)


def _check_mechanisms(options: SpeechOptions) -> None:
    from ...models.attention import ATTENTION, REGISTERED, accepts_option

    rows = [name for name, row in ATTENTION.items() if row.fits in ("any tokens", "sequence")]
    causal = [name for name in REGISTERED if accepts_option(name, "causal")]
    crossing = [name for name, mechanism in REGISTERED.items() if mechanism.crosses]
    chosen = (options.encoder_attention, options.decoder_attention, options.cross_attention)
    for flag, name, fitting, why in (
        ("--encoder-attention", chosen[0], rows, "does not fit tokens in a row"),
        ("--decoder-attention", chosen[1], [*CAUSAL, *causal], "has no causal form"),
        ("--cross-attention", chosen[2], [*CROSSING, *crossing], "takes no context"),
    ):
        check_mechanism(flag, name, fitting, why=why)
    if options.weights is not None and set(chosen) != {"softmax"}:
        raise InputError(
            "--weights: are of softmax attention; leave out --encoder-attention, "
            "--decoder-attention and --cross-attention"
        )
