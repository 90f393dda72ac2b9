"""Tables of texts, and folders of text files, as they are written: texts, labels, groups, sources.

Shapes: N rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.account import note, part_of_account
from ...base.errors import fail, nearest, shown
from ...base.files import walk_folder
from ..columns import SYNONYMS, find_columns, plain_name
from ..formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table, stem_of
from ..items import read_folder_classes
from ..parts import PARTS, note_other_folders, read_part, text_of, without_other_parts
from ..text_files import read_text_file, refuse_long_text
from .labels import (
    Goal,
    TextLabels,
    flags_as_labels,
    note_missing,
    read_labels,
    refuse_label_as_feature,
)

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
        "subject_id", "case_id", "product", "product_id",
    ),
    "source": ("source", "site", "platform", "channel", "origin", "dataset"),
    "language": ("language", "lang", "locale"),
    "part": SYNONYMS["part"],
}  # fmt: skip
"""Names of columns of tables of texts, by what they hold."""


@dataclass(frozen=True)
class TextReading:
    """How a table of texts is read.

    columns: by field, as the user named them; usual: by field, as the training called them, which
    are taken where the table has them; fields: those that are looked for; label_columns: of 1 and
    0, one for each label; table: further columns that a model sees; goal, separator: of the labels,
    None as the cells say; need_label: whether there must be labels; knowledge: column of texts of
    knowledge, "" for none.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label_columns: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    goal: Goal | None = None
    separator: str | None = None
    need_label: bool = True
    usual: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = FIELDS
    knowledge: str = ""

    @property
    def further(self) -> tuple[str, ...]:
        """The columns beside the texts: those of the table, then of knowledge."""
        return (*self.table, self.knowledge) if self.knowledge else self.table


@dataclass(frozen=True)
class TextTable:
    """Rows of texts.

    texts, ids, groups, sources, languages, parts: of each row, "" where there is nothing; labels:
    None where none were asked for; table: the further columns, as they are; columns: by field, as
    they are called in the file; files: whether each row is a file of its own; start: the number of
    the first row in its file, from 0.
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
    start: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def read_text_data(path: str | Path, reading: TextReading) -> TextTable:
    """The rows of a table, of all tables of a folder or pattern, or of a folder with one folder of
    text files for each label (with train and test above them, or not).

    Raises InputError for what is none of them.
    """
    if Path(path).is_dir() and (files := _text_files(Path(path))):
        return _read_folder(Path(path), files, reading)
    files = list_files(path, TABLE_SUFFIXES)
    tables = []
    for file in files:
        with part_of_account():
            tables.append(read_text_table(file, reading))
    if len(tables) > 1:
        tables = _with_parts_of_names(files, tables)
    joined = tables[0] if len(tables) == 1 else _joined(path, tables)
    note("read", "texts", count=len(joined))
    named = [name for name in joined.ids if name]
    if twice := sum(count > 1 for count in Counter(named).values()):
        note("items", "ids that several texts have", count=twice)
    return joined


def read_text_table(file: str | Path, reading: TextReading) -> TextTable:
    """The rows of one table."""
    frame, names = scan_table(file)
    return table_of_rows(file, collect(file, frame), names, reading)


def table_of_rows(
    file: str | Path,
    frame: pl.DataFrame,
    names: Sequence[str],
    reading: TextReading,
    start: int = 0,
) -> TextTable:
    """The texts of rows that were read already. names: all columns of the file; start: the number
    of the first of these rows in the file, from 0.
    """
    columns = _columns(file, frame, names, reading)
    if not frame.height:
        raise fail(file, "has no rows")
    texts = _texts(file, frame, columns, start)
    _note_empty(file, columns["text"], texts, refused=reading.need_label)
    labels = None
    if reading.label_columns:
        labels = flags_as_labels(str(file), frame.select(reading.label_columns))
    elif "label" in columns:
        where = f"{file}: column {shown(columns['label'])}"
        labels = read_labels(where, frame[columns["label"]], reading.goal, reading.separator)
        if labels.goal != "class":  # where classes are missing was said as they were read
            note_missing(where, labels.known)
    if labels is not None:
        refuse_label_as_feature(
            file, frame, reading.label_columns or [columns["label"]], reading.further
        )
    cells = {name: _cells(file, frame, columns, name) for name in FIELDS[2:]}
    where = f"{file}: column {shown(columns.get('part', ''))}"
    parts = [
        read_part(f"{where}, row {row}", cell) if cell else ""
        for row, cell in enumerate(cells["part"], start + 1)
    ]
    return TextTable(
        texts,
        cells["id"],
        cells["group"],
        cells["source"],
        cells["language"],
        parts,
        labels,
        frame.select(reading.further),
        columns,
        start=start,
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
    for column in (*reading.label_columns, *reading.further):
        if column not in names:
            option = "--table" if column in reading.table else "--label-columns"
            option = "--knowledge" if column == reading.knowledge else option
            problem = f"there is no column {shown(column)}{nearest(column, names)}"
            raise fail(f"{file}: {option} {column}", problem)
    labelled = reading.need_label and not reading.label_columns
    fields = [name for name in reading.fields if name != "label" or labelled]
    if not reading.need_label:
        fields = [name for name in fields if name != "part"]
    usual = {name: column for name, column in reading.usual.items() if column in names}
    chosen = {**usual, **reading.columns}
    chosen = {name: column for name, column in chosen.items() if name in fields}
    used = {*reading.label_columns, *reading.further}
    free = [name for name in names if name not in used or name in chosen.values()]
    for needed in ("text", "label"):
        if not any(plain_name(name) in TEXT_SYNONYMS[needed] for name in free):
            # A model may see it all the same, which is refused where it gives the answer away.
            fitting = [n for n in reading.table if plain_name(n) in TEXT_SYNONYMS[needed]]
            free += [name for name in fitting if name not in free]
    plain = _as_text(frame)
    single = [name for name in free if name in plain.columns]
    single = without_other_parts(
        single, text_of(plain), fields=FIELDS, chosen=list(chosen.values())
    )
    free = [name for name in free if name in single or name not in plain.columns]
    required = ("text", "label") if labelled else ("text",)
    if "text" not in chosen and (column := _only_texts(frame, free, used, chosen)) is not None:
        note("assumed", f"column {shown(column)} holds the texts, the only one of long cells")
        chosen["text"] = column
    columns = find_columns(
        file, free, fields, required=required, chosen=chosen, synonyms=TEXT_SYNONYMS
    )
    if lacking := [name for name in ("title",) if name in reading.usual and name not in columns]:
        note("columns", "not there, though the training had it", map(shown, lacking))
    return columns


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that hold single values, as text."""
    plain = [name for name in frame.columns if not frame[name].dtype.is_nested()]
    return frame.select(pl.col(plain).cast(pl.String, strict=False))


