"""The verb generate: the trials of a split as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ....base.errors import InputError, reason
from ...engine.command_line.terminal import say
from ..data import SUFFIXES, generated_lines, write_trials
from ..options import GenerateOptions, check


@dataclass(frozen=True)
class GeneratedTrials:
    """What was written."""

    output: Path
    trials: int


def generate(options: GenerateOptions) -> GeneratedTrials:
    """Write the parts of a split to --output; the same options give the same bytes."""
    check(options)
    output = Path(options.output)
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f"{output}: trials are written as .jsonl; give such a name")
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output, or --overwrite")
    try:
        lines = generated_lines(
            options, options.seed, with_train=True, published=options.form == "published"
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"generate: {error}") from None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({reason(error)})") from None
    write_trials(output, lines)
    say(f"{len(lines):,} trials: {output}")
    return GeneratedTrials(output, len(lines))
