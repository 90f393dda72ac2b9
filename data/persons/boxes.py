"""Tables of boxes in frames: CSV and Parquet with named columns, and the text files of
MOTChallenge.

A box is x and y of its upper left corner, width and height, in pixels; the upper left corner of a
frame is 0, 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl

from ...base.errors import fail, nearest, shown
from ..formats.tables import collect, number_column, scan_table

# Names of columns; the first that the table has is used.
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
    (Float64), score (Float64 or null), identity, camera, label (text or null).
    class_names: names of labels that are numbers.
    """

    path: str
    rows: pl.DataFrame
    class_names: Mapping[int, str]

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        groups = self.rows.with_row_index("_row").group_by("frame", maintain_order=True).agg("_row")
        return {frame: np.asarray(places, dtype=np.int64) for frame, places in groups.iter_rows()}

    def of(self, name: str, number: int) -> pl.DataFrame:
        """Boxes of the frame with this file name, with or without its ending, or else this number;
        none where the table has no such frame.
        """
        for key in (name, name.rpartition(".")[0], str(number)):
            if key in self._places:
                return self.rows[self._places[key]]
        return self.rows.clear()

    def of_classes(self, classes: Sequence[str]) -> "BoxTable":
        """The boxes of these classes, by name or number; all where the table has no classes.

        Raises `InputError` where no box is of these classes.
        """
        if not self.rows["label"].is_not_null().any():
            return self
        labels = {word.casefold() for word in classes}
        labels |= {str(number) for number in class_numbers(classes, self.class_names)}
        rows = self.rows.filter(pl.col("label").is_in(list(labels)))
        if not len(rows):
            counts = self.rows["label"].drop_nulls().value_counts(sort=True).head(8)
            known = ", ".join(f"{self.name_of(label)} ({n})" for label, n in counts.iter_rows())
            raise fail(self.path, f"no box is of --classes {' '.join(classes)}; there are {known}")
        return BoxTable(self.path, rows, self.class_names)

    def name_of(self, label: str) -> str:
        """The name of a label that is a number, or the label itself."""
        return self.class_names.get(int(label), label) if label.isdecimal() else label

    def of_camera(self, camera: str | None) -> "BoxTable":
        """The boxes of a camera; all where the table names no cameras.

        Raises `InputError` where it has no box of the camera; and for no `camera` where the frames
        are numbers of several cameras, so that it is not clear which is meant.
        """
        cameras = self.rows["camera"].drop_nulls().unique().sort().to_list()
        if not cameras:
            return self
        if camera is None:
            if len(cameras) > 1 and self.rows["frame"].str.contains(r"^[0-9]+$").any():
                names = ", ".join(cameras[:5])
                cure = "say with --camera of which one the input is"
                raise fail(self.path, f"has boxes of several cameras ({names}); {cure}")
            return self
        rows = self.rows.filter(pl.col("camera") == camera)
        if not len(rows):
            raise fail(self.path, f"has no box of --camera {camera}{nearest(camera, cameras)}")
        return BoxTable(self.path, rows, self.class_names)


def class_numbers(classes: Sequence[str], names: Mapping[int, str]) -> set[int]:
    """The numbers of classes that are given by name or number; unknown names are left out.

    >>> class_numbers(["Person", "7", "unicorn"], {0: "person"})
    {0, 7}
    """
    by_name = {name.casefold(): number for number, name in names.items()}
    numbers_ = (int(w) if w.isdecimal() else by_name.get(w.casefold()) for w in classes)
    return {number for number in numbers_ if number is not None}


def read_boxes(path: str | Path) -> BoxTable:
    """Read a table of boxes.

    Named columns: frame (file name, or number); x, y, width, height or x1, y1, x2, y2; optionally
    score, identity (or track), camera, class. A text file without a header is taken for one of
    MOTChallenge: frame, id (-1: none), left, top, width, height, confidence, and in ground truth
    class and visibility; it counts pixels from 1, so 1 is subtracted.

    Raises `InputError` for a missing column, a cell that is no number, and names that do not
    identify frames.
    """
    frame, names = scan_table(path)
    table = collect(path, frame)
    if not all(_numeric(name) for name in names):
        return _named(path, table, names)
    if names != [str(k) for k in range(len(names))]:
        # The first row held distinct integers and was taken for a header.
        first = pl.DataFrame([names], schema=table.schema, orient="row")
        table = pl.concat([first, table])
    return _motchallenge(path, table)


