"""Batch inference: any number of items to one parquet file, in bounded memory, and safe to kill.

Items are cut into fixed shards. A shard is done when its file is in `OUTPUT.parts/`; the file
is written aside, renamed, and stamped with the fingerprint of model, options and input. Started
again, a job does what is left; it never mixes two models. When all shards are done they are joined
into OUTPUT.

Under torchrun, or in a job array that sets RANK and WORLD_SIZE, shard k belongs to rank k modulo
the world; the last one to finish joins. `--engine ray` maps the same `ShardWorker` over a cluster.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import filelock
import polars as pl

from ....base.errors import InputError, one_line
from ....base.files import checksum, clear_aside, clear_below, write_aside, write_json
from ... import load_task
from ..command_line.terminal import Progressbar, say
from ..options import PredictOptions
from ..pipeline import AnyPipeline, Item
from ..processes import map_jobs
from ..runs.loaded import Loaded, load_run
from ..runs.run_directory import RunDirectory, read_facts

STAMP, FAILED, ITEMS = "headwise.fingerprint", "headwise.failed", "headwise.items"
# Options that do not change the rows.
FREE = ("run", "output", "engine", "processes", "overwrite", "accelerator", "input")


@dataclass(frozen=True)
class Predicted:
    """Outcome of a batch prediction. `items` and `failed` count items, not rows."""

    output: Path
    items: int
    failed: int
    complete: bool

    def table(self) -> pl.DataFrame:
        """The rows."""
        return pl.read_parquet(self.output)


class Predictor:
    """A finished run, ready for items: `predictor(items)` gives their rows with `status` and
    `error`.
    """

    def __init__(
        self, pipeline: AnyPipeline, options: PredictOptions, loaded: Loaded | None = None
    ) -> None:
        self.pipeline, self.options = pipeline, options
        self.loaded = loaded or load_run(pipeline, options.run, options.accelerator)

    def __call__(self, items: Sequence[Item]) -> pl.DataFrame:
        """Rows of all items, in their order; an item that fails has one row that says why."""
        schema = dict(self.pipeline.prediction_schema(self.options, self.loaded.spec))
        empty = pl.DataFrame({name: [None] for name in schema}, schema=schema)
        tables = []
        for item, answer in zip(items, self._answers(items), strict=True):
            failed = isinstance(answer, Exception)
            head = {
                "file": item["file"],
                "item": item.get("id") or Path(item["file"]).name,
                "status": "error" if failed else "ok",
                "error": one_line(answer) if failed else None,
            }
            columns = [pl.lit(text, dtype=pl.String).alias(name) for name, text in head.items()]
            rows = empty if failed else answer.select(list(schema))
            tables.append(rows.select(*columns, pl.all()))
        return pl.concat(tables)

    def _answers(self, items: Sequence[Item]) -> Sequence[pl.DataFrame | Exception]:
        try:
            return self._predict(items)
        except (MemoryError, OSError):
            raise
        except Exception:
            # An item made the group fail: find out which one, and let the others through.
            answers: list[pl.DataFrame | Exception] = []
            for item in items:
                try:
                    answers += self._predict([item])
                except (MemoryError, OSError):
                    raise
                except Exception as error:
                    answers.append(error)
            return answers

    def _predict(self, items: Sequence[Item]) -> Sequence[pl.DataFrame | Exception]:
        loaded = self.loaded
        return self.pipeline.predict(loaded.model, items, loaded.context(self.options))


@dataclass(frozen=True)
class Plan:
    """The shards of a job."""

    parts: Path
    fingerprint: str
    size: int
    items: Sequence[Item]

    def __len__(self) -> int:
        return -(-len(self.items) // self.size)

    def path(self, shard: int) -> Path:
        return self.parts / f"part-{shard:05d}.parquet"

    def stamp(self, shard: int) -> dict[str, str] | None:
        """The stamp of a shard that this job has done, else None."""
        stamp = _stamp(self.path(shard))
        return stamp if stamp.get(STAMP) == self.fingerprint and ITEMS in stamp else None

    def check_complete(self, stamps: Iterable[Mapping[str, str]]) -> None:
        """Raise `InputError` if the parts do not hold as many items as the job has."""
        count = sum(int(stamp[ITEMS]) for stamp in stamps)
        if count != len(self.items):
            raise InputError(
                f"{self.parts}: its parts hold {count} of {len(self.items)} items; remove it and "
                "start again"
            )


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
        rows = self.predictor(items)
        failed = rows.select("file", "item", "status").filter(pl.col("status") == "error").height
        stamp = {STAMP: plan.fingerprint, FAILED: str(failed), ITEMS: str(len(items))}
        write_aside(plan.path(shard), lambda path: rows.write_parquet(path, metadata=stamp))
        return len(items)

    def __call__(self, batch: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
        """The form that Ray Data maps: a batch of shard numbers."""
        return {"items": [self.do(int(shard)) for shard in batch["shard"]]}


def predict(pipeline: AnyPipeline, options: PredictOptions, *, alone: bool = False) -> Predicted:
    """Predict for `options.input`; returns what was written. An item that fails becomes a row.

    alone: do all shards here, also in a process that is one of several.
    """
    output = Path(options.output)
    if output.is_dir():
        raise InputError(f"{output}: is a directory; --output names the parquet file to write")
    plan = make_plan(pipeline, options)
    if output.exists() and not options.overwrite:
        stamp = _stamp(output)
        if stamp.get(STAMP) == plan.fingerprint:
            # The job may have been killed after the join, before the parts were removed.
            shutil.rmtree(plan.parts, ignore_errors=True)
            say(f"{output}: already done")
            return Predicted(output, len(plan.items), int(stamp[FAILED]), True)
        raise InputError(
            f"{output}: already exists, made by another model or input; choose another --output or "
            "--overwrite"
        )
    # Problems of the run are reported here, in one line and before anything is written, not by
    # each worker.
    accelerator = "cpu" if options.engine == "ray" else options.accelerator
    loaded: Loaded | None = load_run(pipeline, options.run, accelerator)
    if options.engine == "ray" or options.processes > 1:
        loaded = None  # each process loads its own
    _claim(plan, options)
    rank, world = (
        (0, 1)
        if alone
        else (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    )
    mine = [shard for shard in range(len(plan)) if shard % world == rank and not plan.stamp(shard)]
    todo = sum(min(plan.size, len(plan.items) - shard * plan.size) for shard in mine)
    if world == 1 and todo < len(plan.items):
        say(f"{len(plan.items) - todo} of {len(plan.items)} items were done before")
    with Progressbar(total=todo, unit="item", desc="predict") as bar:
        for count in _engine(pipeline, options, plan, mine, loaded):
            bar.update(count)
    return _join(plan, output)


def make_plan(pipeline: AnyPipeline, options: PredictOptions) -> Plan:
    """List the input and give the job its fingerprint."""
    run = RunDirectory.open(options.run, pipeline.task.name)
    weights = run.path / "model.safetensors"
    if not weights.exists():
        raise InputError(f"{weights}: missing; the run has not finished training")
    spec = pipeline.spec_class.from_json(run.spec(), run.path / "spec.json")
    items = pipeline.list_items(options, spec)
    if not items:
        raise InputError(f"{options.input}: holds nothing to predict for")
    digest = hashlib.sha256()
    for path in (weights, run.path / "calibration.safetensors"):
        digest.update(checksum(path).encode() if path.exists() else b"-")
    relevant = {name: value for name, value in asdict(options).items() if name not in FREE}
    digest.update(json.dumps([spec.to_json(), relevant], sort_keys=True, default=str).encode())
    stamps: dict[str, tuple[int, int]] = {}
    for item in items:
        files = [item["file"], *item.get("further_files", ())]
        for file in files:
            if file not in stamps:
                status = os.stat(file)
                stamps[file] = (status.st_size, status.st_mtime_ns)
        digest.update(json.dumps([item, *map(stamps.get, files)], sort_keys=True).encode())
    parts = Path(f"{options.output}.parts")
    return Plan(parts, digest.hexdigest(), options.shard_size, items)


def _claim(plan: Plan, options: PredictOptions) -> None:
    """Make the folder of parts, or take up the one that an earlier start left."""
    plan_file = plan.parts / "plan.json"
    if plan_file.exists() and read_facts(plan_file)["fingerprint"] != plan.fingerprint:
        if not options.overwrite:
            raise InputError(
                f"{plan.parts}: parts made by another model, input or shard size; remove them or "
                "--overwrite"
            )
        shutil.rmtree(plan.parts)
    if not plan_file.exists():
        content = {
            "fingerprint": plan.fingerprint,
            "items": len(plan.items),
            "shards": len(plan),
            "input": options.input,
        }
        write_json(plan_file, content)


def _engine(
    pipeline: AnyPipeline,
    options: PredictOptions,
    plan: Plan,
    shards: list[int],
    loaded: Loaded | None,
) -> Iterator[int]:
    """Do the shards; yields the number of items of each as it is done.

    loaded: the run, where this process does the shards.
    """
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


def _join(plan: Plan, output: Path) -> Predicted:
    """Join the parts in their order, once all are done."""
    with filelock.FileLock(f"{output}.lock"):
        stamps = [stamp for shard in range(len(plan)) if (stamp := plan.stamp(shard))]
        missing = len(plan) - len(stamps)
        if missing and _stamp(output).get(STAMP) != plan.fingerprint:
            say(
                f"{missing} of {len(plan)} shards are left to other processes; the last one "
                f"joins {output}"
            )
            return Predicted(output, len(plan.items), 0, False)
        if not missing:
            paths = [plan.path(shard) for shard in range(len(plan))]
            plan.check_complete(stamps)
            clear_aside(output.parent, output.name)  # of a join that was killed
            # Folders next to the output hold pictures, texts or maps.
            for folder in output.parent.glob(f"{glob.escape(output.name)}.*"):
                if folder.is_dir() and folder != plan.parts:
                    clear_below(folder)
            failed = sum(int(stamp[FAILED]) for stamp in stamps)
            stamp = {STAMP: plan.fingerprint, FAILED: str(failed)}
            rows = pl.scan_parquet(paths)
            write_aside(
                output,
                lambda path: rows.sink_parquet(
                    path, maintain_order=True, row_group_size=100_000, metadata=stamp
                ),
            )
            shutil.rmtree(plan.parts, ignore_errors=True)
    Path(f"{output}.lock").unlink(missing_ok=True)
    failed = int(_stamp(output)[FAILED])
    say(f"{output}: {len(plan.items) - failed} of {len(plan.items)} items predicted")
    for line in _failures(output, failed):
        say(line)
    return Predicted(output, len(plan.items), failed, True)


def _failures(output: Path, failed: int, most: int = 20) -> Iterable[str]:
    if failed:
        rows = (
            pl.scan_parquet(output)
            .filter(pl.col("status") == "error")
            .select("item", "error")
            .head(most)
            .collect()
        )
        yield f"{failed} failed:"
        yield from (f"  {item}: {error}" for item, error in rows.rows())
        if failed > most:
            yield f"  … {failed - most} more: rows with status = 'error' in {output}"


def _stamp(path: Path) -> dict[str, str]:
    try:
        return pl.read_parquet_metadata(path)
    except Exception:  # polars raises several kinds for a file that is no parquet
        return {}
