"""What the benchmarks share: the options and tables of a script, the time and the peak memory of a
call (Linux).
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Size = Literal["tiny", "short", "full"]  # to see that it runs; `make bench`; all that docs have
Call = Callable[[], object]


class Case(NamedTuple):
    """One result by several ways, which agree."""

    name: str
    ours: Call
    others: Mapping[str, Call]
    # Whether peak memory is compared; or what counts the bytes of ours and the others instead.
    memory: bool | Callable[[], Sequence[int]] = True


class LeftOut(NamedTuple):
    """A case that cannot be measured here."""

    name: str
    why: str


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the docstring of a script as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def table_row(*cells: object) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table_header(*names: object) -> str:
    """The head of a Markdown table and the line below it."""
    return table_row(*names) + "\n|" + "---|" * len(names)


def print_row(*cells: object) -> None:
    """Print one row at once, so that a long run shows how far it is."""
    print(table_row(*cells), flush=True)


def print_header(*names: object) -> None:
    """Print the head of a table."""
    print(table_header(*names), flush=True)


@contextmanager
def machine_load(about: str, threads: int = 0) -> Iterator[None]:
    """Print the set-up before a measurement, and the load of the machine before and after it.

    `threads` is set for torch; 0 leaves torch's own number.
    """
    if threads:
        torch.set_num_threads(threads)
    used, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"torch {torch.__version__}, {used} threads, {about}\n")
    yield
    after = os.getloadavg()[0]
    print(f"\nload of the machine {load:.1f} before, {after:.1f} after (alone: about {used})")


def fastest(calls: Sequence[Call], seconds: float = 1.0, least: int = 3) -> list[float]:
    """Seconds of the fastest run of each call, `seconds` spent on each after a first one.

    The calls are made in turn, so that other work on the machine affects all alike.
    """
    for call in calls:
        call()
    return fastest_warm(calls, seconds, least)


def fastest_warm(calls: Sequence[Call], seconds: float, least: int) -> list[float]:
    """The same without a first call of each."""
    best = [float("inf")] * len(calls)
    begun, rounds = time.perf_counter(), 0
    while rounds < least or time.perf_counter() - begun < seconds * len(calls):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
        rounds += 1
    return best


def in_turns(calls: Sequence[Call], seconds: float, turns: int) -> list[list[float]]:
    """Seconds of each call by turns: the fastest run of each turn."""
    for call in calls:
        call()
    spent = [fastest_warm(calls, seconds / turns, least=1) for _ in range(turns)]
    return [list(times) for times in zip(*spent)]


def medians(calls: Sequence[Callable[[], object]], rounds: int = 7) -> list[float]:
    """Median seconds of each call, made in turn as by `fastest`."""
    spent: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, times in zip(calls, spent, strict=True):
            start = time.perf_counter()
            call()
            if turn:  # the first is to warm up
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in spent]


def process_memory(field: str) -> int:
    """Bytes of a field of /proc/self/status, such as VmRSS."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_bytes(call: Callable[[], object], warm_up: Callable[[], object] | None = None) -> int:
    """Growth of the process's high-water mark over one call, after `warm_up` or a first call.

    Memory that the allocator keeps hides what a call needs, unless the process was started with
    `memory_environment()`.
    """
    (warm_up or call)()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts again from what is held now
    before = process_memory("VmRSS")
    call()
    return max(0, process_memory("VmHWM") - before)


def peak_of(script: str, *words: object, settings: dict[str, str] | None = None) -> int:
    """What `script --peak WORDS` prints, in a process of its own, so that memory which one form
    leaves behind does not hide what another needs.

    settings: environment variables of that process, by default `memory_environment()`.
    """
    command = [sys.executable, script, "--peak", *map(str, words)]
    environment = os.environ | (memory_environment() if settings is None else settings)
    finished = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(finished.stdout)


def memory_environment() -> dict[str, str]:
    """Environment variables with which a process that measures memory is started."""
    return {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }


def training_step(module: torch.nn.Module, call: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward pass of a call."""

    def step() -> None:
        module.zero_grad(set_to_none=True)
        call().square().mean().backward()

    return step


def both_passes(
    form: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *constants: Tensor,
    gradient: Tensor | None = None,
) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass of an operator: its output and the gradients of `inputs`.

    gradient: of the output; by default the output itself, which differs from place to place and
    needs no more memory.
    """

    def call() -> tuple[Tensor, ...]:
        output = form(*inputs, *constants)
        back = output.detach() if gradient is None else gradient
        return output.detach(), *torch.autograd.grad(output, inputs, back)

    return call


def kept_bytes(forward: Callable[[], Tensor], excluded: Sequence[Tensor]) -> int:
    """Bytes that the graph holds between forward and backward pass, each storage once, without
    those of `excluded` (parameters and input).

    Operators of our own save through the same hooks. What a node saved and released again before
    the backward pass is not counted.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in excluded}
    alive: weakref.WeakSet[SavedTensor] = weakref.WeakSet()

    def pack(tensor: Tensor) -> SavedTensor:
        saved = SavedTensor(tensor)
        alive.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        output = forward()
    storages = [saved.tensor.untyped_storage() for saved in alive]
    del output  # it holds the graph, which had to be alive until here
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for address, size in sizes.items() if address not in known)


class SavedTensor:
    """A tensor that the graph keeps; it dies with the graph's node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # a tensor that knows its node would keep the node alive


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent b of seconds = a n^b by least squares of the logarithms."""
    n, t = torch.tensor(sizes).double().log(), torch.tensor(seconds).double().log()
    return float(((n - n.mean()) * (t - t.mean())).sum() / ((n - n.mean()) ** 2).sum())