def _numeric(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?[0-9.]+(e[-+]?[0-9]+)?\s*", text, re.IGNORECASE) is not None


def _motchallenge(path: str | Path, table: pl.DataFrame) -> BoxTable:
    if table.width < 6:
        needed = "MOTChallenge has at least 6: frame, id, left, top, width, height"
        raise fail(path, f"has {table.width} columns and no header; {needed}")
    table.columns = [f"column {k}" for k in range(1, table.width + 1)]
    fields = ("frame", "identity", *SIZED, "score", "label")
    column = {name: f"column {k}" for k, name in enumerate(fields, 1)}
    sides = {name: _column(path, table, column[name], 1) for name in SIZED}
    sides["x"], sides["y"] = sides["x"] - 1, sides["y"] - 1
    score = _column(path, table, column["score"], 1, needed=False) if table.width > 6 else None
    # Files of ten columns come from a detector or tracker: the last three are places in the world.
    label = _keys(path, table[column["label"]], 1) if table.width in (8, 9) else None
    identity = _keys(path, table[column["identity"]], 1).replace({"-1": None})
    frame = _keys(path, table[column["frame"]], 1)
    return _box_table(path, frame, sides, score, identity, None, label, MOT_CLASSES)


def _named(path: str | Path, table: pl.DataFrame, names: Sequence[str]) -> BoxTable:
    lower = {name.lower(): name for name in reversed(names)}
    column = {
        kind: next((lower[word] for word in words if word in lower), None)
        for kind, words in COLUMNS.items()
    }
    if column["frame"] is None:
        hint = nearest("frame", names)
        raise fail(path, f"there is no column 'frame' (file name or number of a box's frame){hint}")
    sized = all(name in lower for name in SIZED)
    if not sized and not all(name in lower for name in CORNERS):
        missing = [name for name in (CORNERS if "x1" in lower else SIZED) if name not in lower]
        forms = f"a box is {', '.join(SIZED)} or {', '.join(CORNERS)}"
        raise fail(path, f"there is no column {shown(missing[0])}; {forms}")
    sources = SIZED if sized else CORNERS
    sides = dict(zip(SIZED, (_column(path, table, lower[name], 2) for name in sources)))
    if not sized:
        sides["width"] = sides["width"] - sides["x"]
        sides["height"] = sides["height"] - sides["y"]

    def text(kind: str) -> pl.Series | None:
        name = column[kind]
        if name is None:
            return None
        return table[name].cast(pl.String).str.strip_chars().replace({"": None})

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
    return _box_table(path, frame, sides, score, identity, text("camera"), label, COCO_PERSON)


def _column(
    path: str | Path, table: pl.DataFrame, name: str, first: int, *, needed: bool = True
) -> pl.Series:
    """A column of numbers.

    Raises `InputError` with the first row that has none; rows count from `first`.
    """
    values, bad = number_column(path, table[name])
    if needed:
        bad = bad | np.isnan(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise fail(path, f"row {row + first}: {name} is {shown(table[name][row])}, not a number")
    return pl.Series(values).fill_nan(None)


def _keys(path: str | Path, column: pl.Series, first: int) -> pl.Series:
    """Frames as they are looked up: numbers without leading zeros, file names without folders."""
    text = column.cast(pl.String).str.strip_chars()
    empty = text.is_null() | (text == "")
    if empty.any():
        raise fail(path, f"row {int(empty.arg_max() or 0) + first}: {column.name} is empty")
    number = text.str.extract(r"^0*([0-9]+?)(?:\.0*)?$", 1)
    name = text.str.replace_all("\\", "/", literal=True)
    base = name.str.split("/").list.last()
    if (name != base).any():
        paths = pl.DataFrame({"base": base, "name": name}).unique()
        repeated = paths.group_by("base").len().filter(pl.col("len") > 1)["base"]
        if len(repeated):
            file = str(repeated[0])
            folders = sorted(
                {str(PurePosixPath(n).parent) for n, b in zip(name, base) if b == file}
            )
            places = ", ".join(folders[:4])
            cure = "give a table of boxes for each folder"
            raise fail(path, f"{shown(file)} lies in several folders ({places}); {cure}")
    keys = [b if digits is None else digits for digits, b in zip(number, base)]
    return pl.Series("frame", keys, dtype=pl.String)


def _box_table(
    path: str | Path,
    frame: pl.Series,
    sides: Mapping[str, pl.Series],
    score: pl.Series | None,
    identity: pl.Series | None,
    camera: pl.Series | None,
    label: pl.Series | None,
    class_names: Mapping[int, str],
) -> BoxTable:
    if not len(frame):
        raise fail(path, "holds no boxes")
    optional = {"score": score, "identity": identity, "camera": camera, "label": label}
    columns = [frame.alias("frame"), *(sides[name].alias(name) for name in SIZED)]
    for name, values in optional.items():
        kind = pl.Float64 if name == "score" else pl.String
        values = pl.Series([None] * len(frame)) if values is None else values
        columns.append(values.cast(kind).alias(name))
    return BoxTable(str(path), pl.DataFrame(columns), class_names)
