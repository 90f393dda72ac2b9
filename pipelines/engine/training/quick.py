"""Trainings in memory, for cross-validation and comparisons."""

from __future__ import annotations

import torch
from torch import nn

from ..pipeline import DataT, OptionsT, Pipeline, SpecT
from .devices import one_device
from .loop import Trainer
from .storage import MemoryStorage, Storage


def fit(
    pipeline: Pipeline[OptionsT, SpecT],
    options: OptionsT,
    dataset: DataT,
    spec: SpecT,
    device: torch.device,
    *,
    validation: DataT | None = None,
    storage: Storage | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """Train the task's model on a data set, as `train` does but without files.

    validation: a data set to stop early by; the weights are then those of the best epoch. Without
    it, as for a fold that has none, all of `options.epochs` are done and the last weights kept.

    storage: hears of every epoch; by default one that keeps the best weights in memory.

    Returns the model in evaluation mode, and how the training went: epochs, steps, best_epoch and
    the best score as validation_NAME. Raises InputError where the loss is not finite, or no epoch
    had a finite score.
    """
    trainer = Trainer(
        pipeline, options, dataset, validation, spec, storage or MemoryStorage(), one_device(device)
    )
    model = trainer.run()
    progress = trainer.progress
    facts: dict[str, float] = {"epochs": progress.epoch, "steps": progress.step}
    if validation is not None and progress.best is not None:
        best_epochs = [
            row["epoch"] for row in progress.history if row["step"] == progress.best_step
        ]
        facts |= {"best_epoch": best_epochs[0], f"validation_{pipeline.monitor}": progress.best}
    return model, facts
