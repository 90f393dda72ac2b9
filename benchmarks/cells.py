"""Grids of trained models for the claim checks and the matrix: one file for each cell, so that a
command goes on where it stopped; means with intervals.
"""

import json
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

# The folder of real data: HEADWISE_DATA, or shared/data next to the checkout.
DATA = Path(os.environ.get("HEADWISE_DATA", Path(__file__).parents[2] / "shared" / "data"))
Result = TypeVar("Result")


def write_cell(path: Path, result: object) -> None:
    """Write the result of a cell as JSON, aside and renamed: a file that exists is complete."""
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)


def waiting_cells(
    path_of: Callable[..., Path], folder: Path, keys: Iterable[tuple[object, ...]]
) -> list[tuple[object, ...]]:
    """Make the folder; returns (*key, folder) of each cell whose file `path_of(folder, *key)` is
    not there yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [(*key, folder) for key in keys if not path_of(folder, *key).exists()]


def run_cells(
    cell: Callable[..., Result],
    cells: Iterable[Sequence[object]],
    jobs: int,
    *,
    unit: str = "model",
    per_process: int | None = None,
    report: Callable[[Result], None] | None = None,
) -> None:
    """Call `cell` with each tuple of arguments, `jobs` at a time in processes of one thread.

    per_process: cells that a process runs before a fresh one takes its place. report: called with
    each result as it arrives.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # a process reads it when it imports torch
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), max_tasks_per_child=per_process
    ) as pool:
        futures = [pool.submit(cell, *arguments) for arguments in cells]
        for future in tqdm(as_completed(futures), total=len(futures), unit=unit):
            result = future.result()
            if report:
                report(result)


def student(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t distribution."""
    from scipy.stats import t

    middle = statistics.mean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half


def difference(values: Sequence[float], baseline: Sequence[float], digits: int = 3) -> str:
    """Mean difference to a baseline, value by value, with its 95 % interval."""
    change = student([value - base for value, base in zip(values, baseline, strict=True)])
    middle, low, high = (f"{value:+.{digits}f}" for value in change)
    return f"{middle} ({low} to {high})"
