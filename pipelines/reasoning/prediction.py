"""Answers to the trials of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.special import softmax
from torch import nn

from ...base.account import note, part_of_account
from ...base.errors import InputError, fail
from ...data.formats.tables import list_files
from ...data.text_files import LinePart, line_encoding, line_parts, read_lines
from ...data.trials.files import ReadTrial, read_trials
from ...data.trials.words import answer_words, question_words
from ..engine.pipeline import Context, Item
from .data import SUFFIXES, ReasoningSpec, TrialPart
from .options import ReasoningPredictOptions
from .scoring import answers_in_words, logits_of

PART = 4096  # lines of an item
SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "id": pl.String(),
    "question": pl.String(),
    "prediction": pl.String(),
    "probability": pl.Float64(),
    "by_rule": pl.String(),
    "well_posed": pl.Boolean(),
}


class TrialItem(Item):
    """A part of a file: `rows` lines from `start` on. offset: the byte at which they begin."""

    start: int
    rows: int
    offset: int


def list_parts(source: str) -> list[TrialItem]:
    """The parts of the files that a path, a folder or a pattern names. Raises InputError where
    there is none.
    """
    items: list[TrialItem] = []
    files = list_files(source, SUFFIXES)
    for file in files:
        name = Path(file).name
        try:
            line_encoding(Path(file))
            parts = list(line_parts(Path(file), PART))
            if not parts:
                raise fail(file, "has no trials")
        except InputError:
            if len(files) == 1:
                raise
            # It fails again when it is read, as one item among the others.
            items.append(TrialItem(file=file, id=name, start=0, rows=0, offset=0))
            continue
        items += [
            TrialItem(
                file=file,
                id=name if len(parts) == 1 else f"{name}:{part.start}",
                start=part.start,
                rows=part.lines,
                offset=part.offset,
            )
            for part in parts
        ]
    return items


def read_part(item: TrialItem) -> tuple[list[ReadTrial], list[int]]:
    """The trials of an item, and the numbers of their lines. Raises InputError for an item that
    cannot be read.
    """
    path = Path(item["file"])
    encoding = line_encoding(path)
    lines = read_lines(path, LinePart(item["start"], item["rows"], item["offset"]), encoding)
    trials = read_trials(path, lines, item["start"])
    if not trials:
        raise fail(path, "has no trials")
    rows = [number for number, line in enumerate(lines, item["start"]) if line.strip()]
    return trials, rows


def predict_parts(
    model: nn.Module,
    items: Sequence[TrialItem],
    context: Context[ReasoningPredictOptions, ReasoningSpec],
) -> list[pl.DataFrame | ValueError]:
    """A table for each item, or the error that says why there is none."""
    answers: list[pl.DataFrame | ValueError] = []
    for item in items:
        with part_of_account():
            try:
                trials, rows = read_part(item)
            except InputError as error:
                answers.append(error)
                continue
            answers.append(answered(model, trials, rows, context))
            note("read", "trials", count=len(trials))
    return answers


def answered(
    model: nn.Module,
    trials: Sequence[ReadTrial],
    rows: Sequence[int],
    context: Context[ReasoningPredictOptions, ReasoningSpec],
) -> pl.DataFrame:
    """The rows of the output for some trials."""
    part = TrialPart(trials)
    with torch.inference_mode():
        size = context.options.batch_size
        logits = logits_of({"model": model}, part, context.device, size)["model"]
    probability = softmax(logits / float(context.calibration["temperature"]), axis=1)
    return pl.DataFrame(
        {
            "row": np.array(rows),
            "id": [entry.id for entry in trials],
            "question": [question_words(entry.trial.rule) for entry in trials],
            "prediction": answers_in_words(logits),
            "probability": probability.max(1),
            "by_rule": [answer_words(entry.by_rule) for entry in trials],
            "well_posed": [entry.well_posed for entry in trials],
        },
        schema=SCHEMA,
    )


def answer_lines(rows: pl.DataFrame) -> list[str]:
    """The answers to the first trials in words."""
    lines = [
        f"{row['id']}: {row['question']} {row['prediction']} ({row['probability']:.0%}; by the "
        f"rule {row['by_rule']})"
        for row in rows.head(10).iter_rows(named=True)
    ]
    if rows.height > len(lines):
        lines.append(f"… and {rows.height - len(lines):,} more trials")
    return lines
