"""Video or frames to pictures of people.

All is written into OUTPUT.part, which gets the name OUTPUT at the end, so a folder of crops is
always complete. A line of frames.jsonl is written when a frame is done, so that the same command
continues an interrupted job.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from ....base.account import Account, note, opened
from ....base.errors import InputError
from ....base.files import held, write_json, write_text
from ....base.own_files import ASIDE
from ....data.formats.pictures import read_picture
from ....data.formats.video import Frames
from ....data.persons.boxes import BoxTable
from ...engine.accounts import publish
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference.output import refuse_input_as_output
from ...engine.runs.run_directory import ACCOUNT, read_facts
from .. import cropping
from ..cropping import SCHEMA, BoxFinder, FrameRecord
from ..option_rules import check
from ..options import CropOptions

TABLE, SHEET, DONE, JOB = "crops.csv", "crops.png", "frames.jsonl", "job.json"
FREE = ("output", "overwrite", "accelerator")  # options that two starts of one job may differ in
SHOWN = 40  # crops of the contact sheet
REASONS = {
    "score": "with a score below --least-score",
    "hidden": "of people that are hidden (--least-visibility)",
    "outside": "without area inside the frame",
    "small": "smaller than --least",
    "cut": "cut at the edge of the frame",
}
MOST_FAILURES = 20  # frames that the terminal names


@dataclass(frozen=True)
class Cropped:
    """Outcome of a job.

    output: the folder. table: image, frame, camera, x, y, width, height, score, and identity if the
    boxes have it. failed: frames that could not be read. counts: boxes left out by reason (score,
    hidden, outside, small), and those cut at the edge (cut).
    """

    output: Path
    table: pl.DataFrame
    failed: int
    counts: Mapping[str, int]


def crop(options: CropOptions) -> Cropped:
    """Write pictures of all boxes of all frames, crops.csv and crops.png into --output.

    Frames that cannot be read are named and counted, and stop nothing. Raises InputError for
    options, frames, boxes or a detector that cannot be used, and if there is no crop; then nothing
    is written.
    """
    check(options)
    with opened(options.accept) as account:
        return _crop(options, account)


def _crop(options: CropOptions, account: Account) -> Cropped:
    frames = Frames(options.input, stride=options.every)
    if frames.total is not None:
        note("read", "frames", count=frames.total)
    output = Path(os.path.realpath(options.output))
    _check_output(output, options)
    boxes = None if options.boxes is None else cropping.read_box_table(options, frames)
    part = output.with_name(f"{output.name}.part")
    fingerprint = _fingerprint(options, frames)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror})") from None
    with held(part, Path(options.output)):
        records = _claim(part, fingerprint, options.overwrite)
        publish(account)
        finder = cropping.detector(options) if boxes is None else cropping.boxes_of(boxes)
        with Progressbar(
            total=frames.total, initial=len(records), unit="frame", desc="crop"
        ) as bar:
            for record in _crop_frames(frames, finder, options, part, records):
                records.append(record)
                bar.update()
        table, counts = _summary(records)
        if not len(table):
            raise _no_crop(counts, records, boxes, options)
        for why, text in REASONS.items():
            if counts.get(why) and why != "cut":
                note("left out", f"boxes {text}", count=counts[why])
        publish(account, part / ACCOUNT, shown=False)
        write_text(part / TABLE, table.write_csv())
        _write_contact_sheet(part, table)
        (part / DONE).unlink()
        (part / JOB).unlink()
        _replace(part, output)
    (output / ".lock").unlink(missing_ok=True)
    _report(Path(options.output), table, counts, records, boxes)
    failed = sum("error" in record for record in records)
    return Cropped(Path(options.output), table, failed, counts)


def _check_output(output: Path, options: CropOptions) -> None:
    """Refuse a folder that holds anything but crops that are to be replaced."""
    read = (options.input, options.boxes, options.config, options.checkpoint)
    refuse_input_as_output(options.output, filter(None, read))
    if output.is_file():
        raise InputError(f"{options.output}: is a file; --output names a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not options.overwrite:
        raise InputError(
            f"{options.output}: is not empty; choose another --output, or --overwrite if it holds "
            "crops"
        )
    foreign = [
        file.name
        for file in output.iterdir()
        if file.is_dir() or not (file.suffix == ".jpg" or file.name in (TABLE, SHEET, ACCOUNT))
    ]
    if foreign or not (output / TABLE).is_file():
        why = f"holds {foreign[0]!r}" if foreign else f"has no {TABLE}"
        raise InputError(
            f"{options.output}: is no folder of crops ({why}), so it is not replaced; choose "
            "another --output"
        )


def _fingerprint(options: CropOptions, frames: Frames) -> str:
    """SHA-256 of all that decides the result: options, and sizes and times of the files."""
    fixed = {name: value for name, value in asdict(options).items() if name not in FREE}
    frame_files = frames.files if frames.files is not None else [frames.path]
    names = (options.boxes, options.config, options.checkpoint)
    stamps = []
    for file in (*frame_files, *(Path(name) for name in names if name is not None)):
        try:
            stat = file.stat()
        except OSError:  # its reader has the better error message
            continue
        stamps.append([file.name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps([fixed, stamps]).encode()).hexdigest()


def _claim(part: Path, fingerprint: str, overwrite: bool) -> list[FrameRecord]:
    """Take over what an earlier start of the same job wrote: the records of finished frames."""
    job = part / JOB
    if job.is_file():
        if read_facts(job)["fingerprint"] == fingerprint:
            records = _read_records(part / DONE)
            if records:
                say(f"{len(records)} frames were done before")
            return records
        if not overwrite:
            raise InputError(
                f"{part}: was begun with other options or input; remove it or --overwrite"
            )
    elif any(file.name != ".lock" for file in part.iterdir()):
        raise InputError(
            f"{part}: is in the way and not of this program; remove it or choose another --output"
        )
    for file in part.iterdir():
        if file.name != ".lock":
            file.unlink()
    write_json(job, {"fingerprint": fingerprint})
    return []


def _read_records(path: Path) -> list[FrameRecord]:
    """The records of a file; an incomplete last line, which a kill leaves, is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) < len(content):
        os.truncate(path, len(complete))
    try:
        return [json.loads(line) for line in complete.splitlines()]
    except ValueError:
        raise InputError(f"{path}: is damaged; remove {path.parent} and begin anew") from None


