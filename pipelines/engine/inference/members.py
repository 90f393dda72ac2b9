"""The items of a training's parts, by which a prediction says what part an item was in.

Items are recognised by their contents, not by their place: the size of the file, its beginning and
its end, and the id within the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl

from ....base.files import write_aside
from ..pipeline import Member
from ..runs.run_directory import read_facts

_SAMPLED = 64 << 10  # bytes of the beginning and of the end


@lru_cache(maxsize=4096)
def _contents(file: str, size: int, changed: int) -> str:
    """What tells a file from others, without reading all of a large one."""
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(file, "rb") as opened:
        state.update(opened.read(_SAMPLED))
        if size > _SAMPLED:
            opened.seek(max(_SAMPLED, size - _SAMPLED))
            state.update(opened.read(_SAMPLED))
    return state.hexdigest()


def member_key(member: Member) -> str | None:
    """A text that is the same for the same item wherever its file lies; None for a file that cannot
    be read.
    """
    try:
        status = os.stat(member.file)
        contents = _contents(member.file, status.st_size, status.st_mtime_ns)
    except OSError:
        return None
    return f"{contents}/{member.id}"


def write_members(path: Path, members: Mapping[str, Sequence[Member]]) -> None:
    """Write the part of each item, unless that is done or there are none."""
    if not members or path.exists():
        return
    part_of = {
        key: part
        for part, items in members.items()
        for item in items
        if (key := member_key(item)) is not None
    }
    write_aside(path, lambda temporary: temporary.write_text(json.dumps(part_of)))


def read_members(path: Path) -> dict[str, str]:
    """The part by key, {} where the run names none."""
    return dict(read_facts(path)) if path.exists() else {}


def parts_column(members: Mapping[str, str], items: Sequence[Member]) -> pl.Series:
    """The part that each item was in, null for items that are new."""
    parts = [members.get(member_key(item) or "") if members else None for item in items]
    return pl.Series("part", parts, pl.String)
