"""Files: written aside and renamed, locked by one process, listed, checked and named safely."""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from .account import accepts, doubt, note
from .errors import InputError, closest, fail, one_line, reason, shown
from .own_files import ASIDE, COMPANIONS, RESULTS, holds_results, is_companion, own_names

JSON_CAP = 1 << 30  # bytes
_LONG_NAME = 230  # bytes


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `path`, flush it to disk and rename it to `path`.

    Raises InputError where the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name may have 255 bytes; one near that leaves no room for more.
        ending = f"-{path.name}" if len(os.fsencode(path.name)) < _LONG_NAME else ""
        handle, name = tempfile.mkstemp(prefix=ASIDE, suffix=ending, dir=path.parent)
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
            # When `write` itself meets a full disk, its OSError names no file.
            raise InputError(f"{path}: cannot be written ({one_line(error)})") from None
        raise
    flush(path.parent)


def write_folder_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder next to `path`, flush its files to disk and rename it to
    `path`, where nothing may be yet.

    Raises InputError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{path.name}", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)})") from None
    try:
        # That folder is private; one within it is as readable as any other of this user.
        folder = aside / path.name
        folder.mkdir()
        write(folder)
        for file in folder.iterdir():
            file.chmod(0o666 & ~_umask())
            flush(file)
        os.replace(folder, path)
    except (OSError, *writer_errors()) as error:
        raise InputError(f"{path}: cannot be written ({reason(error)})") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    flush(path.parent)


def clear_aside(folder: Path, name: str = "") -> None:
    """Remove the half-written files of a killed process from a folder: those of one file, or all.

    Only the process that writes these files may call this.
    """
    _remove(folder.glob(f"{ASIDE}*-{glob.escape(name)}" if name else f"{ASIDE}*"))


def clear_below(folder: Path) -> None:
    """As `clear_aside`, at any depth."""
    _remove(list(folder.rglob(f"{ASIDE}*")))


def _remove(leftovers: Iterable[Path]) -> None:
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path, named: Path) -> Iterator[None]:
    """Lock a folder of results for this process and clear it of half-written files.

    Raises InputError, with the path `named`, where another process holds the lock.
    """
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            clear_aside(folder)
            yield
    except filelock.Timeout:
        raise InputError(f"{named}: another process works on it") from None


def writer_errors() -> tuple[type[Exception], ...]:
    """What libraries raise instead of OSError when a file cannot be written.

    They are imported only after an error.
    """
    from polars.exceptions import PolarsError
    from safetensors import SafetensorError

    return PolarsError, SafetensorError


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


