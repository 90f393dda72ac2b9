"""Predictions of several findings: a probability of each, and those that reach their operating
points.

Shapes: B pictures, K findings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import nn

from ..augment import normalise
from ..explain import maps_of
from ..prediction import PredictContext, PreparedXray, XrayItem, medusa, schema, write_explanations
from ..spec import MedicalSpec
from .scoring import NO_FINDING, reached

SEPARATOR = "|"  # of the findings in `prediction`, as in NIH's table


@torch.inference_mode()
def predict_findings(
    model: nn.Module,
    items: Sequence[XrayItem],
    xrays: Sequence[PreparedXray],
    context: PredictContext,
) -> list[pl.DataFrame]:
    """One row for each picture of a batch; writes the explanations of the most probable finding,
    unless --no-explain.
    """
    options, spec, device = context.options, context.spec, context.device
    picture = torch.from_numpy(np.stack([xray.picture for xray in xrays])).to(device)
    small = torch.from_numpy(np.stack([xray.small for xray in xrays])).to(device)
    plain = medusa(model)
    attended = plain.attend(*normalise(picture, small))
    temperature = context.calibration["temperature"].to(device)
    probability = (attended.logits.float() / temperature).sigmoid()
    if options.explain:
        maps = maps_of(plain, attended, spec.size, probability.argmax(1))
        write_explanations(items, xrays, maps, options)
    thresholds = context.calibration["threshold"].tolist()
    rows = []
    for values, xray in zip(probability.cpu().tolist(), xrays, strict=True):
        numbers = reached(values, thresholds)
        row: dict[str, object] = {
            "prediction": SEPARATOR.join(spec.classes[k] for k in numbers) or NO_FINDING
        }
        row |= {f"probability_{name}": value for name, value in zip(spec.classes, values)}
        row["view"] = xray.view
        if options.keep_identifiers:
            row["patient"] = xray.patient
        rows.append(pl.DataFrame([row], schema=schema(options, spec)))
    return rows


def findings_answer(rows: pl.DataFrame, spec: MedicalSpec) -> list[str]:
    """The answer for one picture in words: its findings, and the probability of each, the likeliest
    first.
    """
    lines = []
    for row in rows.iter_rows(named=True):
        chances = {name: row[f"probability_{name}"] for name in spec.classes}
        ordered = sorted(chances, key=lambda name: -chances[name])
        text = ", ".join(f"{name} {chances[name]:.1%}" for name in ordered)
        told = row["prediction"].replace(SEPARATOR, ", ")
        lines.append(f"{told} ({text}). Not for clinical use")
    return lines
