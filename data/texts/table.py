"""Tables of texts, and folders of text files, as they are written: texts, labels, groups, sources.

Shapes: N rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.account import doubt, note
from ...base.errors import InputError, fail, nearest, reason, shown
from ...base.files import walk_folder
from ..columns import SYNONYMS, find_columns
from ..formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table, suffix_of
from ..parts import PARTS, read_part, text_of, without_other_parts
from .labels import Goal, TextLabels, flags_as_labels, note_missing, read_labels

FIELDS = ("text", "title", "id", "label", "group", "source", "language", "part")
TEXT_SYNONYMS: Mapping[str, Sequence[str]] = {
    "text": (
        "text", "body", "content", "description", "message", "review", "review_text", "comment",
        "sentence", "document", "abstract", "summary", "note", "notes", "ticket", "post", "tweet",
        "question", "utterance", "transcript", "full_text",
    ),
    "title": ("title", "subject", "headline", "heading"),
    "id": (
        "id", "text_id", "doc_id", "document_id", "ticket_id", "review_id", "message_id", "key",
        "index", "uid",
    ),
    "label": (
        *SYNONYMS["label"], "tag", "tags", "topic", "topics", "categories", "classes", "sentiment",
        "intent", "rating", "stars", "score", "emotion",
    ),
    "group": (
        "group", "group_id", "thread", "thread_id", "conversation", "conversation_id", "author",
        "author_id", "user", "user_id", "customer", "customer_id", "patient", "patient_id",
        "product", "product_id",
    ),
    "source": ("source", "site", "platform", "channel", "origin", "dataset"),
    "language": ("language", "lang", "locale"),
    "part": SYNONYMS["part"],
}  # fmt: skip
"""Names of columns of tables of texts, by what they hold."""

TEXT_CAP = 20 << 20  # characters of a single text; a longer one is a file by mistake
FILE_CAP = 64 << 20  # bytes of a text file


@dataclass(frozen=True)
class TextReading:
    """How a table of texts is read.

    columns: by field, as the user named them; label_columns: of 1 and 0, one for each label; table:
    further columns that a model sees; goal, separator: of the labels, None as the cells say;
    need_label: whether there must be labels.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label_columns: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    goal: Goal | None = None
    separator: str | None = None
    need_label: bool = True


@dataclass(frozen=True)
class TextTable:
    """Rows of texts.

    texts, ids, groups, sources, languages, parts: of each row, "" where there is nothing; labels:
    None where none were asked for; table: the further columns, as they are; columns: by field, as
    they are called in the file; files: whether each row is a file of its own.
    """

    texts: list[str]
    ids: list[str]
    groups: list[str]
    sources: list[str]
    languages: list[str]
    parts: list[str]
    labels: TextLabels | None
    table: pl.DataFrame
    columns: Mapping[str, str]
    files: bool = False

    def __len__(self) -> int:
        return len(self.texts)


def read_text_data(path: str | Path, reading: TextReading) -> TextTable:
    """The rows of a table, of all tables of a folder or pattern, or of a folder with one folder of
    text files for each label (with train and test above them, or not).

    Raises InputError for what is none of them.
    """
    if Path(path).is_dir() and (files := _text_files(Path(path))):
        return _read_folder(Path(path), files, reading)
    tables = [read_text_table(file, reading) for file in list_files(path, TABLE_SUFFIXES)]
    joined = tables[0] if len(tables) == 1 else _joined(path, tables)
    note("read", "texts", count=len(joined))
    return joined


def read_text_table(file: str | Path, reading: TextReading) -> TextTable:
    """The rows of one table."""
    frame, names = scan_table(file)
    return table_of_rows(file, collect(file, frame), names, reading)


