"""Rows of predictions for items, one that fails among them or not."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ....base.errors import InputError, one_line
from ....base.files import storable
from ..options import PredictOptions
from ..pipeline import AnyPipeline, Item
from ..runs.loaded import Loaded, load_run
from ..runs.run_directory import MEMBERS
from .members import parts_column, read_members
from .output import unfinite

# Errors of the machine, which the next item would meet, too.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Predictor:
    """A finished run, ready for items: `predictor(items)` gives their rows with `status`, `error`
    and, where the task's parts are made of items, `part`.
    """

    def __init__(
        self, pipeline: AnyPipeline, options: PredictOptions, loaded: Loaded | None = None
    ) -> None:
        self.pipeline, self.options = pipeline, options
        self.loaded = loaded or load_run(pipeline, options.run, options.accelerator)
        self._members = read_members(self.loaded.run.path / MEMBERS)

    def __call__(self, items: Sequence[Item]) -> pl.DataFrame:
        """Rows of all items, in their order; an item that fails has one row that says why."""
        schema = dict(self.pipeline.prediction_schema(self.options, self.loaded.spec))
        empty = pl.DataFrame({name: [None] for name in schema}, schema=schema)
        parts = parts_column(self._members, [self.pipeline.member(item) for item in items])
        tables = []
        for item, part, answer in zip(items, parts, self._answers(items), strict=True):
            failed = isinstance(answer, Exception)
            head = {
                "file": storable(item["file"]),
                "item": storable(item.get("id") or Path(item["file"]).name),
                "part": part,
                "status": "error" if failed else "ok",
                "error": storable(one_line(answer)) if failed else None,
            }
            if "part" in schema:  # the task says it of each row
                del head["part"]
            columns = [pl.lit(text, dtype=pl.String).alias(name) for name, text in head.items()]
            rows = empty if failed else answer.select(list(schema))
            tables.append(rows.select(*columns, pl.all()))
        return pl.concat(tables)

    def _answers(self, items: Sequence[Item]) -> Sequence[pl.DataFrame | Exception]:
        try:
            answers = self._predict(items)
        except Exception as error:
            if _of_the_machine(error):
                raise
            # An item made the group fail: find out which one, and let the others through.
            answers = [self._answer_alone(item) for item in items]
        return [_finite(answer) for answer in answers]

    def _answer_alone(self, item: Item) -> pl.DataFrame | Exception:
        try:
            return self._predict([item])[0]
        except MemoryError:
            return InputError("takes more memory than there is")
        except Exception as error:
            if _of_the_machine(error):
                raise
            return error

    def _predict(self, items: Sequence[Item]) -> Sequence[pl.DataFrame | Exception]:
        loaded = self.loaded
        return self.pipeline.predict(loaded.model, items, loaded.context(self.options))


def _of_the_machine(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def _finite(answer: pl.DataFrame | Exception) -> pl.DataFrame | Exception:
    """The rows, or an error where the model gave no number: such a row would read as an answer."""
    if isinstance(answer, Exception) or not (columns := unfinite(answer)):
        return answer
    return InputError(f"the model gives no finite number ({', '.join(columns[:5])})")
