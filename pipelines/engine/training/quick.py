"""Many small trainings in memory, for cross-validation and comparisons: the loop of `loop.py`
without its files.

The order of data and every random draw follow from seed and step, so that a training gives the same
wherever and whenever it runs (on one kind of device)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ....base.errors import InputError
from ....models.attention.base import auxiliary_loss
from ..pipeline import AnyPipeline
from . import order
from .loop import build, set_learning_rate


def fit(
    pipeline: AnyPipeline,
    options: Any,
    dataset: Any,
    spec: Any,
    device: torch.device,
    *,
    validation: Any = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the task's model on a data set; returns it in evaluation mode, and how the training
    went.

    validation: a data set to stop early by, as `train` does; the weights are then those of the best
    epoch. Without it, as for a fold that has none, all of `options.epochs` are done and the last
    weights kept. Raises InputError where the loss is not finite, or no epoch had a finite score.
    """
    o = options
    torch.manual_seed(order.mix(o.seed, 0))
    model = build(pipeline, o, spec)
    pipeline.load_initial_weights(model, o, spec)
    model = model.to(device)
    optimizer = pipeline.optimizer(model, o)
    best, best_epoch, weights, bad, step, epoch = math.inf, 0, None, 0, 0, 0
    while epoch < o.epochs and bad < o.patience and (o.max_steps is None or step < o.max_steps):
        pipeline.begin_epoch(model, optimizer, o, epoch)
        set_learning_rate(optimizer, o, epoch)
        step = _epoch(pipeline, model, optimizer, o, dataset, device, epoch, step)
        epoch += 1
        if validation is None:
            continue
        score = _score(pipeline, model, o, validation, device)
        if math.isfinite(score) and score <= best:
            best, best_epoch, bad = score, epoch, 0
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        else:
            bad += 1
    facts: dict[str, Any] = {"epochs": epoch, "steps": step}
    if validation is not None:
        if weights is None:
            raise InputError("no epoch had a finite validation score; try a smaller --lr")
        model.load_state_dict(weights)
        facts |= {"best_epoch": best_epoch, f"validation_{pipeline.monitor}": best}
    return model.eval(), facts


def _epoch(
    pipeline: AnyPipeline,
    model: nn.Module,
    optimizer: Any,
    options: Any,
    dataset: Any,
    device: torch.device,
    epoch: int,
    step: int,
) -> int:
    """The steps of an epoch from `step` on; returns how many were done in all."""
    o = options
    model.train()
    batches = order.batches_of(dataset, o.batch_size, seed=o.seed, epoch=epoch)
    parts = order.plan(len(dataset), o.batch_size, seed=o.seed, epoch=epoch, batches=batches)
    if o.max_steps is not None:
        parts = parts[: o.max_steps - step]
    for batch in order.loader(dataset, [part.indices for part in parts], workers=o.workers):
        torch.manual_seed(order.mix(o.seed, step, 0, 2))
        loss = pipeline.loss(model, {name: value.to(device) for name, value in batch.items()}, o)
        own = auxiliary_loss(model)
        loss = loss if own is None else loss + own
        if not math.isfinite(loss.item()):
            raise InputError(
                f"the loss became {loss.item()} at step {step}; try a smaller --lr or --clip 1"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if o.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        optimizer.step()
        step += 1
    return step


def _score(
    pipeline: AnyPipeline, model: nn.Module, options: Any, dataset: Any, device: torch.device
) -> float:
    """What early stopping goes by."""
    model.eval()
    with torch.no_grad():
        batches = order.loader(dataset, order.sequential(len(dataset), options.batch_size))
        moved = ({name: value.to(device) for name, value in batch.items()} for batch in batches)
        return pipeline.validate(model, moved, options)[pipeline.monitor]
