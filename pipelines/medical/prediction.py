"""Batch inference: pictures and DICOM files to calibrated probabilities and pictures of where the
model looked.

Shapes: B pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.errors import fail
from ...base.files import distinct_names, place_below
from ...data.formats.dicom import is_dicom, read_dicom
from ...data.formats.pictures import write_png
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.xrays.xrays import list_xrays, read_place, read_xray, read_xray_set, two_sizes
from ...models.vision.medusa import Medusa
from ..engine.pipeline import Context, Item, Schema
from .augment import normalise
from .data import MedicalSpec
from .explain import maps_of, maps_of_picture, overlay
from .options import MedicalPredictOptions

MASKS = ("lungs", "masks", "lung_masks", "lung masks")  # folders that hold no X-rays

PredictContext = Context[MedicalPredictOptions, MedicalSpec]


class XrayItem(Item):
    """A picture to classify."""

    place: tuple[str, int] | None  # array and row in a MedMNIST file
    picture: str  # where its explanation is written below OUTPUT.pictures/


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
    """What --input holds, sorted; folders of masks are left out."""
    path = Path(options.input)
    names: Sequence[tuple[str, str, tuple[str, int] | None]]
    suffix = path.suffix.lower()
    if path.is_file() and (suffix in (".npz", ".txt") or suffix_of(path) in TABLE_SUFFIXES):
        xrays = read_xray_set(path, need_label=False)
        names = sorted(zip(xrays.names, xrays.files, xrays.places))
    else:
        names = [(name, file, None) for file, name in list_xrays(path) if not _is_mask(name)]
        if not names:
            raise fail(path, "holds masks only; give the folder of the pictures")
    pictures = distinct_names([name for name, _, _ in names], None, ".png")
    return [
        {"file": file, "id": name, "place": place, "picture": picture}
        for (name, file, place), picture in zip(names, pictures)
    ]


def _is_mask(name: str) -> bool:
    return any(part.lower() in MASKS for part in name.split("/")[:-1])


def read_item(item: XrayItem, spec: MedicalSpec) -> PreparedXray:
    """Read one picture. Raises InputError if it cannot be read or is no radiograph."""
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
    """prediction: the most probable class; p_CLASS: calibrated; positive: whether the probability
    of the positive class reaches the operating point; view, and patient if asked for: of DICOM.
    """
    columns: Schema = {"prediction": pl.String()}
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
        for k, (item, xray) in enumerate(zip(items, xrays, strict=True)):
            path = place_below(Path(f"{options.output}.pictures"), item["picture"])
            write_png(path, overlay(xray.picture[0], maps_of_picture(maps, k)))
    return [
        _row(values, xray, context)
        for values, xray in zip(probability.tolist(), xrays, strict=True)
    ]


def _row(probability: Sequence[float], xray: PreparedXray, context: PredictContext) -> pl.DataFrame:
    options, spec = context.options, context.spec
    row: dict[str, object] = {"prediction": spec.classes[int(np.argmax(probability))]}
    row |= {f"p_{name}": value for name, value in zip(spec.classes, probability)}
    threshold = float(context.calibration["threshold"])
    row |= {"positive": probability[spec.positive] >= threshold, "view": xray.view}
    if options.keep_identifiers:
        row["patient"] = xray.patient
    return pl.DataFrame([row], schema=schema(options, spec))
