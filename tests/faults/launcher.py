"""Starts `headwise` commands by forking a process that has imported what the commands before
imported, so that a start costs no seconds.

Reads a JSON object a line. {"words": [...], "log": path, "file_limit": bytes or null, "die_at":
[module, name, call] or null} starts a command and answers with its pid; with die_at it kills itself
as that function is called that often. {"wait": pid, "seconds": s} answers with its exit code
(negative: the signal), or null if it still runs."""

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time

import torch

from headwise.pipelines.engine import command_line
from headwise.pipelines.engine.training import jobs, loop  # noqa: F401  (what most commands need)
from headwise.tests.undrawn import pictures

torch.set_num_threads(1)


class Imports:
    """The modules that commands imported, which the next command finds imported."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile("a+")  # noqa: SIM115  (open as long as this process)
        self.before = set(sys.modules)

    def note(self) -> None:
        """In a command that ends: write down what it imported, in that order."""
        names = [
            name
            for name, module in list(sys.modules.items())
            if name not in self.before and getattr(module, "__spec__", None) is not None
        ]
        self.file.write("".join(f"{name}\n" for name in names))
        self.file.flush()

    def repeat(self) -> None:
        """In the process that forks: import the same."""
        self.file.seek(0)
        for name in self.file.read().split():
            if name not in sys.modules:
                with contextlib.suppress(Exception):  # made by the code of a package, not a file
                    importlib.import_module(name)
        self.file.truncate(0)
        self.before = set(sys.modules)


def die_as_called(module: str, name: str, call: int) -> None:
    owner = importlib.import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    function, count = getattr(owner, last), 0

    def counted(*arguments, **named):
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    setattr(owner, last, counted)


def start(
    imports: Imports, words: list[str], log: str, file_limit: int | None, die_at: list | None
) -> int:
    imports.repeat()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if die_at is not None:
        die_as_called(*die_at)
    sys.argv = ["headwise", *words]
    code = 1
    try:
        with pictures(as_dots=True):
            command_line.main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
        imports.note()
    os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def serve() -> None:
    imports = Imports()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = wait(asked["wait"], asked["seconds"])
        else:
            answer = start(
                imports, asked["words"], asked["log"], asked["file_limit"], asked["die_at"]
            )
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":  # a process that a command spawns imports this file again
    serve()
