"""Tables of boxes in frames: csv and parquet with named columns, and the text files of
MOTChallenge.

A box is x, y of its upper left corner, width and height, in pixels; the upper left corner of a
frame is 0, 0."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl

from ...base.errors import InputError, fail, nearest, shown
from ..formats.tables import collect, numbers, scan_table

# Names of columns, the first that is there is taken.
COLUMNS = {
    "frame": ("frame", "frame_id", "image", "file"),
    "score": ("score", "confidence", "conf"),
    "identity": ("identity", "track", "track_id", "id", "pid"),
    "camera": ("camera", "cam"),
    "label": ("class", "label", "category"),
}
SIZED, CORNERS = ("x", "y", "width", "height"), ("x1", "y1", "x2", "y2")
# The classes of MOT16, MOT17 and MOT20 (arXiv 1603.00831, table of annotation classes).
MOT_CLASSES = {
    1: "person",
    2: "person on vehicle",
    3: "car",
    4: "bicycle",
    5: "motorbike",
    6: "non motorized vehicle",
    7: "static person",
    8: "distractor",
    9: "occluder",
    10: "occluder on the ground",
    11: "occluder full",
    12: "reflection",
}
COCO_PERSON = {0: "person"}


@dataclass(frozen=True)
class BoxTable:
    """Boxes of many frames.

    rows: frame (text: a file name, or a number without leading zeros), x, y, width, height
    (Float64), score (Float64, null where none is given), identity, camera, label (text or null).
    class_names: names of labels that are numbers."""

    path: str
    rows: pl.DataFrame
    class_names: Mapping[int, str]

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        groups = self.rows.with_row_index("_row").group_by("frame", maintain_order=True).agg("_row")
        return {frame: np.asarray(places, dtype=np.int64) for frame, places in groups.iter_rows()}

    def of(self, name: str, number: int) -> pl.DataFrame:
        """Boxes of the frame with this file name, this name without its ending, or this number;
        perhaps none.
        """
        for key in (name, name.rpartition(".")[0], str(number)):
            if key in self._places:
                return self.rows[self._places[key]]
        return self.rows.clear()

    def of_classes(self, classes: Sequence[str]) -> "BoxTable":
        """The boxes of these classes, by name or number; all where the table has no classes.

        Raises InputError where no box is of them.
        """
        if not self.rows["label"].is_not_null().any():
            return self
        wanted = {word.casefold() for word in classes}
        wanted |= {str(number) for number in class_numbers(classes, self.class_names)}
        kept = self.rows.filter(pl.col("label").is_in(list(wanted)))
        if not len(kept):
            there = self.rows["label"].drop_nulls().value_counts(sort=True).head(8)
            listed = ", ".join(
                f"{self.named(label)} ({count})" for label, count in there.iter_rows()
            )
            raise fail(self.path, f"no box is of --classes {' '.join(classes)}; there are {listed}")
        return BoxTable(self.path, kept, self.class_names)

    def named(self, label: str) -> str:
        """A label as it is shown to people."""
        return self.class_names.get(int(label), label) if label.isdecimal() else label

    def of_camera(self, camera: str | None) -> "BoxTable":
        """The boxes of one camera; all where the table names no cameras.

        Without a name, InputError where frames are numbers and there are several cameras: which one
        is meant?"""
        there = self.rows["camera"].drop_nulls().unique().sort().to_list()
        if not there:
            return self
        if camera is None:
            if len(there) > 1 and self.rows["frame"].str.contains(r"^[0-9]+$").any():
                raise fail(
                    self.path,
                    f"has boxes of several cameras ({', '.join(there[:5])}); say with --camera of "
                    "which one the input is",
                )
            return self
        kept = self.rows.filter(pl.col("camera") == camera)
        if not len(kept):
            raise fail(self.path, f"has no box of --camera {camera}{nearest(camera, there)}")
        return BoxTable(self.path, kept, self.class_names)


def class_numbers(classes: Sequence[str], names: Mapping[int, str]) -> set[int]:
    """The numbers that are meant by names or numbers of classes; names that are not there are left
    out.
    """
    by_name = {name.casefold(): number for number, name in names.items()}
    found = {
        int(word) if word.isdecimal() else by_name.get(word.casefold(), -1) for word in classes
    }
    return found - {-1}


def read_boxes(path: str | Path) -> BoxTable:
    """Read a table of boxes.

    Named columns: frame (file name, or number); x, y, width, height or x1, y1, x2, y2; perhaps
    score, identity (or track), camera, class. A text file without a header is of MOTChallenge:
    frame, id (-1: none), left, top, width, height, confidence, and in ground truth class and
    visibility; its pixels are counted from 1, so 1 is taken off.

    Raises InputError for a missing column, a cell that is no number, and names that do not tell
    frames apart."""
    frame, names = scan_table(path)
    table = collect(path, frame)
    if all(_numeric(name) for name in names):
        if names != [
            str(k) for k in range(len(names))
        ]:  # whole numbers, all different: taken for a header
            first = pl.DataFrame([names], schema=table.schema, orient="row")
            table = pl.concat([first, table])
        return _motchallenge(path, table)
    return _named(path, table, names)


def _numeric(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?[0-9.]+(e[-+]?[0-9]+)?\s*", text, re.IGNORECASE) is not None


def _motchallenge(path: str | Path, table: pl.DataFrame) -> BoxTable:
    if table.width < 6:
        raise fail(
            path,
            f"has {table.width} columns and no header; MOTChallenge has at least 6: frame, id, left, top, "
            "width, height",
        )
    names = table.columns
    table = table.rename(dict(zip(names, (f"column {k + 1}" for k in range(len(names))))))
    cell = {
        name: f"column {k + 1}"
        for k, name in enumerate(("frame", "identity", *SIZED, "score", "label"))
    }
    number = {name: _column(path, table, cell[name], 1) for name in SIZED}
    number["x"], number["y"] = number["x"] - 1, number["y"] - 1
    score = _column(path, table, cell["score"], 1, needed=False) if table.width > 6 else None
    # Ten columns are a detector's or tracker's: the last three are places in the world.
    label = _keys(path, table[cell["label"]], 1) if table.width in (8, 9) else None
    identity = _keys(path, table[cell["identity"]], 1)
    identity = identity.replace({"-1": None})
    return _assembled(
        path,
        _keys(path, table[cell["frame"]], 1),
        number,
        score,
        identity,
        None,
        label,
        MOT_CLASSES,
    )


def _named(path: str | Path, table: pl.DataFrame, names: Sequence[str]) -> BoxTable:
    lower = {name.lower(): name for name in reversed(names)}
    column = {
        kind: next((lower[word] for word in words if word in lower), None)
        for kind, words in COLUMNS.items()
    }
    if column["frame"] is None:
        raise fail(
            path,
            f"there is no column 'frame' (file name or number of a box's frame){nearest('frame', names)}",
        )
    sized = all(name in lower for name in SIZED)
    if not sized and not all(name in lower for name in CORNERS):
        missing = [name for name in (CORNERS if "x1" in lower else SIZED) if name not in lower]
        raise fail(
            path,
            f"there is no column {shown(missing[0])}; a box is {', '.join(SIZED)} or {', '.join(CORNERS)}",
        )
    taken = SIZED if sized else CORNERS
    number = dict(zip(SIZED, (_column(path, table, lower[name], 2) for name in taken)))
    if not sized:
        number["width"], number["height"] = (
            number["width"] - number["x"],
            number["height"] - number["y"],
        )

    def text(kind: str) -> pl.Series | None:
        name = column[kind]
        return (
            None
            if name is None
            else table[name].cast(pl.String).str.strip_chars().replace({"": None})
        )

    score = (
        None if column["score"] is None else _column(path, table, column["score"], 2, needed=False)
    )
    label = text("label")
    if label is not None:
        label = label.str.to_lowercase().str.replace(r"^([0-9]+)\.0*$", "$1")
    frame = _keys(path, table[column["frame"]], 2)
    identity = text("identity")
    if identity is not None:
        identity = identity.replace({"-1": None}).str.replace(r"^([0-9]+)\.0*$", "$1")
    return _assembled(path, frame, number, score, identity, text("camera"), label, COCO_PERSON)


def _column(
    path: str | Path, table: pl.DataFrame, name: str, first: int, *, needed: bool = True
) -> pl.Series:
    """A column of numbers; InputError names the first row that has none (rows count from
    `first`).
    """
    try:
        values, bad = numbers(table[name])
    except TypeError as error:
        raise fail(path, f"column {shown(name)} holds {error}, not numbers") from None
    if needed:
        bad = bad | np.isnan(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise fail(path, f"row {row + first}: {name} is {shown(table[name][row])}, not a number")
    return pl.Series(values).fill_nan(None)


def _keys(path: str | Path, column: pl.Series, first: int) -> pl.Series:
    """Frames as they are looked up: numbers without leading zeros, names of files without their
    folders.
    """
    text = column.cast(pl.String).str.strip_chars()
    empty = text.is_null() | (text == "")
    if empty.any():
        raise fail(path, f"row {int(empty.arg_max() or 0) + first}: {column.name} is empty")
    whole = text.str.extract(r"^0*([0-9]+?)(?:\.0*)?$", 1)
    name = text.str.replace_all("\\", "/", literal=True)
    base = name.str.split("/").list.last()
    if (name != base).any():
        folders = (
            pl.DataFrame({"base": base, "name": name})
            .unique()
            .group_by("base")
            .len()
            .filter(pl.col("len") > 1)
        )
        if len(folders):
            twice = str(folders["base"][0])
            inside = sorted(
                {str(PurePosixPath(n).parent) for n, b in zip(name, base) if b == twice}
            )
            raise fail(
                path,
                f"{shown(twice)} lies in several folders ({', '.join(inside[:4])}); give a table of boxes "
                "for each folder",
            )
    return pl.Series(
        "frame",
        [number if number is not None else b for number, b in zip(whole, base)],
        dtype=pl.String,
    )


def _assembled(
    path: str | Path,
    frame: pl.Series,
    number: Mapping[str, pl.Series],
    score: pl.Series | None,
    identity: pl.Series | None,
    camera: pl.Series | None,
    label: pl.Series | None,
    class_names: Mapping[int, str],
) -> BoxTable:
    if not len(frame):
        raise InputError(f"{path}: holds no boxes")
    count = len(frame)
    given = {
        "score": (score, pl.Float64),
        "identity": (identity, pl.String),
        "camera": (camera, pl.String),
        "label": (label, pl.String),
    }
    columns = [frame.alias("frame"), *(number[name].alias(name) for name in SIZED)]
    for name, (values, kind) in given.items():
        columns.append(
            pl.Series(name, [None] * count, dtype=kind)
            if values is None
            else values.cast(kind).alias(name)
        )
    return BoxTable(str(path), pl.DataFrame(columns), class_names)