def table_of_rows(
    file: str | Path, frame: pl.DataFrame, names: Sequence[str], reading: TextReading
) -> TextTable:
    """The texts of rows that were read already. names: all columns of the file."""
    columns = _columns(file, frame, names, reading)
    if not frame.height:
        raise fail(file, "has no rows")
    texts = _texts(file, frame, columns)
    labels = None
    if reading.label_columns:
        labels = flags_as_labels(str(file), frame.select(reading.label_columns))
    elif "label" in columns:
        where = f"{file}: column {shown(columns['label'])}"
        labels = read_labels(where, frame[columns["label"]], reading.goal, reading.separator)
    if labels is not None:
        note_missing(file, labels.known)
        _refuse_copies(file, frame, columns, reading)
    cells = {name: _cells(frame, columns, name) for name in FIELDS[2:]}
    where = f"{file}: column {shown(columns.get('part', ''))}"
    parts = [
        read_part(f"{where}, row {row}", cell) if cell else ""
        for row, cell in enumerate(cells["part"], 1)
    ]
    return TextTable(
        texts,
        cells["id"],
        cells["group"],
        cells["source"],
        cells["language"],
        parts,
        labels,
        frame.select(reading.table),
        columns,
    )


def with_rows(table: TextTable, rows: np.ndarray) -> TextTable:
    """Some rows of a table, in the order of `rows`, int64 (n,)."""

    def taken(values: list[str]) -> list[str]:
        return [values[row] for row in rows.tolist()]

    labels = table.labels
    if labels is not None:
        names = [labels.names[row] for row in rows.tolist()] if labels.names else []
        numbers = labels.numbers[rows] if len(labels.numbers) else labels.numbers
        labels = replace(labels, names=names, numbers=numbers)
    return replace(
        table,
        texts=taken(table.texts),
        ids=taken(table.ids),
        groups=taken(table.groups),
        sources=taken(table.sources),
        languages=taken(table.languages),
        parts=taken(table.parts),
        labels=labels,
        table=table.table[rows] if table.table.width else table.table,
    )


