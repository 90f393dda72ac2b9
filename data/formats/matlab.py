"""One variable of a MATLAB file: numbers, text and records. Nothing in the file is executed."""

import os
import zlib
from pathlib import Path
from typing import Any

from ...base.errors import fail, reason

FILE_BYTES = 64 << 20
UNPACKED_BYTES = 256 << 20
_PACKED = 15  # miCOMPRESSED: the kind of an element that is packed by zlib


def read_variable(path: str | os.PathLike[str], name: str) -> Any:
    """The variable of this name, as `scipy.io.loadmat` returns it with `squeeze_me` (records as a
    structured array).

    Raises InputError for a file that is not of MATLAB 5 to 7.2, is damaged, larger than FILE_BYTES
    or UNPACKED_BYTES unpacked, or has no such variable.
    """
    from scipy import io

    file = Path(path)
    _check_unpacked(file)
    try:
        variables = io.loadmat(str(file), variable_names=[name], squeeze_me=True)
    except Exception as error:  # the parser raises many kinds of errors for damaged bytes
        raise fail(path, f"is a damaged MATLAB file ({reason(error)}); fetch it again") from error
    if name not in variables:
        raise fail(path, f"holds no variable {name!r}; is it the right file?")
    return variables[name]


def _check_unpacked(file: Path) -> None:
    """Refuse other formats, and files whose packed elements grow too large, before scipy unpacks
    them into memory.
    """
    try:
        if file.stat().st_size > FILE_BYTES:
            raise fail(file, f"is larger than {FILE_BYTES >> 20} MiB; is it the right file?")
        with file.open("rb") as opened:
            head = opened.read(128)
            if not head.startswith(b"MATLAB 5.0") or head[126:] not in (b"IM", b"MI"):
                raise fail(file, "is no MATLAB file of version 5 to 7.2; save it with -v7")
            order = "little" if head[126:] == b"IM" else "big"
            total = 0
            while len(tag := opened.read(8)) == 8:
                kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
                packed, unpack = opened.read(size), zlib.decompressobj()
                while kind == _PACKED and packed and total <= UNPACKED_BYTES:
                    total += len(unpack.decompress(packed, 1 << 20))
                    packed = unpack.unconsumed_tail
                if total > UNPACKED_BYTES:
                    raise fail(
                        file,
                        f"unpacks to more than {UNPACKED_BYTES >> 20} MiB; is it the right file?",
                    )
    except (OSError, zlib.error) as error:
        raise fail(file, f"cannot be read ({reason(error)}); fetch it again") from error
