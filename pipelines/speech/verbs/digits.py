"""Strings of recorded digits, for training and for measuring word times."""

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
    named = {
        **dict.fromkeys(options.validation, "validation"),
        **dict.fromkeys(options.test, "test"),
    }
    speakers = tuple(dict.fromkeys((*options.speakers, *named))) if options.speakers else ()
    home = write_digit_strings(
        Path(options.recordings),
        output,
        strings=options.strings,
        seed=options.seed,
        speakers=speakers,
        parts=named,
        gaps=(options.shortest_pause, options.longest_pause),
        digits=(options.least, options.most),
    )
    say(f"{options.strings} strings in {home}, listed in {home / 'manifest.jsonl'}")
    return home
