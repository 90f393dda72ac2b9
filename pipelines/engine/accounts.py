"""The account of a job: printed, and written next to what the job makes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import polars as pl

from ...base.account import Account, Entry
from ...base.files import read_json, write_json
from .command_line.terminal import say

CAPTION = "What was read"


def publish(
    account: Account,
    path: Path | None = None,
    *,
    shown: bool = True,
    before: Collection[Entry] = (),
) -> None:
    """Print an account, a line for each topic, and write it as JSON.

    path: the file; None writes nothing. shown: whether to print; before: statements that were
    printed already.
    """
    if path is not None:
        write_json(path, account.to_json())
    for line in account.lines(before) if shown else ():
        say(line)


def account_table(path: Path) -> pl.DataFrame | None:
    """An account that `publish` wrote, as the first table of a report; None where there is none."""
    if not path.exists():
        return None
    rows = [
        {
            "topic": entry["topic"],
            "what": entry["what"],
            "count": str(entry["count"] or ""),
            "names": ", ".join(entry["names"][:20]) + (", …" if entry["names"][20:] else ""),
        }
        for entry in read_json(path)
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("topic", "what", "count", "names"), pl.String))
