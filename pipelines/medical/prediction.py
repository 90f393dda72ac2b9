"""Batch inference: pictures and DICOM files to calibrated probabilities and pictures of where the
model looked.

Shapes: B pictures, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NotRequired

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.account import note
from ...base.errors import InputError, fail
from ...base.files import distinct_names, place_below
from ...data.columns import parse_columns
from ...data.formats.dicom import is_dicom, read_dicom
from ...data.formats.pictures import write_png
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.listed import note_whole_folder
from ...data.xrays.files import list_xrays, without_masks
from ...data.xrays.layouts import listing_tables
from ...data.xrays.medmnist import read_place
from ...data.xrays.records import Reading
from ...data.xrays.xrays import read_xray, read_xray_set, two_sizes
from ...models.vision.medusa import Medusa
from ..engine.pipeline import Context, Item, Schema
from .augment import normalise
from .explain import maps_of, maps_of_picture, overlay
from .options import MedicalOptions, MedicalPredictOptions
from .spec import MedicalSpec

LONGEST_NAME = 200  # bytes; files are written under a name with a few more, of which 255 may be

PredictContext = Context[MedicalPredictOptions, MedicalSpec]


class XrayItem(Item):
    """A picture to classify."""

    place: tuple[str, int] | None  # array and row in a MedMNIST file
    picture: str  # where its explanation is written below OUTPUT.pictures/
    problem: NotRequired[str]  # why it cannot be read, where the list tells that already


class PreparedXray(NamedTuple):
    """What the model and the output need of a picture."""

    picture: np.ndarray  # float32 (1, Y, X) in [0, 1]
    small: np.ndarray  # float32 (1, y, x) in [0, 1]
    view: str | None
    patient: str | None


def medusa(model: nn.Module) -> Medusa:
    """The model as its class, which also explains itself."""
    assert isinstance(model, Medusa)
    return model


def list_items(options: MedicalPredictOptions) -> list[XrayItem]:
    """What --input holds, sorted; folders of masks are left out.

    Raises InputError where there is nothing, and for --columns and --images without a table.
    """
    path = Path(options.input)
    suffix = path.suffix.lower()
    if path.is_file() and (suffix in (".npz", ".txt") or suffix_of(path) in TABLE_SUFFIXES):
        columns = parse_columns(options.columns, ("image",))
        reading = Reading(columns=columns, images=options.images, need_label=False)
        xrays = read_xray_set(path, reading)
        rows = zip(xrays.names, xrays.files, xrays.places, xrays.problems, strict=True)
        listed = sorted(rows, key=lambda row: row[:2])
    else:
        for name in ("columns", "images"):
            if getattr(options, name):
                raise fail(path, f"--{name} is read with a table of pictures; leave it out")
        listed = [(name, file, None, "") for file, name in _pictures_of(path)]
    pictures = distinct_names([_short(name) for name, *_ in listed], None, ".png")
    items: list[XrayItem] = []
    for (name, file, place, problem), picture in zip(listed, pictures, strict=True):
        item: XrayItem = {"file": file, "id": name, "place": place, "picture": picture}
        items.append({**item, "problem": problem} if problem else item)
    return items


def own_prediction(options: MedicalOptions) -> dict[str, object]:
    """Options of the prediction that a training ends with: its pictures, without explanations.

    Where the folder of the pictures or their column is named, they are those of the table.
    """
    values: dict[str, object] = {"explain": False}
    data = Path(str(options.data))
    tables = [path for path, _ in listing_tables(data)] if data.is_dir() else [data]
    image = tuple(pair for pair in options.columns if pair.startswith("image="))
    if len(tables) == 1 and (options.images or image):
        values |= {"input": str(tables[0]), "images": options.images, "columns": image}
    elif options.images is not None:
        values["input"] = options.images  # a folder that holds a table, but not its pictures
    return values


def _pictures_of(path: Path) -> list[tuple[str, str]]:
    """(file, id) of the pictures of a folder or pattern, without those in folders of masks."""
    note_whole_folder(path, "pictures")
    pictures = without_masks(path, list_xrays(path))
    note("read", "pictures", count=len(pictures))
    return pictures


def _short(name: str) -> str:
    """A name whose last part leaves room for an ending and for the name that it is written under
    first; a long one is cut, and ends in a checksum instead.
    """
    *folders, last = name.split("/")
    encoded = last.encode("utf-8", "replace")
    if len(encoded) > LONGEST_NAME:
        mark = hashlib.blake2b(encoded, digest_size=6).hexdigest()
        last = f"{encoded[: LONGEST_NAME - 20].decode('utf-8', 'ignore')}-{mark}"
    return "/".join([*folders, last])


def read_item(item: XrayItem, spec: MedicalSpec) -> PreparedXray:
    """Read one picture. Raises InputError if it cannot be read or is no radiograph."""
    if problem := item.get("problem"):
        raise InputError(problem)
    view = patient = None
    if item["place"] is not None:
        name, row = item["place"]
        pixels = read_place(item["file"], (name, row))
    elif is_dicom(item["file"]):
        radiograph = read_dicom(item["file"])
        pixels = radiograph.pixels
        view, patient = radiograph.view or None, radiograph.patient or None
    else:
        pixels = read_xray(item["file"])
    return PreparedXray(*two_sizes(pixels, spec.size, spec.body_size), view, patient)


def schema(options: MedicalPredictOptions, spec: MedicalSpec) -> Schema:
    """prediction: the positive class at the operating point, else the most probable of the others
    (in older runs the most probable class); p_CLASS: calibrated; positive: whether the probability
    of the positive class reaches the operating point; view, and patient if asked for: of DICOM.
    Of several findings: those that reach their operating points, and probability_FINDING of each.
    """
    columns: Schema = {"prediction": pl.String()}
    if spec.several:
        columns |= {f"probability_{name}": pl.Float32() for name in spec.classes}
        columns |= {"view": pl.String()}
        return {**columns, "patient": pl.String()} if options.keep_identifiers else columns
    columns |= {f"p_{name}": pl.Float32() for name in spec.classes}
    columns |= {"positive": pl.Boolean(), "view": pl.String()}
    return {**columns, "patient": pl.String()} if options.keep_identifiers else columns


@torch.inference_mode()
def predict_batch(
    model: nn.Module,
    items: Sequence[XrayItem],
    xrays: Sequence[PreparedXray],
    context: PredictContext,
) -> list[pl.DataFrame]:
    """One row for each picture of a batch; writes the explanations, unless --no-explain."""
    options, spec, device = context.options, context.spec, context.device
    picture = torch.from_numpy(np.stack([xray.picture for xray in xrays])).to(device)
    small = torch.from_numpy(np.stack([xray.small for xray in xrays])).to(device)
    plain = medusa(model)
    attended = plain.attend(*normalise(picture, small))
    logits = attended.logits.float()
    probability = (logits / float(context.calibration["temperature"])).softmax(1).cpu()
    if options.explain:
        maps = maps_of(plain, attended, spec.size, attended.logits.argmax(1))
        write_explanations(items, xrays, maps, options)
    return [
        _row(values, xray, context)
        for values, xray in zip(probability.tolist(), xrays, strict=True)
    ]


def write_explanations(
    items: Sequence[XrayItem],
    xrays: Sequence[PreparedXray],
    maps: Mapping[str, Tensor],
    options: MedicalPredictOptions,
) -> None:
    """Write the strip of each picture of a batch below OUTPUT.pictures/; maps: of `maps_of`."""
    for k, (item, xray) in enumerate(zip(items, xrays, strict=True)):
        path = place_below(Path(f"{options.output}.pictures"), item["picture"])
        write_png(path, overlay(xray.picture[0], maps_of_picture(maps, k)))


def _row(probability: Sequence[float], xray: PreparedXray, context: PredictContext) -> pl.DataFrame:
    options, spec = context.options, context.spec
    threshold = float(context.calibration["threshold"])
    positive = probability[spec.positive] >= threshold
    number = int(np.argmax(probability))
    if spec.rule == "operating point":
        others = [k for k in range(len(probability)) if k != spec.positive]
        number = spec.positive if positive else max(others, key=probability.__getitem__)
    row: dict[str, object] = {"prediction": spec.classes[number]}
    row |= {f"p_{name}": value for name, value in zip(spec.classes, probability)}
    row |= {"positive": positive, "view": xray.view}
    if options.keep_identifiers:
        row["patient"] = xray.patient
    return pl.DataFrame([row], schema=schema(options, spec))


def answer(rows: pl.DataFrame, spec: MedicalSpec) -> list[str]:
    """The answer for one picture in words: its class, and the probability of each class."""
    lines = []
    for row in rows.iter_rows(named=True):
        chances = ", ".join(f"{name} {row[f'p_{name}']:.1%}" for name in spec.classes)
        reached = "reached" if row["positive"] else "not reached"
        operating = f"operating point of {spec.classes[spec.positive]} {reached}"
        lines.append(f"{row['prediction']} ({chances}; {operating}). Not for clinical use")
    return lines
