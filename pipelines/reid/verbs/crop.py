"""Video or frames in, pictures of people out: boxes come from a table or from a detector.

All is written into OUTPUT.part, which takes the name OUTPUT at the end: a folder of crops is whole.
A line of frames.jsonl is written when a frame is done, so that the same command goes on where it
was stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ....base.errors import InputError, nearest
from ....base.files import held, write_aside, write_json, write_text
from ....data.formats.pictures import read_picture
from ....data.formats.video import Frame, Frames
from ....data.persons.boxes import COCO_PERSON, BoxTable, class_numbers, read_boxes
from ...engine.command_line.checks import check_least
from ...engine.command_line.terminal import Progressbar, say
from ...engine.runs.run_directory import read_facts
from ..crop_options import CropOptions

TABLE, SHEET, DONE, JOB = "crops.csv", "crops.png", "frames.jsonl", "job.json"
FREE = ("output", "overwrite", "accelerator")  # options that two starts of one job may differ in
SHOWN = 40  # crops of the contact sheet
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
SAID = {
    "score": "with a score below --least-score", "outside": "without area inside the frame",
    "small": "smaller than --least", "cut": "cut at the edge of the frame",
}  # fmt: skip
Finder = Callable[[Frame], pl.DataFrame]


@dataclass(frozen=True)
class Cropped:
    """Outcome: the folder, its table, and how many frames could not be read."""

    output: Path
    table: (
        pl.DataFrame
    )  # image, frame, camera, x, y, width, height, score, and identity where boxes have it
    failed: int
    counts: Mapping[str, int]
    """Boxes left out by reason (score, outside, small), and those cut at the edge (cut)."""


def check(options: CropOptions) -> None:
    """Raise `InputError` for option values that no data can make right."""
    check_least(options, {"least": 1, "every": 1})
    if options.boxes is None and (options.config is None or options.checkpoint is None):
        raise InputError("reid crop: needs --boxes, or --config and --checkpoint of a detector")
    if options.boxes is not None and (options.config is not None or options.checkpoint is not None):
        raise InputError("reid crop: --boxes and a detector exclude each other; leave out one")
    if not 0 <= options.margin <= 10:
        raise InputError(f"--margin {options.margin}: must be in [0, 10]")
    if not math.isfinite(options.least_score):
        raise InputError(f"--least-score {options.least_score}: must be a finite number")
    if not options.classes:
        raise InputError("--classes: give at least one")
    if options.camera is not None and not options.camera.strip():
        raise InputError("--camera: is empty; give a name or leave it out")


def crop(options: CropOptions) -> Cropped:
    """The verb `crop`: pictures of all boxes of all frames, crops.csv and crops.png in --output.

    Frames that cannot be read are named and counted, and end nothing. Raises InputError for
    options, frames, boxes or a detector that cannot be used, and where no crop comes out; then
    nothing is written."""
    check(options)
    frames = Frames(options.input, stride=options.every)
    output = Path(os.path.realpath(options.output))
    _check_output(output, options)
    boxes = None if options.boxes is None else _boxes(options)
    part = output.with_name(f"{output.name}.part")
    fingerprint = _fingerprint(options, frames)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror})") from None
    with held(part, Path(options.output)):
        done = _claim(part, fingerprint, options.overwrite)
        finder = _from_table(boxes) if boxes is not None else _detector(options)
        with Progressbar(total=frames.total, initial=len(done), unit="frame", desc="crop") as bar:
            done.extend(
                _crop_frames(frames, finder, options, part, {line["frame"] for line in done}, bar)
            )
        table, counts, failures = _summary(done)
        _check_found(table, counts, done, boxes, options)
        write_text(part / TABLE, table.write_csv())
        write_aside(
            part / SHEET,
            lambda path: contact_sheet(part, table).savefig(path, format="png", dpi=80),
        )
        (part / DONE).unlink()
        (part / JOB).unlink()
        _replace(part, output)
    (output / ".lock").unlink(missing_ok=True)
    _report(Path(options.output), table, counts, failures, done, boxes)
    return Cropped(Path(options.output), table, len(failures), counts)


def _check_output(output: Path, options: CropOptions) -> None:
    """Refuse a folder that holds anything, but for crops that are to be replaced."""
    if output == Path(os.path.realpath(options.input)):
        raise InputError(f"{options.output}: is also --input; choose another --output")
    if output.is_file():
        raise InputError(f"{options.output}: is a file; --output names a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not options.overwrite:
        raise InputError(
            f"{options.output}: is not empty; choose another --output, or --overwrite if it holds crops"
        )
    other = [
        f.name
        for f in output.iterdir()
        if f.is_dir() or not (f.suffix == ".jpg" or f.name in (TABLE, SHEET))
    ]
    if other or not (output / TABLE).is_file():
        why = f"holds {other[0]!r}" if other else f"has no {TABLE}"
        raise InputError(
            f"{options.output}: is no folder of crops ({why}), so it is not replaced; choose another "
            "--output"
        )


def _boxes(options: CropOptions) -> BoxTable:
    return read_boxes(str(options.boxes)).of_camera(options.camera).of_classes(options.classes)


def _fingerprint(options: CropOptions, frames: Frames) -> str:
    """Of all that decides what comes out: options, and sizes and times of the files."""
    said = {name: value for name, value in asdict(options).items() if name not in FREE}
    files = frames.files if frames.files is not None else [frames.path]
    given = [
        Path(name)
        for name in (options.boxes, options.config, options.checkpoint)
        if name is not None
    ]
    stamps = []
    for file in (*files, *given):
        try:
            stat = file.stat()
        except OSError:  # whoever reads it says so better
            continue
        stamps.append([file.name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps([said, stamps]).encode()).hexdigest()


def _claim(part: Path, fingerprint: str, overwrite: bool) -> list[dict[str, Any]]:
    """Take up what an earlier start of the same job left: the lines of the frames that it had
    done.
    """
    job, lines = part / JOB, part / DONE
    if job.is_file():
        if read_facts(job)["fingerprint"] == fingerprint:
            done = _read_lines(lines)
            if done:
                say(f"{len(done)} frames were done before")
            return done
        if not overwrite:
            raise InputError(
                f"{part}: was begun with other options or input; remove it or --overwrite"
            )
    elif any(f.name != ".lock" for f in part.iterdir()):
        raise InputError(
            f"{part}: is in the way and not of this program; remove it or choose another --output"
        )
    for file in part.iterdir():
        if file.name != ".lock":
            file.unlink()
    write_json(job, {"fingerprint": fingerprint})
    return []


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; what a kill left of the last one is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise InputError(f"{path}: is damaged; remove {path.parent} and begin anew") from None


def _from_table(boxes: BoxTable) -> Finder:
    return lambda frame: boxes.of(frame.name, frame.number)


def _detector(options: CropOptions) -> Finder:
    """Boxes from a detector of mmdetection."""
    from ...engine.runs.loaded import pick_device

    device = pick_device(options.accelerator)
    try:
        from ....models.adapters.openmmlab.detector import Detector

        detector = Detector(str(options.config), str(options.checkpoint), device=device)
    except ImportError as error:
        raise InputError(f"--config: {error}") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    names = dict(enumerate(detector.class_names)) or COCO_PERSON
    for word in options.classes:
        if not class_numbers([word], names):
            raise InputError(
                f"--classes {word}: the detector has no such class{nearest(word, names.values())}"
            )
    wanted = list(class_numbers(options.classes, names))

    def find(frame: Frame) -> pl.DataFrame:
        assert frame.pixels is not None
        found = detector(frame.pixels)
        kept = np.isin(found.labels, wanted) & np.isfinite(found.boxes).all(1)
        box, score = found.boxes[kept].astype(np.float64), found.scores[kept].astype(np.float64)
        columns = {
            "x": box[:, 0],
            "y": box[:, 1],
            "width": box[:, 2] - box[:, 0],
            "height": box[:, 3] - box[:, 1],
        }
        none = pl.lit(None, dtype=pl.String)
        return pl.DataFrame({**columns, "score": score}).with_columns(
            none.alias("identity"), none.alias("camera")
        )

    return find


def _crop_frames(
    frames: Frames,
    finder: Finder,
    options: CropOptions,
    part: Path,
    before: set[int],
    bar: Progressbar,
) -> Iterator[dict[str, Any]]:
    """Crop all frames that are not done; yields a line for each: its rows, counts, or its error."""
    default = options.camera or frames.camera
    with (part / DONE).open("a", encoding="utf-8") as lines:
        for frame in frames:
            if frame.number in before:
                continue
            line: dict[str, Any] = {
                "frame": frame.number,
                "name": frame.name,
                "rows": [],
                "counts": {},
                "boxes": 0,
            }
            if frame.pixels is None:
                line["error"] = frame.error
            else:
                found = finder(frame)
                line["boxes"] = len(found)
                line["rows"], line["counts"] = _crop_frame(
                    frame, frame.pixels, found, options, part, default
                )
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            bar.update()
            yield line


def _crop_frame(
    frame: Frame,
    pixels: np.ndarray,
    found: pl.DataFrame,
    options: CropOptions,
    part: Path,
    default: str,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Write the crops of one frame; their rows, and what was left out."""
    rows: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for box in found.iter_rows(named=True):
        if box["score"] is not None and box["score"] < options.least_score:
            counts["score"] += 1
            continue
        place, cut = inside(box, options.margin, pixels.shape[1], pixels.shape[0])
        if place is None:
            counts["outside"] += 1
            continue
        left, top, right, bottom = place
        if min(right - left, bottom - top) < options.least:
            counts["small"] += 1
            continue
        counts["cut"] += cut
        camera = box["camera"] or default
        name = f"{_plain(camera)}_{frame.number:06d}_{len(rows):03d}.jpg"
        _write_picture(part / name, pixels[top:bottom, left:right])
        rows.append(
            {
                "image": name,
                "frame": frame.number,
                "camera": camera,
                "x": left,
                "y": top,
                "width": right - left,
                "height": bottom - top,
                "score": box["score"],
                "identity": box["identity"],
            }
        )
    return rows, dict(counts)


