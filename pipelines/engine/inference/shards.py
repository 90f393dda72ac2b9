"""Batch inference: any number of items to one table, in bounded memory, and safe to kill.

Items are cut into fixed shards. A shard is done when its file is in `OUTPUT.parts/`; the file
is written aside, renamed, and stamped with the fingerprint of model, options and input. Started
again, a job does what is left; it never mixes two models. When all shards are done they are joined
into OUTPUT, in the format that its ending names.

Under torchrun, or in a job array that sets RANK and WORLD_SIZE, shard k belongs to rank k modulo
the world; the last one to finish joins. `--engine ray` maps the same `ShardWorker` over a cluster.
"""

from __future__ import annotations

import copy
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import filelock
import polars as pl

from ....base.account import Account, opened
from ....base.errors import InputError, printable
from ....base.files import clear_aside, clear_below, write_aside, write_json
from ... import load_task
from ..accounts import publish
from ..command_line.terminal import Progressbar, advancing, first_process, say
from ..options import PredictOptions
from ..pipeline import AnyPipeline
from ..processes import map_jobs
from ..runs.loaded import Loaded, load_run
from ..runs.paths import homes_of
from .output import read_output, read_stamp, stamp_file, writer_of
from .plan import FAILED, ITEMS, NOTES, STAMP, Plan, make_plan, parquet_stamp
from .predictor import Predictor

JOIN_SECONDS = 600  # how long a process waits for another one that joins the parts


@dataclass(frozen=True)
class Predicted:
    """Outcome of a batch prediction. `items` and `failed` count items, not rows."""

    output: Path
    items: int
    failed: int
    complete: bool

    def table(self) -> pl.DataFrame:
        """The rows."""
        return read_output(self.output)