def _crop_frames(
    frames: Frames,
    finder: BoxFinder,
    options: CropOptions,
    part: Path,
    records: Sequence[FrameRecord],
) -> Iterator[FrameRecord]:
    """Crop all frames that have no record yet; stores and yields a record of each."""
    done = {record["frame"] for record in records}
    camera = options.camera or frames.camera
    with (part / DONE).open("a", encoding="utf-8") as lines:
        for frame in frames:
            if frame.number not in done:
                record = cropping.crop_frame(frame, finder, options, part, camera)
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                yield record


def _summary(records: Sequence[FrameRecord]) -> tuple[pl.DataFrame, dict[str, int]]:
    """The table of all crops, and the counts of all frames."""
    in_order = sorted(records, key=lambda record: record["frame"])
    rows = [row for record in in_order for row in record["rows"]]
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    if not table["identity"].is_not_null().any():
        table = table.drop("identity")
    counts: Counter[str] = Counter()
    for record in in_order:
        counts.update(record["counts"])
    return table, dict(counts)


def _no_crop(
    counts: Mapping[str, int],
    records: Sequence[FrameRecord],
    boxes: BoxTable | None,
    options: CropOptions,
) -> InputError:
    """The likeliest reason why there is no crop."""
    errors = [record["error"] for record in records if "error" in record]
    if errors and len(errors) == len(records):
        return InputError(
            f"{options.input}: none of its {len(records)} frames can be read: {errors[0]}"
        )
    if boxes is not None and not any(record["boxes"] for record in records):
        frame = records[0]
        return InputError(
            f"{boxes.path}: none of its boxes belongs to a frame of {options.input}: it names "
            f"frames like {boxes.rows['frame'][0]!r}, the frames are like {frame['name']!r} "
            f"(number {frame['frame']})"
        )
    reasons = [f"{counts[why]} {text}" for why, text in REASONS.items() if counts.get(why)]
    left_out = ", ".join(reasons)
    return InputError(
        f"{options.input}: no crop came out: {left_out or 'the detector found nobody'}"
    )


def _write_contact_sheet(folder: Path, table: pl.DataFrame) -> None:
    """A picture of the first crops, each with its identity or frame."""
    from ...figures.style import SMALL, save_png, styled_figure

    shown = table.head(SHOWN)
    columns = min(10, len(shown))
    rows = -(-len(shown) // columns)
    with styled_figure(1.1 * columns + 0.2, 2.3 * rows + 0.5, grid=False) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, row in zip(axes, shown.iter_rows(named=True)):
            axis.imshow(read_picture(folder / row["image"]).transpose(1, 2, 0))
            axis.set_title(row.get("identity") or f"frame {row['frame']}", fontsize=SMALL)
        figure.suptitle(f"{len(shown)} of {len(table):,} crops", fontsize=9)
        save_png(figure, folder / SHEET, dpi=80)


def _replace(part: Path, output: Path) -> None:
    """Give the finished folder its name; the previous one is removed after that.

    Until then it has a name of this program's own, so that nothing of the user's is in the way.
    """
    aside = None
    if output.is_dir() and any(output.iterdir()):
        aside = tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{output.name}", dir=output.parent)
        os.replace(output, aside)
    os.replace(part, output)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _report(
    output: Path,
    table: pl.DataFrame,
    counts: Mapping[str, int],
    records: Sequence[FrameRecord],
    boxes: BoxTable | None,
) -> None:
    """What the terminal shows at the end."""
    in_order = sorted(records, key=lambda record: record["frame"])
    failures = [(record["name"], record["error"]) for record in in_order if "error" in record]
    say(
        f"{len(table):,} crops of {len(records) - len(failures):,} frames: table {output / TABLE}, "
        f"picture {output / SHEET}"
    )
    for why, text in REASONS.items():
        if counts.get(why):
            say(f"  {counts[why]:,} boxes {text}{'' if why == 'cut' else ', left out'}")
    if boxes is not None:
        unread = len(boxes.rows) - sum(record["boxes"] for record in records)
        if unread:
            say(f"  {unread:,} boxes of frames that were not read")
    if failures:
        say(f"{len(failures)} frames could not be read:")
        for name, error in failures[:MOST_FAILURES]:
            say(f"  {name}: {error}")
        if len(failures) > MOST_FAILURES:
            say(f"  … {len(failures) - MOST_FAILURES} more")
