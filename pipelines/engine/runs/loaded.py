"""A finished run, opened to be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from torch import nn

from ....base.errors import InputError, one_line
from ....base.files import checksum, file_stamp
from ..command_line.checks import options_of_a_run
from ..command_line.parsing import parse
from ..ladder import Ladder
from ..pipeline import Calibration, Context, OptionsT, Pipeline, SpecT, build
from .checkpoint import load_weights
from .ladder_files import FACTS as LADDER_FACTS
from .ladder_files import open_ladder
from .limits import build_within
from .run_directory import RunDirectory

VerbOptionsT = TypeVar("VerbOptionsT")
# Files that a training writes anew, and that predictions follow from.
_FILES = (
    "config.yaml", "spec.json", "model.safetensors", "calibration.safetensors", LADDER_FACTS,
)  # fmt: skip


@dataclass
class Loaded(Generic[OptionsT, SpecT]):
    """A finished run, ready to be used: model in evaluation mode on its device."""

    run: RunDirectory
    options: OptionsT
    spec: SpecT
    model: nn.Module
    """What predicts: the rung of the ladder that was chosen, in evaluation mode."""
    calibration: Calibration
    device: torch.device
    ladder: Ladder | None = None
    """All rungs; None for a task or a run without them."""
    stamps: tuple[tuple[int, ...] | None, ...] = ()
    """Sizes and times of the run's files when they were read."""

    @property
    def domain_model(self) -> nn.Module:
        """The model that was trained, whatever predicts."""
        return self.model if self.ladder is None else self.ladder.models["model"]

    def is_current(self) -> bool:
        """Whether the files of the run are still those that were read."""
        return self.stamps == _stamps(self.run)

    def context(self, options: VerbOptionsT) -> Context[VerbOptionsT, SpecT]:
        """What surrounds the model when a verb with these options uses it."""
        return Context(options, self.spec, self.calibration, self.device)


def load_run(
    pipeline: Pipeline[OptionsT, SpecT], path: str, accelerator: str = "auto"
) -> Loaded[OptionsT, SpecT]:
    """Open a finished run and build its model with its weights; `InputError` for anything that does
    not fit.
    """
    run = RunDirectory.open(path, pipeline.task.name)
    stamps = _stamps(run)
    weights = load_weights(run.path / "model.safetensors")
    with options_of_a_run():
        options = cast(OptionsT, parse(pipeline.task, "train", [], config=run.path / "config.yaml"))
    spec = open_spec(pipeline.spec_class, run)
    with build_within(weights, run.path / "model.safetensors"):
        model = build(pipeline, options, spec)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        # The reason follows torch's "Error(s) in loading …".
        _, _, reason = one_line(error).partition(": ")
        reason = reason if len(reason) <= 200 else reason[:199] + "…"
        raise InputError(
            f"{run.path / 'model.safetensors'}: weights of another model: {reason}"
        ) from None
    calibration = load_weights(run.path / "calibration.safetensors")
    try:
        pipeline.check_run(spec, calibration)
    except InputError as error:
        raise InputError(
            str(error) if str(error).startswith(str(run.path)) else f"{run.path}: {error}"
        ) from None
    device = pick_device(accelerator)
    model = model.to(device).eval()
    ladder = open_ladder(pipeline, run, model, Context(options, spec, calibration, device))
    predictor = model if ladder is None else ladder.predictor
    return Loaded(run, options, spec, predictor, calibration, device, ladder, stamps)


def _stamps(run: RunDirectory) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(file_stamp(run.path / name) for name in _FILES)


def open_spec(spec_class: type[SpecT], run: RunDirectory) -> SpecT:
    """The run's spec, with the folder of its assets; `InputError` for an asset that is missing or
    changed.
    """
    spec = spec_class.from_json(run.spec(), run.path / "spec.json")
    for name, expected in spec.assets.items():
        path = run.path / "assets" / name
        if not path.is_file() or checksum(path) != expected:
            raise InputError(f"{path}: missing or damaged; restore it from a copy of the run")
    return spec.with_assets(spec.assets, run.path / "assets")


def pick_device(accelerator: str) -> torch.device:
    """The device of a name; `auto` takes a GPU if there is one."""
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    usable = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if accelerator in usable and not usable[accelerator]():
        raise InputError(
            f"--accelerator {accelerator}: this machine has no usable one; `headwise doctor` says "
            "what it has"
        )
    return torch.device(accelerator)
