"""Where a training keeps its state: in a run directory, or only in memory."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

import torch
from torch import Tensor, nn

from ....base.errors import InputError, one_line
from ....base.extras import install_line
from ....base.files import read_json, write_json, write_text
from ..command_line.terminal import say
from ..options import TrainOptions
from ..runs import checkpoint
from ..runs.run_directory import RunDirectory

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

MOST_SKIPPED = 100


@dataclass
class Progress:
    """How far the training is; with weights and optimiser it is all that a checkpoint holds."""

    epoch: int = 0
    batch: int = 0  # optimiser steps done in this epoch
    step: int = 0  # optimiser steps done in all
    loss_sum: float = 0.0
    finite: int = 0  # optimiser steps of this epoch whose loss was finite
    best: float | None = None
    best_step: int | None = None
    bad_epochs: int = 0
    skipped: int = 0  # batches whose loss was not finite
    skipped_in_a_row: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def mean_loss(self) -> float:
        """Mean training loss of this epoch so far, without the skipped batches."""
        return self.loss_sum / self.finite if self.finite else math.nan

    def add_score(self, score: float | None) -> None:
        """Count the epoch that has just ended, by its validation score; None: it has none, and
        counts as the best.
        """
        if score is None:
            self.best_step = self.step
        elif math.isfinite(score) and (self.best is None or score <= self.best):
            self.best, self.best_step, self.bad_epochs = score, self.step, 0
        else:
            self.bad_epochs += 1
        self.epoch, self.batch, self.loss_sum, self.finite = self.epoch + 1, 0, 0.0, 0


class Storage(Protocol):
    """What the loop asks of the place that keeps its state."""

    shown: bool
    """Whether the terminal shows how the training goes, and signals end it at the next step."""

    def resumed_by(self, task: str) -> str:
        """The command that goes on with what was saved; empty where nothing is saved."""
        ...

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load what was saved before into model and optimiser; a new `Progress` if nothing was."""
        ...

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Keep the state as it is now."""
        ...

    def best_weights(self, progress: Progress) -> Mapping[str, Tensor]:
        """Weights of the best epoch; `InputError` if none had a finite score."""
        ...

    def add_bad_batch(self, progress: Progress, loss: float, samples: list[int]) -> None:
        """Note a batch whose loss was not finite; `InputError` if the training must end."""
        ...


class MemoryStorage:
    """Keeps the weights of the best epoch, and nothing else."""

    shown = False

    def __init__(self) -> None:
        self._best: dict[str, Tensor] = {}

    def resumed_by(self, task: str) -> str:
        return ""

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        return Progress()

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        if progress.best_step == progress.step:
            state = model.state_dict()
            self._best = {name: value.detach().clone() for name, value in state.items()}

    def best_weights(self, progress: Progress) -> Mapping[str, Tensor]:
        if progress.best_step is None:
            raise InputError("no epoch had a finite validation score; try a smaller --lr")
        return self._best

    def add_bad_batch(self, progress: Progress, loss: float, samples: list[int]) -> NoReturn:
        raise InputError(
            f"the loss became {loss} at step {progress.step}; try a smaller --lr or --clip 1"
        )


class RunStorage:
    """Keeps checkpoints, history.csv and nan.json in a run directory; the first process writes."""

    shown = True

    def __init__(self, run: RunDirectory, options: TrainOptions, *, first_process: bool) -> None:
        self.run, self.options, self.first_process = run, options, first_process
        self.logger = _logger(options, run) if first_process else None

    def resumed_by(self, task: str) -> str:
        return f"headwise {task} train --run {shlex.quote(str(self.run.path))} --resume"

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        from torch.distributed.checkpoint.state_dict import set_state_dict

        saved = checkpoint.load_newest(self.run.checkpoints) if self.options.resume else None
        if saved is None:
            return Progress()
        try:
            set_state_dict(
                model,
                optimizer,
                model_state_dict=saved["model"],
                optim_state_dict=saved["optimizer"],
                options=_full(),
            )
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(
                f"{self.run.checkpoints}: checkpoint of another model: {one_line(error)[:200]}"
            ) from error
        progress = Progress(**saved["progress"])
        say(f"resumed at epoch {progress.epoch + 1}, step {progress.step}")
        return progress

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        # All processes take part: a model in parts (FSDP) is gathered here.
        weights, state = get_state_dict(model, optimizer, options=_full())
        if not self.first_process:
            return
        checkpoint.save(self.run.checkpoints, progress.step, weights, state, asdict(progress))
        best = None if progress.best_step is None else f"step-{progress.best_step:09d}"
        checkpoint.prune(self.run.checkpoints, self.options.keep, best)
        write_history(self.run, progress.history)
        if self.logger is not None and progress.batch == 0 and progress.history:
            self.logger.log_metrics(progress.history[-1], step=progress.step)

    def best_weights(self, progress: Progress) -> Mapping[str, Tensor]:
        if progress.best_step is None:
            raise InputError(
                "no epoch had a finite validation score; try a smaller --lr or --clip 1"
            )
        return checkpoint.load(self.run.checkpoints / f"step-{progress.best_step:09d}")["model"]

    def add_bad_batch(self, progress: Progress, loss: float, samples: list[int]) -> None:
        path, step = self.run.path / "nan.json", progress.step
        # A resumed run goes over some steps again: they are listed once.
        before = read_json(path) if path.exists() else []
        entries = [entry for entry in before if entry["step"] < step]
        entries.append({"epoch": progress.epoch + 1, "step": step, "samples": samples})
        if self.first_process:
            write_json(path, entries)
        if self.options.nan == "stop":
            raise InputError(
                f"the loss became {loss} at step {step}; the samples of this batch are in {path}; "
                "try a smaller --lr or --clip 1, or --nan skip"
            )
        progress.skipped, progress.skipped_in_a_row = (
            progress.skipped + 1,
            progress.skipped_in_a_row + 1,
        )
        if progress.skipped_in_a_row == MOST_SKIPPED:
            raise InputError(
                f"the loss was not finite for {MOST_SKIPPED} batches in a row: the model itself "
                "has broken down; start again with a smaller --lr or --clip 1 (samples in "
                f"{path})"
            )
        say(f"step {step}: the loss is {loss}, batch skipped (samples in {path})")


def _full() -> StateDictOptions:
    """How states are gathered: in full, in the memory of the processor.

    torch's module of distributed checkpoints is imported where it is used: it takes most of a
    second, which prediction need not wait for."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def write_history(run: RunDirectory, history: list[dict[str, float]]) -> None:
    """`history.csv`: one row per epoch, always of this run only, since it is written anew from the
    checkpoint.
    """
    if history:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(run.path / "history.csv", text.getvalue())


class HistoryLogger(Protocol):
    """A logger besides history.csv."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Log the row of an epoch."""
        ...


def _logger(options: TrainOptions, run: RunDirectory) -> HistoryLogger | None:
    if options.logger == "none":
        return None
    try:
        if options.logger == "tensorboard":
            from lightning_fabric.loggers.tensorboard import TensorBoardLogger

            return TensorBoardLogger(run.path, name="tensorboard", version="")
        return _WandbLogger(run)
    except ImportError:
        raise InputError(
            f"--logger {options.logger}: not installed; {install_line(options.logger)}"
        ) from None


class _WandbLogger:
    def __init__(self, run: RunDirectory) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.run = wandb.init(project="headwise", name=run.path.name, dir=run.path, resume="allow")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)
