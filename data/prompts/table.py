"""Prompts as people write them down: a table with prompts and answers, or texts over which prompts
are generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ...base.account import note, part_of_account
from ...base.errors import fail, shown
from ...base.files import walk_folder
from ..columns import SYNONYMS, find_columns, plain_name
from ..formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table
from ..groups import read_groups
from ..parts import read_part, text_of, without_other_parts
from ..text_files import is_text_file, read_text_file, refuse_long_text

FIELDS = (
    "prompt", "question", "answer", "question2", "answer2", "id", "group", "kind", "depth", "part",
)  # fmt: skip
TEXT_FIELDS = ("text", "id", "group", "part")
PROMPT_SYNONYMS: Mapping[str, Sequence[str]] = {
    "prompt": ("prompt", "prompts", "context", "input", "instruction", "passage"),
    "text": (
        "text", "body", "content", "document", "article", "story", "full_text", "transcript",
        "abstract", "description", "message", "review", "sentence",
    ),
    "question": ("question", "query", "question1", "question_1"),
    "answer": (
        "answer", "answers", "target", "output", "response", "completion", "expected", "answer1",
        "answer_1", "reference",
    ),
    "question2": (
        "question2", "question_2", "second_question", "follow_up", "followup",
        "follow_up_question",
    ),
    "answer2": ("answer2", "answer_2", "second_answer", "follow_up_answer"),
    "id": ("id", "_id", "prompt_id", "text_id", "doc_id", "document_id", "key", "index", "uid"),
    "group": (
        "group", "group_id", "source_id", "conversation", "conversation_id", "thread", "author",
        "user", "customer", "title", "book",
    ),
    "kind": ("kind", "task", "type"),
    "depth": ("depth",),
    "part": SYNONYMS["part"],
}  # fmt: skip
"""Names of columns of tables of prompts, by what they hold."""


class Prompt(NamedTuple):
    """What a language model is asked.

    text: all that it reads before it answers, the question included. answer: what should follow,
    with the space before it; "" where it is not known. question2, answer2: asked after the answer
    with the same context. group: prompts that share a text. depth: where what is asked for lies, 0
    the beginning, 1 the end; None where that is not known. length: tokens that a generated prompt
    was to have. row: its number in its file, from 0.
    """

    text: str
    answer: str = ""
    question2: str = ""
    answer2: str = ""
    id: str = ""
    group: str = ""
    part: str = ""
    kind: str = "own"
    depth: float | None = None
    length: int | None = None
    row: int = 0

    @property
    def place(self) -> tuple[int, int] | None:
        """Where the answer is in the text, in characters: the first place that holds it; None
        where none does.
        """
        word = self.answer.strip()
        start = self.text.find(word) if word else -1
        return None if start < 0 else (start, start + len(word))


@dataclass(frozen=True)
class PromptReading:
    """How tables of prompts are read.

    columns: by field, as the user named them; usual: as the training called them, taken where the
    table has them; prompts_only: texts are prompts without an answer, as in a prediction.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, str] = field(default_factory=dict)
    prompts_only: bool = False


@dataclass(frozen=True)
class PromptTable:
    """Rows of prompts, or of texts over which prompts are to be generated (`are_texts`).

    columns: by field, as they are called in the file; {} for text files.
    """

    prompts: list[Prompt]
    are_texts: bool
    columns: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)


def read_prompt_data(path: str | Path, reading: PromptReading) -> PromptTable:
    """The rows of a table, of all tables of a folder or pattern, or of .txt files.

    Raises InputError for what is none of them, and where tables of prompts and of texts are mixed.
    """
    source = Path(path)
    if source.is_dir() and (names := text_names(source)):
        walk_folder(source, [".txt"], deep=True)  # what is left out goes into the account
        rows = [_of_file(source / name, name) for name in names]
        table = PromptTable(rows, are_texts=not reading.prompts_only)
    elif is_text_file(source) and not source.is_dir():
        list_files(path, [".txt"])  # refuses a file that is not there
        table = PromptTable([_of_file(source, source.name)], are_texts=not reading.prompts_only)
    else:
        tables = []
        for file in list_files(path, TABLE_SUFFIXES):
            with part_of_account():
                tables.append(read_prompt_table(file, reading))
        if len({table.are_texts for table in tables}) > 1:
            raise fail(path, "has tables of prompts and tables of texts; give one kind")
        joined = [prompt for table in tables for prompt in table.prompts]
        groups = read_groups("group", [prompt.group for prompt in joined])
        joined = [p._replace(group=group) for p, group in zip(joined, groups, strict=True)]
        table = PromptTable(joined, tables[0].are_texts, tables[0].columns)
    note("read", "texts" if table.are_texts else "prompts", count=len(table))
    return table


