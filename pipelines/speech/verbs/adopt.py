"""The verb adopt: Whisper's weights as a run."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from ....base.account import opened
from ....base.files import checksum, write_aside, write_json, write_text
from ...engine.accounts import publish
from ...engine.command_line import machine
from ...engine.command_line.terminal import say
from ...engine.runs.run_directory import RunDirectory, dump_options
from ..options import AdoptOptions, SpeechOptions
from ..pipeline import SpeechPipeline
from ..pretrained import LAG, open_pretrained


def adopt(pipeline: SpeechPipeline, options: AdoptOptions) -> RunDirectory:
    """Write a run that holds the weights; returns it."""
    with opened() as account:
        spec, tokens, pretrained = open_pretrained(options.weights, options)
    task = pipeline.task
    training = SpeechOptions(
        weights=options.weights,
        tokenizer=options.tokenizer,
        language=options.language,
        ctc=0.0,
        run=options.run,
    )
    task.check(training)
    model = pipeline.build_model(training, spec)
    model.load_state_dict(pretrained.state)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    count = sum(value.numel() for value in state.values())
    calibration = {"lag": torch.tensor(LAG)}
    card = {
        "task": task.name,
        "summary": task.summary,
        "intended_use": task.intended_use,
        "data": f"weights of {options.weights}, not trained here",
        "parameters": count,
        "headline": "not scored",
        "input": spec.input,
        "licence_note": "the licence of the weights holds",
    }
    run = RunDirectory.create(options.run, task.name)
    try:
        environment = machine.environment(task.name, training.seed, "cpu", 1)
        write_json(run.path / "environment.json", environment)
        tokenizer = run.path / "assets" / "tokenizer.json"
        write_text(tokenizer, tokens.to_json())
        spec = spec.with_assets({tokenizer.name: checksum(tokenizer)})
        write_json(run.path / "spec.json", spec.to_json())
        write_aside(run.path / "calibration.safetensors", lambda path: save_file(calibration, path))
        write_json(run.path / "card.json", card)
        write_aside(run.path / "model.safetensors", lambda path: save_file(state, path))
        write_text(run.path / "config.yaml", dump_options(training))
        publish(account, run.path / "account.json")
    finally:
        run.unlock()
    say(f"run {run.path}: {count:,} weights")
    return run
