"""What a person sees while a job runs: on stderr, and only from the first process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

from ....base.errors import printable


def first_process() -> bool:
    """True in the process that speaks for all."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def say(line: str) -> None:
    """One line of progress; characters that control a terminal are escaped."""
    if first_process():
        with tqdm.external_write_mode(file=sys.stderr):
            print(printable(line), file=sys.stderr, flush=True)


class Progressbar(tqdm):
    """A bar with rate, time left and figures; silent where stderr is no terminal."""

    def __init__(
        self, *, total: int | None, unit: str, desc: str, initial: int = 0, shown: bool = True
    ) -> None:
        super().__init__(
            total=total,
            unit=unit,
            desc=desc,
            initial=initial,
            disable=not (shown and sys.stderr.isatty() and first_process()),
            dynamic_ncols=True,
            leave=False,
        )


_bar: ContextVar[Progressbar | None] = ContextVar("bar", default=None)


@contextmanager
def advancing(bar: Progressbar) -> Iterator[None]:
    """Let `advance` move this bar in all that is called within."""
    token = _bar.set(bar)
    try:
        yield
    finally:
        _bar.reset(token)


def advance(items: int = 1) -> None:
    """Move the bar of the job that is under way, if there is one."""
    bar = _bar.get()
    if bar is not None:
        bar.update(items)
