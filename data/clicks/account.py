"""What the account says of a click log: events, people and things, columns, values, parts.

Shapes: N rows of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ...base.account import note
from ...base.errors import shown
from .coding import Column, FieldCodes, Rows
from .encoder import ClickEncoder
from .history import Ragged
from .log import JoinedTable, Log, scan_log
from .row_parts import row_keys
from .schema import Schema
from .split import PARTS, TRAIN
from .times import NOW
from .vocabulary import MISSING, UNSEEN

MANY_UNSEEN = 0.5  # share of the values of lists from which it is noted


def note_columns(log: Log, schema: Schema, tables: Sequence[JoinedTable] = ()) -> None:
    """Note the files of a log, and the columns that nothing reads."""
    used = used_columns(schema)
    unused = [name for name in scan_log(log.files[0])[1] if name not in used]
    if len(log.files) > 1:
        note("read", "files of the log", count=len(log.files))
    for table in tables:
        unused += [name for name in table.frame.columns if name not in used and name != table.on]
    if unused:
        note("columns", "not used", unused)
    for name, sequence in schema.listed.items():
        note("assumed", f"the lists of {sequence.column} ({name}) are oldest first")


def used_columns(schema: Schema) -> set[str]:
    """All columns that a schema names."""
    used = {*schema.id_columns, *(join.on for join in schema.join)}
    used |= {schema.column(name) for name in (*schema.categorical, *schema.numeric)}
    for sequence in schema.sequences.values():
        used |= {sequence.column or "", sequence.where.column if sequence.where else ""}
    for task in schema.tasks.values():
        used |= {task.label.column, task.only_where.column if task.only_where else ""}
    return used | {schema.time or "", schema.split.column or ""}


def note_events(log: Log, schema: Schema, rows: Rows, part: np.ndarray | None) -> None:
    """Note how much there is, what does not count, and events that stand there twice.

    part: int8 (N,), the part of each row; None where the log is not split.
    """
    note("read", "events", count=len(rows))
    for noun, column, who in (("user", schema.user, rows.user), ("item", schema.item, rows.item)):
        if column is None:
            note("assumed", f"rows are of no {noun}: none is counted, or scored by it")
            continue
        known = who[who >= 0]
        note("read", f"{noun}s", count=len(np.unique(known)))
        if len(known) < len(rows):
            note("values", f"rows without a known {noun}", count=len(rows) - len(known))
    _note_labels(schema, rows, part)
    _note_repeated(schema, rows, part)
    if part is not None:
        note("groups", _split_in_words(schema))


def _note_labels(schema: Schema, rows: Rows, part: np.ndarray | None) -> None:
    assert rows.labels is not None
    for place, (name, task) in enumerate(schema.tasks.items()):
        labels = rows.labels[:, place]
        without = int((labels < 0).sum())
        if without:
            what = f"rows without a label of {name}, which do not count for it"
            if task.only_where is not None:
                what = f"rows that do not count for {name} (by only_where, or without a label)"
            note("left out", what, count=without)
        for part_name, code in PARTS.items() if part is not None else ():
            if code == TRAIN:  # an error of its own
                continue
            if why := one_label(labels[part == code], f"{part_name} part"):
                note("values", f"{name} has no AUC on the {part_name} part: {why}")


def one_label(labels: np.ndarray, part: str) -> str | None:
    """Why labels (n,), -1 where they do not count, have no AUC; None where they have one."""
    labels = labels[labels >= 0]
    if not len(labels):
        return f"no row of the {part} counts"
    if labels.min() == labels.max():
        return f"every label of the {part} is {labels[0]}"
    return None


def _note_repeated(schema: Schema, rows: Rows, part: np.ndarray | None) -> None:
    """Note rows with the same user, item and second."""
    if schema.time is None or len(schema.id_columns) < 2:
        return  # without a time a user may well meet an item again
    assert rows.labels is not None
    plain = Rows(np.zeros((len(rows), 0), np.int32), rows.user, rows.item, rows.time)
    keys, event = np.unique(row_keys(plain), return_inverse=True)
    repeated = len(rows) - len(keys)
    if not repeated:
        return
    what = "rows that repeat an event (the same user, item and second); both count"
    note("items", what, count=repeated)
    differing = _with_several(event, rows.labels)
    if differing:
        note("items", "such events with two labels", count=differing)
    if part is not None and (torn := _with_several(event, part[:, None])):
        note("items", "such events in two parts", count=torn)


def _with_several(event: np.ndarray, values: np.ndarray) -> int:
    """How many events (N,) have several rows of values (N, ·)."""
    order = np.lexsort((*values.T, event))
    same = event[order][1:] == event[order][:-1]
    differs = (values[order][1:] != values[order][:-1]).any(1)
    return len(np.unique(event[order][1:][same & differs]))


def _split_in_words(schema: Schema) -> str:
    split = schema.split
    shares = f"{split.train:.0%} train, {split.validation:.0%} validate"
    if split.column is not None:
        return f"column {shown(split.column)} says the part of each row"
    if split.by == "user":
        return f"of each user's rows in time, the first {shares}, the rest are the test part"
    if split.by == "time":
        return f"of all rows in time, the first {shares}, the rest are the test part"
    ending = ": what came later may help to predict what came before" if schema.time else ""
    return f"rows are split at random ({shares}), whatever their user or time{ending}"


def note_fields(encoder: ClickEncoder, rows: Rows, part: np.ndarray) -> None:
    """Note which fields have missing cells, unseen values, or one code only. part: int8 (N,)."""
    later = part != TRAIN
    missing, unseen = dict[str, float](), dict[str, float]()
    for column, codes in _codes_by_field(encoder, rows):
        missing[column.name] = float((codes == MISSING).all(1).mean())
        if later.any():
            unseen[column.name] = float((codes[later] == UNSEEN).any(1).mean())
    _note_shares("fields with missing cells", missing)
    _note_shares("fields with values that the training part does not have", unseen)
    constant = [name for name, count in code_counts(encoder).items() if count < 2]
    constant = [name for name in constant if not missing.get(name)]
    if constant:
        note("values", "fields have one value in the training part and say nothing", constant)


def code_counts(encoder: FieldCodes) -> dict[str, int]:
    """How many values or buckets each field tells apart, but for those of a fixed number."""
    counts = {name: len(edges) + 1 for name, edges in encoder.edges.items()}
    return counts | {name: len(words.keys) for name, words in encoder.vocabularies.items()}


def _codes_by_field(encoder: ClickEncoder, rows: Rows) -> Iterator[tuple[Column, np.ndarray]]:
    """Each field of the log or of joined tables with its codes, int32 (N, width)."""
    start = 0
    for column in encoder.of_side("row"):
        yield column, np.asarray(rows.fields[:, start : start + column.width])
        start += column.width
    for side, who in (("user", rows.user), ("item", rows.item)):
        start = 0
        for column in encoder.of_side(side):
            table = encoder.side_codes[side][:, start : start + column.width]
            known = np.append(table, np.full((1, column.width), MISSING, np.int32), 0)
            yield column, known[who]  # -1 is the row of unknown ones
            start += column.width


def complete_fields(encoder: ClickEncoder, rows: Rows, training: np.ndarray) -> frozenset[str]:
    """Fields of which no cell of the training part, bool (N,), is empty."""
    return frozenset(
        column.name
        for column, codes in _codes_by_field(encoder, rows)
        if training.any() and not ((codes[:, 0] == MISSING) & training).any()
    )


def empty_cells(encoder: ClickEncoder, rows: Rows, names: Collection[str]) -> dict[str, int]:
    """How many cells of new rows are empty that are not in the training part, in words. names: the
    columns that their table has.
    """
    counts, place, schema = {}, 0, encoder.schema
    if schema.time is not None and schema.time in names:
        without_time = "rows without a readable time, scored as of now, after all events"
        counts[without_time] = int((rows.time == NOW).sum())
    empty = {name: codes[:, 0] == MISSING for name, codes in rows.sides.items()}
    for column in encoder.of_side("row"):
        if column.name not in schema.time_fields:
            empty[column.name] = rows.fields[:, place] == MISSING
        place += column.width
    for name in encoder.complete & empty.keys():
        what = f"empty or unreadable cells of {name}, of which the training part has none"
        counts[what] = int(empty[name].sum())
    return {what: count for what, count in counts.items() if count}


def _note_shares(what: str, shares: Mapping[str, float]) -> None:
    """Note the fields with a share above 0, the largest first."""
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    names = [f"{name} {share:.1%}" for name, share in ordered if share > 0]
    if names:
        note("values", what, names)


def note_unseen_lists(schema: Schema, listed: Mapping[str, Ragged]) -> None:
    """Note sequences most of whose values the field that they are of does not have."""
    for name, sequence in listed.items():
        share = unseen_share(sequence)
        if share >= MANY_UNSEEN:
            of = schema.sequences[name].of
            note("values", f"{share:.0%} of the values of {name} are no value of {of} in training")


def unseen_share(sequence: Ragged) -> float:
    """The share of the values of lists that the field that they are of does not have."""
    return float((sequence.values == UNSEEN).mean()) if len(sequence.values) else 0.0
