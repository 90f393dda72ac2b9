"""Options of `headwise serve`. Nothing here imports torch or Ray."""

from dataclasses import dataclass
from typing import Literal

from ....base.errors import InputError
from ..command_line.checks import flag

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Answer requests with the predictions of a run until it is stopped; needs the extra `ray`."""

    run: str
    """Run directory of the trained model."""
    host: str = "127.0.0.1"
    """Address to listen on. The default answers this machine only: nobody is asked for a
    password."""
    port: int = 8000
    """Port to listen on."""
    replicas: int = 1
    """Copies of the model, each in a process of its own."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""
    max_megabytes: int = 64
    """Largest body of a request; a larger one is answered with status 413."""
    max_items: int = 256
    """Most items of a request; more are answered with status 413."""
    max_requests: int = 32
    """Most requests that are read or waiting in a replica; more are answered with status 503."""
    batch_requests: int = 8
    """Most requests whose items go through the model together."""
    batch_wait: float = 0.01
    """Seconds to wait for further requests to join a batch."""


def check(options: ServeOptions) -> None:
    """Raise `InputError` for a value out of its range."""
    bounds = {
        "port": 65_535,
        "replicas": 1_000,
        "max_megabytes": 10_000,
        "max_items": 1_000_000,
        "max_requests": 10_000,
        "batch_requests": 1_000,
    }
    for name, most in bounds.items():
        value = getattr(options, name)
        if not 1 <= value <= most:
            raise InputError(f"{flag(name)} {value}: must be from 1 to {most}")
    if not 0 <= options.batch_wait <= 10:
        raise InputError(f"--batch-wait {options.batch_wait}: must be from 0 to 10 seconds")
