"""A folder of many trainings for comparisons: who holds it, which trainings stand in it, and
intervals over seeds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ....base.errors import InputError
from ....base.files import clear_aside, held
from ..runs.run_directory import read_facts


def check_plain(options: Any, verb: str = "compare") -> None:
    """Raise `InputError` for options of `train` that trainings in memory (`quick.fit`) do not
    have.
    """
    if (
        options.devices * options.nodes > 1
        or options.precision != "32-true"
        or options.nan != "stop"
    ):
        raise InputError(
            f"{verb}: trains in 32 bits on one device and stops where a loss is not finite; leave out "
            "--devices, --nodes, --precision and --nan"
        )


@contextmanager
def claimed(output: Path, inside: str = "trainings") -> Iterator[None]:
    """Hold the folder, which must be one of comparisons (it has a folder of the name `inside`) or
    nobody's, and of no other process now."""
    home = output / inside
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; choose another --output")
    if output.is_dir() and any(output.iterdir()) and not home.is_dir():
        raise InputError(f"{output}: is not empty and holds no {inside}; choose another --output")
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from None
    with held(home, output):
        clear_aside(output)
        yield


def fingerprint_of(options: Any, spec: Any, free: Collection[str]) -> str:
    """Of all that decides what a training gives, but for the options named in `free`."""
    said = {name: value for name, value in asdict(options).items() if name not in free}
    return hashlib.sha256(
        json.dumps([said, spec.to_json()], sort_keys=True, default=str).encode()
    ).hexdigest()


def stands(path: Path, fingerprint: str) -> bool:
    """Whether a training's JSON file is there; `InputError` where it is of other options or
    data.
    """
    if not path.is_file():
        return False
    if read_facts(path)["fingerprint"] != fingerprint:
        raise InputError(
            f"{path}: is of other options or data; choose another --output, or remove it"
        )
    return True


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean by Student's t; NaN of fewer than two values."""
    from scipy.stats import t

    if len(values) < 2:
        return math.nan, math.nan
    half = float(t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half