def text_names(folder: Path) -> list[str]:
    """The .txt files in and below a folder, without a word in the account."""
    return walk_folder(folder, [".txt"], deep=True, noted=False)


def _of_file(path: Path, name: str) -> Prompt:
    text = read_text_file(path)
    refuse_long_text(path, text)
    return Prompt(text, id=name, group=name)


def read_prompt_table(file: str | Path, reading: PromptReading) -> PromptTable:
    """The rows of a table."""
    frame, names = scan_table(file)
    return prompts_of_rows(file, collect(file, frame), names, reading)


def prompts_of_rows(
    file: str | Path,
    frame: pl.DataFrame,
    names: Sequence[str],
    reading: PromptReading,
    start: int = 0,
) -> PromptTable:
    """The prompts of rows that were read already. names: all columns of the file; start: the number
    of the first of these rows in the file, from 0.
    """
    needed, columns = prompt_columns(file, frame, names, reading)
    if not frame.height:
        raise fail(file, "has no rows")
    cells = {name: _cells(file, frame, columns.get(name)) for name in (needed, *FIELDS[1:])}
    rows = []
    for k in range(frame.height):
        row = {name: values[k] for name, values in cells.items()}
        where = f"{file}, row {start + k + 1}"
        refuse_long_text(where, row[needed])
        rows.append(_prompt(where, row, row[needed], start + k))
    of_training = needed == "text" and not reading.prompts_only
    return PromptTable(rows, of_training, columns)


def prompt_columns(
    file: str | Path, frame: pl.DataFrame, names: Sequence[str], reading: PromptReading
) -> tuple[str, Mapping[str, str]]:
    """The field that a table must have, prompt or text, and its columns by field; names: as in
    `prompts_of_rows`. Raises InputError where it lacks that column, or one that the user names.
    """
    usual = {name: column for name, column in reading.usual.items() if column in names}
    chosen = {**usual, **reading.columns}
    are_texts = _are_texts(names, chosen)
    fields = TEXT_FIELDS if are_texts else FIELDS
    if reading.prompts_only:
        fields = tuple(name for name in fields if name not in ("part", "answer", "answer2"))
    plain = frame.select(pl.col(c).cast(pl.String, strict=False) for c in _plain_columns(frame))
    free = without_other_parts(names, text_of(plain), fields=FIELDS, chosen=list(chosen.values()))
    needed = "text" if are_texts else "prompt"
    columns = find_columns(
        file,
        free,
        fields,
        required=(needed,),
        chosen={name: column for name, column in chosen.items() if name in fields},
        synonyms=PROMPT_SYNONYMS,
    )
    return needed, columns


def _are_texts(names: Sequence[str], chosen: Mapping[str, str]) -> bool:
    """Whether a table has a column of texts and none of prompts."""
    if "prompt" in chosen or "text" in chosen:
        return "prompt" not in chosen
    plain = [plain_name(name) for name in names]
    fitting = [
        any(name in PROMPT_SYNONYMS[field] for name in plain) for field in ("prompt", "text")
    ]
    return fitting == [False, True]


def _plain_columns(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if not frame[name].dtype.is_nested()]


def _cells(file: str | Path, frame: pl.DataFrame, column: str | None) -> list[str]:
    """The cells of a column as text, "" for what is missing; of a list its first entry, since data
    sets list several right answers.
    """
    if column is None:
        return [""] * frame.height
    cells = frame[column]
    if isinstance(cells.dtype, pl.List):
        cells = cells.list.first()
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        raise fail(f"{file}: column {shown(column)}", f"holds {cells.dtype}, no texts")
    return cells.cast(pl.String).fill_null("").to_list()


def _prompt(where: str, row: Mapping[str, str], text: str, number: int) -> Prompt:
    if question := row["question"].strip():
        text = f"{text.rstrip()}\n\n{question}\n"
    depth = None
    if row["depth"].strip():
        try:
            depth = float(row["depth"])
        except ValueError:
            raise fail(where, f"the depth {shown(row['depth'])} is no number") from None
    part = row["part"].strip()
    return Prompt(
        text,
        _spaced(text, row["answer"]),
        row["question2"],
        _spaced(row["question2"], row["answer2"]),
        id=row["id"].strip() or str(number),
        group=row["group"].strip(),
        part=read_part(where, part) if part else "",
        kind=row["kind"].strip() or "own",
        depth=depth,
        row=number,
    )


def _spaced(before: str, answer: str) -> str:
    """An answer with a space before it, unless it or what stands before it has one."""
    word = answer.strip()
    if not word or answer[:1].isspace() or before[-1:].isspace():
        return answer.rstrip()
    return f" {word}"
