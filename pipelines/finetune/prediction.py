"""Answers to new prompts: rows of tables, or lines of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl
from torch import nn

from ...base.account import note, part_of_account
from ...base.errors import InputError
from ...base.files import file_stamp
from ...data.formats.tables import TABLE_SUFFIXES, list_files
from ...data.prompts.dialogues import Dialogue, Message, read_dialogue_table
from ...data.text_files import LinePart, is_text_file, line_encoding, line_parts, read_lines
from ...models.language.tuning.answering import Answer, answer_prompts
from ...models.language.tuning.tuned import LanguageModel
from ..engine.pipeline import Context, Item
from .coding import DialogueCoder
from .data import coder_of, reading_of_run
from .options import FinetunePredictOptions
from .spec import TuneSpec

SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "id": pl.String(),
    "prompt": pl.String(),
    "answer": pl.String(),
    "expected": pl.String(),
    "tokens": pl.Int32(),
    "finished": pl.Boolean(),
    "log_probability": pl.Float32(),
}
UNREAD = -1  # row of a file that cannot be read


class PromptItem(Item):
    """A prompt: a row of a file, from 0."""

    row: int


def list_prompts(options: FinetunePredictOptions, spec: TuneSpec) -> list[PromptItem]:
    """The prompts of the files that a path, folder or pattern names."""
    items = list[PromptItem]()
    files = list_files(options.input, TABLE_SUFFIXES)
    for file in files:
        name = Path(file).name
        try:
            count = len(read_prompts(file, options, spec))
        except InputError:
            if len(files) == 1:
                raise
            # It fails again when it is read, as one item among the others.
            items.append(PromptItem(file=file, id=name, row=UNREAD))
            continue
        count = count if options.most_rows is None else min(count, options.most_rows)
        items += [PromptItem(file=file, id=f"{name}:{row}", row=row) for row in range(count)]
    return items


def read_prompts(file: str, options: FinetunePredictOptions, spec: TuneSpec) -> list[Dialogue]:
    """The rows of a file. Raises InputError for one that cannot be read."""
    asked = json.dumps([list(options.columns), spec.to_json()])
    return _read(file, asked, options.columns, json.dumps(file_stamp(file)))


# The last file: its rows are items of their own.
@lru_cache(maxsize=2)
def _read(file: str, spec: str, columns: tuple[str, ...], _changed: str) -> list[Dialogue]:
    if is_text_file(file):
        return _lines(file)
    opened = TuneSpec.from_json(json.loads(spec)[1])
    return read_dialogue_table(file, reading_of_run(opened, columns, need_answer=False)).dialogues


def _lines(file: str) -> list[Dialogue]:
    """A prompt on each line."""
    path = Path(file)
    encoding, parts = line_encoding(path), list(line_parts(path, 1 << 20))
    lines = [line for part in parts for line in read_lines(path, LinePart(*part), encoding)]
    return [
        Dialogue(
            (Message("user", line),), None, str(row), "", "", file, row,
            "" if line.strip() else f"{file}, line {row + 1}: the prompt is empty",
        )
        for row, line in enumerate(lines)
    ]  # fmt: skip


def predict_prompts(
    model: nn.Module,
    items: Sequence[PromptItem],
    context: Context[FinetunePredictOptions, TuneSpec],
) -> list[pl.DataFrame | ValueError]:
    """A row for each prompt, or the error that says why there is none."""
    assert isinstance(model, LanguageModel)
    options, spec = context.options, context.spec
    coder = coder_of(spec)
    new_tokens = spec.new_tokens if options.new_tokens is None else options.new_tokens
    asked: list[tuple[int, Dialogue, list[int]]] = []
    answers: dict[int, pl.DataFrame | ValueError] = {}
    for place, item in enumerate(items):
        try:
            with part_of_account():
                dialogue, tokens = _prompt_of(item, coder, options, spec)
            asked.append((place, dialogue, tokens))
        except ValueError as error:
            answers[place] = error
    for start in range(0, len(asked), options.batch_size):
        chosen = asked[start : start + options.batch_size]
        for (place, dialogue, _), answer in zip(chosen, _answers(model, chosen, coder, new_tokens)):
            answers[place] = answer if isinstance(answer, ValueError) else _row(
                dialogue, answer, coder
            )  # fmt: skip
    note("read", "prompts", count=len(asked))
    return [answers[place] for place in range(len(items))]


def _prompt_of(
    item: PromptItem, coder: DialogueCoder, options: FinetunePredictOptions, spec: TuneSpec
) -> tuple[Dialogue, list[int]]:
    rows = read_prompts(item["file"], options, spec)
    if not 0 <= item["row"] < len(rows):
        raise InputError(f"{item['file']}: has no row {item['row']}")
    dialogue = rows[item["row"]]
    if dialogue.problem:
        raise InputError(dialogue.problem)
    return dialogue, coder.prompt(dialogue.messages)


def _answers(
    model: LanguageModel,
    chosen: Sequence[tuple[int, Dialogue, list[int]]],
    coder: DialogueCoder,
    new_tokens: int,
) -> list[Answer | ValueError]:
    """The answers; where a prompt cannot be answered, the others are all the same."""

    def answered(prompts: Sequence[list[int]]) -> list[Answer | ValueError]:
        answers = answer_prompts(
            model, prompts, new_tokens=new_tokens, ends=coder.ends, padding=coder.padding
        )
        return list(answers)

    prompts = [tokens for _, _, tokens in chosen]
    try:
        return answered(prompts)
    except ValueError:
        answers = list[Answer | ValueError]()
        for tokens in prompts:
            try:
                answers += answered([tokens])
            except ValueError as error:
                answers.append(error)
        return answers


def _row(dialogue: Dialogue, answer: Answer, coder: DialogueCoder) -> pl.DataFrame:
    row = {
        "row": dialogue.row,
        "id": dialogue.id,
        "prompt": dialogue.prompt,
        "answer": coder.decode(answer.tokens),
        "expected": dialogue.answer,
        "tokens": len(answer.tokens),
        "finished": answer.finished,
        "log_probability": answer.log_probability,
    }
    return pl.DataFrame([row], schema=SCHEMA)


def answer_lines(rows: pl.DataFrame) -> list[str]:
    """The first answers in words."""
    lines = []
    for row in rows.head(10).iter_rows(named=True):
        text = row["error"] or " ".join((row["answer"] or "").split()) or "no words"
        lines.append(
            f"{row['id'] or row['item']}: {text if len(text) <= 300 else text[:299] + '…'}"
        )
    if rows.height > len(lines):
        lines.append(f"… and {rows.height - len(lines):,} more prompts")
    return lines
