"""A finished run from Python: `headwise.open("runs/x")`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from ....base.errors import InputError
from ....base.files import write_aside
from ... import TASKS, load_task
from ..command_line.parsing import parse
from ..options import EvaluateOptions, ExportOptions, PredictOptions
from ..task import Task
from .run_directory import RunDirectory

if TYPE_CHECKING:
    import polars as pl

    from ..pipeline import AnyPipeline, Item, Metrics
    from .loaded import Loaded

Accelerator: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
ItemOrPath: TypeAlias = "str | os.PathLike[str] | Item"


class Run:
    """A finished run of any task, opened to be used; its model is loaded on first use.

    >>> run = headwise.open("runs/reid-20260801-120000")  # doctest: +SKIP
    >>> run.predict("new_pictures/")                      # doctest: +SKIP
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
        items: ItemOrPath | Sequence[ItemOrPath],
        output: str | os.PathLike[str] | None = None,
        **options: object,
    ) -> pl.DataFrame:
        """Predictions, one table for all items, with columns file, item, status and error first.

        items: a file, folder or pattern as for `--input`; or a list of those; or items as the
        task's pipeline lists them. output: a parquet file to write; without it the table is only
        returned, and pictures that the task writes next to its output are not kept. options:
        further options of the verb `predict`, such as `batch_size=8`.

        An item that fails is a row with status "error". Raises `InputError` for an input that holds
        nothing and for an unknown option.
        """
        with tempfile.TemporaryDirectory() as folder:
            chosen = self._predict_options(
                output=output or Path(folder) / "predictions.parquet", **options
            )
            if output is not None and isinstance(items, str | os.PathLike):
                from ..inference.shards import predict

                return predict(self.pipeline, replace(chosen, input=os.fspath(items))).table()
            table = self._predicted(items, chosen)
        if output is not None:
            write_aside(Path(output), table.write_parquet)
        return table

    def _predict_options(self, **values: object) -> PredictOptions:
        fixed = {"run": self.directory.path, "input": "items", "accelerator": self.accelerator}
        return cast(PredictOptions, parse(self.task, "predict", [], values={**fixed, **values}))

    def _predicted(
        self, items: ItemOrPath | Sequence[ItemOrPath], options: PredictOptions
    ) -> pl.DataFrame:
        import polars as pl

        from ..inference.predictor import Predictor

        if isinstance(items, str | os.PathLike | Mapping):
            items = [cast(ItemOrPath, items)]
        listed = [item for path in items for item in self._items(path, options)]
        if not listed:
            raise InputError("predict: there are no items to predict for")
        predictor = Predictor(self.pipeline, options, self.loaded)
        size = options.shard_size
        return pl.concat(
            predictor(listed[start : start + size]) for start in range(0, len(listed), size)
        )

    def _items(self, item: ItemOrPath, options: PredictOptions) -> Iterator[Item]:
        """An item as it is, or those that a path holds."""
        if isinstance(item, str | os.PathLike):
            chosen = replace(options, input=os.fspath(item))
            yield from self.pipeline.list_items(chosen, self.loaded.spec)
        else:
            yield item

    def evaluate(
        self,
        data: str | os.PathLike[str] | None = None,
        part: Literal["auto", "train", "validation", "test", "all"] = "auto",
    ) -> Metrics:
        """Score the run, on a part of its own data or on other data; also writes a report.

        data: other data with the same columns; without it, the data that the run was trained on.
        part: the part to score; auto: the test part of the run's own data, all of other data.
        Returns the metrics by name.
        """
        from ..training.jobs import evaluate

        path = None if data is None else os.fspath(data)
        options = EvaluateOptions(
            run=str(self.directory.path), data=path, part=part, accelerator=self.accelerator
        )
        return evaluate(self.pipeline, options)

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

    def __repr__(self) -> str:
        return f"<run of {self.task.name} in {self.directory.path}>"
