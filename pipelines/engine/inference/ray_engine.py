"""`--engine ray`: the same shards, mapped over a Ray cluster by Ray Data.

The parts are written by the workers, so OUTPUT must lie on a disk that all nodes see.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

from ....base.errors import InputError, one_line
from ..options import PredictOptions
from .plan import Plan
from .shards import ShardWorker


def map_shards(task: str, options: PredictOptions, plan: Plan, shards: list[int]) -> Iterator[int]:
    """Do `shards` with `options.processes` actors; yields the number of items of each shard."""
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError:
        raise InputError(
            "--engine ray: Ray is not installed; pip install 'headwise[ray]'"
        ) from None
    for name in ("ray", "ray.data"):  # errors still come as exceptions
        logging.getLogger(name).setLevel(logging.CRITICAL)
    started = not ray.is_initialized()
    if started:
        # A cluster of our own answers this machine only: Ray asks nobody who they are.
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
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
    finally:
        if started:
            ray.shutdown()
