"""How good a classifier of recordings is: scores with intervals by speaker, classes, speakers.

Shapes: N recordings, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from scipy.special import softmax
from torch import nn

from ..engine.pipeline import Calibration, Metrics
from ..figures.classifier import with_interval
from ..metrics.classification import NAMES, scores_with_intervals
from ..metrics.operating import fit_temperature
from .data import RecordingSet
from .rungs import logits_of

MOST_SPEAKERS = 40  # with a row in the report


class Scores(NamedTuple):
    """Probabilities (N, C) of a part, its metrics, tables of the report, and a sentence."""

    probability: np.ndarray
    values: Metrics
    tables: dict[str, pl.DataFrame]
    headline: str


def fit_calibration(model: nn.Module, part: RecordingSet, device: torch.device) -> Calibration:
    """One temperature, of the validation part."""
    logits = logits_of({"model": model}, part, device)["model"]
    return {"temperature": torch.tensor(fit_temperature(part.labels, logits))}


def probabilities(
    model: nn.Module, part: RecordingSet, calibration: Calibration, device: torch.device
) -> np.ndarray:
    """float64 (N, C), calibrated."""
    logits = logits_of({"model": model}, part, device)["model"]
    return softmax(logits / float(calibration.get("temperature", 1.0)), axis=1)


def score_part(
    model: nn.Module, part: RecordingSet, calibration: Calibration, seed: int, device: torch.device
) -> Scores:
    """Score what predicts on a part."""
    probability = probabilities(model, part, calibration, device)
    groups = len(set(part.groups.tolist()))
    values: Metrics = {
        **scores_with_intervals(part.labels, probability, part.groups, seed),
        "recordings": len(part),
        "groups": groups,
    }
    predicted = probability.argmax(1)
    by_speaker = speaker_table(part, predicted)
    values["by_speaker"] = by_speaker.to_dicts()
    tables = {
        "Scores, 95 % intervals by speaker or group": pl.DataFrame(
            [{"score": name, "value": with_interval(values, name)} for name in NAMES]
        ),
        "Classes": class_table(part, predicted),
    }
    if by_speaker.height > 1:
        tables["Speakers"] = by_speaker.head(MOST_SPEAKERS)
    headline = (
        f"{len(part):,} recordings of {groups:,} speakers or groups: accuracy "
        f"{with_interval(values, 'accuracy')}, balanced accuracy "
        f"{with_interval(values, 'balanced_accuracy')}"
    )
    return Scores(probability, values, tables, headline)


def class_table(part: RecordingSet, predicted: np.ndarray) -> pl.DataFrame:
    """Recordings, recall and precision of each class."""
    rows = []
    for number, name in enumerate(part.classes):
        true, called = part.labels == number, predicted == number
        right = int((true & called).sum())
        rows.append(
            {
                "class": name,
                "recordings": int(true.sum()),
                "predicted": int(called.sum()),
                "recall": right / true.sum() if true.any() else None,
                "precision": right / called.sum() if called.any() else None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def speaker_table(part: RecordingSet, predicted: np.ndarray) -> pl.DataFrame:
    """Accuracy of each speaker with a name, the least accurate first."""
    names, right = np.array(part.speakers), predicted == part.labels
    rows = [
        {
            "speaker": str(name),
            "recordings": int((names == name).sum()),
            "accuracy": float(right[names == name].mean()),
        }
        for name in np.unique(names)
        if name
    ]
    schema = {"speaker": pl.String, "recordings": pl.Int64, "accuracy": pl.Float64}
    return pl.DataFrame(rows, schema=schema).sort("accuracy", "speaker")
