"""Boxes of one frame to pictures of people: boxes come from a table or from a detector."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, nearest
from ...data.formats.video import Frame, Frames
from ...data.persons.boxes import COCO_PERSON, BoxTable, class_numbers, read_boxes
from .options import CropOptions

SCHEMA = {
    "image": pl.String,
    "frame": pl.Int64,
    "camera": pl.String,
    "x": pl.Int64,
    "y": pl.Int64,
    "width": pl.Int64,
    "height": pl.Int64,
    "score": pl.Float64,
    "identity": pl.String,
}
BoxFinder = Callable[[Frame], pl.DataFrame]
"""Gives the boxes of a frame: x, y, width, height, score, identity, camera, and visibility if it
knows it."""
Edges = tuple[int, int, int, int]


class CropRow(TypedDict):
    """A row of the table of crops."""

    image: str
    frame: int
    camera: str
    x: int
    y: int
    width: int
    height: int
    score: float | None
    identity: str | None


class FrameRecord(TypedDict):
    """What is stored of a frame that is done: its crops, what was left out, or its error."""

    frame: int
    name: str
    rows: list[CropRow]
    counts: dict[str, int]
    boxes: int
    error: NotRequired[str | None]


def read_box_table(options: CropOptions, frames: Frames) -> BoxTable:
    """The boxes of the camera and the classes that the options name, with the numbers that the
    frames have.
    """
    table = read_boxes(str(options.boxes), columns=options.columns, centre=options.centre)
    table = table.of_camera(options.camera).of_classes(options.classes)
    return numbered_as(table, frames.span, options.first_frame)


def numbered_as(table: BoxTable, span: tuple[int, int | None], first_frame: int | None) -> BoxTable:
    """The boxes with the numbers that the frames have, where the table counts from another number.

    span: the lowest and the highest number of the frames, None if not known. first_frame: the
    number that the table gives to the first frame; None: 0 if it names a frame 0 that there is not,
    else as the frames are numbered.

    Raises `InputError` where it is not clear which frame is meant.
    """
    present = table.frame_numbers()
    lowest, highest = span
    if present is None:
        if first_frame is not None:
            raise fail(table.path, "names its frames by file; --first-frame is of numbers")
        return table
    if first_frame is not None:
        by = lowest - first_frame
    elif present[0] == 0 and lowest > 0:
        if lowest != 1:
            cure = "if its frame 0 is the first of them, say --first-frame 0"
            numbers = f"counts frames from 0, and those of the input are numbered from {lowest}"
            raise fail(table.path, f"{numbers}; {cure}")
        by = 1
    else:
        # Files from 000000 on, and boxes that end one frame after the last file.
        by = -1 if lowest == 0 and present[0] >= 1 and present[1] == (highest or 0) + 1 else 0
    if by == 0:
        if present[0] >= 1 and lowest == 1 and present[1] != highest:
            note("assumed", "the boxes count frames from 1 (--first-frame 0: from 0)")
        return table
    first = f"frame {lowest - by} of the boxes is the first of the input"
    note("assumed", f"{first} (--first-frame)")
    return table.counted_later(by)


def boxes_of(table: BoxTable) -> BoxFinder:
    """The finder that looks boxes up in a table; in pixels."""

    def find(frame: Frame) -> pl.DataFrame:
        boxes = table.of(frame.name, frame.number)
        if not table.relative or frame.pixels is None:
            return boxes
        rows, columns = frame.pixels.shape[:2]
        scale = {"x": columns, "width": columns, "y": rows, "height": rows}
        return boxes.with_columns(pl.col(name) * side for name, side in scale.items())

    return find


def detector(options: CropOptions) -> BoxFinder:
    """The finder that asks a detector of mmdetection."""
    from ..engine.runs.loaded import pick_device

    device = pick_device(options.accelerator)
    try:
        from ...models.adapters.openmmlab.detector import Detector

        detect = Detector(str(options.config), str(options.checkpoint), device=device)
    except ImportError as error:
        raise InputError(f"--config: {error}") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    names = dict(enumerate(detect.class_names)) or COCO_PERSON
    for word in options.classes:
        if not class_numbers([word], names):
            raise InputError(
                f"--classes {word}: the detector has no such class{nearest(word, names.values())}"
            )
    labels = list(class_numbers(options.classes, names))

    def find(frame: Frame) -> pl.DataFrame:
        assert frame.pixels is not None
        detected = detect(frame.pixels)
        usable = np.isin(detected.labels, labels) & np.isfinite(detected.boxes).all(1)
        box = detected.boxes[usable].astype(np.float64)
        unknown = pl.lit(None, dtype=pl.String)
        return pl.DataFrame(
            {
                "x": box[:, 0],
                "y": box[:, 1],
                "width": box[:, 2] - box[:, 0],
                "height": box[:, 3] - box[:, 1],
                "score": detected.scores[usable].astype(np.float64),
            }
        ).with_columns(unknown.alias("identity"), unknown.alias("camera"))

    return find


def crop_frame(
    frame: Frame, finder: BoxFinder, options: CropOptions, folder: Path, camera: str
) -> FrameRecord:
    """Write the crops of one frame into a folder; camera: of boxes that name none."""
    record: FrameRecord = {
        "frame": frame.number,
        "name": frame.name,
        "rows": [],
        "counts": {},
        "boxes": 0,
    }
    if frame.pixels is None:
        record["error"] = frame.error
        return record
    boxes = finder(frame)
    record["boxes"] = len(boxes)
    counts: Counter[str] = Counter()
    for box in boxes.iter_rows(named=True):
        edges = _edges_of(box, options, frame.pixels, counts)
        if edges is None:
            continue
        left, top, right, bottom = edges
        box_camera = box["camera"] or camera
        name = f"{_plain(box_camera)}_{frame.number:06d}_{len(record['rows']):03d}.jpg"
        _write_picture(folder / name, frame.pixels[top:bottom, left:right])
        record["rows"].append(
            {
                "image": name,
                "frame": frame.number,
                "camera": box_camera,
                "x": left,
                "y": top,
                "width": right - left,
                "height": bottom - top,
                "score": box["score"],
                "identity": box["identity"],
            }
        )
    record["counts"] = dict(counts)
    return record


def _edges_of(
    box: Mapping[str, float], options: CropOptions, pixels: np.ndarray, counts: Counter[str]
) -> Edges | None:
    """The edges of a crop, or None; counts why there is none, and the boxes that are cut."""
    if box["score"] is not None and box["score"] < options.least_score:
        counts["score"] += 1
        return None
    visibility = box.get("visibility")
    if visibility is not None and (visibility <= 0 or visibility < options.least_visibility):
        counts["hidden"] += 1
        return None
    edges, cut = inside(box, options.margin, pixels.shape[1], pixels.shape[0])
    if edges is None:
        counts["outside"] += 1
        return None
    left, top, right, bottom = edges
    if min(right - left, bottom - top) < options.least:
        counts["small"] += 1
        return None
    counts["cut"] += cut
    return edges


def inside(
    box: Mapping[str, float], margin: float, width: int, height: int
) -> tuple[Edges | None, bool]:
    """The edges of a widened box within its frame, and whether something was cut off.

    box: x, y, width, height. margin: share by which it is widened. width, height: of the frame.
    Returns (left, top, right, bottom) in pixels, the last two exclusive; None if nothing is inside.
    """
    if not (box["width"] > 0 and box["height"] > 0):
        return None, False
    edges = []
    cut = False
    for start, size, end in ((box["x"], box["width"], width), (box["y"], box["height"], height)):
        low = math.floor(start - size * margin / 2 + 0.5)
        high = math.floor(start + size * (1 + margin / 2) + 0.5)
        edges.append((max(low, 0), min(high, end)))
        cut = cut or low < 0 or high > end
    (left, right), (top, bottom) = edges
    return ((left, top, right, bottom), cut) if left < right and top < bottom else (None, False)


def _plain(name: str) -> str:
    """A name that is safe in the name of a file."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:80].strip(".-") or "camera"


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    try:
        Image.fromarray(pixels).save(path, format="JPEG", quality=95, subsampling=0)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); started again it goes on"
        ) from None
