"""Runs a script in this process, which was forked from one that has imported torch."""

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def coverage_here() -> dict[str, Any] | None:
    """What counts the lines of the other process, too, where this one is run with coverage."""
    if find_spec("coverage") is None:
        return None
    from coverage import Coverage

    current = Coverage.current()
    if current is None:
        return None
    return {name: current.get_option(f"run:{name}") for name in ("data_file", "source")}


def run(
    script: str, words: Sequence[str], output: str, coverage: dict[str, Any] | None = None
) -> None:
    """As `python script words > output 2>&1`; what it imports may lie beside this file."""
    os.environ.pop("TRITON_INTERPRET", None)
    file = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(__file__).parent))
    if coverage is None:
        runpy.run_path(script, run_name="__main__")
        return
    from coverage import Coverage

    counted = Coverage(**coverage, data_suffix=True)
    with counted.collect():
        runpy.run_path(script, run_name="__main__")
    counted.save()
