"""Batch inference: pictures and DICOM files to calibrated probabilities and pictures of what the
model looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ...base.errors import InputError, fail
from ...base.files import distinct_names, place_below
from ...data.formats.dicom import is_dicom, read_dicom
from ...data.formats.pictures import write_png
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.xrays.xrays import list_xrays, read_place, read_xray, read_xray_set, two_sizes
from ..engine.pipeline import Item
from .augment import normalise
from .explain import maps_of, overlay

MASKS = ("lungs", "masks", "lung_masks", "lung masks")  # folders that hold no X-rays


def list_inputs(options: Any) -> list[Item]:
    """What --input holds, sorted; picture: where its explanation is written below OUTPUT.pictures/;
    place: of an array of MedMNIST."""
    given = Path(options.input)
    listed = given.is_file() and (
        given.suffix.lower() in (".npz", ".txt") or suffix_of(given) in TABLE_SUFFIXES
    )
    if listed:
        rows = read_xray_set(given, need_label=False)
        found = sorted(zip(rows.names, rows.files, rows.places))
    else:
        found = [(name, file, None) for file, name in list_xrays(given) if not _mask(name)]
        if not found:
            raise fail(given, "holds masks only; give the folder of the pictures")
    pictures = distinct_names([name for name, _, _ in found], None, ".png")
    return [
        {"file": file, "id": name, "place": place, "picture": one}
        for (name, file, place), one in zip(found, pictures)
    ]


def _mask(name: str) -> bool:
    return any(part.lower() in MASKS for part in name.split("/")[:-1])


def schema(options: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """prediction: the most probable class; p_CLASS: calibrated; positive: whether the probability
    of the positive class reaches the operating point; view, bits: of DICOM."""
    own = {
        "prediction": pl.String,
        **{f"p_{name}": pl.Float32 for name in spec["classes"]},
        "positive": pl.Boolean,
        "view": pl.String,
    }
    return {**own, "patient": pl.String} if options.keep_identifiers else own


@torch.inference_mode()
def predict_items(
    model: Any,
    items: Sequence[Item],
    calibration: dict[str, torch.Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> list[pl.DataFrame | ValueError]:
    """A row for each picture, or the error that says why there is none."""
    size, small = (tuple(spec["input"][name]) for name in ("size", "body size"))
    rows: list[Any] = [None] * len(items)
    for start in range(0, len(items), options.batch_size):
        read: dict[int, Any] = {}
        facts: dict[int, tuple[str | None, str | None]] = {}
        for place in range(start, min(start + options.batch_size, len(items))):
            file = items[place]["file"]
            try:
                facts[place] = None, None
                place_in = items[place]["place"]
                if place_in is not None:
                    pixels = read_place(file, (place_in[0], place_in[1]))
                elif is_dicom(file):
                    found = read_dicom(file)
                    pixels, facts[place] = found.pixels, (found.view or None, found.patient or None)
                else:
                    pixels = read_xray(file)
                read[place] = two_sizes(pixels, size, small)
            except InputError as error:
                rows[place] = error
        if not read:
            continue
        given = [
            torch.from_numpy(np.stack([one[k] for one in read.values()])).to(device)
            for k in range(2)
        ]
        attended = model.attend(*normalise(*given))
        probability = (attended.logits.float() / float(calibration["temperature"])).softmax(1).cpu()
        maps = maps_of(model, attended, size, attended.logits.argmax(1)) if options.explain else {}
        for j, place in enumerate(read):
            if options.explain:
                shown = {
                    name: value[j].numpy() for name, value in maps.items() if name != "attention"
                }
                path = place_below(Path(f"{options.output}.pictures"), items[place]["picture"])
                write_png(path, overlay(read[place][0][0], shown))
            rows[place] = _row(
                probability[j].tolist(),
                facts[place],
                float(calibration["threshold"]),
                options,
                spec,
            )
    return rows


def _row(
    probability: Sequence[float],
    facts: tuple[str | None, str | None],
    threshold: float,
    options: Any,
    spec: dict[str, Any],
) -> pl.DataFrame:
    classes = spec["classes"]
    row: dict[str, Any] = {"prediction": classes[int(np.argmax(probability))]}
    row |= {f"p_{name}": p for name, p in zip(classes, probability)}
    row |= {"positive": probability[spec["positive"]] >= threshold, "view": facts[0]}
    if options.keep_identifiers:
        row["patient"] = facts[1]
    return pl.DataFrame([row], schema=schema(options, spec))
