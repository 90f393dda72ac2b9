"""Loss, calibration, scores by patient at the operating point, the audit for shortcuts: what a
model is worth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from ..engine.command_line.terminal import Progressbar, say
from ..engine.pipeline import Review, Splits
from ..engine.training import order
from ..figures.classifier import with_interval
from ..metrics.classification import bootstrap, scores
from ..metrics.operating import (
    choose_threshold,
    fit_temperature,
    operating_bootstrap,
    operating_scores,
)
from . import audit, figures
from .augment import augment, normalise
from .data import Xrays
from .explain import maps_of, measure

BATCH = 32


def loss(model: nn.Module, batch: dict[str, Tensor], options: Any) -> Tensor:
    """Cross-entropy."""
    logits = model(*augment(batch, options))
    weights = batch["class_weights"][0] if "class_weights" in batch else None
    return F.cross_entropy(logits.float(), batch["label"], weights)


def validate(model: nn.Module, batches: Any) -> dict[str, float]:
    """Log-loss (what early stopping goes by), AUC, balanced accuracy."""
    logits, labels = [], []
    for batch in batches:
        logits.append(model(*normalise(batch["picture"], batch["small"])).float().cpu())
        labels.append(batch["label"].cpu())
    found = scores(torch.cat(labels).numpy(), torch.cat(logits).softmax(1).double().numpy())
    return {
        "loss": found["log_loss"],
        **{name: found[name] for name in ("auc", "balanced_accuracy")},
    }


@torch.no_grad()
def logits_of(model: nn.Module, part: Xrays, device: torch.device, workers: int = 0) -> np.ndarray:
    """(N, K) in the order of the part."""
    found = []
    with Progressbar(total=len(part), unit="picture", desc="scores") as bar:
        for batch in order.loader(part, order.sequential(len(part), BATCH), workers=workers):
            given = normalise(batch["picture"].to(device), batch["small"].to(device))
            found.append(model(*given).float().cpu().numpy())
            bar.update(len(found[-1]))
    return np.concatenate(found)


def finish(
    model: nn.Module, splits: Splits, options: Any, device: torch.device
) -> dict[str, Tensor]:
    """Temperature and operating point, chosen on the validation part."""
    part = splits.validation
    logits = logits_of(model, part, device, options.workers)
    temperature = fit_temperature(part.labels, logits)
    probability = softmax(logits / temperature, axis=1)
    positive = splits.spec["positive"]
    threshold = choose_threshold(
        part.labels == positive, probability[:, positive], options.sensitivity
    )
    return {"temperature": torch.tensor(temperature), "threshold": torch.tensor(threshold)}


def review(
    model: nn.Module,
    part: Xrays,
    calibration: dict[str, Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> Review:
    """Scores with intervals by patient, calibration, attention, and the audit."""
    classes, positive = spec["classes"], spec["positive"]
    temperature, threshold = float(calibration["temperature"]), float(calibration["threshold"])
    logits = logits_of(model, part, device, options.workers)
    raw, probability = softmax(logits, axis=1), softmax(logits / temperature, axis=1)
    patients = np.array(part.of("patients"))
    own = _scored(part.labels, probability, patients, positive, threshold, options.seed)
    base = np.full_like(probability, 1 / len(classes))
    metrics: dict[str, Any] = {
        **own,
        "pictures": len(part),
        "patients": len(set(patients.tolist())),
        "temperature": temperature,
        "threshold": threshold,
        "ece_before": scores(part.labels, raw)["ece"],
        "baselines": {
            "every class alike": {
                name: scores(part.labels, base)[name] for name in ("log_loss", "brier")
            }
        },
    }
    table = pl.DataFrame(
        [
            {"score": _named(name, classes[positive]), "value": with_interval(own, name)}
            for name in own["intervals"]
        ]
    )
    drawn, chosen = _looked(model, part, probability, options, spec, device)
    seen = measure(part.source.rows, drawn, options)
    found = audit.probes(part.source, classes, part.source.rows.rows(), options.seed)
    apart = audit.within(part, probability, options.seed)
    words = audit.sentences(found, apart, own["auc"])
    readable = [probe.name for probe in found if probe.readable]
    metrics |= {
        "looked": seen,
        "audit": {
            "readable": readable,
            "sentences": words,
            "within": apart,
            "probes": {probe.name: [probe.auc, probe.low, probe.high] for probe in found},
        },
    }
    tables: dict[str, pl.DataFrame] = {
        "Could it be read without the lung?": pl.DataFrame({"what the audit found": words}),
        "Scores, 95 % intervals by patient": table,
    }
    if apart:
        tables["The model within one source or view"] = pl.DataFrame(
            apart, infer_schema_length=None
        )
    if seen:
        rows = [{"map": name, **values} for name, values in seen.items()]
        tables["Attention in boxes and lungs, beside an even map"] = pl.DataFrame(
            rows, infer_schema_length=None
        )
    pictures = [figures.calibration(part.labels, raw, probability, classes, positive, threshold)]
    if found:
        pictures.append(figures.shortcuts(found, own["auc"]))
    if chosen:
        pictures.append(figures.looked(chosen))
    if readable:
        say(words[0])
    shown = {
        name: with_interval(own, name)
        for name in ("auc", "balanced_accuracy", "sensitivity", "ppv")
    }
    headline = (
        f"{len(part)} pictures of {metrics['patients']} patients: AUC {shown['auc']}, balanced accuracy "
        f"{shown['balanced_accuracy']}; {classes[positive]}: sensitivity {shown['sensitivity']}, predictive value "
        f"{shown['ppv']}. {words[0]}"
    )
    return Review(metrics, headline, pictures, tables)


def _scored(
    labels: np.ndarray,
    probability: np.ndarray,
    patients: np.ndarray,
    positive: int,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Scores of all classes, and of the positive one at the operating point."""
    one = labels == positive, probability[:, positive], threshold
    point, point_ends = operating_scores(*one), operating_bootstrap(*one, patients, seed=seed)
    every, ends = scores(labels, probability), bootstrap(labels, probability, patients, seed=seed)
    point.pop("auc")
    found = {**every, **point}
    return {**found, "intervals": {name: list(({**point_ends, **ends})[name]) for name in found}}


