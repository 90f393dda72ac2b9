"""Which texts are in which part: groups and equal texts stay together.

Shapes: N texts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from ...base.account import doubt, note
from ...base.errors import fail, shown
from ...base.files import file_stamp
from ...data.columns import note_groups
from ...data.texts.labels import TextLabels, refuse_many_classes
from ...data.texts.table import TextTable, with_rows
from ..engine.subsets import (
    Subsets,
    Taken,
    joined_groups,
    own_or_shares,
    refuse_shared_groups,
    take_groups,
    take_stratified,
)
from ..engine.training.order import mix
from .options import TextOptions

PARTS_OF_TEXTS = "parts.parquet"


def groups_of(table: TextTable) -> np.ndarray:
    """A number for each text, int64 (N,): equal for texts of one group, and for equal texts."""
    plain = plain_texts(table.texts)
    codes = joined_groups(plain, table.groups)
    note_groups("group", "texts", table.columns.get("group"), table.groups)
    filled = [text for text in plain if text]
    if copies := len(filled) - len(set(filled)):
        note("items", "texts that are there more than once, kept in one part", count=copies)
    return codes


def plain_texts(texts: Sequence[str]) -> list[str]:
    """Texts by which equal ones are known: without regard to case and white space."""
    return [" ".join(text.split()).casefold() for text in texts]


def text_keys(texts: Sequence[str]) -> pl.Series:
    """A hash of each text, UInt64 (N,), equal for equal texts; null for those without words."""
    plain = [text.encode("utf-8", "surrogatepass") for text in plain_texts(texts)]
    keys = [
        int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) if text else None
        for text in plain
    ]
    return pl.Series("key", keys, pl.UInt64)


def keys_of_parts(table: TextTable, subsets: Subsets) -> pl.DataFrame:
    """The part of each text by its key; a text in two parts is of the first."""
    keys = text_keys(table.texts)
    frames = [
        pl.DataFrame({"key": keys.gather(rows)}).with_columns(part=pl.lit(name))
        for name, rows in subsets._asdict().items()
    ]
    return pl.concat(frames).drop_nulls().unique("key", keep="first", maintain_order=True)


def parts_of_texts(texts: Sequence[str], folder: Path | None) -> pl.Series:
    """The part that each text was in when the run with these assets was trained, null for new ones,
    and for all where a run of an earlier version does not say it.
    """
    path = None if folder is None else folder / PARTS_OF_TEXTS
    if path is None or not path.exists():
        return pl.repeat(None, len(texts), dtype=pl.String, eager=True).alias("part")
    keys = text_keys(texts).to_frame()
    known = _known(path, file_stamp(path))
    return keys.join(known, on="key", how="left", maintain_order="left")["part"]


@lru_cache(maxsize=2)
def _known(path: Path, _changed: tuple[int, ...] | None) -> pl.DataFrame:
    """What `keys_of_parts` wrote; a worker keeps it from part to part of what it predicts."""
    return pl.read_parquet(path, glob=False)


def without_rare_classes(where: object, table: TextTable, least: int) -> TextTable:
    """Without the texts of classes that are too rare to be in all parts. Raises InputError for a
    column of classes that is none.
    """
    labels = cast(TextLabels, table.labels)
    if labels.goal != "class":
        return table
    counts = Counter(row[0] for row in labels.names if row is not None)
    refuse_many_classes(where, len(counts), len(table))
    rare = sorted(name for name, count in counts.items() if count < least)
    if not rare or len(counts) - len(rare) < 2:
        return table  # what is left is no data, which is said where the classes are counted
    rows = [k for k, row in enumerate(labels.names) if row and counts[row[0]] >= least]
    note("left out", f"classes with fewer than {least} texts (--least), with their texts", rare)
    return with_rows(table, np.array(rows))


def check_equal_texts(where: str, table: TextTable) -> None:
    """Raise InputError for equal texts with two classes, and note those with other labels."""
    labels = cast(TextLabels, table.labels)
    first: dict[str, int] = {}
    differing = 0
    for row, text in enumerate(plain_texts(table.texts)):
        if not text or labels.goal == "number":
            continue
        names, others = labels.names[row], labels.names[first.setdefault(text, row)]
        if names is None or others is None or set(names) == set(others):
            continue
        differing += 1
        if labels.goal == "class" and differing == 1:
            both = f"{shown(others[0])} and {shown(names[0])}"
            doubt("two-labels", where, f"the text {shown(text[:60])} has two classes, {both}")
    if differing:
        note("items", "texts whose labels differ from those of an equal text", count=differing)


def split(options: TextOptions, table: TextTable, groups: np.ndarray) -> Subsets:
    """Rows of the three parts: those that the table names, and shares of the groups; the classes
    balanced as far as that goes. Raises InputError for a group or text that is in two of them.
    """
    labels, generator = table.labels, np.random.default_rng(mix(options.seed, 3))
    assert labels is not None
    codes = np.zeros(len(table), np.int64)
    if labels.goal == "class":
        names = [row[0] for row in labels.names if row is not None]
        codes = np.unique(names, return_inverse=True)[1]

    def take(among: np.ndarray, share: float, _: str) -> Taken:
        if labels.goal == "class" and len(np.unique(groups[among])) > 2:
            seed = mix(options.seed, 3) % (1 << 32)
            return take_stratified(options.data, among, codes[among], groups[among], share, seed)
        return take_groups(among, groups[among], share, generator)

    subsets = own_or_shares(
        options.data,
        table.parts,
        take,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="texts",
    )
    _refuse_shared(options.data, table, subsets)
    for part, rows in subsets._asdict().items():
        if len(rows) and not any(table.texts[row].strip() for row in rows.tolist()):
            raise fail(options.data, f"all texts of the {part} part are empty")
    return subsets


def _refuse_shared(where: object, table: TextTable, subsets: Subsets) -> None:
    """A group, or a text, in two parts that the data names would tell the answer."""
    plain = plain_texts(table.texts)
    part_of: dict[str, str] = {}
    copies: dict[str, str] = {}
    for part, rows in subsets._asdict().items():
        for text in (plain[row] for row in rows.tolist()):
            if text and part_of.setdefault(text, part) != part:
                copies.setdefault(text, f"in {part_of[text]} and in {part}")
    if copies:
        text, parts = next(iter(copies.items()))
        problem = f"{len(copies):,} texts are more than once in the data, {parts}"
        doubt("copies", where, f"{problem}; the first is {shown(text[:60])}")
    groups = [group or row for row, group in enumerate(table.groups)]
    refuse_shared_groups(where, subsets, groups, "group")
