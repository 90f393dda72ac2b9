"""Arrays of numpy in files, .npy and .npz, read within limits and without unpickling."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ...base.errors import InputError, fail, reason

ARRAY_SUFFIXES = (".npy", ".npz")


class ArrayHeader(NamedTuple):
    """What a file says of its array before its numbers are read."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_array_header(
    path: str | os.PathLike[str], most: int, names: tuple[str, ...] = ()
) -> ArrayHeader:
    """The header of an array; see `read_array`."""
    with _opened(path, names) as (file, size):
        return _header(path, file, size, most)


def read_array(path: str | os.PathLike[str], most: int, names: tuple[str, ...] = ()) -> np.ndarray:
    """The array of numbers in an .npy file, or in an .npz archive of one array.

    most: the largest number of values. names: names under which an archive of several arrays may
    hold the one that is meant, the first of them that it has.

    Raises `InputError` for a file that is missing, damaged, too large, or holds anything but
    numbers.
    """
    with _opened(path, names) as (file, size):
        _header(path, file, size, most)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def _opened(
    path: str | os.PathLike[str], names: tuple[str, ...]
) -> Iterator[tuple[IO[bytes], int]]:
    """The stream of an array, and its bytes; errors of the file become `InputError`."""
    file = Path(path)
    try:
        if not file.is_file():
            raise fail(path, "there is no such file" if not file.exists() else "is no plain file")
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                yield stream, file.stat().st_size
            return
        with zipfile.ZipFile(file) as archive:
            member = _member(path, archive, names)
            with archive.open(member) as stream:
                yield stream, member.file_size
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        cure = "write it again with numpy.save"
        raise fail(
            path, f"is no array of numpy, or is damaged ({reason(error)}); {cure}"
        ) from error


def _member(path: object, archive: zipfile.ZipFile, names: tuple[str, ...]) -> zipfile.ZipInfo:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for name in (*names, "arr_0"):
        if name in members:
            return members[name]
    if len(members) == 1:
        return next(iter(members.values()))
    held = ", ".join(list(members)[:5])
    raise fail(path, f"holds {len(members)} arrays ({held}); save the one that is meant alone")


def _header(path: object, file: IO[bytes], size: int, most: int) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, kind = np.lib.format.read_array_header_2_0(file)
    else:
        raise fail(path, f"is of the format {version}; save it again with numpy.save")
    count = math.prod(shape)
    if kind.kind not in "iufb":
        raise fail(path, f"holds {kind}, not numbers")
    if count > most:
        raise fail(path, f"is too large ({count:,} numbers; at most {most:,}); make it smaller")
    if count * kind.itemsize > size:
        raise fail(path, "is cut off; fetch or save it again")
    return ArrayHeader(shape, kind)
