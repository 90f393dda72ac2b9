"""A Ray cluster of our own on this machine, which nobody else reaches."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ...base.errors import InputError

# The address of a node is 127.0.0.1 if this is "0".
_NOT_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def own_cluster(what: str) -> Iterator[None]:
    """Start Ray on this machine for the time of this context; import Ray only within.

    Whoever reaches a port of Ray may run code. So its servers listen on 127.0.0.1, and all ask for
    a secret that only its own processes know (Ray Serve's between replicas listens on every
    address). No statistics of use are sent. what: who needs it.

    Raises InputError where Ray was imported before: it reads these settings only once.
    """
    settings = {
        _NOT_LOOPBACK: "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
    }
    before = {name: os.environ.get(name) for name in settings}
    if "ray" in sys.modules and before["RAY_AUTH_MODE"] != "token":
        raise InputError(f"{what}: Ray is in use in this process; start it in one of its own")
    os.environ.update(settings)
    import ray

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    try:
        yield
    finally:
        ray.shutdown()