def _named(name: str, positive: str) -> str:
    kinds = {
        "auprc": "average precision",
        "ppv": "positive predictive value",
        "npv": "negative predictive value",
    }
    short = kinds.get(name, name.replace("_", " ").replace("auc", "AUC").replace("ece", "ECE"))
    return (
        f"{short}, {positive}"
        if name in ("auprc", "sensitivity", "specificity", "ppv", "npv")
        else short
    )


@torch.no_grad()
def _looked(
    model: Any,
    part: Xrays,
    probability: np.ndarray,
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> tuple[dict[int, dict[str, np.ndarray]], list[Any]]:
    """Maps by row of those pictures that boxes or lungs may be there for, and some of each class
    for the report.
    """
    plain: Any = getattr(model, "module", model)
    surest = np.argsort(-probability.max(1), kind="stable")
    shown = [
        int(k)
        for c in range(len(part.classes))
        for k in surest[part.labels[surest] == c][: figures.SHOWN]
    ]
    every = range(len(part)) if options.boxes is not None or options.lungs is not None else shown
    drawn: dict[int, dict[str, np.ndarray]] = {}
    chosen, names = {}, part.of("names")
    size = tuple(spec["input"]["size"])
    for places in np.array_split(np.array(every, np.int64), max(1, -(-len(every) // BATCH))):
        batch = [part[int(k)] for k in places]
        given = [
            torch.stack([one[name] for one in batch]).to(device) for name in ("picture", "small")
        ]
        found = plain.attend(*normalise(*given))
        maps = maps_of(
            model, found, size, torch.from_numpy(probability[places].argmax(1)).to(device)
        )
        for j, k in enumerate(places.tolist()):
            own = {name: value[j].numpy() for name, value in maps.items()}
            drawn[int(part.rows[k])] = own
            if k in shown:
                said = part.classes[int(probability[k].argmax())]
                headline = (
                    f"{names[k]}: labelled {part.classes[part.labels[k]]}, predicted {said} "
                    f"({probability[k].max():.0%})"
                )
                chosen[k] = headline, batch[j]["picture"][0].numpy(), own
    return drawn, [chosen[k] for k in shown]