def _finite(value: object) -> object:
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
        return json.loads(read_plain(path, JSON_CAP).decode())
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is {path.parent} a finished run?") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, too
        raise InputError(f"{path}: not readable as JSON ({error}); the file is damaged") from None


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a plain file of at most `most` bytes.

    Raises FileNotFoundError where there is none, and InputError for a larger file and for what is
    no plain file: a pipe or a device may never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise fail(path, "is not a plain file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise fail(path, f"too large for such a file ({status.st_size} bytes, {most} at most)")
    return content


def walk_folder(
    folder: str | os.PathLike[str],
    suffixes: Sequence[str],
    *,
    deep: bool = True,
    noted: bool = True,
) -> list[str]:
    """Names of the files in a folder, relative to it and with "/", sorted folder by folder.

    suffixes: the endings that count, in lower case; deep: whether to search the folders below, too;
    noted: whether what is left out goes into the account, False where another walk takes it.

    Left out, and named in the account: hidden files, files of other kinds, folders of storage
    devices and packers (@eaDir, __MACOSX), results that the program wrote there, what is no plain
    file, links to folders, and links that lead out of the folder (followed where the doubt "links"
    is accepted). A link to a missing file is listed, and fails when it is read.

    Raises InputError where a folder cannot be listed.
    """
    endings, home = tuple(suffixes), os.path.realpath(folder)
    names, waiting = [], [""]
    left_out: dict[str, list[str]] = {}
    follow, entered = accepts("links"), {home}

    def leave_out(what: str, entry: os.DirEntry[str]) -> None:
        left_out.setdefault(what, []).append(os.path.relpath(entry.path, folder))

    try:
        while waiting:
            below = waiting.pop()
            with os.scandir(os.path.join(folder, below)) as scanned:
                entries = list(scanned)
            results = own_names(os.path.join(folder, below), {entry.name for entry in entries})
            for entry in entries:
                linked = entry.is_symlink()
                real = os.path.realpath(entry.path) if linked else ""
                inside = not linked or lies_in(real, home)
                if entry.name in results:
                    if what := results[entry.name]:
                        leave_out(what, entry)
                elif entry.name.startswith("."):
                    leave_out("hidden names", entry)
                elif _is_folder(entry):
                    if is_companion(entry.name):
                        leave_out(COMPANIONS, entry)
                    elif linked and deep and (inside or not follow or real in entered):
                        leave_out("links to folders", entry)
                    elif deep and holds_results(entry.path):
                        leave_out(RESULTS, entry)
                    elif deep:
                        entered.add(real)  # a followed link may lead in a circle
                        waiting.append(f"{below}{entry.name}/")
                elif not entry.name.lower().endswith(endings):
                    leave_out("files of other kinds", entry)
                elif linked and not inside and not follow:
                    leave_out("links that lead out of the folder (--accept links)", entry)
                elif linked or entry.is_file():
                    names.append(below + entry.name)
                else:
                    leave_out("names that are no plain files", entry)
    except OSError as error:
        cure = "check the name and the permissions"
        raise fail(folder, f"cannot be listed ({reason(error)}); {cure}") from error
    for what, entries_left in left_out.items() if noted else ():
        note("left out", what, sorted(entries_left))
    return sorted(names, key=lambda name: name.split("/"))


def pattern_home(pattern: str) -> str:
    """The last folder before the first part of a pattern that has *, ? or [; "." for none."""
    parts = Path(pattern).parts
    fixed = next((k for k, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return os.path.join(*parts[:fixed]) if fixed else "."


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link to itself leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def similar_file(path: Path) -> str:
    """The hint "; did you mean 'x'?" for the file next to a missing one with the closest name."""
    folder = path.parent
    close = (
        closest(path.name, [file.name for file in folder.iterdir()]) if folder.is_dir() else None
    )
    return f"; did you mean {shown(close)}?" if close else ""


def refuse_link_out(path: str | os.PathLike[str], home: str) -> None:
    """Raise InputError for a link that leads out of `home`, the real path of a folder, unless the
    doubt "links" is accepted.
    """
    real = os.path.realpath(path)
    if not lies_in(real, home):
        cure = "put the file itself there"
        doubt("links", path, f"is a link that leads out of its folder, to {real}; {cure}")


def lies_in(path: str, home: str) -> bool:
    """Whether `path` is the folder `home` or is in it; both are real paths."""
    return path == home or path.startswith(home.rstrip(os.sep) + os.sep)


def storable(name: str) -> str:
    """A name of a file that any table can hold: bytes that are not UTF-8 are written as escapes."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair, which stands for no byte: "\ud800" in JSON
        return name.encode("utf-8", "backslashreplace").decode()


def file_stamp(file: str | Path) -> tuple[int, ...] | None:
    """Size and times of a file: an edit that keeps the time of change (`cp -p`) still shows in the
    time of the entry. None for a file that is gone, which fails when it is read.
    """
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place_below(folder: Path, name: str) -> Path:
    """The path of a file named with "/" below a folder; it never leads out of the folder."""
    parts = PurePosixPath(name).parts
    return folder.joinpath(*(part for part in parts if part not in ("..", "/", ".")))


def distinct_names(names: Sequence[str], suffixes: Sequence[str] | None, ending: str) -> list[str]:
    """A file name for each item, with its ending replaced by `ending`.

    Where two items would share a name, the ending of the item stays before `ending`; items with the
    same name are numbered. suffixes: the endings that are replaced; None: any.
    """

    def stem(name: str) -> str:
        path = PurePosixPath(name)
        return (
            str(path.with_suffix(""))
            if suffixes is None or path.suffix.lower() in suffixes
            else name
        )

    short = [stem(name) for name in names]
    count, uses, chosen = Counter(short), Counter[str](), []
    for name, stemmed in zip(names, short, strict=True):
        unique = stemmed if count[stemmed] == 1 else name
        uses[unique] += 1
        chosen.append(
            f"{unique}{ending}" if uses[unique] == 1 else f"{unique}-{uses[unique]}{ending}"
        )
    return chosen
