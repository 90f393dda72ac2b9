"""`--engine ray`: the same shards, mapped over a Ray cluster by Ray Data.

The parts are written by the workers, so OUTPUT must lie on a disk that all nodes see.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ....base.errors import InputError, one_line
from ....base.extras import install_line
from ..cluster import own_cluster
from ..options import PredictOptions
from .plan import Plan
from .shards import ShardWorker


def map_shards(task: str, options: PredictOptions, plan: Plan, shards: list[int]) -> Iterator[int]:
    """Do `shards` with `options.processes` actors; yields the number of items of each shard."""
    if find_spec("ray") is None:
        raise InputError(f"--engine ray: Ray is not installed; {install_line('ray')}")
    with _cluster():
        yield from _mapped(task, options, plan, shards)


@contextmanager
def _cluster() -> Iterator[None]:
    """The cluster that this process is connected to, or that RAY_ADDRESS names; else one of our
    own on this machine.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
    elif "RAY_ADDRESS" not in os.environ:
        with own_cluster("--engine ray"):
            yield
    else:
        import ray

        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _mapped(task: str, options: PredictOptions, plan: Plan, shards: list[int]) -> Iterator[int]:
    import ray
    import ray.data
    import ray.exceptions

    for name in ("ray", "ray.data"):  # errors still come as exceptions
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        mapped = ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        ).map_batches(
            ShardWorker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(options.processes, len(shards))),
            fn_constructor_kwargs={
                "task": task,
                "options": options,
                "plan": plan,
                "folder": os.getcwd(),
            },
            num_gpus=1 if options.accelerator == "cuda" else 0,
        )
        for row in mapped.iter_rows():
            yield int(row["items"])
    except ray.exceptions.RayError as error:
        # Ray passes on a worker's exception as text only, in its traceback.
        if messages := re.findall(r"InputError: (.+)", str(error)):
            raise InputError(messages[-1]) from None
        if isinstance(error, ray.exceptions.RayActorError):
            raise InputError(
                f"a Ray actor died ({one_line(error)[:200]}); start again, what is done is kept"
            ) from None
        raise
