"""Trainings in memory, for cross-validation and comparisons."""

from __future__ import annotations

import torch
from torch import nn

from ..options import TrainOptions
from ..pipeline import AnyPipeline, Context, DataSet, DataT, OptionsT, Pipeline, SpecT, Splits
from ..runs.loaded import pick_device
from . import order
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
    had a finite score. A model without parameters to train has no score until it is completed.
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


def completed(
    pipeline: AnyPipeline,
    model: nn.Module,
    splits: Splits,
    options: TrainOptions,
    facts: dict[str, float],
) -> None:
    """Complete a model that `fit` gave; where nothing was trained, `facts` gets its score on the
    validation part, by which it is compared.
    """
    device = pick_device(options.accelerator)
    with torch.no_grad():
        pipeline.complete(model, splits, Context(options, splits.spec, {}, device))
    name = f"validation_{pipeline.monitor}"
    if name not in facts:
        figures = figures_on(pipeline, model, splits.validation, options, device)
        facts[name] = figures[pipeline.monitor]


def figures_on(
    pipeline: AnyPipeline,
    model: nn.Module,
    dataset: DataSet,
    options: TrainOptions,
    device: torch.device,
) -> dict[str, float]:
    """What `validate` gives for a part, as after each epoch of a training."""
    fabric = one_device(device)
    lists = order.sequential(len(dataset), max(options.batch_size, 64))
    batches = (fabric.to_device(batch) for batch in order.loader(dataset, lists))
    with torch.no_grad():
        return pipeline.validate(fabric.setup_module(model).eval(), batches, options)
