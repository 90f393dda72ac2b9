"""The run directory: one run, one directory, one process.

```
config.yaml  account.json  metrics.json  history.csv  checkpoints/  model.safetensors  spec.json
card.json  members.json  assets/  figures/*.png  report.html  environment.json
```
Every file is written aside and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import filelock
import yaml

from ....base.errors import InputError
from ....base.files import clear_aside, read_json
from ....base.own_files import ASIDE
from ....base.yaml_text import read_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ACCOUNT = "account.json"  # what was read
MEMBERS = "members.json"  # the part that each item was in


def _of_a_start(name: str) -> bool:
    """Whether a file is of a start that was killed before its run was complete (config.yaml is
    written last).
    """
    return name in (".lock", "environment.json") or name.startswith(ASIDE)


def new_path(task: str) -> Path:
    """Where a run goes that was given no path."""
    return Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"


class Facts(dict[str, Any]):
    """Named values from a file of a run.

    Asking for one that the file does not hold is an `InputError` that names the file.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> NoReturn:
        raise InputError(f"{self.path}: holds no {key!r}; the file is damaged")


def read_facts(path: Path) -> Facts:
    """Read a JSON file that holds named values."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: should hold named values; the file is damaged")
    return Facts(path, values)


def dump_options(options: DataclassInstance) -> str:
    """The options as YAML; reading the file back as a config gives equal options."""
    values = {
        name: list(v) if isinstance(v, tuple) else v
        for name, v in dataclasses.asdict(options).items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


class RunDirectory:
    """A run on disk. `create` makes a new one, `open` reads a finished or interrupted one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.measured = self.path / "measured"  # what a killed run has measured; see `Context`
        self.failed = 0  # items of the run's own data that could not be predicted for
        self._lock: filelock.BaseFileLock | None = None
        # Of a run that was created here: whether its directory existed before.
        self._existed: bool | None = None

    @classmethod
    def create(cls, path: str | None, task: str, data: str | None = None) -> RunDirectory:
        """Make and lock a new run directory; an existing one that holds more than the `data` is
        refused.
        """
        run = cls(path or new_path(task))
        if run.path.exists() and not run.path.is_dir():
            raise InputError(f"{run.path}: is a file, not a run directory; choose another --run")
        if (run.path / "config.yaml").exists():
            raise InputError(
                f"{run.path}: already holds a run; continue it with --resume or choose another "
                "--run"
            )
        inside = list(run.path.iterdir()) if run.path.is_dir() else []
        own_data = os.path.realpath(data) if data else None
        if not all(_of_a_start(p.name) or os.path.realpath(p) == own_data for p in inside):
            raise InputError(f"{run.path}: is not empty; choose another --run")
        run._existed = run.path.is_dir()
        run.path.mkdir(parents=True, exist_ok=True)
        run.lock()
        return run

    def take_back(self) -> None:
        """Undo `create` when nothing could be trained, so that the corrected command can use the
        same directory.

        Removes the files of a start and nothing else; does nothing to a run that was opened, not
        created."""
        if self._existed is None:
            return
        for name in ("sample", "assets", self.measured.name):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("config.yaml", "spec.json", "environment.json", ACCOUNT, MEMBERS, ".lock"):
            (self.path / name).unlink(missing_ok=True)
        if not self._existed:
            with contextlib.suppress(OSError):  # something else was put there meanwhile
                self.path.rmdir()

    @classmethod
    def open(cls, path: str | os.PathLike[str], task: str | None = None) -> RunDirectory:
        """Open an existing run; with `task`, a run of another task is refused."""
        run = cls(path)
        if not run.path.is_dir():
            raise InputError(f"{run.path}: no such run directory")
        if not (run.path / "config.yaml").is_file():
            raise InputError(f"{run.path}: not a run (it has no config.yaml)")
        if task is not None and (of := run.environment().get("task")) != task:
            raise InputError(f"{run.path}: a run of the task {of!r}, not of {task!r}")
        return run

    def lock(self) -> None:
        """Hold the run for this process, and clear it of half-written files; the lock ends with the
        process, however it ends.
        """
        self.refuse_links()
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"{self.path}: another process is working on this run") from None
        self._lock = lock
        for folder in (self.path, *self._folders()):
            clear_aside(folder)

    def unlock(self) -> None:
        """Release the lock on the run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def refuse_links(self) -> None:
        """Raise `InputError` where a folder of the run is a link: what is written and removed in it
        would be so elsewhere.
        """
        for folder in self._folders():
            if folder.is_symlink():
                raise InputError(f"{folder}: is a link; put the folder itself there")

    def _folders(self) -> list[Path]:
        names = ("checkpoints", "figures", "tables", "assets", "sample", "measured")
        return [self.path / name for name in names]

    def environment(self) -> Facts:
        """What the run was made with (versions, device, command, task)."""
        return read_facts(self.path / "environment.json")

    def config(self) -> Facts:
        """The resolved options of the run."""
        values = read_yaml(self.path / "config.yaml")
        if not isinstance(values, dict):
            raise InputError(f"{self.path / 'config.yaml'}: holds no options; the file is damaged")
        return Facts(self.path / "config.yaml", values)

    def spec(self) -> Facts:
        """What the model and its data are: columns, scaling, frequency, ..."""
        return read_facts(self.path / "spec.json")

    def metrics(self) -> Facts:
        """The figures of the finished run."""
        return read_facts(self.path / "metrics.json")

    def card(self) -> Facts:
        """A summary of the finished run: task, headline, intended use."""
        return read_facts(self.path / "card.json")

    def _repr_html_(self) -> str:
        from .notebook import run_html

        return run_html(self)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"
