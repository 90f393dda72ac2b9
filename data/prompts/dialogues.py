"""Prompts with their answers as people write them down: a column of each, or dialogues of messages
in the forms of chats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ...base.account import doubt, note, part_of_account
from ...base.errors import InputError, fail, shown
from ..columns import SYNONYMS, find_columns
from ..formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table
from ..groups import read_groups
from ..parts import read_part, text_of, without_other_parts
from ..text_files import refuse_long_text

FIELDS = ("messages", "prompt", "input", "system", "answer", "id", "group", "part")
DIALOGUE_SYNONYMS: Mapping[str, Sequence[str]] = {
    "messages": ("messages", "dialogue", "dialog", "conversations", "chat", "turns"),
    "prompt": (
        "prompt", "instruction", "question", "query", "problem", "request", "user", "source_text",
    ),
    "input": ("input", "context", "passage"),
    "system": ("system", "system_prompt"),
    "answer": (
        "answer", "response", "output", "completion", "target", "reply", "solution", "expected",
        "assistant", "chosen",
    ),
    "id": ("id", "_id", "prompt_id", "key", "index", "uid"),
    "group": (
        "group", "group_id", "thread", "thread_id", "conversation", "conversation_id", "author",
        "user_id", "customer", "customer_id", "source_id", "document_id", "doc_id",
    ),
    "part": SYNONYMS["part"],
}  # fmt: skip
"""Names of columns of tables of prompts and answers, by what they hold."""
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
_ROLE_KEYS, _TEXT_KEYS = ("role", "from", "speaker"), ("content", "value", "text")


class Message(NamedTuple):
    """role: system, user or assistant."""

    role: str
    text: str


class Dialogue(NamedTuple):
    """Messages that end with an answer; in a prediction also without it, `answer` is then None.

    row: number of the row in its file, from 0; problem: why a row of a prediction has no prompt.
    """

    messages: tuple[Message, ...]
    answer: str | None
    id: str
    group: str
    part: str
    file: str
    row: int
    problem: str = ""

    @property
    def prompt(self) -> str:
        """The last message before the answer."""
        return self.messages[-1].text


@dataclass(frozen=True)
class DialogueReading:
    """How tables of prompts are read.

    columns: by field, as the user named them; usual: as the training called them, taken where the
    table has them; need_answer: whether a row without an answer is left out.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, str] = field(default_factory=dict)
    need_answer: bool = True


@dataclass(frozen=True)
class DialogueTable:
    """dialogues: the rows; columns: by field, as they are called in the files."""

    dialogues: list[Dialogue]
    columns: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.dialogues)


def read_dialogues(path: str | Path, reading: DialogueReading) -> DialogueTable:
    """The rows of a table, or of all tables of a folder or pattern.

    Raises InputError for what is none, and where no row has a prompt and an answer.
    """
    tables = []
    for file in list_files(path, TABLE_SUFFIXES):
        with part_of_account():
            tables.append(read_dialogue_table(file, reading))
    rows = [dialogue for table in tables for dialogue in table.dialogues]
    if not rows:
        raise fail(path, "has no row with a prompt and an answer")
    groups = read_groups("group", [dialogue.group for dialogue in rows])
    rows = [row._replace(group=group) for row, group in zip(rows, groups, strict=True)]
    note("read", "prompts with their answers", count=len(rows))
    return DialogueTable(rows, tables[0].columns)


def read_dialogue_table(file: str | Path, reading: DialogueReading) -> DialogueTable:
    """The rows of one table. Without `need_answer`, a row without a prompt has no messages."""
    scanned, names = scan_table(file)
    frame = collect(file, scanned)
    usual = {name: column for name, column in reading.usual.items() if column in names}
    chosen = {**usual, **reading.columns}
    if not reading.need_answer:
        chosen = {
            name: column
            for name, column in chosen.items()
            if column in names or name not in ("answer", "part")
        }
    plain = frame.select(
        pl.col(name).cast(pl.String, strict=False)
        for name in frame.columns
        if not frame[name].dtype.is_nested()
    )
    free = without_other_parts(
        [name for name in names if name in plain.columns],
        text_of(plain), fields=FIELDS, chosen=list(chosen.values()),
    )  # fmt: skip
    free = [name for name in names if name in free or name not in plain.columns]
    fields = FIELDS if reading.need_answer else tuple(name for name in FIELDS if name != "part")
    columns = find_columns(file, free, fields, chosen=chosen, synonyms=DIALOGUE_SYNONYMS)
    columns = _with_a_prompt(file, columns, names, reading.need_answer)
    if not frame.height:
        raise fail(file, "has no rows")
    return DialogueTable(_rows(file, frame, columns, reading.need_answer), columns)


