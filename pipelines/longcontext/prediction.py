"""Prompts of a table, of files or of standard input, and the rows of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired

import polars as pl
import torch

from ...base.account import note, part_of_account
from ...base.errors import InputError, fail
from ...base.files import walk_folder
from ...data.formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table
from ...data.json_lines import are_json_lines, rows_of_json_lines
from ...data.prompts.table import Prompt, PromptReading, prompt_columns, prompts_of_rows, text_names
from ...data.text_files import (
    LinePart,
    is_text_file,
    line_encoding,
    line_parts,
    read_lines,
    read_text_file,
    refuse_long_text,
)
from ...models.language.answers import end_tokens, padding_token
from ...models.language.running.attach import attach
from ..engine.inference.standard_input import STDIN, aside_of, set_aside
from ..engine.pipeline import Context, Item, Schema
from .caches import open_cache
from .coding import Coder
from .data import base_of, reading_of
from .generation import Writing, Written, full_bytes, write_alone, write_batch
from .options import LongContextPredictOptions
from .planned import PlannedModel
from .spec import LongContextSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...models.language.running.attach import Attached

TABLE, LINE, JSON_LINE, FILE = "table", "line", "json line", "file"
SCHEMA: Schema = {
    "row": pl.Int64(),
    "id": pl.String(),
    "answer": pl.String(),
    "answer2": pl.String(),
    "tokens": pl.Int64(),
    "new_tokens": pl.Int64(),
    "kept": pl.Float64(),
    "bytes": pl.Int64(),
}


class PromptItem(Item):
    """A prompt: a row of a table, a line, or a file.

    row: its number in the file, from 0; offset: the byte at which a line begins; digest: of
    standard input, which has no file to be known by.
    """

    row: int
    kind: str
    offset: NotRequired[int]
    encoding: NotRequired[str]
    digest: NotRequired[str]


def list_prompts(options: LongContextPredictOptions, spec: LongContextSpec) -> list[PromptItem]:
    """The prompts of a path, folder or pattern, or of standard input."""
    reading = reading_of(options.columns, spec.columns, prompts_only=True)
    items = _listed(options, reading)
    if options.cache is not None:
        for item in items:
            item["further_files"] = [options.cache]
    return items


def _listed(options: LongContextPredictOptions, reading: PromptReading) -> list[PromptItem]:
    if options.input == STDIN:
        return _of_standard_input(options)
    source = Path(options.input)
    if source.is_dir() and (names := text_names(source)):
        walk_folder(source, [".txt"], deep=True)  # what is left out goes into the account
        return [PromptItem(file=str(source / name), id=name, row=0, kind=FILE) for name in names]
    items: list[PromptItem] = []
    files = list_files(options.input, TABLE_SUFFIXES)
    for file in files:
        name = Path(file).name
        if is_text_file(file):
            items.append(PromptItem(file=file, id=name, row=0, kind=FILE))
            continue
        try:
            frame, names = scan_table(file)
            count = int(collect(file, frame.select(pl.len())).item())
            with part_of_account():
                prompt_columns(file, collect(file, frame.head(options.shard_size)), names, reading)
        except InputError:
            if len(files) == 1:
                raise
            # It fails again when it is read, as one item among the others.
            items.append(PromptItem(file=file, id=name, row=0, kind=TABLE))
            continue
        items += [
            PromptItem(file=file, id=f"{name}:{row}", row=row, kind=TABLE) for row in range(count)
        ]
    return items


def _of_standard_input(options: LongContextPredictOptions) -> list[PromptItem]:
    digest = set_aside(options.output)
    path = aside_of(options.output, digest)
    try:
        encoding = line_encoding(path)
        parts = list(line_parts(path, 1))
        of_json = are_json_lines(
            [line for part in parts for line in read_lines(path, part, encoding)]
        )
    except InputError as error:
        path.unlink(missing_ok=True)
        raise InputError(str(error).replace(str(path), "--input -")) from None
    if Path(options.output).exists() and not options.overwrite:
        path.unlink(missing_ok=True)  # it is done, or refused
    return [
        PromptItem(
            file=STDIN,
            id=f"{STDIN}:{part.start}",
            row=part.start,
            kind=JSON_LINE if of_json else LINE,
            offset=part.offset,
            encoding=encoding,
            digest=digest,
        )
        for part in parts
    ]


def predict_prompts(
    model: PlannedModel,
    items: Sequence[PromptItem],
    context: Context[LongContextPredictOptions, LongContextSpec],
) -> list[pl.DataFrame | ValueError]:
    """A row for each prompt, or the error that says why there is none."""
    options, spec = context.options, context.spec
    coder = Coder(base_of(spec).tokenizer)
    prompts = _read(items, options, spec)
    coded: dict[int, tuple[int, ...]] = {}
    answers: dict[int, pl.DataFrame | ValueError] = {}
    for place, prompt in enumerate(prompts):
        if isinstance(prompt, ValueError):
            answers[place] = prompt
            continue
        code = coder.code if options.cache is None else coder.code_on
        coded[place] = code(prompt.text)
        if problem := _problem(prompt, coded[place], options, model):
            answers[place] = InputError(problem)
            del coded[place]
    beyond = options.beyond_positions
    with torch.no_grad(), attach(model.base, model.plan, beyond=beyond) as attached:
        written = _written(model.base, attached, coder, prompts, coded, items, options)
    for place, answer in written.items():
        prompt = prompts[place]
        assert isinstance(prompt, Prompt)
        answers[place] = _row(items[place], prompt, len(coded[place]), answer, model)
        note("read", "prompts", count=len(written))
    return [answers[place] for place in range(len(items))]


def _problem(
    prompt: Prompt, tokens: Sequence[int], options: LongContextPredictOptions, model: PlannedModel
) -> str | None:
    """Why a prompt cannot be answered; None if it can."""
    if not prompt.text.strip() or not tokens:
        return "the prompt is empty"
    needed, positions = len(tokens) + options.max_new_tokens, model.facts.positions
    if needed > positions and not options.beyond_positions:
        return (
            f"{len(tokens):,} tokens and {options.max_new_tokens} of the answer are more than the "
            f"{positions:,} positions of the model; --beyond-positions goes on all the same"
        )
    return None


def _written(
    model: PreTrainedModel,
    attached: Attached,
    coder: Coder,
    prompts: Sequence[Prompt | ValueError],
    coded: Mapping[int, tuple[int, ...]],
    items: Sequence[PromptItem],
    options: LongContextPredictOptions,
) -> dict[int, Written]:
    """Answers by place: in batches of prompts of about the same length, alone where tokens are
    drawn, a second question follows, or a stored cache is asked.
    """
    ends = end_tokens(model, coder.tokenizer)
    writing = Writing(
        options.max_new_tokens,
        options.sample,
        options.temperature,
        options.seed,
        ends,
        padding_token(coder.tokenizer, ends),
    )
    cache = None
    if options.cache is not None:
        cache = open_cache(options.cache, attached)
    written: dict[int, Written] = {}
    batched: list[int] = []
    for place, tokens in coded.items():
        prompt = prompts[place]
        assert isinstance(prompt, Prompt)
        if cache is None and not options.sample and not prompt.question2.strip():
            batched.append(place)
            continue
        written[place] = write_alone(
            model,
            attached,
            coder,
            tokens,
            prompt.question2,
            writing,
            number=items[place]["row"],
            cache=cache,
        )
    batched.sort(key=lambda place: len(coded[place]))
    for start in range(0, len(batched), options.batch_size):
        places = batched[start : start + options.batch_size]
        rows = write_batch(model, attached, coder, [coded[place] for place in places], writing)
        written.update(zip(places, rows, strict=True))
    return written


def _row(
    item: PromptItem, prompt: Prompt, tokens: int, written: Written, model: PlannedModel
) -> pl.DataFrame:
    number = next(model.base.parameters())
    full = full_bytes(model.facts, written.length, number.element_size())
    kept = model.plan.kept(written.length)
    named = prompt.id if item["kind"] != FILE else item.get("id", "")
    return pl.DataFrame(
        {
            "row": [item["row"]],
            "id": [named],
            "answer": [written.first],
            "answer2": [written.second],
            "tokens": [tokens],
            "new_tokens": [written.tokens],
            "kept": [kept],
            "bytes": [round(kept * full)],
        },
        schema=SCHEMA,
    )


def _read(
    items: Sequence[PromptItem], options: LongContextPredictOptions, spec: LongContextSpec
) -> list[Prompt | ValueError]:
    """The prompt of each item, or why it cannot be read; rows of a table are read together."""
    prompts: dict[int, Prompt | ValueError] = {}
    reading = reading_of(options.columns, spec.columns, prompts_only=True)
    by_file: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        if item["kind"] == TABLE:
            by_file.setdefault(item["file"], []).append(place)
            continue
        try:
            with part_of_account():
                prompts[place] = _read_alone(item, options, reading)
        except ValueError as error:
            prompts[place] = error
    for file, places in by_file.items():
        try:
            with part_of_account():
                rows = _read_rows(file, [items[place]["row"] for place in places], reading)
        except ValueError as error:
            rows = [error] * len(places)
        prompts.update(zip(places, rows, strict=True))
    return [prompts[place] for place in range(len(items))]


def _read_rows(
    file: str, rows: Sequence[int], reading: PromptReading
) -> Sequence[Prompt | ValueError]:
    scanned, names = scan_table(file)
    first, last = min(rows), max(rows)
    frame = collect(file, scanned.slice(first, last - first + 1))
    table = prompts_of_rows(file, frame, names, reading, first)
    return [table.prompts[row - first] for row in rows]


def _read_alone(
    item: PromptItem, options: LongContextPredictOptions, reading: PromptReading
) -> Prompt:
    file, row = item["file"], item["row"]
    if item["kind"] == FILE:
        text = read_text_file(file)
        refuse_long_text(file, text)
        return Prompt(text)
    path = Path(file) if "digest" not in item else aside_of(options.output, item["digest"])
    part = LinePart(row, 1, item.get("offset", 0))
    (line,) = read_lines(path, part, item.get("encoding", "utf-8"))
    if item["kind"] == LINE:
        return Prompt(line, id=str(row))
    frame = rows_of_json_lines(file, [line], row)
    if not frame.width:
        raise fail(f"{file}, line {row + 1}", "the prompt is empty")
    return prompts_of_rows(file, frame, frame.columns, reading, row).prompts[0]


def answer_lines(rows: pl.DataFrame) -> list[str]:
    """The answers to the first prompts."""
    lines = []
    for row in rows.head(10).iter_rows(named=True):
        second = "" if row["answer2"] is None else f" / {row['answer2'].strip()}"
        answer = " ".join(f"{(row['answer'] or '').strip()}{second}".split())
        lines.append(f"{row['id']}: {answer[:200]}")
    if rows.height > len(lines):
        lines.append(f"… and {rows.height - len(lines):,} more prompts")
    return lines
