"""How good a classifier of X-rays is: scores by patient, and where it looked.

Shapes: N pictures of a part, K classes, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Context
from ..engine.training import order
from ..figures.classifier import interval_text
from ..metrics import classification
from ..metrics.operating import operating_bootstrap, operating_scores
from .audit import Audit
from .augment import normalise
from .data import MedicalSpec, XrayPart, Xrays
from .explain import maps_of, maps_of_picture, measure
from .options import MedicalOptions
from .prediction import NO_MAPS, attending

Score = TypeVar("Score", float, classification.Interval)

BATCH = 32
SHOWN = 2  # pictures of each class in the report
HEADLINE_SCORES = ("auc", "balanced_accuracy", "sensitivity", "specificity", "ppv")
DECISION_SCORES = ("accuracy", "balanced_accuracy", "macro_f1")  # of `decided`
OPERATING_SCORES = ("auprc", "sensitivity", "specificity", "ppv", "npv")
SCORE_NAMES = {
    "auc": "AUC",
    "ece": "ECE",
    "auprc": "average precision",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}


@torch.no_grad()
def logits_of(
    model: nn.Module, part: XrayPart, device: torch.device, workers: int = 0
) -> np.ndarray:
    """Logits (N, K) in the order of the part."""
    batches = []
    with Progressbar(total=len(part), unit="picture", desc="scores") as bar:
        lists = order.sequential(len(part), BATCH)
        for batch in order.loader(part, lists, device=device, workers=workers):
            logits = model(*normalise(batch["picture"], batch["small"]))
            batches.append(logits.float().cpu().numpy())
            bar.update(len(batches[-1]))
    return np.concatenate(batches)


def decided(probability: np.ndarray, positive: int, threshold: float) -> np.ndarray:
    """The class of each picture by one rule for all scores, int64 (N,): the positive class where
    its probability reaches the operating point, else the most probable of the others.

    >>> decided(np.array([[0.6, 0.4], [0.8, 0.2]]), 1, 0.3).tolist()
    [1, 0]
    """
    others = probability.copy()
    others[:, positive] = -1.0
    return np.where(probability[:, positive] >= threshold, positive, others.argmax(1))


class PatientScores(NamedTuple):
    """Scores by name, and the 95 % interval of each by patient, [low, high]."""

    values: dict[str, float]
    intervals: dict[str, list[float]]

    def text(self, name: str) -> str:
        """A score with its interval."""
        return interval_text(self.values[name], self.intervals[name])


def patient_scores(
    part: Xrays, probability: np.ndarray, positive: int, threshold: float, seed: int
) -> PatientScores:
    """Scores of all classes, and of the positive one, with intervals by patient. All that need a
    decision take it at the operating point.
    """
    labels, patients = part.labels, np.array(part.column("patients"))
    case = labels == positive, probability[:, positive], threshold
    scores = classification.scores(labels, probability) | {
        name: value for name, value in operating_scores(*case).items() if name != "auc"
    }
    intervals = operating_bootstrap(*case, patients, seed=seed)
    intervals |= classification.bootstrap(labels, probability, patients, seed=seed)
    certain = np.eye(probability.shape[1])[decided(probability, positive, threshold)]
    scores |= _decisions(classification.scores(labels, certain))
    intervals |= _decisions(classification.bootstrap(labels, certain, patients, seed=seed))
    return PatientScores(scores, {name: list(intervals[name]) for name in scores})


def _decisions(scores: Mapping[str, Score]) -> dict[str, Score]:
    return {name: scores[name] for name in DECISION_SCORES}


def uniform_scores(part: Xrays, probability: np.ndarray) -> dict[str, float]:
    """Scores of predicting the same probability for all classes, in the model's precision."""
    uniform = np.full_like(probability, 1 / len(part.classes))
    scores = classification.scores(part.labels, uniform)
    return {name: scores[name] for name in ("log_loss", "brier")}


