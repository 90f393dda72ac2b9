"""New texts to labels: parts of files, coded as those of the training.

Shapes: n texts of a part, L outputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NotRequired

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.account import note, part_of_account
from ...base.errors import InputError, fail
from ...base.files import file_stamp, walk_folder
from ...data.formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table
from ...data.json_lines import are_json_lines, rows_of_json_lines
from ...data.text_files import (
    LinePart,
    is_text_file,
    line_encoding,
    line_parts,
    read_lines,
    read_text_file,
    refuse_long_text,
)
from ...data.texts.table import TextTable, table_of_rows
from ..engine.inference.standard_input import STDIN, aside_of, set_aside
from ..engine.pipeline import Context, Item
from .coding import TextCoder, inputs_of, load_coder
from .data import reading_of_run
from .options import TextPredictOptions
from .parts import parts_of_texts
from .probabilities import ancestors, tell
from .spec import KNOWLEDGE, TERMS, TOKENIZER, TextSpec

PART = 1024  # texts of an item
TABLE, LINES, JSON_LINES, FILE = "table", "lines", "json lines", "file"


class TextItem(Item):
    """A part of a file: `rows` texts from `start` on, or a file that is one text.

    kind: TABLE, LINES (each is a text), JSON_LINES (each is a row), or FILE, a text; offset: the
    byte at which lines begin; digest: of standard input, which has no file to be known by.
    """

    start: int
    rows: int
    kind: str
    offset: NotRequired[int]
    encoding: NotRequired[str]
    digest: NotRequired[str]


def list_parts(options: TextPredictOptions, spec: TextSpec) -> list[TextItem]:
    """The parts of the files that a path, folder or pattern names, or of standard input. Raises
    InputError for options that say nothing of the run.
    """
    reading_of_run(spec, options.columns, need_label=False)  # refuses what no part can be read with
    if spec.goal == "number":
        for name in ("abstain", "all_labels"):
            if getattr(options, name):
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag}: the run predicts a number, not labels")
    if options.input == STDIN:
        return _parts_of_standard_input(options)
    source = Path(options.input)
    if source.is_dir() and (names := walk_folder(source, [".txt"], deep=True, noted=False)):
        walk_folder(source, [".txt"], deep=True)  # what is left out goes into the account
        return [
            TextItem(file=str(source / name), id=name, start=0, rows=1, kind=FILE) for name in names
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
            items.append(TextItem(file=file, id=Path(file).name, start=0, rows=0, kind=TABLE))
    return items


def _parts_of_standard_input(options: TextPredictOptions) -> list[TextItem]:
    digest = set_aside(options.output)
    path = aside_of(options.output, digest)
    try:
        items = _parts_of_lines(path, STDIN)
    except InputError as error:
        path.unlink(missing_ok=True)
        raise InputError(str(error).replace(str(path), "--input -")) from None
    if Path(options.output).exists() and not options.overwrite:
        path.unlink(missing_ok=True)  # it is done, or refused
    return [TextItem(**{**item, "file": STDIN, "digest": digest}) for item in items]


def _parts_of_file(file: str) -> list[TextItem]:
    """The parts of a table, or of a file with a text on each line."""
    if is_text_file(file):
        return _parts_of_lines(Path(file), Path(file).name)
    frame, _ = scan_table(file)
    count = int(collect(file, frame.select(pl.len())).item())
    return [
        TextItem(
            file=file,
            id=f"{Path(file).name}:{start}",
            start=start,
            rows=min(PART, count - start),
            kind=TABLE,
        )
        for start in range(0, max(count, 1), PART)
    ]


def _parts_of_lines(path: Path, name: str) -> list[TextItem]:
    """Parts of a file with a text, or a row as JSON, on each line."""
    encoding = line_encoding(path)
    parts = list(line_parts(path, PART))
    if not parts:
        raise fail(path, "has no lines of text")
    of_json = are_json_lines(read_lines(path, parts[0], encoding))
    kind = "a row as JSON" if of_json else "a text"
    note("assumed", f"files with {kind} on each line", [name])
    return [
        TextItem(
            file=str(path),
            id=f"{name}:{part.start}",
            start=part.start,
            rows=part.lines,
            kind=JSON_LINES if of_json else LINES,
            offset=part.offset,
            encoding=encoding,
        )
        for part in parts
    ]


def schema(options: TextPredictOptions, spec: TextSpec) -> dict[str, pl.DataType]:
    """Columns of the output."""
    columns: dict[str, pl.DataType] = {"row": pl.Int64(), "id": pl.String(), "part": pl.String()}
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
        with part_of_account():
            try:
                table = read_part(item, options, spec)
                rows = _told(model, table, coder, context)
            except ValueError as error:
                answers.append(error)
                continue
            numbered = {
                "row": np.arange(len(table)) + item["start"],
                "id": table.ids,
                "part": parts_of_texts(table.texts, spec.assets_folder),
            }
            answers.append(pl.DataFrame({**numbered, **rows}, schema=schema(options, spec)))
            note("read", "texts", count=len(table))
    return answers


def coder_of(spec: TextSpec) -> TextCoder:
    """The coder of a run; a worker keeps it from part to part."""
    assert spec.assets_folder is not None
    stamps = [file_stamp(spec.assets_folder / name) for name in (TERMS, TOKENIZER, KNOWLEDGE)]
    return _coder(json.dumps(spec.to_json()), str(spec.assets_folder), str(stamps))


@lru_cache(maxsize=2)
def _coder(spec: str, assets_folder: str, _changed: str) -> TextCoder:
    opened = TextSpec.from_json(json.loads(spec))
    return load_coder(opened.with_assets(opened.assets, Path(assets_folder)))


def read_part(item: TextItem, options: TextPredictOptions, spec: TextSpec) -> TextTable:
    """The texts of an item. Raises InputError for a part that cannot be read."""
    file, start, kind = item["file"], item["start"], item["kind"]
    reading = reading_of_run(spec, options.columns, need_label=False)
    if kind == FILE:
        text = read_text_file(file)
        refuse_long_text(file, text)
        return plain_table([text], [item.get("id", file)])
    if kind in (LINES, JSON_LINES):
        of_stdin = item.get("digest")
        path = Path(file) if of_stdin is None else aside_of(options.output, of_stdin)
        part = LinePart(start, item["rows"], item.get("offset", 0))
        lines = read_lines(path, part, item.get("encoding", "utf-8"))
        if kind == LINES:
            return plain_table(lines, _numbers_of(start, len(lines)))
        frame = rows_of_json_lines(file, lines, start)
        names = frame.columns
    else:
        scanned, names = scan_table(file)
        frame = collect(file, scanned.slice(start, item["rows"]))
    table = table_of_rows(file, frame, names, reading, start)
    if "id" not in table.columns:
        table = replace(table, ids=_numbers_of(start, len(table)))
    return table


def _numbers_of(start: int, count: int) -> list[str]:
    """What rows are called that have no name: their numbers, from 0."""
    return [str(start + k) for k in range(count)]


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
        answer = row["prediction"] if spec.goal == "class" else ", ".join(row["labels"])
        lines.append(f"{name}: {answer or 'no label'} ({chances})")
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
        best = [names[k] for k in told.probability.argmax(1)]
        rows["prediction"] = [n if row.any() else None for n, row in zip(best, labels, strict=True)]
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
    """float64 logits (n, L) of texts, and the share (n,) of their words that the model knows."""
    coded = coder.code(table)
    parts = [np.zeros((0, coder.spec.outputs))]
    for start in range(0, len(table), batch_size):
        rows = range(start, min(start + batch_size, len(table)))
        batch = coded.inputs(rows, coder.padding)
        logits = model(*(value.to(device) for value in inputs_of(batch)))
        parts.append(logits.double().cpu().numpy())
    return np.concatenate(parts), coder.known_share(table.texts)


def _named(names: np.ndarray, chosen: np.ndarray, chance: np.ndarray) -> list[list[str]]:
    """Names of the chosen labels of each text, the most probable first."""
    order = np.argsort(-chance, axis=1, kind="stable")
    return [
        [str(names[k]) for k in places if row[k]]
        for places, row in zip(order.tolist(), chosen, strict=True)
    ]


def plain_table(texts: list[str], ids: list[str]) -> TextTable:
    """Texts with nothing beside them."""
    if empty := sum(not text.strip() for text in texts):
        note("values", "empty texts", count=empty)
    blank = [""] * len(texts)
    return TextTable(texts, ids, blank, blank, blank, blank, None, pl.DataFrame(), {})
