"""A finished run from Python: `headwise.open("runs/x")`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from ....base.account import Account, opened
from ....base.errors import InputError
from ....base.files import write_aside
from ....data.frames import write_frame
from ... import TASKS, load_task
from ..command_line.parsing import parse
from ..options import EvaluateOptions, ExportOptions, PredictOptions
from ..task import Task
from .inputs import MemoryInputs, in_memory
from .notebook import run_html
from .run_directory import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl

    from ..pipeline import AnyPipeline, Item, Metrics
    from .loaded import Loaded

Accelerator: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Input: TypeAlias = (
    "str | os.PathLike[str] | Item | pl.DataFrame | pl.LazyFrame | pd.DataFrame | np.ndarray"
)
"""What `Run.predict` takes: a path, an item, a table, a picture, or samples."""


class Run:
    """A finished run of any task, opened to be used; its model is loaded on first use.

    >>> run = headwise.open("runs/reid-20260801-120000")  # doctest: +SKIP
    >>> run.predict("new_pictures/")                      # doctest: +SKIP
    >>> run.predict(picture)                              # doctest: +SKIP
    >>> run.evaluate(data="other_pictures/")["mAP"]       # doctest: +SKIP
    >>> run.export("model.onnx")                          # doctest: +SKIP

    path: the run directory. accelerator: the kind of device to work on. Raises `InputError` for a
    folder that is no run.
    """

    def __init__(self, path: str | os.PathLike[str], accelerator: Accelerator = "auto") -> None:
        self.directory = RunDirectory.open(path)
        name = self.directory.environment()["task"]
        if name not in TASKS:
            raise InputError(f"{self.directory.path}: a run of the task {name!r}, which is unknown")
        self.task: Task = load_task(name)
        self.accelerator: Accelerator = accelerator
        self.account = Account()
        """What the last prediction read and left out."""

    @cached_property
    def pipeline(self) -> AnyPipeline:
        """The pipeline of the run's task."""
        return self.task.load()

    @cached_property
    def loaded(self) -> Loaded:
        """The model with its weights, and what surrounds it."""
        from .loaded import load_run

        return load_run(self.pipeline, str(self.directory.path), self.accelerator)

    def predict(
        self,
        items: Input | Sequence[Input],
        output: str | os.PathLike[str] | None = None,
        *,
        sample_rate: int | None = None,
        **options: object,
    ) -> pl.DataFrame:
        """Predictions, one polars table for all items, with columns file, item, status and error
        first.

        items: a file, folder or pattern as for `--input`; a table of polars or pandas; a picture
        (Y, X) or (Y, X, 3) of uint8; the samples (n,) of a recording; an item as the task's
        pipeline lists it; or a list of those. What is in memory is called "frame" or "array" in the
        table, in a list with its place in it. output: a file to write; without it the table is only
        returned, and pictures that the task writes next to its output are not kept. sample_rate:
        samples per second of recordings in memory. options: further options of the verb `predict`,
        such as `batch_size=8`.

        An item that fails is a row with status "error". What was read and left out is in
        `self.account`. Raises `InputError` for an input that holds nothing and for an unknown
        option.
        """
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder).resolve()
            chosen = self.predict_options(output=output or home / "predictions.parquet", **options)
            if output is not None and isinstance(items, str | os.PathLike):
                from ..inference.shards import predict

                chosen = replace(chosen, input=os.fspath(items))
                # Ray and another device than that of this object take a model of their own.
                other = chosen.engine == "ray" or chosen.accelerator != self.accelerator
                load = None if other else self._current
                return predict(self.pipeline, chosen, load=load).table()
            if output is not None:
                self._check_output(Path(output), chosen, items)
            inputs = MemoryInputs(home, sample_rate)
            try:
                with opened(chosen.accept) as self.account:
                    table = self._predicted(items, chosen, inputs)
            except InputError as error:
                raise inputs.reworded(error) from None
        if output is not None:
            self._write(table, Path(output))
        return table

    def _current(self) -> Loaded:
        """What is loaded; anew where the run was trained further, since the output says which model
        it is of."""
        if not self.loaded.is_current():
            del self.loaded
        return self.loaded

    def _check_output(
        self, output: Path, options: PredictOptions, items: Input | Sequence[Input]
    ) -> None:
        """Raise `InputError` for an output that cannot be written, before the work is done."""
        from ..inference.output import refuse_input_as_output, writer_of

        writer_of(output, self.pipeline.further_outputs())
        listed = items if isinstance(items, list | tuple) else []
        refuse_input_as_output(
            output, [item for item in listed if isinstance(item, str | os.PathLike)]
        )
        if output.exists() and not options.overwrite:
            raise InputError(f"{output}: already exists; choose another output or overwrite=True")

    def _write(self, table: pl.DataFrame, output: Path) -> None:
        """Write predictions in the format of the ending, without the stamp of a job."""
        from ..inference.output import writer_of

        writer = writer_of(output, self.pipeline.further_outputs())
        if writer is None:
            write_aside(output, table.write_parquet)
        else:
            write_aside(output, lambda path: writer(table.lazy(), path))

    def predict_options(self, **values: object) -> PredictOptions:
        """Options of the verb `predict` for this run, checked as those of the command line."""
        fixed = {"run": self.directory.path, "input": "items", "accelerator": self.accelerator}
        return cast(PredictOptions, parse(self.task, "predict", [], values={**fixed, **values}))

    def _predicted(
        self, items: Input | Sequence[Input], options: PredictOptions, inputs: MemoryInputs
    ) -> pl.DataFrame:
        import polars as pl

        from ..inference.predictor import Predictor

        plain = isinstance(items, str | os.PathLike | Mapping) or not isinstance(items, Iterable)
        single = plain or in_memory(items)
        groups = [cast(Input, items)] if single else list(cast(Sequence[Input], items))
        listed: list[Item] = []
        for place, group in enumerate(groups):
            listed += self._items(group, options, inputs, None if single else place)
        if not listed:
            raise InputError("predict: there are no items to predict for")
        predictor = Predictor(self.pipeline, options, self.loaded)
        size = options.shard_size
        rows = pl.concat(
            predictor(listed[start : start + size]) for start in range(0, len(listed), size)
        )
        return inputs.renamed(rows)

    def _items(
        self, item: Input, options: PredictOptions, inputs: MemoryInputs, place: int | None
    ) -> Iterator[Item]:
        """An item as it is, or those that a path or a value in memory holds."""
        if isinstance(item, Mapping) and isinstance(item.get("file"), str):
            yield cast("Item", item)
            return
        if in_memory(item):
            item = inputs.write(item, place)
        if not isinstance(item, str | os.PathLike):
            raise InputError(
                f"predict: a {type(item).__name__} is nothing to predict for; give paths, tables "
                "of polars or pandas, or arrays of numpy"
            )
        yield from self.pipeline.list_items(
            replace(options, input=os.fspath(item)), self.loaded.spec
        )

    def evaluate(
        self,
        data: str | os.PathLike[str] | pl.DataFrame | pd.DataFrame | None = None,
        part: Literal["auto", "train", "validation", "test", "all"] = "auto",
        **options: object,
    ) -> Metrics:
        """Score the run, on a part of its own data or on other data; also writes a report.

        data: other data with the same columns: a path, or a table of polars or pandas, which is
        kept in the run as frame.parquet; without it, the data that the run was trained on.
        part: the part to score; auto: the test part of the run's own data, all of other data.
        options: further ones of the verb `evaluate`, such as the folder of the pictures. Returns
        the metrics by name.
        """
        from ..training.jobs import evaluate

        if data is not None and not isinstance(data, str | os.PathLike):
            path = self.directory.path / "frame.parquet"
            write_frame(data, path)
            data = path
        fixed = {"run": self.directory.path, "accelerator": self.accelerator}
        values = {**options, **fixed, "data": data, "part": part}
        chosen = parse(self.task, "evaluate", [], values=values)
        return evaluate(self.pipeline, cast(EvaluateOptions, chosen), self.loaded)

    def export(self, output: str | os.PathLike[str], tolerance: float = 1e-5) -> str:
        """Write the model as one file that runs without Headwise; returns its path.

        output: a .pt2 file (torch.export) or an .onnx file. tolerance: the largest difference
        between exported and original outputs; more is an `InputError`.
        """
        from ..inference.export import export

        options = ExportOptions(
            run=str(self.directory.path), output=os.fspath(output), tolerance=tolerance
        )
        return export(self.pipeline, options)

    def serve(self, **options: object) -> None:
        """Answer requests with predictions, as `headwise serve` does, until it is stopped.

        options: those of the command, such as `port=8080`.
        """
        from ..command_line.parsing import parse_plain
        from ..serving.options import ServeOptions
        from ..serving.server import serve

        fixed = {"run": self.directory.path, "accelerator": self.accelerator}
        serve(parse_plain(ServeOptions, "serve", [], {**fixed, **options}))

    def _repr_html_(self) -> str:
        return run_html(self.directory)

    def __repr__(self) -> str:
        return f"<run of {self.task.name} in {self.directory.path}>"