def tables_of(
    scores: PatientScores,
    positive: str,
    looked: Mapping[str, Mapping[str, float]],
    report: Audit,
    *,
    has_maps: bool,
) -> dict[str, pl.DataFrame]:
    """The tables of the report by caption; positive: the name of the class of the operating point;
    has_maps: whether what predicts has maps of where it looked.
    """
    sentences = pl.DataFrame({"what the audit found": report.sentences})
    tables = {
        "Could it be read without the lung?": sentences,
        "Scores, 95 % intervals by patient": _score_table(scores, positive),
    }
    if report.within:
        rows = [row.row() for row in report.within]
        table = pl.DataFrame(rows, infer_schema_length=None)
        tables["This run within one source or view"] = table
    return {**tables, **attention_table(looked, has_maps=has_maps)}


def attention_table(
    looked: Mapping[str, Mapping[str, float]], *, has_maps: bool
) -> dict[str, pl.DataFrame]:
    """The table of `measure`, by its caption; none where nothing was measured. has_maps: whether
    what predicts has any.
    """
    if not has_maps:
        return {"Where it looked": pl.DataFrame({"no maps": [NO_MAPS]})}
    if not looked:
        return {}
    rows = [{"map": name, **values} for name, values in looked.items()]
    table = pl.DataFrame(rows, infer_schema_length=None)
    return {"Attention in boxes and lungs, compared with a uniform map": table}


def _score_table(scores: PatientScores, positive: str) -> pl.DataFrame:
    rows = []
    for name in scores.values:
        title = SCORE_NAMES[name] if name in SCORE_NAMES else name.replace("_", " ")
        title += f", {positive}" if name in OPERATING_SCORES else ""
        rows.append({"score": title, "value": scores.text(name)})
    return pl.DataFrame(rows)


def headline_of(scores: PatientScores, part: Xrays, positive: str, warning: str) -> str:
    """The main scores in one sentence, and the first sentence of the audit."""
    auc, balanced, sensitivity, specificity, ppv = map(scores.text, HEADLINE_SCORES)
    return (
        f"{len(part)} pictures of {len(set(part.column('patients')))} patients: AUC {auc}, "
        f"balanced accuracy {balanced}; {positive}: sensitivity {sensitivity}, specificity "
        f"{specificity}, predictive value {ppv}. {warning}"
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


def looked_at(
    model: nn.Module,
    part: XrayPart,
    probability: np.ndarray,
    shown: Sequence[int],
    context: Context[MedicalOptions, MedicalSpec],
) -> tuple[dict[int, dict[str, np.ndarray]], dict[str, dict[str, float]]]:
    """The maps of pictures by their place, `shown` among them, and how well the maps fit the boxes
    and lungs that the options name, as `measure` gives it.
    """
    options = context.options
    # Boxes and lungs are measured on all pictures; the report shows a few of them.
    measured = options.boxes is not None or options.lungs is not None
    places = range(len(part)) if measured else shown
    maps = explained(model, part, probability, places, context)
    by_row = {int(part.rows[place]): values for place, values in maps.items()}
    return maps, measure(part.reader.xrays, by_row, options, part.reader.sides)


@torch.no_grad()
def explained(
    model: nn.Module,
    part: XrayPart,
    probability: np.ndarray,
    places: Sequence[int],
    context: Context[MedicalOptions, MedicalSpec],
) -> dict[int, dict[str, np.ndarray]]:
    """Maps (Y, X) by name, of the most probable class of each of these places of the part; none of
    a model that has no attention.
    """
    plain = attending(model)
    maps: dict[int, dict[str, np.ndarray]] = {}
    if plain is None:
        return maps
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
    part: Xrays,
    probability: np.ndarray,
    predicted: np.ndarray,
    place: int,
    maps: dict[str, np.ndarray],
) -> ShownPicture:
    """One picture for the report. predicted: the class of each picture of the part."""
    number = int(predicted[place])
    headline = (
        f"{part.column('names')[place]}: labelled {part.classes[part.labels[place]]}, predicted "
        f"{part.classes[number]} ({probability[place, number]:.0%})"
    )
    return ShownPicture(headline, part[place]["picture"][0].numpy(), maps)
