"""The run directory: one run, one directory, one process.

```
config.yaml  metrics.json  history.csv  checkpoints/  model.safetensors  spec.json  card.json  assets/
figures/*.png  report.html  environment.json
```
Every file is written aside and renamed, so a reader never sees half of one.
"""

import contextlib
import dataclasses
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import yaml

from ....base.errors import InputError

ASIDE = ".aside-"  # how the name of a file begins while it is being written


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then flush it to disk and rename it over
    `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=ASIDE, suffix=f"-{path.name}", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.filename}: {error.strerror})"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        flush(temporary)
        # mkstemp makes private files; a result is as readable as any other file of this user.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, (OSError, *writer_errors())):
            # A full disk met by `write` itself is an OSError that names no file.
            raise InputError(
                f"{path}: cannot be written ({' '.join(str(error).split())})"
            ) from None
        raise
    flush(path.parent)


def clear_aside(folder: Path, name: str = "") -> None:
    """Remove what a killed process left half-written in a folder: of one file, or of all. Whoever
    calls is the only one who writes them."""
    _remove(folder.glob(f"{ASIDE}*-{glob.escape(name)}" if name else f"{ASIDE}*"))


def clear_below(folder: Path) -> None:
    """As `clear_aside`, at any depth."""
    _remove(list(folder.rglob(f"{ASIDE}*")))


def _remove(leftovers: Iterable[Path]) -> None:
    for left in leftovers:
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path, named: Path) -> Iterator[None]:
    """Hold a folder of results for this process and clear it of half-written files; `InputError`
    names `named` where another process holds it."""
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            clear_aside(folder)
            yield
    except filelock.Timeout:
        raise InputError(f"{named}: another process works on it") from None


def writer_errors() -> tuple[type[Exception], ...]:
    """What libraries raise when a file cannot be written, and that is no OSError. Asked for only
    when one is raised.
    """
    from polars.exceptions import PolarsError
    from safetensors import SafetensorError

    return PolarsError, SafetensorError


def _of_a_start(name: str) -> bool:
    """Files that a start leaves which was killed before its run stood (config.yaml is written
    last).
    """
    return name in (".lock", "environment.json") or name.startswith(ASIDE)


def flush(path: Path) -> None:
    """Force a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    write_aside(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON in one step. NaN and infinity become null: JSON has none."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; `InputError` names the file if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is {path.parent} a finished run?") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); the file is damaged") from None


class Facts(dict[str, Any]):
    """Named values out of a file of a run; asking for one that is not there is an `InputError`
    naming the file.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.path}: holds no {key!r}; the file is damaged")


def read_facts(path: Path) -> Facts:
    """Read a JSON file that holds named values."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: should hold named values; the file is damaged")
    return Facts(path, values)


def dump_options(options: Any) -> str:
    """The options as YAML; reading the file back as a config gives equal options."""
    values = {
        name: list(v) if isinstance(v, tuple) else v
        for name, v in dataclasses.asdict(options).items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


class RunDirectory:
    """A run on disk. `create` makes a new one, `open` reads a finished or broken-off one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.failed = 0  # items of the run's own data that could not be predicted for
        self._lock: filelock.BaseFileLock | None = None
        self._stood: bool | None = (
            None  # of a run that was created here: whether its directory stood before
        )

    @classmethod
    def create(cls, path: str | None, task: str) -> "RunDirectory":
        """Make and lock a new run directory; an existing non-empty one is refused."""
        run = cls(path or Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}")
        if run.path.exists() and not run.path.is_dir():
            raise InputError(
                f"{run.path}: a file stands where the run directory should be; choose another --run"
            )
        if (run.path / "config.yaml").exists():
            raise InputError(
                f"{run.path}: already holds a run; continue it with --resume or choose another --run"
            )
        if run.path.is_dir() and not all(_of_a_start(entry.name) for entry in run.path.iterdir()):
            raise InputError(f"{run.path}: is not empty; choose another --run")
        run._stood = run.path.is_dir()
        run.path.mkdir(parents=True, exist_ok=True)
        run.lock()
        return run

    def take_back(self) -> None:
        """Undo `create` when nothing could be trained, so that the same command can be given again,
        mended.

        Removes the files of a start and nothing else; leaves a run alone that was opened, not
        created."""
        if self._stood is None:
            return
        for name in ("sample", "assets"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("config.yaml", "spec.json", "environment.json", ".lock"):
            (self.path / name).unlink(missing_ok=True)
        if not self._stood:
            with contextlib.suppress(OSError):  # something else was put there meanwhile
                self.path.rmdir()

    @classmethod
    def open(cls, path: str | os.PathLike[str], task: str | None = None) -> "RunDirectory":
        """Open an existing run; with `task`, a run of another task is refused."""
        run = cls(path)
        if not run.path.is_dir():
            raise InputError(f"{run.path}: no such run directory")
        if not (run.path / "config.yaml").is_file():
            raise InputError(f"{run.path}: not a run (it has no config.yaml)")
        if task is not None and (found := run.environment().get("task")) != task:
            raise InputError(f"{run.path}: a run of the task {found!r}, not of {task!r}")
        return run

    def lock(self) -> None:
        """Hold the run for this process; the lock ends with the process, however it ends."""
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"{self.path}: another process is working on this run") from None
        self._lock = lock
        for leftover in self.leftovers():
            leftover.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Give the run free."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def leftovers(self) -> Iterable[Path]:
        """Temporary files of writers that were killed."""
        folders = (self.path, self.checkpoints, self.figures, self.path / "assets")
        return [left for folder in folders for left in folder.glob(f"{ASIDE}*")]

    def environment(self) -> dict[str, Any]:
        """What the run was made with (versions, device, command, task)."""
        return read_facts(self.path / "environment.json")

    def config(self) -> dict[str, Any]:
        """The resolved options of the run."""
        try:
            values = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            raise InputError(
                f"{self.path / 'config.yaml'}: not readable as YAML; the file is damaged"
            ) from None
        if not isinstance(values, dict):
            raise InputError(f"{self.path / 'config.yaml'}: holds no options; the file is damaged")
        return values

    def spec(self) -> dict[str, Any]:
        """What the model and its data are: columns, scaling, frequency, ..."""
        return read_facts(self.path / "spec.json")

    def metrics(self) -> dict[str, Any]:
        """The figures of the finished run."""
        return read_facts(self.path / "metrics.json")

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"
