"""Work shared by several processes of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar, cast

from ...base.errors import InputError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

_work: Callable[..., object] | None = None  # of a worker process, made once by `_start`


def map_jobs(
    make_worker: Callable[[], Callable[[JobT], ResultT]], jobs: Sequence[JobT], processes: int
) -> Iterator[ResultT]:
    """The result of each job, in the order of the jobs.

    make_worker: called once per process, gives the function that does a job. With more than one
    process it is sent to fresh processes, which share the cores; it and the jobs must be picklable.
    Raises InputError where a process dies.
    """
    if processes == 1 or len(jobs) < 2:
        yield from map(make_worker(), jobs)
        return
    count = min(processes, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // count)
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(count, context, _start, (make_worker, threads)) as pool:
            yield from cast(Iterator[ResultT], pool.map(_do, jobs))
    except BrokenProcessPool:
        raise InputError(
            f"one of --processes {processes} died (out of memory?); start again, what is done is "
            "kept"
        ) from None


def _start(make_worker: Callable[[], Callable[..., object]], threads: int) -> None:
    global _work
    import torch

    torch.set_num_threads(threads)
    _work = make_worker()


def _do(job: object) -> object:
    assert _work is not None
    return _work(job)