def _only_texts(
    frame: pl.DataFrame, free: Sequence[str], used: set[str], chosen: Mapping[str, str]
) -> str | None:
    """The only column of text whose cells have several words, where no column has a usual name."""
    if any(plain_name(name) in TEXT_SYNONYMS["text"] for name in free):
        return None
    fitting = []
    for name in free:
        if name not in used and name not in chosen.values() and frame[name].dtype == pl.String:
            words = frame[name].drop_nulls().head(1000).str.count_matches(r"\s+\S").mean()
            if isinstance(words, float) and words >= 2:
                fitting.append(name)
    return fitting[0] if len(fitting) == 1 else None


def _texts(
    file: str | Path, frame: pl.DataFrame, columns: Mapping[str, str], start: int
) -> list[str]:
    """The texts, a title on a line before them."""
    column = frame[columns["text"]]
    where = f"{file}: column {shown(column.name)}"
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise fail(where, f"holds {column.dtype}, no texts")
    texts = column.cast(pl.String).fill_null("").to_list()
    if "title" in columns:
        titles = _cells(file, frame, columns, "title")
        texts = [
            f"{title}\n{text}" if title and text else title or text
            for title, text in zip(titles, texts, strict=True)
        ]
    for row, text in enumerate(texts, start + 1):
        refuse_long_text(f"{where}, row {row}", text)
    return texts


def _note_empty(file: str | Path, column: str, texts: Sequence[str], *, refused: bool) -> None:
    """refused: whether a table of empty texts alone is of no use."""
    if empty := sum(not text.strip() for text in texts):
        if refused and empty == len(texts):
            raise fail(f"{file}: column {shown(column)}", "all texts are empty")
        note("values", "empty texts", count=empty)


def _cells(
    file: str | Path, frame: pl.DataFrame, columns: Mapping[str, str], name: str
) -> list[str]:
    if name not in columns or name == "label":
        return [""] * frame.height
    cells = frame[columns[name]]
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        problem = f"holds {cells.dtype}, not one text a cell"
        raise fail(f"{file}: column {shown(cells.name)}", problem)
    return cells.cast(pl.String).str.strip_chars().fill_null("").to_list()


def _with_parts_of_names(files: Sequence[str], tables: Sequence[TextTable]) -> list[TextTable]:
    """The tables with the parts that their files are called by, such as train.csv and test.csv."""
    words = [
        {PARTS[word] for word in re.split(r"[\W_]+", stem_of(file).lower()) if word in PARTS}
        for file in files
    ]
    named = any(any(table.parts) for table in tables)
    if named or not all(len(parts) == 1 for parts in words) or {"train"} not in words:
        return list(tables)
    note("assumed", "files named train, validation or test are these parts")
    return [
        replace(table, parts=list(parts) * len(table))
        for table, parts in zip(tables, words, strict=True)
    ]


def _joined(path: str | Path, tables: Sequence[TextTable]) -> TextTable:
    """Several tables below each other."""
    first = tables[0]
    goals = {table.labels.goal for table in tables if table.labels is not None}
    if len(goals) > 1:
        problem = f"its tables have labels of several kinds ({', '.join(sorted(goals))})"
        raise fail(path, f"{problem}; say which with --goal")
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
    files = walk_folder(folder, [".txt"], deep=True, noted=False)
    below = [name for name in files if "/" in name]
    return below if len(below) == len(files) else []


def _read_folder(folder: Path, files: Sequence[str], reading: TextReading) -> TextTable:
    """A text for each file; its folder is its label, the one above that its part."""
    walk_folder(folder, [".txt"], deep=True)  # what is left out goes into the account
    texts, labels, parts = [], [], []
    for name in files:
        *above, label, _ = name.split("/")
        part = next((PARTS[word.lower()] for word in above if word.lower() in PARTS), "")
        texts.append(read_text_file(folder / name))
        refuse_long_text(folder / name, texts[-1])
        labels.append(label)
        parts.append(part)
    known = None
    if reading.need_label:
        if any(name.lower() in PARTS for name in labels):
            problem = "its folders are called train and test, and have none for each label"
            raise fail(folder, f"{problem} below them")
        note_other_folders(files, parts)
        classes = read_folder_classes(folder, labels)
        known = TextLabels("class", [(name,) for name in classes], np.zeros(0))
    note("read", "text files, whose folders are their labels", count=len(files))
    _note_empty(folder, "text", texts, refused=reading.need_label)
    empty = [""] * len(files)
    return TextTable(
        texts, list(files), empty, empty, empty, parts, known, pl.DataFrame(), {}, files=True
    )
