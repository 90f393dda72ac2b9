"""How good a classifier of X-rays is: scores by patient, and where it looked.

Shapes: N pictures of a part, K classes, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Context, Metrics
from ..engine.training import order
from ..figures.classifier import with_interval
from ..metrics import classification
from ..metrics.operating import operating_bootstrap, operating_scores
from .augment import normalise
from .data import MedicalSpec, Xrays
from .explain import maps_of, maps_of_picture
from .options import MedicalOptions
from .prediction import medusa

BATCH = 32
SHOWN = 2  # pictures of each class in the report
HEADLINE_SCORES = ("auc", "balanced_accuracy", "sensitivity", "ppv")
OPERATING_SCORES = ("auprc", "sensitivity", "specificity", "ppv", "npv")
SCORE_NAMES = {
    "auc": "AUC",
    "ece": "ECE",
    "auprc": "average precision",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}


@torch.no_grad()
def logits_of(model: nn.Module, part: Xrays, device: torch.device, workers: int = 0) -> np.ndarray:
    """Logits (N, K) in the order of the part."""
    batches = []
    with Progressbar(total=len(part), unit="picture", desc="scores") as bar:
        for batch in order.loader(part, order.sequential(len(part), BATCH), workers=workers):
            inputs = normalise(batch["picture"].to(device), batch["small"].to(device))
            batches.append(model(*inputs).float().cpu().numpy())
            bar.update(len(batches[-1]))
    return np.concatenate(batches)


def patient_scores(
    part: Xrays, probability: np.ndarray, positive: int, threshold: float, seed: int
) -> Metrics:
    """Scores of all classes, and of the positive one at the operating point, with intervals by
    patient.
    """
    labels, patients = part.labels, np.array(part.column("patients"))
    case = labels == positive, probability[:, positive], threshold
    scores = classification.scores(labels, probability) | {
        name: value for name, value in operating_scores(*case).items() if name != "auc"
    }
    intervals = operating_bootstrap(*case, patients, seed=seed)
    intervals |= classification.bootstrap(labels, probability, patients, seed=seed)
    return {**scores, "intervals": {name: list(intervals[name]) for name in scores}}


def score_table(metrics: Metrics, positive: str) -> pl.DataFrame:
    """Every score with its interval; positive: the name of the class of the operating point."""
    rows = []
    for name in metrics["intervals"]:
        title = SCORE_NAMES.get(name, name.replace("_", " "))
        title += f", {positive}" if name in OPERATING_SCORES else ""
        rows.append({"score": title, "value": with_interval(metrics, name)})
    return pl.DataFrame(rows)


def headline_of(metrics: Metrics, positive: str) -> str:
    """The main scores in one sentence, and the first sentence of the audit."""
    auc, balanced, sensitivity, ppv = (with_interval(metrics, name) for name in HEADLINE_SCORES)
    return (
        f"{metrics['pictures']} pictures of {metrics['patients']} patients: AUC {auc}, balanced "
        f"accuracy {balanced}; {positive}: sensitivity {sensitivity}, predictive value {ppv}. "
        f"{metrics['audit']['sentences'][0]}"
    )


class ShownPicture(NamedTuple):
    """A picture of the report: what was predicted, pixels (Y, X) in [0, 1], maps (Y, X) by name."""

    headline: str
    pixels: np.ndarray
    maps: dict[str, np.ndarray]


def shown_places(part: Xrays, probability: np.ndarray) -> list[int]:
    """The most confidently predicted pictures of each class, for the report."""
    confident = np.argsort(-probability.max(1), kind="stable")
    by_class = [confident[part.labels[confident] == c][:SHOWN] for c in range(len(part.classes))]
    return np.concatenate(by_class).tolist()


@torch.no_grad()
def explained(
    model: nn.Module,
    part: Xrays,
    probability: np.ndarray,
    places: Sequence[int],
    context: Context[MedicalOptions, MedicalSpec],
) -> dict[int, dict[str, np.ndarray]]:
    """Maps (Y, X) by name, of the class predicted for each of these places of the part."""
    plain = medusa(model)
    maps: dict[int, dict[str, np.ndarray]] = {}
    for start in np.array_split(np.array(places, np.int64), max(1, -(-len(places) // BATCH))):
        batch = [part[int(place)] for place in start]
        picture = torch.stack([sample["picture"] for sample in batch]).to(context.device)
        small = torch.stack([sample["small"] for sample in batch]).to(context.device)
        attended = plain.attend(*normalise(picture, small))
        classes = torch.from_numpy(probability[start].argmax(1)).to(context.device)
        values: dict[str, Tensor] = maps_of(plain, attended, context.spec.size, classes)
        for k, place in enumerate(start.tolist()):
            maps[place] = maps_of_picture(values, k)
    return maps


def shown_picture(
    part: Xrays, probability: np.ndarray, place: int, maps: dict[str, np.ndarray]
) -> ShownPicture:
    """One picture for the report."""
    predicted = part.classes[int(probability[place].argmax())]
    headline = (
        f"{part.column('names')[place]}: labelled {part.classes[part.labels[place]]}, predicted "
        f"{predicted} ({probability[place].max():.0%})"
    )
    return ShownPicture(headline, part[place]["picture"][0].numpy(), maps)
