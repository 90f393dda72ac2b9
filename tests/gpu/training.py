"""One training step of every pipeline on its generated sample: its loss beside that of the CPU, and
the task's loss compiled.
"""

import copy
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch._inductor import config

from headwise import pipelines
from headwise.pipelines import TASKS
from headwise.pipelines.engine.training.loop import Trainer
from headwise.tests.undrawn import pictures

Notes = dict[str, Any]
AnyTrainer = Trainer[Any, Any, Any]
TOLERANCE = 0.02  # of the loss, in bfloat16 on a GPU and in float32 on the CPU
DRAWS = 4  # whose losses say how far the one of another device's random numbers may be
# PyTorch's own loss functions promise strides to "aot_eager" that they do not have; decomposed, as
# "inductor" takes them, they do.
DRY_BACKEND = "aot_eager_decomp_partition"
COMPILED_TOLERANCE = 1e-3  # of loss and gradients, both in float32 on one device


def without_dropout(model: nn.Module) -> nn.Module:
    """The model, which draws nothing for dropout: devices draw different numbers."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        elif isinstance(getattr(layer, "dropout", None), float):
            vars(layer)["dropout"] = 0.0
    return model


def loss_and_slopes(
    loss_of: Callable[..., torch.Tensor], model: nn.Module, *arguments: object
) -> list[torch.Tensor]:
    """The loss, and the length of its gradient, with the draws of one seed."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    loss = loss_of(model, *arguments)
    loss.backward()
    slopes = [x.grad.detach().float().norm() for x in model.parameters() if x.grad is not None]
    return [loss.detach().float(), torch.stack(slopes).norm()]


def compiled_fault(trainer: AnyTrainer, batch: Any, backend: str) -> str:
    """What is wrong with the compiled loss of the task, in float32; "" where nothing is."""
    model, about = copy.deepcopy(trainer.plain), (batch, trainer.options)
    torch._dynamo.reset()
    with torch.random.fork_rng(), config.patch(fallback_random=True):
        right = loss_and_slopes(trainer.pipeline.loss, model, *about)
        model = copy.deepcopy(trainer.plain)  # the first call may have moved its statistics
        compiled = torch.compile(trainer.pipeline.loss, backend=backend)
        some = loss_and_slopes(compiled, model, *about)
    for name, a, b in zip(("loss", "gradient"), some, right):
        if off := difference(float(a), float(b), COMPILED_TOLERANCE):
            return f"compiled, its {name} is {off}"
    return ""


def difference(some: float, right: float, tolerance: float, spread: float = 0.0) -> str:
    """Both numbers where they differ by more than this share and `spread`; "" where they do not."""
    most = tolerance * max(abs(right), 1e-6) + spread
    near = math.isfinite(some) and abs(some - right) <= most
    return "" if near else f"{some:.6g}, not {right:.6g}"


@torch.no_grad()
def losses_of_draws(trainer: AnyTrainer, batch: Any) -> list[float]:
    """The loss with other random numbers: some models draw in training."""
    model, out = copy.deepcopy(trainer.plain), []
    with torch.random.fork_rng():
        for seed in range(DRAWS):
            torch.manual_seed(seed)
            out.append(float(trainer.pipeline.loss(model, batch, trainer.options)))
    return out


@contextmanager
def watched(notes: Notes, backend: str = "") -> Iterator[None]:
    """Within, a training has no dropout and notes the loss of its first step and, with a backend,
    what is wrong where it is compiled, without one the losses of other draws.
    """
    backward = Trainer._backward

    def noted(trainer: AnyTrainer, part: Any, batch: Any) -> float:
        if notes:
            return backward(trainer, part, batch)
        without_dropout(trainer.plain)
        batch = trainer.fabric.to_device(batch)
        notes["compiled"] = compiled_fault(trainer, batch, backend) if backend else ""
        notes["draws"] = [] if backend else losses_of_draws(trainer, batch)
        notes["loss"] = backward(trainer, part, batch)
        return notes["loss"]

    Trainer._backward = noted
    try:
        yield
    finally:
        Trainer._backward = backward


def step(name: str, accelerator: str, precision: str, backend: str = "") -> Notes:
    """Notes of a training of one step."""
    notes: Notes = {}
    silent = io.StringIO()
    options = {"max_steps": 1, "accelerator": accelerator, "precision": precision}
    with (
        TemporaryDirectory() as folder,
        redirect_stdout(silent),
        redirect_stderr(silent),
        watched(notes, backend),
        pictures(as_dots=True),
    ):
        getattr(pipelines, name).train(run=Path(folder) / "run", **options)
    return notes


def steps(
    accelerator: str,
    names: tuple[str, ...] = tuple(TASKS),
    late: Callable[[], bool] = lambda: False,
) -> list[dict]:
    """A row for each pipeline: its seconds, its loss and that of the CPU, or what was wrong. late:
    whether there is no time left to compile, "bare" in the row.
    """
    on_gpu, rows = accelerator == "cuda", []
    for name in names:
        start, fault, row = time.perf_counter(), "", {}
        try:
            precision = "bf16-mixed" if on_gpu else "32-true"
            backend = "" if late() else "inductor" if on_gpu else DRY_BACKEND
            notes = step(name, accelerator, precision, backend)
            right = step(name, "cpu", "32-true")
            row = {"loss": notes["loss"], "loss_of_cpu": right["loss"], "bare": not backend}
            spread = 2 * (max(right["draws"]) - min(right["draws"]))
            off = difference(notes["loss"], right["loss"], TOLERANCE, spread)
            fault = notes["compiled"] or (off and f"its loss is {off} as on the CPU")
        except Exception as error:
            fault = f"{type(error).__name__}: {str(error).strip()[:200]}"
        row |= {"pipeline": name, "seconds": time.perf_counter() - start}
        rows.append(row | {"result": fault or "right"})
    return rows
