"""What a prediction has to do: its items, cut into shards, and the fingerprint of all that its rows
depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import polars as pl

from ....base.errors import InputError, reason
from ....base.files import checksum, file_stamp, lies_in, write_json
from ....base.own_files import ASIDE
from ..options import FREE_ON_RESUME, PredictOptions
from ..pipeline import AnyPipeline, Item
from ..runs.ladder_files import FACTS as LADDER_FACTS
from ..runs.run_directory import RunDirectory, read_facts
from .output import read_stamp, refuse_input_as_output

STAMP, FAILED, ITEMS, NOTES = (
    f"headwise.{name}" for name in ("fingerprint", "failed", "items", "account")
)
# Options that do not change the rows.
FREE = ("run", "output", "engine", "processes", "overwrite", "accelerator", "input")
PLAN, CLAIM = "plan.json", "claim.lock"


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
        stamp = parquet_stamp(self.path(shard))
        return stamp if stamp.get(STAMP) == self.fingerprint and ITEMS in stamp else None

    def check_complete(self, stamps: Iterable[Mapping[str, str]]) -> None:
        """Raise `InputError` if the parts do not hold as many items as the job has."""
        count = sum(int(stamp[ITEMS]) for stamp in stamps)
        if count != len(self.items):
            raise InputError(
                f"{self.parts}: its parts hold {count} of {len(self.items)} items; remove it and "
                "start again"
            )

    @contextlib.contextmanager
    def claimed(self, options: PredictOptions, rank: int) -> Iterator[None]:
        """Make the folder of parts, or take up the one that an earlier start left, and hold it for
        this process.

        Raises InputError for parts of another job, for a folder that is not ours, and where another
        process works on it.
        """
        self._refuse_foreign(options)
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.parts}: cannot be written ({reason(error)})") from None
        mine = filelock.FileLock(self.parts / self._lock_name(rank), timeout=0)
        with filelock.FileLock(self.parts / CLAIM):
            self._take_up(options)
            try:
                mine.acquire()
            except filelock.Timeout:
                raise InputError(f"{options.output}: another process predicts into it") from None
        try:
            yield
        finally:
            mine.release()

    def _lock_name(self, rank: int) -> str:
        return f"rank-{rank}-{self.fingerprint[:12]}.lock"

    def _refuse_foreign(self, options: PredictOptions) -> bool:
        """Whether the parts are of another job, which may be removed; `InputError` where not."""
        plan_file = self.parts / PLAN
        if plan_file.exists():
            foreign = read_facts(plan_file)["fingerprint"] != self.fingerprint
            if foreign and not options.overwrite:
                raise InputError(
                    f"{self.parts}: parts made by another model, input or shard size; remove them "
                    "or --overwrite"
                )
            return foreign
        files = list(self.parts.iterdir()) if self.parts.is_dir() else []
        if strangers := [path.name for path in files if not _of_a_job(path)]:
            raise InputError(
                f"{self.parts}: holds {strangers[0]}, which is not of a prediction; move it, or "
                "choose another --output"
            )
        return False

    def _take_up(self, options: PredictOptions) -> None:
        plan_file = self.parts / PLAN
        if self._refuse_foreign(options):
            for path in self.parts.glob("rank-*.lock"):
                try:
                    filelock.FileLock(path, timeout=0).acquire().lock.release()
                except filelock.Timeout:
                    raise InputError(
                        f"{options.output}: another process predicts into it"
                    ) from None
            self.clear()
        if not plan_file.exists():
            content = {
                "fingerprint": self.fingerprint,
                "items": len(self.items),
                "shards": len(self),
                "input": options.input,
            }
            write_json(plan_file, content)

    def clear(self) -> None:
        """Remove the parts, and their folder if nothing else is in it."""
        for path in self.parts.iterdir() if self.parts.is_dir() else ():
            if _of_a_job(path) and path.name != CLAIM:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """As `clear`, and remove the folder if nothing else is in it."""
        self.clear()
        (self.parts / CLAIM).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.parts.rmdir()


def _of_a_job(path: Path) -> bool:
    """Whether a file in the folder of parts was written by a prediction."""
    name = path.name
    return not path.is_dir() and (
        name in (PLAN, CLAIM)
        or (name.startswith("part-") and name.endswith(".parquet"))
        or (name.startswith("rank-") and name.endswith(".lock"))
        or name.startswith(ASIDE)
    )


def parquet_stamp(path: Path) -> dict[str, str]:
    """The stamp in a parquet file; {} for anything else."""
    try:
        return pl.read_parquet_metadata(path)
    except Exception:  # polars raises several kinds for a file that is no parquet
        return {}


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
    for path in (weights, run.path / "calibration.safetensors", run.path / LADDER_FACTS):
        digest.update(checksum(path).encode() if path.exists() else b"-")
    trained = {name: value for name, value in run.config().items() if name not in FREE_ON_RESUME}
    digest.update(json.dumps(trained, sort_keys=True, default=str).encode())
    relevant = {name: value for name, value in asdict(options).items() if name not in FREE}
    digest.update(json.dumps([spec.to_json(), relevant], sort_keys=True, default=str).encode())
    stamps: dict[str, tuple[int, ...] | None] = {}
    for item in items:
        files = [item["file"], *item.get("further_files", ())]
        for file in files:
            if file not in stamps:
                stamps[file] = file_stamp(file)
        digest.update(json.dumps([item, *map(stamps.get, files)], sort_keys=True).encode())
    _refuse_file_of_run(options.output, run)
    refuse_input_as_output(options.output, [options.input, *stamps])
    parts = Path(f"{options.output}.parts")
    return Plan(parts, digest.hexdigest(), options.shard_size, items)


def _refuse_file_of_run(output: str, run: RunDirectory) -> None:
    """Raise InputError where the output is a file of the run, such as history.csv."""
    path = Path(os.path.realpath(output))
    of_run = path.is_file() and lies_in(str(path), os.path.realpath(run.path))
    if of_run and not (read_stamp(path) or STAMP in parquet_stamp(path)):
        raise InputError(f"--output {output}: is a file of the run; name another")
