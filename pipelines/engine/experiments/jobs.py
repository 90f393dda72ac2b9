"""A folder of trainings: who holds it, which of them are done, and doing the others.

Each training is a job whose result is a JSON file with a fingerprint of all that decides it. A
killed or extended experiment does only the jobs whose file is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ....base.errors import InputError
from ....base.files import clear_aside, held, write_json
from ..command_line.terminal import Progressbar, say
from ..options import TrainOptions
from ..processes import map_jobs
from ..runs.run_directory import Facts, read_facts

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

JobT = TypeVar("JobT")
Record = Mapping[str, object]


@dataclass(frozen=True)
class Job:
    """One training: a variant and a seed and, in a cross-validation, a repeat and a fold of it."""

    variant: str
    seed: int
    repeat: int | None = None
    fold: int | None = None

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""
        parts = [self.variant.replace(":", "-"), f"seed{self.seed}"]
        if self.repeat is not None:
            parts.append(f"repeat{self.repeat}")
        if self.fold is not None:
            parts.append(f"fold{self.fold}")
        return "-".join(parts)


def check_plain(options: TrainOptions, verb: str = "compare") -> None:
    """Raise `InputError` for options of `train` that trainings in memory do not have."""
    if (
        options.devices * options.nodes > 1
        or options.precision != "32-true"
        or options.nan != "stop"
    ):
        raise InputError(
            f"{verb}: trains in 32 bits on one device and stops where a loss is not finite; leave "
            "out --devices, --nodes, --precision and --nan"
        )


@contextmanager
def claimed(output: Path, inside: str = "trainings") -> Iterator[Path]:
    """Hold an output folder for this process; gives the folder of its jobs, `output/inside`.

    Raises InputError for a folder with other things in it, and for one that another process holds.
    """
    home = output / inside
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()) and not home.is_dir():
        raise InputError(f"{output}: is not empty and holds no {inside}; choose another --output")
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    with held(home, output):
        clear_aside(output)
        yield home


def fingerprint_of(
    options: DataclassInstance, data: Mapping[str, object], free: Collection[str]
) -> str:
    """SHA-256 of all that decides a result: the options but those named in `free`, and the data.

    data: what describes the data, such as a spec as JSON.
    """
    fixed = {name: value for name, value in asdict(options).items() if name not in free}
    text = json.dumps([fixed, data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_done(path: Path, fingerprint: str) -> bool:
    """Whether the file of a job exists; `InputError` if it is of other options or data."""
    if not path.is_file():
        return False
    if read_facts(path)["fingerprint"] != fingerprint:
        raise InputError(
            f"{path}: is of other options or data; choose another --output, or remove it"
        )
    return True


def run_jobs(
    jobs: Mapping[str, JobT],
    work: Callable[[JobT], Record],
    home: Path,
    fingerprint: str,
    *,
    title: str,
    unit: str = "training",
    called: str = "trainings",
    processes: int = 1,
    line: Callable[[JobT, Record], str] | None = None,
) -> dict[str, Facts]:
    """Do the jobs whose files are not in `home`; gives what the files of all of them hold.

    jobs: by the name of their file. work: gives what the file of a job holds besides the
    fingerprint; with several processes it must be picklable. called: what the
    terminal calls them where some were done before; line: what it shows of a job that has just been
    done.
    """
    worker = _Worker(work, home, fingerprint)
    todo = {name: job for name, job in jobs.items() if not is_done(worker.path(name), fingerprint)}
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} of {len(jobs)} {called} were done before")
    with Progressbar(total=len(todo), unit=unit, desc=title) as bar:
        results = map_jobs(worker.start, list(todo.items()), processes)
        for job, record in zip(todo.values(), results, strict=True):
            if line is not None:
                say(line(job, record))
            bar.update()
    return {name: read_facts(worker.path(name)) for name in jobs}


@dataclass(frozen=True)
class _Worker(Generic[JobT]):
    """Does a job and writes its file, in this process or in another one."""

    work: Callable[[JobT], Record]
    home: Path
    fingerprint: str

    def path(self, name: str) -> Path:
        return self.home / f"{name}.json"

    def start(self) -> Callable[[tuple[str, JobT]], Record]:
        return self.do

    def do(self, named_job: tuple[str, JobT]) -> Record:
        name, job = named_job
        record = self.work(job)
        write_json(self.path(name), {"fingerprint": self.fingerprint, **record})
        return record
