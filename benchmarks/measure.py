"""Time and peak memory of a call, shared by the benchmarks of mechanisms and operators (Linux)."""

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch


def fastest(
    calls: Sequence[Callable[[], object]], seconds: float = 1.0, least: int = 3
) -> list[float]:
    """Seconds of the fastest call of each, the calls made in turn so that all of them meet the same
    machine.
    """
    for call in calls:
        call()
    best = [float("inf")] * len(calls)
    begun, rounds = time.perf_counter(), 0
    while rounds < least or time.perf_counter() - begun < seconds * len(calls):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    return best


def medians(calls: Sequence[Callable[[], object]], rounds: int = 7) -> list[float]:
    """Median seconds of each call, the calls made in turn, so that other work on the machine meets
    all alike.
    """
    spent: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, times in zip(calls, spent, strict=True):
            start = time.perf_counter()
            call()
            if turn:  # the first is to warm up
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in spent]


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_bytes(call: Callable[[], object]) -> int:
    """Growth of the process's high-water mark over one call, after a first one.

    Start the process with MALLOC_MMAP_THRESHOLD_=65536 and MALLOC_TRIM_THRESHOLD_=65536, or memory
    that the allocator keeps hides what a call needs (see `memory_environment`)."""
    call()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts again from what is held now
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def peak_of(script: str, *words: object) -> int:
    """What `script --peak WORDS` prints, in a process of its own: what one form leaves behind hides
    what another needs."""
    command = [sys.executable, script, "--peak", *map(str, words)]
    environment = os.environ | memory_environment()
    return int(
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    )


def memory_environment() -> dict[str, str]:
    """What a process that measures memory has to be started with."""
    return {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }


def training_step(module: torch.nn.Module, call: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Forward and backward of a call."""

    def step() -> None:
        module.zero_grad(set_to_none=True)
        call().square().mean().backward()

    return step


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent b of seconds = a n^b by least squares of the logarithms."""
    n, t = torch.tensor(sizes).double().log(), torch.tensor(seconds).double().log()
    return float(((n - n.mean()) * (t - t.mean())).sum() / ((n - n.mean()) ** 2).sum())
