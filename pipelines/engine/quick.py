"""Many small trainings in memory, for cross-validation: the loop of `loop.py` without its files.

Fixed epochs and the last weights: a fold has no validation part to choose by. The order of data and every random draw
follow from seed and step, so that a training gives the same wherever and whenever it runs (on one kind of device).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ...data.errors import InputError
from ...models.attention.base import auxiliary_loss
from . import order
from .loop import build
from .task import Task


def fit(task: Task[Any], options: Any, dataset: Any, spec: dict[str, Any], device: torch.device) -> nn.Module:
    """Train the task's model on a data set for `options.epochs`; returns it in evaluation mode.

    Raises InputError where the loss is not finite.
    """
    torch.manual_seed(order.mix(options.seed, 0))
    model = build(task, options, spec).to(device).train()
    optimizer = task.optimizer(model, options)
    step = 0
    for epoch in range(options.epochs):
        share = (1 + math.cos(math.pi * epoch / options.epochs)) / 2 if options.schedule == "cosine" else 1.0
        for group in optimizer.param_groups:
            group["lr"] = options.lr * share * group.get("share", 1.0)
        parts = order.plan(len(dataset), options.batch_size, seed=options.seed, epoch=epoch)
        for batch in order.loader(dataset, [part.indices for part in parts]):
            torch.manual_seed(order.mix(options.seed, step, 0, 2))
            loss = task.loss(model, {name: value.to(device) for name, value in batch.items()}, options)
            own = auxiliary_loss(model)
            loss = loss if own is None else loss + own
            if not math.isfinite(loss.item()):
                raise InputError(f"the loss became {loss.item()} at step {step}; try a smaller --lr or --clip 1")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            step += 1
            if options.max_steps is not None and step >= options.max_steps:
                return model.eval()
    return model.eval()