def _columns(
    file: str | Path, frame: pl.DataFrame, names: Sequence[str], reading: TextReading
) -> dict[str, str]:
    """The column of each field."""
    for column in (*reading.label_columns, *reading.table):
        if column not in names:
            option = "--table" if column in reading.table else "--label-columns"
            problem = f"there is no column {shown(column)}{nearest(column, names)}"
            raise fail(f"{file}: {option} {column}", problem)
    used = {*reading.label_columns, *reading.table}
    chosen = {
        field: column
        for field, column in reading.columns.items()
        if reading.need_label or column in names or field == "text"
    }
    free = [name for name in names if name not in used or name in chosen.values()]
    cells = text_of(_as_text(frame))
    free = without_other_parts(free, cells, fields=FIELDS, chosen=list(chosen.values()))
    labelled = reading.need_label and not reading.label_columns
    fields = [name for name in FIELDS if name != "label" or labelled]
    required = ("text", "label") if labelled else ("text",)
    try:
        return find_columns(
            file, free, fields, required=required, chosen=chosen, synonyms=TEXT_SYNONYMS
        )
    except InputError:
        if "text" in chosen or (column := _only_texts(frame, free, used)) is None:
            raise
        note("assumed", f"column {shown(column)} holds the texts, the only one of long cells")
        chosen["text"] = column
        return find_columns(
            file, free, fields, required=required, chosen=chosen, synonyms=TEXT_SYNONYMS
        )


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that hold single values, as text."""
    plain = [name for name in frame.columns if not frame[name].dtype.is_nested()]
    return frame.select(pl.col(plain).cast(pl.String, strict=False))


def _only_texts(frame: pl.DataFrame, free: Sequence[str], used: set[str]) -> str | None:
    """The only column of text whose cells have several words."""
    fitting = []
    for name in free:
        if name not in used and frame[name].dtype == pl.String:
            words = frame[name].drop_nulls().head(1000).str.count_matches(r"\s+\S").mean()
            if isinstance(words, float) and words >= 2:
                fitting.append(name)
    return fitting[0] if len(fitting) == 1 else None


def _texts(file: str | Path, frame: pl.DataFrame, columns: Mapping[str, str]) -> list[str]:
    """The texts, a title on a line before them."""
    column = frame[columns["text"]]
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise fail(f"{file}: column {shown(column.name)}", f"holds {column.dtype}, no texts")
    texts = column.cast(pl.String).fill_null("").to_list()
    if "title" in columns:
        titles = _cells(frame, columns, "title")
        texts = [
            f"{title}\n{text}" if title and text else title or text
            for title, text in zip(titles, texts, strict=True)
        ]
    for row, text in enumerate(texts, 1):
        if len(text) > TEXT_CAP:
            problem = f"has {len(text):,} characters, more than {TEXT_CAP:,}; cut it into parts"
            raise fail(f"{file}: column {shown(column.name)}, row {row}", problem)
    if empty := sum(not text.strip() for text in texts):
        if empty == len(texts):
            raise fail(f"{file}: column {shown(column.name)}", "all texts are empty")
        note("values", "empty texts", count=empty)
    return texts


def _cells(frame: pl.DataFrame, columns: Mapping[str, str], name: str) -> list[str]:
    if name not in columns or name == "label":
        return [""] * frame.height
    cells = frame[columns[name]]
    if cells.dtype.is_nested():
        raise InputError(f"column {shown(cells.name)} holds {cells.dtype}, not one value a cell")
    return cells.cast(pl.String).str.strip_chars().fill_null("").to_list()


def _refuse_copies(
    file: str | Path, frame: pl.DataFrame, columns: Mapping[str, str], reading: TextReading
) -> None:
    """A column of the table that repeats the labels would give the answer away."""
    if "label" not in columns:
        return
    label = _plain(frame[columns["label"]])
    for name in reading.table:
        if name == columns["label"] or _plain(frame[name]) == label:
            problem = "is the column of the labels, or the same in other words"
            doubt("label-as-feature", f"{file}: --table {name}", problem)


def _plain(cells: pl.Series) -> list[str]:
    return [str(cell).strip().casefold() for cell in cells.to_list()]


def _joined(path: str | Path, tables: Sequence[TextTable]) -> TextTable:
    """Several tables below each other."""
    first = tables[0]
    goals = {table.labels.goal for table in tables if table.labels is not None}
    if len(goals) > 1:
        raise fail(path, f"its tables have labels of several kinds ({', '.join(sorted(goals))})")
    labels = first.labels
    if labels is not None:
        known = [table.labels for table in tables if table.labels is not None]
        names = [row for part in known for row in part.names]
        labels = replace(
            labels, names=names, numbers=np.concatenate([part.numbers for part in known])
        )
    frames = [table.table.cast(pl.String) for table in tables]
    return replace(
        first,
        texts=[text for table in tables for text in table.texts],
        ids=[cell for table in tables for cell in table.ids],
        groups=[cell for table in tables for cell in table.groups],
        sources=[cell for table in tables for cell in table.sources],
        languages=[cell for table in tables for cell in table.languages],
        parts=[cell for table in tables for cell in table.parts],
        labels=labels,
        table=pl.concat(frames),
    )


def _text_files(folder: Path) -> list[str]:
    """Text files in folders below a folder; [] where one lies directly in it."""
    files = walk_folder(folder, [".txt"], deep=True)
    below = [name for name in files if "/" in name]
    return below if len(below) == len(files) else []


def _read_folder(folder: Path, files: Sequence[str], reading: TextReading) -> TextTable:
    """A text for each file; its folder is its label, the one above that its part."""
    texts, labels, parts = [], [], []
    for name in files:
        *above, label, _ = name.split("/")
        part = next((PARTS[word.lower()] for word in above if word.lower() in PARTS), "")
        texts.append(read_text_file(folder / name))
        labels.append((label,))
        parts.append(part)
    note("read", "text files, whose folders are their labels", count=len(files))
    empty = [""] * len(files)
    return TextTable(
        texts,
        list(files),
        empty,
        empty,
        empty,
        parts,
        TextLabels("class", list(labels), np.zeros(0)) if reading.need_label else None,
        pl.DataFrame(),
        {},
        files=True,
    )


def read_text_file(path: str | Path) -> str:
    """A file as one text, UTF-8 or, where it is not, Windows-1252, which is noted. Raises
    InputError for a file that cannot be read, is binary or too large.
    """
    try:
        if os.path.getsize(path) > FILE_CAP:
            raise fail(path, f"is larger than {FILE_CAP >> 20} MiB; cut it into parts")
        content = Path(path).read_bytes()
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    if b"\0" in content[:1024] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise fail(path, "is binary, no text")
    try:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return content.decode(encoding)
    except UnicodeDecodeError:
        note("assumed", "files in cp1252 (Windows), not UTF-8", [path])
        return content.decode("cp1252", errors="replace")


def is_text_file(path: str | Path) -> bool:
    """Whether a file holds a text as a whole, not a table."""
    return suffix_of(Path(path)) == ".txt"
