"""Tables of boxes in frames: CSV and Parquet with named columns, and the text files of
MOTChallenge.

A box is x and y of its upper left corner, width and height, in pixels; the upper left corner of a
frame is 0, 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..columns import parse_columns, plain_name
from ..formats.tables import MISSING_WORDS, collect, number_column, scan_table

# Names of columns; the first that the table has is used.
COLUMNS = {
    "frame": (
        "frame", "frame_id", "image", "file", "frame_number", "frame_no", "frame_index", "frameid",
        "image_name", "img", "filename", "file_name",
    ),
    "x": (
        "x", "left", "bb_left", "bbox_left", "bbox_x", "xmin", "x_min", "x_center", "x_centre",
        "xc", "cx",
    ),
    "y": (
        "y", "top", "bb_top", "bbox_top", "bbox_y", "ymin", "y_min", "y_center", "y_centre", "yc",
        "cy",
    ),
    "width": ("width", "w", "bb_width", "bbox_width", "bbox_w"),
    "height": ("height", "h", "bb_height", "bbox_height", "bbox_h"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "score": ("score", "confidence", "conf", "probability"),
    "identity": (
        "identity", "track", "track_id", "id", "pid", "trackid", "person", "person_id", "object_id",
    ),
    "camera": ("camera", "cam", "camera_id", "cam_id", "camid"),
    "class": ("class", "label", "category", "class_name", "class_id"),
    "visibility": ("visibility", "vis"),
}  # fmt: skip
SIZED, CORNERS = ("x", "y", "width", "height"), ("x1", "y1", "x2", "y2")
_CENTRES = ("x_center", "x_centre", "xc", "cx")
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
_OUTSIDE = 0.02  # share of the frame by which a detector's box may end outside of it


@dataclass(frozen=True)
class BoxTable:
    """Boxes of many frames.

    rows: frame (text: a file name, or a number without leading zeros), x, y, width, height
    (Float64), score, visibility (Float64 or null), identity, camera, label (text or null).
    class_names: names of labels that are numbers. relative: whether places and sizes are shares of
    the frame, 0 to 1, and not pixels.
    """

    path: str
    rows: pl.DataFrame
    class_names: Mapping[int, str]
    relative: bool = False

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
        return replace(self, rows=rows)

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
        return replace(self, rows=rows)

    def frame_numbers(self) -> tuple[int, int] | None:
        """The lowest and the highest number of a frame; None where frames have names."""
        numbers = self.rows["frame"].str.extract(r"^([0-9]{1,18})$", 1).cast(pl.Int64).drop_nulls()
        low, high = numbers.min(), numbers.max()
        return (low, high) if isinstance(low, int) and isinstance(high, int) else None

    def counted_later(self, by: int) -> "BoxTable":
        """The boxes with `by` added to the numbers of their frames; names stay."""
        number = pl.col("frame").str.extract(r"^([0-9]{1,18})$", 1).cast(pl.Int64) + by
        frame = pl.coalesce(number.cast(pl.String), pl.col("frame"))
        return replace(self, rows=self.rows.with_columns(frame.alias("frame")))


def class_numbers(classes: Sequence[str], names: Mapping[int, str]) -> set[int]:
    """The numbers of classes that are given by name or number; unknown names are left out.

    >>> class_numbers(["Person", "7", "unicorn"], {0: "person"})
    {0, 7}
    """
    by_name = {name.casefold(): number for number, name in names.items()}
    numbers_ = (int(w) if w.isdecimal() else by_name.get(w.casefold()) for w in classes)
    return {number for number in numbers_ if number is not None}


def read_boxes(path: str | Path, *, columns: Sequence[str] = (), centre: bool = False) -> BoxTable:
    """Read a table of boxes.

    Named columns, also under other usual names (COLUMNS): frame (file name, or number); x, y,
    width, height or x1, y1, x2, y2; optionally score, identity, camera, class, visibility. columns:
    names of columns by field, "x=left". centre: whether x and y are the middle of a box and not its
    upper left corner. Where no number is above 1, they are shares of the frame.

    A text file without a header is taken for one of MOTChallenge: frame, id (-1: none), left, top,
    width, height, confidence, and in ground truth class and visibility; it counts pixels from 1, so
    1 is subtracted.

    Raises `InputError` for a missing column, a cell that is no number, and names that do not
    identify frames.
    """
    frame, names = scan_table(path)
    table = collect(path, frame)
    note("read", "boxes", count=table.height)
    if not all(_numeric(name) for name in names):
        boxes = _named(path, table, names, parse_columns(columns, tuple(COLUMNS)))
        is_centre = centre or any(name.lower() in _CENTRES for name in names)
        return _placed(boxes, centre=is_centre)
    if columns:
        raise fail(path, "has no header; --columns is read with named columns")
    if names != [str(k) for k in range(len(names))]:
        # The first row held distinct integers and was taken for a header.
        first = pl.DataFrame([names], schema=table.schema, orient="row")
        table = pl.concat([first, table])
    note("assumed", f"{path} is of MOTChallenge: pixels are counted from 1")
    boxes = _motchallenge(path, table)
    return _by_corner(boxes) if centre else boxes


def _placed(boxes: BoxTable, *, centre: bool) -> BoxTable:
    """Boxes by their upper left corner, and whether they are shares of the frame."""
    rows = boxes.rows
    most = max(float(rows[name].max() or 0) for name in SIZED)  # pyright: ignore[reportArgumentType]
    if most <= 1:
        what = "boxes are shares of the frame, since no number is above 1"
        corner = "middle" if centre else "upper left corner (--centre: the middle)"
        note("assumed", f"{what}; x and y are the {corner}")
        boxes = replace(boxes, relative=True)
        ends = [float((rows[a] + rows[b]).max() or 0) for a, b in zip(SIZED[:2], SIZED[2:])]  # pyright: ignore[reportArgumentType]
        if not centre and max(ends) > 1 + _OUTSIDE:
            cure = "if x and y are the middle of a box, say --centre"
            raise fail(boxes.path, f"has boxes of shares that end outside of the frame; {cure}")
    elif centre:
        note("assumed", "x and y are the middle of a box")
    return _by_corner(boxes) if centre else boxes


def _by_corner(boxes: BoxTable) -> BoxTable:
    """Boxes whose x and y are their middle, by their upper left corner."""
    moved = [pl.col(a) - pl.col(b) / 2 for a, b in zip(SIZED[:2], SIZED[2:])]
    return replace(boxes, rows=boxes.rows.with_columns(moved))


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
    optional = {"score": score, "identity": identity, "label": label}
    if table.width == 9:
        shares = _column(path, table, "column 9", 1, needed=False)
        optional["visibility"] = pl.select(pl.when(shares >= 0).then(shares)).to_series()
    return _box_table(path, frame, sides, optional, MOT_CLASSES)


def _named(
    path: str | Path, table: pl.DataFrame, names: Sequence[str], chosen: Mapping[str, str]
) -> BoxTable:
    column = _columns_of(path, names, chosen)
    if "frame" not in column:
        hint = nearest("frame", names)
        raise fail(path, f"there is no column 'frame' (file name or number of a box's frame){hint}")
    sized = all(name in column for name in SIZED)
    if not sized and not all(name in column for name in CORNERS):
        missing = [n for n in (CORNERS if "x1" in column else SIZED) if n not in column]
        forms = f"a box is {', '.join(SIZED)} or {', '.join(CORNERS)}"
        raise fail(path, f"there is no column {shown(missing[0])}; {forms}")
    sources = SIZED if sized else CORNERS
    _note_columns(names, {k: v for k, v in column.items() if k in (*sources, *_TELLING)})
    sides = dict(zip(SIZED, (_column(path, table, column[name], 2) for name in sources)))
    if not sized:
        sides["width"] = sides["width"] - sides["x"]
        sides["height"] = sides["height"] - sides["y"]

    def text(field: str) -> pl.Series | None:
        name = column.get(field)
        if name is None:
            return None
        return table[name].cast(pl.String).str.strip_chars().replace({"": None})

    optional = {"camera": text("camera"), "label": text("class"), "identity": text("identity")}
    if (label := optional["label"]) is not None:
        label = label.str.to_lowercase()
        optional["label"] = label.str.replace(r"^([0-9]+)\.0*$", "$1")
    if (identity := optional["identity"]) is not None:
        identity = identity.replace({"-1": None, "-1.0": None})
        identity = pl.select(
            pl.when(~identity.str.to_lowercase().is_in(MISSING_WORDS)).then(identity)
        )
        optional["identity"] = identity.to_series().str.replace(r"^([0-9]+)\.0*$", "$1")
    for field in ("score", "visibility"):
        if field in column:
            optional[field] = _column(path, table, column[field], 2, needed=False)
    frame = _keys(path, table[column["frame"]], 2)
    return _box_table(path, frame, sides, optional, COCO_PERSON)


_TELLING = ("frame", "score", "identity", "camera", "class", "visibility")


def _columns_of(
    path: str | Path, names: Sequence[str], chosen: Mapping[str, str]
) -> dict[str, str]:
    """The column of each field, as far as there is one."""
    for field, name in chosen.items():
        if name not in names:
            hint = nearest(name, names)
            raise fail(
                f"{path}: --columns {field}={name}", f"there is no column {shown(name)}{hint}"
            )
    plain = {plain_name(name): name for name in reversed(names)}
    column = dict(chosen)
    for field, words in COLUMNS.items():
        if field not in column and (name := next((plain[w] for w in words if w in plain), None)):
            column[field] = name
    return column


def _note_columns(names: Sequence[str], column: Mapping[str, str]) -> None:
    for field, name in column.items():
        if name != field:
            note("columns", f"{shown(name)} is taken as the {field}")
    if unused := [name for name in names if name not in column.values()]:
        note("columns", "not used", unused)


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
    optional: Mapping[str, pl.Series | None],
    class_names: Mapping[int, str],
) -> BoxTable:
    if not len(frame):
        raise fail(path, "holds no boxes")
    columns = [frame.alias("frame"), *(sides[name].alias(name) for name in SIZED)]
    for name in ("score", "visibility", "identity", "camera", "label"):
        kind = pl.Float64 if name in ("score", "visibility") else pl.String
        values = optional.get(name)
        values = pl.Series([None] * len(frame)) if values is None else values
        columns.append(values.cast(kind).alias(name))
    return BoxTable(str(path), pl.DataFrame(columns), class_names)