class ShardWorker:
    """Does shards of a plan; one per process. The same class runs locally and under Ray."""

    def __init__(
        self,
        task: str,
        options: PredictOptions,
        plan: Plan,
        folder: str | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        if folder is not None:
            # A worker of a cluster starts elsewhere; the paths are relative to the caller's folder.
            os.chdir(folder)
        self.plan = plan
        self.predictor = Predictor(load_task(task).load(), options, loaded)

    def do(self, shard: int) -> int:
        """Write one shard; returns its number of items."""
        plan = self.plan
        items = plan.items[shard * plan.size : (shard + 1) * plan.size]
        options = self.predictor.options
        with opened(options.accept, homes_of(options)) as account:
            rows = self.predictor(items)
        failed = rows.select("file", "item", "status").filter(pl.col("status") == "error").height
        stamp = {
            STAMP: plan.fingerprint,
            FAILED: str(failed),
            ITEMS: str(len(items)),
            NOTES: json.dumps(account.to_json()),
        }
        write_aside(plan.path(shard), lambda path: rows.write_parquet(path, metadata=stamp))
        return len(items)

    def __call__(self, batch: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
        """The form that Ray Data maps: a batch of shard numbers."""
        return {"items": [self.do(int(shard)) for shard in batch["shard"]]}


def predict(
    pipeline: AnyPipeline,
    options: PredictOptions,
    *,
    alone: bool = False,
    load: Callable[[], Loaded] | None = None,
) -> Predicted:
    """Predict for `options.input`; returns what was written. An item that fails becomes a row.

    alone: do all shards here, also in a process that is one of several, and print only the outcome.
    load: gives the run, by default read from its files; called only where there is work to do.
    """
    output = Path(options.output)
    if output.is_dir():
        raise InputError(f"{output}: is a directory; --output names the file to write")
    writer_of(output, pipeline.further_outputs())
    with opened(options.accept, homes_of(options)) as account:
        plan = make_plan(pipeline, options)
        if output.exists() and not options.overwrite:
            return _done_before(plan, output)
        # Problems of the run are reported here, in one line and before anything is written, not by
        # each worker.
        accelerator = "cpu" if options.engine == "ray" else options.accelerator
        loaded = load() if load else load_run(pipeline, options.run, accelerator)
        rank, world = (0, 1) if alone else _rank_and_world()
        with plan.claimed(options, rank):
            publish(account, shown=not alone)
            elsewhere = options.engine == "ray" or options.processes > 1
            mine = [
                shard
                for shard in range(len(plan))
                if shard % world == rank and not plan.stamp(shard)
            ]
            # Processes load the run themselves.
            _do(pipeline, options, plan, mine, None if elsewhere else loaded, shown=world == 1)
            predicted = _join(pipeline, plan, output, account, shown=not alone)
            if predicted.complete and not alone and first_process():
                _print_answer(pipeline, plan, predicted, loaded)
        if predicted.complete:
            plan.remove()
        return predicted


def _rank_and_world() -> tuple[int, int]:
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _done_before(plan: Plan, output: Path) -> Predicted:
    """The outcome of the same job, where it made the output that is there; else `InputError`."""
    stamp = _output_stamp(output)
    if stamp.get(STAMP) != plan.fingerprint:
        raise InputError(
            f"{output}: already exists, made by another model or input; choose another --output or "
            "--overwrite"
        )
    # The job may have been killed after the join, before the parts were removed.
    if plan.parts.is_dir():
        plan.remove()
    say(f"{output}: already done")
    return Predicted(output, len(plan.items), int(stamp[FAILED]), True)


def _output_stamp(output: Path) -> dict[str, str]:
    return parquet_stamp(output) if output.suffix == ".parquet" else read_stamp(output)


def _do(
    pipeline: AnyPipeline,
    options: PredictOptions,
    plan: Plan,
    shards: list[int],
    loaded: Loaded | None,
    *,
    shown: bool,
) -> None:
    """Do these shards, with a bar.

    loaded: the run, where this process does them. shown: whether to say what was done before.
    """
    sizes = [min(plan.size, len(plan.items) - shard * plan.size) for shard in shards]
    todo = sum(sizes)
    if shown and todo < len(plan.items):
        say(f"{len(plan.items) - todo} of {len(plan.items)} items were done before")
    with Progressbar(total=todo, unit="item", desc="predict") as bar, advancing(bar):
        done = 0
        for count in _engine(pipeline, options, plan, shards, loaded):
            done += count
            bar.update(done - bar.n)  # what was not counted item by item


def _engine(
    pipeline: AnyPipeline,
    options: PredictOptions,
    plan: Plan,
    shards: list[int],
    loaded: Loaded | None,
) -> Iterator[int]:
    """Do the shards; yields the number of items of each as it is done."""
    if not shards:
        return
    if options.engine == "ray":
        from .ray_engine import map_shards

        yield from map_shards(pipeline.task.name, options, plan, shards)
    else:
        make_worker = partial(_shard_worker, pipeline.task.name, options, plan, loaded)
        yield from map_jobs(make_worker, shards, options.processes)


def _shard_worker(
    task: str, options: PredictOptions, plan: Plan, loaded: Loaded | None
) -> Callable[[int], int]:
    return ShardWorker(task, options, plan, loaded=loaded).do


def _join(
    pipeline: AnyPipeline, plan: Plan, output: Path, account: Account, *, shown: bool
) -> Predicted:
    """Join the parts in their order, once all are done."""
    try:
        with filelock.FileLock(f"{output}.lock", timeout=JOIN_SECONDS):
            stamps = [stamp for shard in range(len(plan)) if (stamp := plan.stamp(shard))]
            missing = len(plan) - len(stamps)
            if missing and _output_stamp(output).get(STAMP) != plan.fingerprint:
                say(
                    f"{missing} of {len(plan)} shards are left to other processes; the last one "
                    f"joins {output}"
                )
                return Predicted(output, len(plan.items), 0, False)
            failures: list[str] = []
            if not missing:
                plan.check_complete(stamps)
                failures = _write(pipeline, plan, output, account, stamps, shown=shown)
    except filelock.Timeout:
        raise InputError(f"{output}.lock: held by another process; start again later") from None
    Path(f"{output}.lock").unlink(missing_ok=True)
    failed = int(_output_stamp(output)[FAILED])
    say(f"{output}: {len(plan.items) - failed} of {len(plan.items)} items predicted")
    for line in failures:
        say(line)
    return Predicted(output, len(plan.items), failed, True)


def _write(
    pipeline: AnyPipeline,
    plan: Plan,
    output: Path,
    account: Account,
    stamps: Sequence[Mapping[str, str]],
    *,
    shown: bool,
) -> list[str]:
    """Write the output and, beside it, the account of all that was read; returns lines on items
    that failed.
    """
    clear_aside(output.parent, output.name)  # of a join that was killed
    # Folders next to the output hold pictures, texts or maps.
    for folder in output.parent.glob(f"{glob.escape(output.name)}.*"):
        if folder.is_dir() and folder != plan.parts:
            clear_below(folder)
    before = copy.deepcopy(account.entries())
    for stamp in stamps:
        account.merge(json.loads(stamp.get(NOTES, "[]")))
    rows = pl.scan_parquet([plan.path(shard) for shard in range(len(plan))], glob=False)
    failed = sum(int(stamp[FAILED]) for stamp in stamps)
    stamp = {STAMP: plan.fingerprint, FAILED: str(failed), ITEMS: str(len(plan.items))}
    writer = writer_of(output, pipeline.further_outputs())
    if writer is None:
        write_aside(
            output,
            lambda path: rows.sink_parquet(
                path, maintain_order=True, row_group_size=100_000, metadata=stamp
            ),
        )
    else:
        write_aside(output, lambda path: writer(rows, path))
    for line in account.lines(before) if shown else ():
        say(line)
    facts = {"stamp": {**stamp, "bytes": output.stat().st_size}, "account": account.to_json()}
    write_json(stamp_file(output), facts)
    return list(_failures(rows, failed, output))


def _failures(rows: pl.LazyFrame, failed: int, output: Path, most: int = 20) -> Iterable[str]:
    if failed:
        errors = (
            rows.filter(pl.col("status") == "error").select("item", "error").head(most).collect()
        )
        yield f"{failed} failed:"
        yield from (f"  {item}: {error}" for item, error in errors.rows())
        if failed > most:
            yield f"  … {failed - most} more: rows with status = 'error' in {output}"


def _print_answer(pipeline: AnyPipeline, plan: Plan, predicted: Predicted, loaded: Loaded) -> None:
    """Print the answer itself where there is one item."""
    if predicted.items == 1 and not predicted.failed and plan.path(0).exists():
        for line in pipeline.answer_lines(pl.read_parquet(plan.path(0)), loaded.spec):
            print(printable(line))
