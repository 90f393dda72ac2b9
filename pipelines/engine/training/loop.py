"""Training: one page on Lightning Fabric, which runs the devices, the precision and the processes.

The state of a training is weights, optimiser and `Progress`; the order of data and every random
draw follow from seed and step. So a run that is killed and resumed ends with the weights of the
unbroken run, bit for bit on the CPU."""

from __future__ import annotations

import math
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Generic

import torch
from torch import Tensor, nn

from ....base.errors import InputError, one_line
from ....models.attention.base import auxiliary_loss
from ....models.moe.watch import RoutingWatch
from ..command_line.terminal import Progressbar, say
from ..options import TrainOptions
from ..pipeline import Batch, DataT, OptionsT, Pipeline, SpecT, build
from . import order
from .counts import steps_of, with_factors
from .devices import sharing_of
from .sharing import SharedWork
from .storage import Progress, Storage

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Stopped(BaseException):
    """A signal asked the process to end; the checkpoint has been written."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def set_learning_rate(optimizer: torch.optim.Optimizer, options: TrainOptions, epoch: int) -> float:
    """Give each group of parameters its share of the learning rate of an epoch; returns that
    rate.
    """
    lr = options.lr
    if options.schedule == "cosine":
        lr = lr / 2 * (1 + math.cos(math.pi * epoch / options.epochs))
    if epoch < options.warmup:
        lr *= (epoch + 1) / (options.warmup + 1)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("share", 1.0)
    return lr


def seed_draws(seed: int, device: torch.device) -> None:
    """What `torch.manual_seed` does, for the CPU and this device alone: to ask all kinds of devices
    takes 0.4 ms, a tenth of the step of a small model.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Trainer(Generic[OptionsT, SpecT, DataT]):
    """One training: `run()` goes on until it is done, wherever it was.

    validation: None if no part is kept for it; then every epoch counts as the best.
    """

    def __init__(
        self,
        pipeline: Pipeline[OptionsT, SpecT],
        options: OptionsT,
        train: DataT,
        validation: DataT | None,
        spec: SpecT,
        storage: Storage,
        fabric: Fabric,
    ) -> None:
        self.pipeline, self.options, self.spec = pipeline, options, spec
        self.train, self.validation = train, validation
        self.storage, self.fabric = storage, fabric
        torch.manual_seed(order.mix(options.seed, 0))
        self.plain = build(pipeline, options, spec)
        pipeline.load_initial_weights(self.plain, options, spec)
        self.trainable = any(weight.requires_grad for weight in self.plain.parameters())
        """False for a model that `Pipeline.complete` makes: no epoch, no checkpoint."""
        if not self.trainable:
            self.progress = Progress()
            return
        self.model = fabric.setup_module(self.plain)
        self.shared = SharedWork(self.model, sharing_of(fabric))
        optimizer = fabric.setup_optimizers(pipeline.optimizer(self.plain, options))
        assert not isinstance(optimizer, tuple)
        self.optimizer = optimizer
        self.steps = order.count_steps_of(train, options.batch_size)
        self.signals = _Signals()
        self.progress = storage.restore(self.plain, self.optimizer.optimizer)

    def run(self) -> nn.Module:
        """Train; returns the plain model with the weights of the best epoch. A model without
        parameters to train comes back as it is, which is said.
        """
        if not self.trainable:
            if self.storage.shown:
                say("nothing to train: this model is fitted without steps of an optimiser")
            return self.plain.to(self.fabric.device).eval()
        resume = self.storage.resumed_by(self.pipeline.task.name)
        with self.signals if self.storage.shown else nullcontext():
            try:
                while not self._done():
                    self._epoch()
            except Stopped:
                self._save()
                say(f"stopped by a signal at step {self.progress.step}; continue with: {resume}")
                raise
            except ValueError as error:
                if "more than 1 value per channel" in str(error):
                    raise InputError(
                        "batch normalisation needs more than one value on each device: give a "
                        "--batch-size whose last batch is larger, fewer --devices, or larger inputs"
                    ) from None
                raise
            except (RuntimeError, ConnectionError, EOFError) as error:
                cause: BaseException = error
                try:
                    died = self._loader_died(cause)
                except RuntimeError as signalled:
                    # torch's handler of signals raises here, where the connection broke first.
                    cause, died = signalled, self._loader_died(signalled)
                if died:
                    _take_down_loader(cause)
                    raise InputError(
                        f"a loader process died ({one_line(cause)[:200]}); continue with: {resume} "
                        "--workers 0"
                    ) from None
                raise
        weights = self.storage.best_weights(self.progress)
        if self.storage.shown and (line := self._kept_epoch()):
            say(line)
        model = build(self.pipeline, self.options, self.spec)
        model.load_state_dict(weights)
        return model.to(self.fabric.device).eval()

    def _kept_epoch(self) -> str | None:
        """Which epoch's weights the run keeps, by which score, and whether more could be better."""
        progress, name = self.progress, f"val_{self.pipeline.monitor}"
        rows = [row for row in progress.history if math.isfinite(row.get(name, math.nan))]
        best = next((row for row in rows if row["step"] == progress.best_step), None)
        if best is None:
            return None
        line = f"kept: epoch {best['epoch']} of {len(progress.history)}, the lowest {name}"
        losses = {row["epoch"]: row["val_log_loss"] for row in rows if "val_log_loss" in row}
        if losses and (lowest := min(losses, key=losses.__getitem__)) != best["epoch"]:
            line += f" (val_log_loss was lowest in epoch {lowest})"
        if best["epoch"] == self.options.epochs > 1:
            line += "; it was the last one: more --epochs may be better"
        return line

    def _loader_died(self, error: BaseException) -> bool:
        """The death of a worker arrives as a signal: torch raises wherever the training is just
        then, or finds the connection to it broken.
        """
        message = str(error)
        broken = isinstance(error, ConnectionError | EOFError) and self.options.workers > 0
        return broken or "DataLoader worker" in message or "DataLoader timed out" in message

    def _done(self) -> bool:
        progress, options = self.progress, self.options
        return (
            progress.epoch >= options.epochs
            or progress.bad_epochs >= options.patience
            or (options.max_steps is not None and progress.step >= options.max_steps)
        )

    def _epoch(self) -> None:
        progress, started = self.progress, time.monotonic()
        optimizer = self.optimizer.optimizer
        self.pipeline.begin_epoch(self.plain, optimizer, self.options, progress.epoch)
        lr = set_learning_rate(optimizer, self.options, progress.epoch)
        first = progress.batch
        self._steps()
        took = time.monotonic() - started
        figures = self._validate()
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": lr,
            "train_loss": progress.mean_loss(),
            **figures,
            "steps_per_second": (progress.batch - first) / took if took > 0 else 0.0,
        }
        progress.history.append(row)
        progress.add_score(figures[f"val_{self.pipeline.monitor}"] if figures else None)
        self._save()
        if self.storage.shown:
            self._show(row)

    def _show(self, row: dict[str, float]) -> None:
        progress = self.progress
        figures = "  ".join(
            f"{name} {value:.4f}"
            for name, value in row.items()
            if name.startswith(("train", "val"))
        )
        mark = "  best" if progress.best_step == progress.step else ""
        say(
            f"epoch {progress.epoch:>3}/{self.options.epochs}  step {progress.step}  {figures}  "
            f"{row['steps_per_second']:.0f} steps/s{mark}"
        )

    def _steps(self) -> None:
        """The optimiser steps that are left of this epoch."""
        progress, options, fabric = self.progress, self.options, self.fabric
        size, seed, epoch = options.batch_size, options.seed, progress.epoch
        parts = order.plan(
            len(self.train),
            size,
            seed=seed,
            epoch=epoch,
            start=progress.batch,
            accumulate=options.accumulate,
            rank=fabric.global_rank,
            world=fabric.world_size,
            batches=order.batches_of(self.train, size, seed=seed, epoch=epoch),
        )
        loader = order.loader(
            self.train,
            [part.indices for part in parts],
            workers=options.workers,
            pin=fabric.device.type == "cuda",
        )
        self.model.train()
        with Progressbar(
            total=self.steps,
            initial=progress.batch,
            unit="step",
            desc=f"epoch {epoch + 1}/{options.epochs}",
            shown=self.storage.shown,
        ) as bar:
            for step in steps_of(zip(parts, _alive(loader), strict=True)):
                # All randomness of a step follows from seed, step and rank: a resumed run draws
                # the same.
                seed_draws(order.mix(seed, progress.step, fabric.global_rank, 2), fabric.device)
                weighed = with_factors(step, self.pipeline, options, fabric)
                loss = sum(self._backward(part, batch) for part, batch in weighed)
                self._step(loss, [part.indices for part, _ in step])
                bar.update()
                if progress.batch % 20 == 0:
                    bar.set_postfix(loss=f"{progress.mean_loss():.4f}")
                if options.max_steps is not None and progress.step >= options.max_steps:
                    return

    def _backward(self, part: order.Part, batch: Batch) -> float:
        """Gradients of a part of a step; returns its share of the loss."""
        batch = self.fabric.to_device(batch)

        def loss_of(model: nn.Module) -> Tensor:
            loss = self.pipeline.loss(model, batch, self.options)
            # Of mechanisms that have a loss of their own, such as the balance of routed heads.
            auxiliary = auxiliary_loss(model)
            return loss if auxiliary is None else loss + auxiliary

        with self.shared.gradients_shared(part.last):
            loss = self.shared(loss_of) * part.weight
            self.fabric.backward(loss)
        return loss.item()

    def _step(self, loss: float, samples: list[order.Indices]) -> None:
        progress, options, fabric = self.progress, self.options, self.fabric
        wrong, stop, loss = self._agreed(loss)
        if wrong:
            numbers = [int(index) for part in samples for index in part]
            self.storage.add_bad_batch(progress, loss, numbers)
        else:
            if options.clip is not None:
                fabric.clip_gradients(self.model, self.optimizer, max_norm=options.clip)
            self.optimizer.step()
            progress.loss_sum, progress.finite = progress.loss_sum + loss, progress.finite + 1
            progress.skipped_in_a_row = 0
        self.shared.agree_on_statistics()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step, progress.batch = progress.step + 1, progress.batch + 1
        if stop:
            raise Stopped(self.signals.received or signal.SIGTERM)
        interval = options.checkpoint_every
        if interval and progress.step % interval == 0 and progress.batch < self.steps:
            self._save()

    def _agreed(self, loss: float) -> tuple[bool, bool, float]:
        """Whether the loss is not finite, whether to stop, and the loss: alike in all processes."""
        fabric = self.fabric
        wrong, stop = not math.isfinite(loss), self.signals.received is not None
        if fabric.world_size == 1:
            return wrong, stop, loss
        flags = fabric.all_reduce(
            torch.tensor([float(wrong), float(stop)], device=fabric.device), reduce_op="max"
        )
        mean = fabric.all_reduce(
            torch.tensor(loss, device=fabric.device, dtype=torch.float64), reduce_op="mean"
        )
        assert isinstance(flags, torch.Tensor)
        assert isinstance(mean, torch.Tensor)
        return bool(flags[0]), bool(flags[1]), float(mean)

    def _validate(self) -> dict[str, float]:
        """Every process scores the entire validation part, and all take the figures of the first.

        Empty without a validation part."""
        if self.validation is None:
            return {}
        self.model.eval()
        lists = order.sequential(len(self.validation), max(self.options.batch_size, 64))
        loader = order.loader(self.validation, lists, workers=self.options.workers)
        batches = self._interruptible(_alive(loader))
        with torch.no_grad(), RoutingWatch(self.model) as watch:
            figures = self.shared(
                lambda model: self.pipeline.validate(model, batches, self.options)
            )
        scores = {f"val_{name}": value for name, value in figures.items()} | watch.figures()
        # Rounding that differs between devices must not let one of them stop before the others.
        return self.fabric.broadcast(scores)

    def _interruptible(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if self.signals.received is not None and self.fabric.world_size == 1:
                raise Stopped(self.signals.received)
            yield self.fabric.to_device(batch)

    def _save(self) -> None:
        self.storage.save(self.plain, self.optimizer.optimizer, self.progress)
        self.fabric.barrier()


def _take_down_loader(error: BaseException) -> None:
    """Let the loader of a dead worker go now, without torch's signal handler, which would raise
    once more in it.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
    traceback.clear_frames(error.__traceback__)
    if main:
        signal.signal(signal.SIGCHLD, handler)


def _alive(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The loader's batches; a sample that cannot be read is one clear line instead of a page of
    traceback.
    """
    try:
        yield from loader
    except InputError as error:
        # A worker's error arrives with its traceback inside; the last line is its message.
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None


class _Signals:
    """Remembers SIGTERM and SIGINT, so that the training can end at the next step; a second one
    ends it at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> _Signals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