def inside(
    box: Mapping[str, Any], margin: float, width: int, height: int
) -> tuple[tuple[int, int, int, int] | None, bool]:
    """A widened box (x, y, width, height) in whole pixels (left, top, right, bottom; the last two
    beyond it), cut to the frame; and whether something was cut off. None where nothing is left."""
    if not (box["width"] > 0 and box["height"] > 0):
        return None, False
    edges = []
    cut = False
    for start, size, end in ((box["x"], box["width"], width), (box["y"], box["height"], height)):
        low, high = (
            math.floor(v + 0.5)
            for v in (start - size * margin / 2, start + size * (1 + margin / 2))
        )
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


def _summary(
    done: list[dict[str, Any]],
) -> tuple[pl.DataFrame, dict[str, int], list[tuple[str, str]]]:
    """The table, what was left out, and the frames that could not be read with the reason."""
    done = sorted(done, key=lambda line: line["frame"])
    table = pl.DataFrame(
        [row for line in done for row in line["rows"]], schema=SCHEMA, orient="row"
    )
    if not table["identity"].is_not_null().any():
        table = table.drop("identity")
    counts: Counter[str] = Counter()
    for line in done:
        counts.update(line["counts"])
    return table, dict(counts), [(line["name"], line["error"]) for line in done if "error" in line]


