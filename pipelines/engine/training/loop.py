"""Training: one page on Lightning Fabric, which runs the devices, the precision and the processes.

The state of a training is weights, optimiser and `Progress`; the order of data and every random
draw follow from seed and step. So a run that is killed and resumed ends with the weights of the
unbroken run, bit for bit on the CPU."""

from __future__ import annotations

import csv
import io
import math
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ....base.errors import InputError
from ....base.files import read_json, write_json, write_text
from ....models.attention.base import auxiliary_loss
from ....models.moe.watch import RoutingWatch
from ..command_line.terminal import Progressbar, say
from ..options import TrainOptions
from ..pipeline import AnyPipeline, Splits
from ..runs import checkpoint
from ..runs.run_directory import RunDirectory
from . import order

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_SKIPPED = 100


class Stopped(BaseException):
    """A signal asked the process to end; the checkpoint has been written."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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


def build(pipeline: AnyPipeline, options: TrainOptions, spec: Any) -> nn.Module:
    """The task's model; options that do not fit together are the person's to mend, in one line."""
    try:
        return pipeline.build_model(options, spec)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{pipeline.task.name}: these options make no model: {error}") from error


def set_learning_rate(optimizer: Any, options: TrainOptions, epoch: int) -> float:
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


class Trainer:
    """One training: `run()` goes on until it is done, wherever it was."""

    def __init__(
        self,
        pipeline: AnyPipeline,
        options: TrainOptions,
        splits: Splits,
        run: RunDirectory,
        fabric: Fabric,
    ) -> None:
        self.pipeline, self.options, self.splits, self.directory, self.fabric = (
            pipeline,
            options,
            splits,
            run,
            fabric,
        )
        torch.manual_seed(order.mix(options.seed, 0))
        self.plain = build(pipeline, options, splits.spec)
        pipeline.load_initial_weights(self.plain, options, splits.spec)
        self.model = fabric.setup_module(self.plain)
        self.optimizer: Any = fabric.setup_optimizers(pipeline.optimizer(self.model, options))
        self.progress = Progress()
        self.steps = order.count_steps_of(splits.train, options.batch_size)
        self.log = _logger(options, run) if fabric.is_global_zero else None
        if options.resume and (found := checkpoint.load_newest(run.checkpoints)):
            self._restore(found)
            say(f"resumed at epoch {self.progress.epoch + 1}, step {self.progress.step}")

    def run(self) -> nn.Module:
        """Train; returns the plain model with the weights of the best epoch."""
        with _Signals() as self.signals:
            try:
                while not self._done():
                    self._epoch()
            except Stopped:
                self._save()
                say(f"stopped by a signal at step {self.progress.step}; continue with --resume")
                raise
            except (RuntimeError, ConnectionError, EOFError) as error:
                # The death of a worker arrives as a signal: torch raises wherever the training is
                # just then, or finds the connection to it broken.
                broken = isinstance(error, ConnectionError | EOFError) and self.options.workers > 0
                if (
                    broken
                    or "DataLoader worker" in str(error)
                    or "DataLoader timed out" in str(error)
                ):
                    _take_down_loader(error)
                    raise InputError(
                        f"a loader process died ({_first_line(error)}); continue with --resume, or --workers 0"
                    ) from None
                raise
        if self.progress.best_step is None:
            raise InputError(
                "no epoch had a finite validation score; try a smaller --lr or --clip 1"
            )
        best = checkpoint.load(self.directory.checkpoints / f"step-{self.progress.best_step:09d}")
        self.plain = build(self.pipeline, self.options, self.splits.spec)
        self.plain.load_state_dict(best["model"])
        return self.plain.to(self.fabric.device).eval()

    def _done(self) -> bool:
        p, o = self.progress, self.options
        return (
            p.epoch >= o.epochs
            or p.bad_epochs >= o.patience
            or (o.max_steps is not None and p.step >= o.max_steps)
        )

    def _epoch(self) -> None:
        p, o, started = self.progress, self.options, time.monotonic()
        self.pipeline.begin_epoch(self.plain, self.optimizer, o, p.epoch)
        lr = set_learning_rate(self.optimizer, o, p.epoch)
        first = p.batch
        self._steps()
        took = time.monotonic() - started
        figures = self._validate()
        row = {
            "epoch": p.epoch + 1,
            "step": p.step,
            "lr": lr,
            "train_loss": p.mean_loss(),
            **figures,
        }
        row["steps_per_second"] = (p.batch - first) / took if took > 0 else 0.0
        p.history.append(row)
        score = figures[f"val_{self.pipeline.monitor}"]
        if math.isfinite(score) and (p.best is None or score <= p.best):
            p.best, p.best_step, p.bad_epochs = score, p.step, 0
        else:
            p.bad_epochs += 1
        p.epoch, p.batch, p.loss_sum, p.finite = p.epoch + 1, 0, 0.0, 0
        self._save()
        shown = "  ".join(
            f"{name} {value:.4f}"
            for name, value in row.items()
            if name.startswith(("train", "val"))
        )
        mark = "  best" if p.best_step == p.step else ""
        say(
            f"epoch {p.epoch:>3}/{o.epochs}  step {p.step}  {shown}  {row['steps_per_second']:.0f} steps/s{mark}"
        )

    def _steps(self) -> None:
        """The optimiser steps that are left of this epoch."""
        p, o, fabric = self.progress, self.options, self.fabric
        parts = order.plan(
            len(self.splits.train),
            o.batch_size,
            seed=o.seed,
            epoch=p.epoch,
            start=p.batch,
            accumulate=o.accumulate,
            rank=fabric.global_rank,
            world=fabric.world_size,
            batches=order.batches_of(self.splits.train, o.batch_size, seed=o.seed, epoch=p.epoch),
        )
        lists = [part.indices for part in parts]
        loader = order.loader(
            self.splits.train, lists, workers=o.workers, pin=fabric.device.type == "cuda"
        )
        self.model.train()
        loss_of_step, ids = 0.0, list[order.Indices]()
        with Progressbar(
            total=self.steps, initial=p.batch, unit="step", desc=f"epoch {p.epoch + 1}/{o.epochs}"
        ) as bar:
            for part, batch in zip(parts, _alive(loader), strict=True):
                if not ids:  # first part of a step
                    # All randomness of a step follows from seed, step and rank: a resumed run draws
                    # the same.
                    torch.manual_seed(order.mix(o.seed, p.step, fabric.global_rank, 2))
                with fabric.no_backward_sync(self.model, enabled=not part.last):
                    loss = self.pipeline.loss(self.model, fabric.to_device(batch), o)
                    own = auxiliary_loss(
                        self.model
                    )  # of mechanisms that have one, such as the balance of routed heads
                    loss = (loss if own is None else loss + own) * part.weight
                    fabric.backward(loss)
                loss_of_step += loss.item()
                ids.append(part.indices)
                if part.last:
                    self._step(loss_of_step, ids)
                    bar.update()
                    if p.batch % 20 == 0:
                        bar.set_postfix(loss=f"{p.mean_loss():.4f}")
                    loss_of_step, ids = 0.0, []
                    if o.max_steps is not None and p.step >= o.max_steps:
                        return

    def _step(self, loss: float, ids: list[order.Indices]) -> None:
        p, o, fabric = self.progress, self.options, self.fabric
        wrong, stop = not math.isfinite(loss), self.signals.received is not None
        if fabric.world_size > 1:  # all ranks decide alike
            flags = fabric.all_reduce(
                torch.tensor([float(wrong), float(stop)], device=fabric.device), reduce_op="max"
            )
            wrong, stop = bool(flags[0]), bool(flags[1])  # pyright: ignore[reportIndexIssue]
            mean = fabric.all_reduce(
                torch.tensor(loss, device=fabric.device, dtype=torch.float64), reduce_op="mean"
            )
            loss = float(mean)  # pyright: ignore[reportArgumentType]
        if wrong:
            self._not_finite(loss, ids)
        else:
            if o.clip is not None:
                fabric.clip_gradients(self.model, self.optimizer, max_norm=o.clip)
            self.optimizer.step()
            p.loss_sum, p.finite = p.loss_sum + loss, p.finite + 1
            p.skipped_in_a_row = 0
        self.optimizer.zero_grad(set_to_none=True)
        p.step, p.batch = p.step + 1, p.batch + 1
        if stop:
            raise Stopped(self.signals.received or signal.SIGTERM)
        if o.checkpoint_every and p.step % o.checkpoint_every == 0 and p.batch < self.steps:
            self._save()

    def _not_finite(self, loss: float, ids: list[order.Indices]) -> None:
        p = self.progress
        path = self.directory.path / "nan.json"
        before = read_json(path) if path.exists() else []
        # A resumed run goes over some steps again: they are listed once.
        found = [entry for entry in before if entry["step"] < p.step]
        found.append(
            {
                "epoch": p.epoch + 1,
                "step": p.step,
                "samples": [int(i) for part in ids for i in part],
            }
        )
        if self.fabric.is_global_zero:
            write_json(path, found)
        if self.options.nan == "stop":
            raise InputError(
                f"the loss became {loss} at step {p.step}; the samples of this batch are in {path}; "
                "try a smaller --lr or --clip 1, or --nan skip"
            )
        p.skipped, p.skipped_in_a_row = p.skipped + 1, p.skipped_in_a_row + 1
        if p.skipped_in_a_row == MOST_SKIPPED:
            raise InputError(
                f"the loss was not finite for {MOST_SKIPPED} batches in a row: the model itself has broken down; "
                f"start again with a smaller --lr or --clip 1 (samples in {path})"
            )
        say(f"step {p.step}: the loss is {loss}, batch skipped (samples in {path})")

    def _validate(self) -> dict[str, float]:
        """Every process scores the whole validation part, so that all take the same decisions."""
        self.model.eval()
        lists = order.sequential(len(self.splits.validation), max(self.options.batch_size, 64))
        loader = order.loader(self.splits.validation, lists, workers=self.options.workers)
        with torch.no_grad(), RoutingWatch(self.model) as watch:
            figures = self.pipeline.validate(
                self.model, self._interruptible(_alive(loader)), self.options
            )
        return {f"val_{name}": value for name, value in figures.items()} | watch.figures()

    def _interruptible(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            if self.signals.received is not None and self.fabric.world_size == 1:
                raise Stopped(self.signals.received)
            yield self.fabric.to_device(batch)

    def _save(self) -> None:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        p = self.progress
        model, optimizer = get_state_dict(self.plain, self.optimizer.optimizer, options=_full())
        if self.fabric.is_global_zero:
            checkpoint.save(self.directory.checkpoints, p.step, model, optimizer, asdict(p))
            best = None if p.best_step is None else f"step-{p.best_step:09d}"
            checkpoint.prune(self.directory.checkpoints, self.options.keep, best)
            write_history(self.directory, p.history)
            if self.log is not None and p.batch == 0 and p.history:
                self.log.log_metrics(p.history[-1], step=p.step)
        self.fabric.barrier()

    def _restore(self, found: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import set_state_dict

        try:
            set_state_dict(
                self.plain,
                self.optimizer.optimizer,
                model_state_dict=found["model"],
                optim_state_dict=found["optimizer"],
                options=_full(),
            )
        except (RuntimeError, KeyError, ValueError) as error:
            raise InputError(
                f"{self.directory.checkpoints}: checkpoint of another model: {_first_line(error)}"
            ) from error
        self.progress = Progress(**found["progress"])


def _full() -> Any:
    """How states are gathered: whole, in the memory of the processor.

    torch's module of distributed checkpoints is imported where it is used: it takes most of a
    second, which prediction need not wait for."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def _take_down_loader(error: BaseException) -> None:
    """Let the loader of a dead worker go now, without torch's signal handler, which would raise
    once more in it.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
    traceback.clear_frames(error.__traceback__)
    if main:
        signal.signal(signal.SIGCHLD, handler)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _alive(loader: Any) -> Iterator[Any]:
    """The loader's batches; a sample that cannot be read is one clear line instead of a page of
    traceback.
    """
    try:
        yield from loader
    except InputError as error:
        # A worker's error arrives with its traceback inside; the last line is what it said.
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None


class _Signals:
    """Remembers SIGTERM and SIGINT, so that the training can end at the next step; a second one
    ends it at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def write_history(run: RunDirectory, history: list[dict[str, float]]) -> None:
    """`history.csv`: a row an epoch, always of this run only, since it is written anew from the
    checkpoint.
    """
    if history:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(run.path / "history.csv", text.getvalue())


def _logger(options: TrainOptions, run: RunDirectory) -> Any:
    if options.logger == "none":
        return None
    try:
        if options.logger == "tensorboard":
            from lightning_fabric.loggers.tensorboard import TensorBoardLogger

            return TensorBoardLogger(run.path, name="tensorboard", version="")
        return _WandbLogger(run)
    except ImportError:
        raise InputError(
            f"--logger {options.logger}: not installed; pip install 'headwise[{options.logger}]'"
        ) from None


class _WandbLogger:
    def __init__(self, run: RunDirectory) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.run = wandb.init(project="headwise", name=run.path.name, dir=run.path, resume="allow")

    def log_metrics(self, row: dict[str, float], step: int) -> None:
        self.run.log(row, step=step)
