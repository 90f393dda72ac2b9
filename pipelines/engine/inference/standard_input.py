"""Standard input, set aside in a file, since parts of it may be read more than once."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from ....base.errors import InputError, fail, reason
from ....base.own_files import ASIDE

STDIN = "-"
MOST_BYTES = 4 << 30
_BLOCK = 1 << 20


def aside_of(output: str, digest: str) -> Path:
    """The file beside an output in which standard input with this digest lies until the output is
    written: it is removed then as all that is half-written.
    """
    path = Path(output)
    return path.parent / f"{ASIDE}stdin-{digest[:16]}-{path.name}"


def set_aside(output: str) -> str:
    """Copy standard input into its file; returns its digest, by which a job that was killed goes on
    with the same input. Raises InputError where it is empty, closed, too large, or one of several
    processes would read it.
    """
    where = "--input -"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise fail(where, "only one process can read standard input; give a file")
    if sys.stdin is None or sys.stdin.closed:
        raise fail(where, "standard input is closed; give a text on each line")
    stream, folder = sys.stdin.buffer, Path(output).parent
    digest, size, temporary = hashlib.sha256(), 0, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f"{ASIDE}stdin-", suffix=f"-{Path(output).name}", dir=folder
        )
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > MOST_BYTES:
                    raise fail(where, f"more than {MOST_BYTES >> 30} GiB; give a file")
                digest.update(block)
                file.write(block)
        if not size:
            raise fail(where, "standard input is empty; give a text on each line")
        os.replace(temporary, aside_of(output, digest.hexdigest()))
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{output}: cannot be written ({reason(error)})") from error
        raise
    return digest.hexdigest()
