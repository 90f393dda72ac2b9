"""The verb digits: strings of recorded digits, for training and for measuring word times."""

from __future__ import annotations

from pathlib import Path

from ....base.errors import InputError
from ....data.speech.generate import write_digit_strings
from ...engine.command_line.terminal import say
from ..options import DigitsOptions


def digits(options: DigitsOptions) -> Path:
    """Write the strings; returns their folder."""
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: is there already; choose another --output")
    parts = {
        **dict.fromkeys(options.validation, "validation"),
        **dict.fromkeys(options.test, "test"),
    }
    folder = write_digit_strings(
        Path(options.recordings),
        output,
        strings=options.strings,
        seed=options.seed,
        speakers=tuple(dict.fromkeys((*options.speakers, *parts))) if options.speakers else (),
        parts=parts,
        gaps=(options.shortest_pause, options.longest_pause),
        digits=(options.least, options.most),
    )
    say(f"{options.strings} strings in {folder}, listed in {folder / 'manifest.jsonl'}")
    return folder
