"""Options that only some choice of another option reads, and that are refused without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.errors import InputError

if TYPE_CHECKING:
    from .options import SpeechOptions

# Options of a new model, which weights decide.
OF_WEIGHTS = (
    "features", "width", "heads", "encoder_layers", "decoder_layers", "hidden", "audio_positions",
    "text_positions", "encoder", "kernel", "ffn", "experts", "active", "balance", "tokens",
    "vocabulary",
)  # fmt: skip


def refuse_unread(options: object, names: Sequence[str], reader: str) -> None:
    """Raise `InputError` for the first of these options that is not at its default."""
    defaults = {field.name: field.default for field in fields(options)}  # pyright: ignore[reportArgumentType]
    for name in names:
        value = getattr(options, name)
        if value != defaults[name]:
            raise InputError(f"--{name.replace('_', '-')} {value}: is only {reader}")


def refuse_unread_of_training(options: SpeechOptions) -> None:
    """A finished run may hold such options from an earlier version, and still opens."""
    if options.run is not None and (Path(options.run) / "config.yaml").is_file():
        return
    if options.weights is not None:
        refuse_unread(options, OF_WEIGHTS, "read without --weights, which decide it")
        return
    refuse_unread(options, ("tokenizer", "language"), "read with --weights")
    if options.encoder != "conformer":
        refuse_unread(options, ("kernel",), "read by --encoder conformer")
    if options.ffn != "moe":
        refuse_unread(options, ("experts", "active", "balance"), "read by --ffn moe")
    if options.tokens != "bpe":
        refuse_unread(options, ("vocabulary",), "read by --tokens bpe")
