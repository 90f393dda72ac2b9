"""New texts to labels: parts of files, coded as those of the training.

Shapes: n texts of a part, L outputs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NotRequired

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.account import note
from ...base.errors import InputError, fail, reason
from ...base.files import walk_folder
from ...data.formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table
from ...data.texts.table import TextTable, is_text_file, read_text_file, table_of_rows, with_rows
from ..engine.pipeline import Context, Item
from .coding import TextCoder, inputs_of, load_coder
from .data import reading_of_run
from .options import TextPredictOptions
from .probabilities import ancestors, tell
from .spec import TextSpec

PART = 1024  # texts of an item
STDIN = "-"
LINES_CAP = 4 << 30  # bytes of standard input that are set aside


class TextItem(Item):
    """A part of a file: `rows` texts from `start` on, or a file that is one text; lines: whether
    each line of it is one.
    """

    start: int
    rows: int
    lines: NotRequired[bool]
    is_file: NotRequired[bool]


def list_parts(options: TextPredictOptions) -> list[TextItem]:
    """The parts of the files that a path, folder or pattern names, or of standard input."""
    if options.input == STDIN:
        return _parts_of_lines(_standard_input(options.output), "stdin")
    source = Path(options.input)
    if source.is_dir():
        files = walk_folder(source, [".txt"], deep=True, noted=False)
        if files:
            return [
                TextItem(file=str(source / name), id=name, start=0, rows=1, is_file=True)
                for name in files
            ]
    items: list[TextItem] = []
    files = list_files(options.input, TABLE_SUFFIXES)
    for file in files:
        try:
            items += _parts_of_file(file)
        except InputError:
            if len(files) == 1:
                raise
            # It fails again when it is read, as one item among the others.
            items.append(TextItem(file=file, id=Path(file).name, start=0, rows=0))
    return items


def _parts_of_file(file: str) -> list[TextItem]:
    """The parts of a table, or of a file with a text on each line."""
    if is_text_file(file):
        return _parts_of_lines(Path(file), Path(file).name)
    frame, _ = scan_table(file)
    count = int(collect(file, frame.select(pl.len())).item())
    return [
        TextItem(
            file=file, id=f"{Path(file).name}:{start}", start=start, rows=min(PART, count - start)
        )
        for start in range(0, max(count, 1), PART)
    ]


def schema(options: TextPredictOptions, spec: TextSpec) -> dict[str, pl.DataType]:
    """Columns of the output."""
    columns: dict[str, pl.DataType] = {"row": pl.Int64(), "id": pl.String()}
    if spec.goal == "number":
        return {**columns, "prediction": pl.Float64(), "low": pl.Float64(), "high": pl.Float64()}
    texts, chances = pl.List(pl.String()), pl.List(pl.Float32())
    if spec.goal == "class":
        columns["prediction"] = pl.String()
        columns["probability"] = pl.Float32()
    else:
        columns["labels"] = texts
        if spec.levels:
            columns["above"] = texts
    columns |= {"top": texts, "top_probability": chances, "possible": texts}
    columns["known_words"] = pl.Float32()
    if options.all_labels:
        columns |= {f"p_{name}": pl.Float32() for name in spec.labels}
    return columns


def predict_parts(
    model: nn.Module, items: Sequence[TextItem], context: Context[TextPredictOptions, TextSpec]
) -> list[pl.DataFrame | ValueError]:
    """A table for each part, or the error that says why there is none."""
    spec, options = context.spec, context.options
    coder = coder_of(spec)
    answers: list[pl.DataFrame | ValueError] = []
    for item in items:
        try:
            table = read_part(item, options, spec)
            rows = _told(model, table, coder, context)
            start = item["start"]
            numbered = {"row": np.arange(start, start + len(table)), "id": table.ids}
            answers.append(pl.DataFrame({**numbered, **rows}, schema=schema(options, spec)))
            note("read", "texts", count=len(table))
        except ValueError as error:
            answers.append(error)
    return answers


def coder_of(spec: TextSpec) -> TextCoder:
    """The coder of a run; a worker keeps it from part to part."""
    return _coder(json.dumps(spec.to_json()), str(spec.assets_folder))


@lru_cache(maxsize=2)
def _coder(spec: str, assets_folder: str) -> TextCoder:
    opened = TextSpec.from_json(json.loads(spec))
    return load_coder(opened.with_assets(opened.assets, Path(assets_folder)))


def read_part(item: TextItem, options: TextPredictOptions, spec: TextSpec) -> TextTable:
    """The texts of an item. Raises InputError for a part that cannot be read."""
    file, start = item["file"], item["start"]
    reading = reading_of_run(spec, options.columns, need_label=False)
    if item.get("is_file"):
        texts = [read_text_file(file)]
        return plain_table(texts, [item.get("id", file)])
    if item.get("lines"):
        texts = list(_lines(Path(file), start, item["rows"]))
        if texts and texts[0].lstrip().startswith("{"):
            frame = _of_json_lines(file, texts)
            return table_of_rows(file, frame, frame.columns, reading)
        return plain_table(texts, [str(start + k) for k in range(len(texts))])
    frame, names = scan_table(file)
    return table_of_rows(file, collect(file, frame.slice(start, item["rows"])), names, reading)


def answer_lines(rows: pl.DataFrame, spec: TextSpec) -> list[str]:
    """The answers for the first texts in words."""
    lines = []
    for row in rows.head(10).iter_rows(named=True):
        name = row["id"] or f"row {row['row']}"
        if spec.goal == "number":
            span = f" ({row['low']:.4g} to {row['high']:.4g})" if row["low"] is not None else ""
            lines.append(f"{name}: {row['prediction']:.4g}{span}")
            continue
        chances = ", ".join(
            f"{label} {chance:.0%}"
            for label, chance in zip(row["top"], row["top_probability"], strict=True)
        )
        given = row["prediction"] if spec.goal == "class" else ", ".join(row["labels"])
        lines.append(f"{name}: {given or 'no label'} ({chances})")
    if rows.height > len(lines):
        lines.append(f"… and {rows.height - len(lines):,} more texts")
    return lines


def _told(
    model: nn.Module,
    table: TextTable,
    coder: TextCoder,
    context: Context[TextPredictOptions, TextSpec],
) -> dict[str, object]:
    """Columns of the output for some texts."""
    spec, options = context.spec, context.options
    logits, known = text_logits(model, table, coder, context.device, options.batch_size)
    if spec.goal == "number":
        value = logits[:, 0] * spec.deviation + spec.mean
        half = float(context.calibration["width"]) * spec.deviation
        finite = np.isfinite(half)
        ends = (value - half, value + half) if finite else ([None] * len(value),) * 2
        return {"prediction": value, "low": ends[0], "high": ends[1]}
    told = tell(logits, context.calibration, spec)
    names = np.array(spec.labels, dtype=object)
    order = np.argsort(-told.probability, axis=1, kind="stable")[:, : options.top]
    chances = np.take_along_axis(told.probability, order, 1)
    labels = told.labels
    if options.abstain is not None:
        labels = labels & (told.probability.max(1) >= options.abstain)[:, None]
    rows: dict[str, object] = {}
    if spec.goal == "class":
        given = [names[k] for k in told.probability.argmax(1)]
        rows["prediction"] = [
            n if row.any() else None for n, row in zip(given, labels, strict=True)
        ]
        rows["probability"] = told.probability.max(1).astype(np.float32)
    else:
        rows["labels"] = _named(names, labels, told.probability)
        if spec.levels:
            above, chance, given_above = ancestors(spec, told.probability, labels)
            rows["above"] = _named(np.array(above, dtype=object), given_above, chance)
    rows["top"] = names[order].tolist()
    rows["top_probability"] = chances.astype(np.float32).tolist()
    rows["possible"] = _named(names, told.possible, told.probability)
    rows["known_words"] = known
    if options.all_labels:
        for k, name in enumerate(spec.labels):
            rows[f"p_{name}"] = told.probability[:, k].astype(np.float32)
    return rows


@torch.inference_mode()
def text_logits(
    model: nn.Module, table: TextTable, coder: TextCoder, device: torch.device, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """float64 logits (n, L) of texts, and the share (n,) of their terms that the model knows."""
    parts, known = [np.zeros((0, coder.spec.outputs))], [np.zeros(0, np.float32)]
    for start in range(0, len(table), batch_size):
        rows = np.arange(start, min(start + batch_size, len(table)))
        coded = coder.code(with_rows(table, rows))
        batch = coded.inputs(np.arange(len(rows)), coder.padding)
        logits = model(*(value.to(device) for value in inputs_of(batch)))
        parts.append(logits.double().cpu().numpy())
        known.append(coder.known_share([table.texts[row] for row in rows.tolist()]))
    return np.concatenate(parts), np.concatenate(known)


def _named(names: np.ndarray, chosen: np.ndarray, chance: np.ndarray) -> list[list[str]]:
    """Names of the chosen labels of each text, the most probable first."""
    order = np.argsort(-chance, axis=1, kind="stable")
    return [
        [str(names[k]) for k in places if row[k]]
        for places, row in zip(order.tolist(), chosen, strict=True)
    ]


def plain_table(texts: list[str], ids: list[str]) -> TextTable:
    """Texts with nothing beside them."""
    empty = [""] * len(texts)
    return TextTable(texts, ids, empty, empty, empty, empty, None, pl.DataFrame(), {})


def _standard_input(output: str) -> Path:
    """Standard input in a file beside the output, since parts of it may be read again."""
    path = Path(f"{output}.stdin.txt")
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        if os.path.getsize(path) > LINES_CAP:
            raise InputError(f"--input -: more than {LINES_CAP >> 30} GiB; give a file")
    except OSError as error:
        raise fail(path, f"cannot be written ({reason(error)})") from error
    if not os.path.getsize(path):
        raise InputError("--input -: standard input is empty; give a text on each line")
    return path


def _parts_of_lines(path: Path, name: str) -> list[TextItem]:
    """Parts of a file with a text on each line."""
    count = sum(1 for _ in _lines(path, 0, None))
    if not count:
        raise fail(path, "has no lines of text")
    note("assumed", "each line is a text", [name])
    return [
        TextItem(
            file=str(path), id=f"{name}:{start}", start=start, rows=min(PART, count - start),
            lines=True,
        )
        for start in range(0, count, PART)
    ]  # fmt: skip


def _lines(path: Path, start: int, rows: int | None) -> Iterator[str]:
    """Lines of a file, empty ones as well."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline=None) as file:
            for number, line in enumerate(file):
                if rows is not None and number >= start + rows:
                    return
                if number >= start:
                    yield line.rstrip("\n")
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error


def _of_json_lines(file: str, lines: Sequence[str]) -> pl.DataFrame:
    try:
        return pl.read_ndjson("\n".join(lines).encode(), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise fail(file, f"its lines are no JSON ({reason(error)})") from error