def _check_found(
    table: pl.DataFrame,
    counts: Mapping[str, int],
    done: list[dict[str, Any]],
    boxes: BoxTable | None,
    options: CropOptions,
) -> None:
    """InputError where no crop came out, with the likeliest reason."""
    if len(table):
        return
    errors = [line["error"] for line in done if "error" in line]
    if errors and len(errors) == len(done):
        raise InputError(
            f"{options.input}: none of its {len(done)} frames can be read: {errors[0]}"
        )
    if boxes is not None and not any(line["boxes"] for line in done):
        raise InputError(
            f"{boxes.path}: none of its boxes belongs to a frame of {options.input}: it names frames like "
            f"{boxes.rows['frame'][0]!r}, the frames are like {done[0]['name']!r} (number {done[0]['frame']})"
        )
    dropped = ", ".join(
        f"{counts[reason]} {said}" for reason, said in SAID.items() if counts.get(reason)
    )
    raise InputError(f"{options.input}: no crop came out: {dropped or 'the detector found nobody'}")


def contact_sheet(folder: Path, table: pl.DataFrame) -> Any:
    """A matplotlib figure of the first crops, each with its identity or frame."""
    from matplotlib.figure import Figure

    shown = table.head(SHOWN)
    columns = min(10, len(shown))
    rows = -(-len(shown) // columns)
    drawn = Figure(figsize=(1.1 * columns + 0.2, 2.3 * rows + 0.5), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, shown.iter_rows(named=True)):
        axis.imshow(read_picture(folder / row["image"]).transpose(1, 2, 0))
        axis.set_title(row.get("identity") or f"frame {row['frame']}", fontsize=7)
    drawn.suptitle(f"{len(shown)} of {len(table):,} crops", fontsize=9)
    return drawn


def _replace(part: Path, output: Path) -> None:
    """Give the finished folder its name; the one before it goes when that has happened."""
    old = output.with_name(f"{output.name}.old")
    if output.is_dir() and any(output.iterdir()):
        if old.exists():
            shutil.rmtree(old)
        output.rename(old)
    os.replace(part, output)
    shutil.rmtree(old, ignore_errors=True)


def _report(
    output: Path,
    table: pl.DataFrame,
    counts: Mapping[str, int],
    failures: list[tuple[str, str]],
    done: list[dict[str, Any]],
    boxes: BoxTable | None,
    most: int = 20,
) -> None:
    """What a person is told at the end."""
    say(
        f"{len(table):,} crops of {len(done) - len(failures):,} frames: table {output / TABLE}, picture "
        f"{output / SHEET}"
    )
    for reason, said in SAID.items():
        if counts.get(reason):
            say(f"  {counts[reason]:,} boxes {said}{'' if reason == 'cut' else ', left out'}")
    if boxes is not None and (left := len(boxes.rows) - sum(line["boxes"] for line in done)):
        say(f"  {left:,} boxes of frames that were not read")
    if failures:
        say(f"{len(failures)} frames could not be read:")
        for name, error in failures[:most]:
            say(f"  {name}: {error}")
        if len(failures) > most:
            say(f"  … {len(failures) - most} more")
