"""Items read one by one and predicted in batches, for pipelines whose items all have one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import polars as pl

from ....base.errors import InputError
from ..command_line.terminal import advance

ItemT = TypeVar("ItemT")
InputsT = TypeVar("InputsT")
Answer = pl.DataFrame | ValueError


def predict_in_batches(
    items: Sequence[ItemT],
    read: Callable[[ItemT], InputsT],
    predict: Callable[[Sequence[ItemT], Sequence[InputsT]], Sequence[Answer]],
    batch_size: int,
) -> list[Answer]:
    """Rows for each item, in the order of the items.

    read: what the model needs of an item. Its `InputError` is the answer for that item, and the
    others go on. predict: the rows of each item of a batch, of up to `batch_size` items that could
    be read; at most one batch is in memory.
    """
    answers: list[Answer] = [InputError("not predicted")] * len(items)
    batch: dict[int, InputsT] = {}

    def finish_batch() -> None:
        if batch:
            tables = predict([items[place] for place in batch], list(batch.values()))
            for place, table in zip(batch, tables, strict=True):
                answers[place] = table
            advance(len(batch))
            batch.clear()

    for place, item in enumerate(items):
        try:
            batch[place] = read(item)
        except InputError as error:
            answers[place] = error
            advance()
        if len(batch) == batch_size:
            finish_batch()
    finish_batch()
    return answers