def _with_a_prompt(
    file: str | Path, columns: dict[str, str], names: Sequence[str], need_answer: bool
) -> dict[str, str]:
    """The columns, an `input` without a prompt beside it as the prompt."""
    if "messages" in columns:
        return {name: column for name, column in columns.items() if name != "prompt"}
    if "prompt" not in columns and "input" in columns:
        columns = {"prompt": columns["input"], **columns}
        del columns["input"]
    for name in ("prompt", "answer") if need_answer else ("prompt",):
        if name not in columns:
            has = ", ".join(map(shown, names[:40]))
            problem = f"there is no column {name!r}, nor one of messages; it has {has}"
            raise fail(file, f"{problem}; name it with --columns {name}=COLUMN")
    return columns


def _rows(
    file: str | Path, frame: pl.DataFrame, columns: Mapping[str, str], need_answer: bool
) -> list[Dialogue]:
    cells = {name: _cells(file, frame[column], name) for name, column in columns.items()}
    empty = [""] * frame.height
    ids, groups = (cells.get(name, empty) for name in ("id", "group"))
    parts = cells.get("part", empty)
    rows, without = list[Dialogue](), list[str]()
    for k in range(frame.height):
        where = f"{file}, row {k + 1}"
        problem = ""
        try:
            messages, answer = _messages(where, cells, k)
            for message in messages:
                refuse_long_text(where, message.text)
        except InputError as error:
            if need_answer:
                raise
            messages, answer, problem = (), None, str(error)
        lacking = not messages or not messages[-1].text.strip() or answer is None
        if need_answer and lacking:
            without.append(f"row {k + 1}")
            continue
        part = read_part(where, parts[k]) if parts[k] else ""
        name = ids[k] or str(k)
        if not problem and (not messages or not messages[-1].text.strip()):
            problem = f"{where}: the prompt is empty"
        rows.append(Dialogue(messages, answer, name, groups[k], part, str(file), k, problem))
    if without:
        more = f" (and {len(without) - 1:,} more)" if without[1:] else ""
        problem = "has no prompt or no answer; fill it or leave the row out"
        doubt("missing-labels", f"{file}, {without[0]}{more}", problem)
        note("left out", "rows without a prompt or an answer", without)
    return rows


def _messages(
    where: str, cells: Mapping[str, list[str]], row: int
) -> tuple[tuple[Message, ...], str | None]:
    """The messages before the answer, and the answer."""
    if "messages" in cells:
        told = _listed(where, cells["messages"][row])
        answer = None
        if told and told[-1].role == "assistant":
            *told, last = told
            answer = last.text
        return tuple(told), answer
    prompt = cells["prompt"][row]
    if more := cells.get("input", {row: ""})[row]:
        prompt = f"{prompt}\n\n{more}" if prompt else more
    answer = cells["answer"][row] if "answer" in cells else ""
    system = cells.get("system", {row: ""})[row]
    messages = [Message("system", system)] if system else []
    if prompt:
        messages.append(Message("user", prompt))
    return tuple(messages), answer or None


def _listed(where: str, cell: str) -> list[Message]:
    """The messages that a cell of JSON lists, [] for an empty cell."""
    if not cell:
        return []
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise fail(where, f"{shown(cell[:50])} is no list of messages")
    messages = []
    for value in values:
        role = next((value[key] for key in _ROLE_KEYS if key in value), None)
        text = next((value[key] for key in _TEXT_KEYS if value.get(key) is not None), None)
        if not isinstance(role, str) or role not in _ROLES or not isinstance(text, str):
            raise fail(where, f"{shown(str(value)[:60])} is no message with a role and a content")
        messages.append(Message(_ROLES[role], text))
    return messages


def _cells(file: str | Path, cells: pl.Series, name: str) -> list[str]:
    """Cells as text, "" for an empty one; dialogues as JSON."""
    if name == "messages" and isinstance(cells.dtype, pl.List | pl.Array):
        return ["" if row is None else json.dumps(row) for row in cells.to_list()]
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        raise fail(f"{file}: column {shown(cells.name)}", f"holds {cells.dtype}, no texts")
    return cells.cast(pl.String).str.strip_chars().fill_null("").to_list()
