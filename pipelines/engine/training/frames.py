"""Training on a table in memory: it is written into the run, which can then be scored again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ....base.errors import InputError
from ....data.frames import is_frame, write_frame
from ..command_line.parsing import parse
from ..options import TrainOptions
from ..runs.run_directory import RunDirectory, new_path
from ..task import Task
from .jobs import train

DATA = "data.parquet"


def train_on_frame(task: Task, config: Path | None, values: Mapping[str, object]) -> RunDirectory:
    """Train with a table of polars or pandas as the option `data`; returns the finished run.

    Raises `InputError` for other values, before anything is written.
    """
    frame = values["data"]
    if not is_frame(frame):
        kind = type(frame).__name__
        raise InputError(f"data: a {kind} is no data; give a path, or a table of polars or pandas")
    options = parse(task, "train", [], config=config, values={**values, "data": DATA})
    assert isinstance(options, TrainOptions)
    if options.resume:
        raise InputError("--resume: the run has its data; leave data out")
    home = Path(options.run) if options.run else new_path(task.name)
    path = home / DATA
    existed = home.is_dir()
    if existed and any(home.iterdir()):
        raise InputError(f"{home}: is not empty; choose another run")
    write_frame(frame, path)
    chosen = {**values, "data": path, "run": home}
    try:
        return train(task.load(), parse(task, "train", [], config=config, values=chosen))  # pyright: ignore[reportArgumentType]
    except InputError:
        if not (home / "config.yaml").exists():  # taken back: nothing could be trained
            path.unlink(missing_ok=True)
            if not existed:
                with suppress(OSError):
                    home.rmdir()
        raise
