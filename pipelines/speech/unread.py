"""Options that only some choice of another option reads, and that are refused without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...base.errors import InputError
from ..engine.command_line.checks import check_unread

if TYPE_CHECKING:
    from .options import SpeechOptions

# Options of a new model, which weights decide.
OF_WEIGHTS = (
    "features", "width", "heads", "encoder_layers", "decoder_layers", "hidden", "audio_positions",
    "text_positions", "encoder", "kernel", "ffn", "experts", "active", "balance", "tokens",
    "vocabulary", "choose",
)  # fmt: skip


def check_unread_of_training(options: SpeechOptions) -> None:
    """Raise `InputError` for an option of a training that the others leave without a reader."""
    if options.weights is not None:
        check_unread(options, OF_WEIGHTS, "a new model, while --weights decide it")
        return
    check_unread(options, ("tokenizer", "language"), "--weights")
    if options.choose in ("simple", "blend"):
        raise InputError(
            f"--choose {options.choose}: speech has no simple model; there are naive (the same "
            "text for all) and model"
        )
    if options.encoder != "conformer":
        check_unread(options, ("kernel",), "--encoder conformer")
    if options.ffn != "moe":
        check_unread(options, ("experts", "active", "balance"), "--ffn moe")
    if options.tokens != "bpe":
        check_unread(options, ("vocabulary",), "--tokens bpe")
