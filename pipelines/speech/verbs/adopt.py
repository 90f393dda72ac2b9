"""Whisper's weights as a run of this task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ....base.errors import InputError, fail
from ....base.files import checksum, write_aside, write_json, write_text
from ....data.catalogue import get_dataset
from ....data.speech.tokens import TextTokens, read_tokens, suppressed_tokens
from ....models.weights.whisper import WhisperWeights, read_whisper
from ...engine.command_line import machine
from ...engine.command_line.terminal import say
from ...engine.pipeline import AnyPipeline
from ...engine.runs.run_directory import RunDirectory, dump_options
from ..build import build
from ..options import AdoptOptions, SpeechOptions

NAMED = "whisper-tiny-en"
LAG = (
    4  # states by which the alignment heads of Whisper tiny.en look late (docs/reference/speech.md)
)


def find_weights(given: str) -> Path:
    """The file or folder of weights; a name of the catalogue is fetched once."""
    return get_dataset(NAMED) if given == NAMED and not Path(given).exists() else Path(given)


def adopted(options: Any) -> tuple[dict[str, Any], TextTokens, WhisperWeights]:
    """The spec of a run with these weights, their tokens, and the weights."""
    place = find_weights(options.weights)
    try:
        weights = read_whisper(place)
    except ValueError as error:
        raise InputError(str(error)) from None
    folder = place if place.is_dir() else place.parent
    if options.tokenizer is None and not (folder / "tokenizer.json").is_file():
        raise fail(place, "has no tokenizer.json beside it; name one with --tokenizer")
    tokens = read_tokens(options.tokenizer or folder, options.language)
    never, not_first = suppressed_tokens(folder)
    no_speech = next(
        (
            number
            for name in ("<|nospeech|>", "<|nocaptions|>")
            if (number := tokens.tokenizer.token_to_id(name)) is not None
        ),
        None,
    )
    size = weights.options["vocabulary"]
    if tokens.end >= size or max(tokens.prompt) >= size:
        raise fail(
            options.tokenizer or folder,
            f"is not the tokenizer of these weights, which know {size} tokens",
        )
    spec = {
        "input": {
            "sound": "16,000 samples a second, mono",
            "longest window": f"{0.02 * weights.options['audio_positions']:g} s",
        },
        "vocabulary": size,
        "whole_window": True,
        "alignment_heads": [list(one) for one in weights.alignment_heads],
        "never": [one for one in never if one < size],
        "not_first": [one for one in not_first if one < size],
        "no_speech": no_speech,
        "language": options.language,
        "sizes": weights.options,
        "audio_positions": weights.options["audio_positions"],
        "text_positions": weights.options["text_positions"],
        "features": weights.options["features"],
    }
    return spec, tokens, weights


def adopt(pipeline: AnyPipeline, options: AdoptOptions) -> RunDirectory:
    """Write a run that holds the weights; returns it."""
    spec, tokens, weights = adopted(options)
    given = SpeechOptions(
        weights=options.weights,
        tokenizer=options.tokenizer,
        language=options.language,
        ctc=0.0,
        run=options.run,
    )
    pipeline.task.check(given)
    model = build(given, spec)
    model.load_state_dict(weights.state)
    run = RunDirectory.create(options.run, pipeline.task.name)
    try:
        write_json(
            run.path / "environment.json",
            machine.environment(pipeline.task.name, given.seed, "cpu", 1),
        )
        text = tokens.to_json()
        write_text(run.path / "assets" / "tokenizer.json", text)
        spec["assets"] = {"tokenizer.json": checksum(run.path / "assets" / "tokenizer.json")}
        write_json(run.path / "spec.json", spec)
        calibration = {"lag": torch.tensor(LAG)}
        write_aside(run.path / "calibration.safetensors", lambda path: save_file(calibration, path))
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        count = sum(value.numel() for value in state.values())
        card = {
            "task": pipeline.task.name,
            "summary": pipeline.task.summary,
            "intended_use": pipeline.task.intended_use,
            "data": f"weights of {options.weights}, not trained here",
            "parameters": count,
            "headline": "not scored",
            "input": spec["input"],
            "licence_note": "the licence of the weights holds",
        }
        write_json(run.path / "card.json", card)
        write_aside(run.path / "model.safetensors", lambda path: save_file(state, path))
        write_text(run.path / "config.yaml", dump_options(given))
    finally:
        run.unlock()
    say(f"run {run.path}: {count:,} weights")
    return run
