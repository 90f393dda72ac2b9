"""Predictions for uploads: what a request holds becomes files in a folder of its own.

Nothing here knows of HTTP. Requests that wait together go through the model together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from ....base.account import opened
from ....base.errors import InputError, one_line, printable, reason
from ....base.files import lies_in
from ....data.frames import write_frame
from ..inference.predictor import Predictor
from ..pipeline import Item
from ..runs.inputs import MemoryInputs
from ..runs.run import Run

_NAME_CAP = 120  # characters of the name of a file


@dataclass(frozen=True)
class Upload:
    """What one request holds: files by name, or rows of a table."""

    files: Sequence[tuple[str, bytes]] = ()
    rows: Sequence[object] | None = None


@dataclass(frozen=True)
class Reply:
    """The answer to one request. status: as in HTTP. rows: a JSON list of the rows."""

    status: int
    rows: str = "[]"
    error: str | None = None
    account: Sequence[str] = ()
    """What was read and left out."""


@dataclass
class _Job:
    """A request under way: its folder, its items, or why it has none."""

    inputs: MemoryInputs
    items: list[Item] = field(default_factory=list)
    account: Sequence[str] = ()
    refusal: Reply | None = None


class Service:
    """A loaded run that answers uploads.

    max_items: most items of a request.
    """

    def __init__(self, run: Run, max_items: int) -> None:
        self.run, self.max_items = run, max_items
        self.summary = f"{run.task.name}: {run.task.summary}"
        _ = run.loaded  # before the first request

    def answer(self, uploads: Sequence[Upload]) -> list[Reply]:
        """A reply to each upload, in their order; one that cannot be read leaves the others."""
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder).resolve()
            options = self.run.predict_options(output=home / "predictions.parquet")
            jobs = []
            for place, upload in enumerate(uploads):
                inputs = MemoryInputs(home / str(place))
                inputs.folder.mkdir()
                jobs.append(self._open(upload, inputs))
            items = [item for job in jobs for item in job.items]
            if not items:
                return [job.refusal or Reply(400, error="holds nothing") for job in jobs]
            # The account of a shared pass would show the names of one request to another.
            with opened(options.accept):
                rows = Predictor(self.run.pipeline, options, self.run.loaded)(items)
            return [job.refusal or _reply(job, rows) for job in jobs]

    def _open(self, upload: Upload, inputs: MemoryInputs) -> _Job:
        """Write what a request holds and list its items."""
        job = _Job(inputs)
        try:
            with opened() as account:
                for path in _write(upload, inputs):
                    options = replace(self.run.predict_options(output="-"), input=str(path))
                    job.items += self.run.pipeline.list_items(options, self.run.loaded.spec)
            self._check_items(job)
            job.account = [str(inputs.reworded(InputError(line))) for line in account.lines()]
        except InputError as error:
            job.refusal = Reply(400, error=one_line(inputs.reworded(error)))
        except MemoryError:
            job.refusal = Reply(413, error="takes more memory than there is")
        if len(job.items) > self.max_items:
            text = f"holds {len(job.items)} items; {self.max_items} at most"
            job.refusal = Reply(413, error=text)
        if job.refusal:
            job.items = []
        return job

    @staticmethod
    def _check_items(job: _Job) -> None:
        """Raise InputError for nothing, and for items outside of what was sent: a table may name
        any file of this machine.
        """
        if not job.items:
            raise InputError("holds nothing to predict for")
        home = str(job.inputs.folder)
        for item in job.items:
            for file in (item["file"], *item.get("further_files", ())):
                if not lies_in(os.path.realpath(file), home):
                    raise InputError("names files that were not sent; send the files themselves")


def _write(upload: Upload, inputs: MemoryInputs) -> list[Path]:
    """Write the files or rows of a request below its folder."""
    if upload.rows is not None:
        try:
            frame = pl.DataFrame(upload.rows, infer_schema_length=None)
        except Exception as error:  # polars raises several kinds for cells of several types
            raise InputError(f"the rows are no table ({reason(error)})") from None
        path = inputs.folder / "rows.parquet"
        write_frame(frame, path)
        inputs.labels[str(path)] = "rows"
        return [path]
    paths = []
    for place, (name, content) in enumerate(upload.files):
        path = inputs.folder / str(place) / safe_name(name)
        path.parent.mkdir()
        path.write_bytes(content)
        inputs.labels[str(path)] = path.name
        paths.append(path)
    return paths


def safe_name(name: str) -> str:
    """The name of a file for a name that a client sent: without folders, not hidden, not too long.

    >>> safe_name("../../.bashrc")
    'file.bashrc'
    """
    plain = printable(name.replace("\\", "/").rsplit("/", 1)[-1]).replace("\\", "_").strip()
    plain = plain.encode("utf-8", "replace")[-_NAME_CAP:].decode("utf-8", "ignore")
    return f"file{plain}" if not plain or plain.startswith(".") else plain


def _reply(job: _Job, rows: pl.DataFrame) -> Reply:
    """The rows of one request; all of them errors is a bad request."""
    mine = rows.filter(pl.col("file").str.starts_with(f"{job.inputs.folder}{os.sep}"))
    mine = job.inputs.renamed(mine)
    text = "[" + ",".join(mine.write_ndjson().splitlines()) + "]"
    failed = mine.filter(pl.col("status") == "error")
    if failed.height == mine.height:
        return Reply(400, text, str(failed["error"][0]), job.account)
    return Reply(200, text, None, job.account)
