"""From logits to probabilities, labels that are given, and sets that hold the truth: fitted to the
validation part, kept as `calibration.safetensors`.

Shapes: N texts, L outputs, A labels with their ancestors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError
from ..engine.ladder import LEAST_BLOCKS
from ..metrics.conformal import ConformalIntervals
from ..metrics.labels.calibration import (
    AffineCalibration,
    PositiveUnlabelled,
    fit_platt,
    fit_positive_unlabelled,
)
from ..metrics.labels.calibration import fit_temperature as fit_label_temperature
from ..metrics.labels.decisions import label_tree, with_ancestors
from ..metrics.labels.sets import fit_class_sets, fit_label_sets
from ..metrics.labels.thresholds import best_single_threshold, budget_thresholds, shrunk_thresholds
from ..metrics.operating import fit_temperature
from .options import TextOptions
from .spec import TextSpec

ALLOWED_LOSS = 0.004  # of micro-F1, for thresholds that serve rare labels


@dataclass(frozen=True)
class Told:
    """What is said of texts. probability: (N, L); labels: bool (N, L), given ones; possible: bool
    (N, L), the set that holds the truth as often as was promised.
    """

    probability: np.ndarray
    labels: np.ndarray
    possible: np.ndarray


def fit_calibration(
    logits: np.ndarray, truth: np.ndarray, groups: np.ndarray, options: TextOptions, spec: TextSpec
) -> dict[str, Tensor]:
    """All tensors that `tell` needs, of a validation part. logits, truth: (N, L)."""
    if spec.goal == "number":
        values = {"width": _width(np.abs(logits - truth)[:, 0], options.coverage)}
    elif spec.goal == "class":
        values = _of_classes(logits, truth, groups, options)
    else:
        values = _of_labels(logits, truth > 0, groups, options)
    return {name: torch.from_numpy(np.asarray(v, np.float64)) for name, v in values.items()}


def calibrated(logits: np.ndarray, calibration: Mapping[str, Tensor]) -> np.ndarray:
    """Logits (N, L) after scale and shift of each output."""
    values = {name: tensor.double().cpu().numpy() for name, tensor in calibration.items()}
    return np.asarray(logits, np.float64) * values["slope"] + values["shift"]


def tell(logits: np.ndarray, calibration: Mapping[str, Tensor], spec: TextSpec) -> Told:
    """Probabilities, labels and sets of logits (N, L) of labels or classes."""
    values = {name: tensor.double().cpu().numpy() for name, tensor in calibration.items()}
    scaled = calibrated(logits, calibration)
    if spec.goal == "class":
        probability = softmax(scaled, axis=1)
        labels = np.eye(probability.shape[1], dtype=bool)[probability.argmax(1)]
        possible = probability >= values["set"] - 1e-12
        return Told(probability, labels, possible | labels)
    labels, possible = scaled >= values["threshold"], scaled >= values["set"]
    if "share_given" in values:
        scaled = PositiveUnlabelled(values["share_given"]).apply(scaled)
    if not spec.levels:
        return Told(expit(scaled), labels, possible)
    count = spec.outputs
    _, chance, called = _closed(spec, expit(scaled), labels)
    return Told(chance[:, :count], called[:, :count], possible | called[:, :count])


def ancestors(
    spec: TextSpec, probability: np.ndarray, labels: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels above others that are no labels themselves: names (A - L), probabilities (N, A - L),
    and which are given. One above is given with any label below it, and never less probable than
    any of them.
    """
    if not spec.levels:
        empty = np.zeros((len(labels), 0))
        return [], empty, empty.astype(bool)
    count = spec.outputs
    names, chance, called = _closed(spec, probability, labels)
    return names[count:], chance[:, count:], called[:, count:]


def _closed(
    spec: TextSpec, probability: np.ndarray, labels: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The labels and all above them: names (A), probabilities and which are given, (N, A)."""
    names, parents = label_tree(spec.labels, spec.levels)
    chance = np.zeros((len(labels), len(names)))
    chance[:, : len(spec.labels)] = probability
    # What a label says goes up level by level, wherever its name stands.
    for _ in range(max(name.count(spec.levels) for name in names)):
        for child, above in enumerate(parents.tolist()):
            if above >= 0:
                chance[:, above] = np.maximum(chance[:, above], chance[:, child])
    return names, chance, with_ancestors(labels, parents)


def check_calibration(spec: TextSpec, calibration: Mapping[str, Tensor]) -> None:
    """Raise `InputError` for tensors that are missing or of another size."""
    expected = {"number": {"width": 1}, "class": {"slope": -1, "shift": -1, "set": 1}}.get(
        spec.goal, {"slope": -1, "shift": -1, "threshold": -1, "set": -1}
    )
    for name, size in expected.items():
        size = spec.outputs if size < 0 else size
        if name not in calibration or calibration[name].numel() != size:
            raise InputError(f"calibration.safetensors holds no {name} of {size} numbers")


def _of_classes(
    logits: np.ndarray, truth: np.ndarray, groups: np.ndarray, options: TextOptions
) -> dict[str, np.ndarray | float]:
    labels, outputs = truth.argmax(1), truth.shape[1]
    temperature = 1.0 if options.calibrate == "none" else fit_temperature(labels, logits)
    probability = softmax(logits / temperature, axis=1)
    sets = fit_class_sets(labels, probability, options.coverage, groups=groups)
    _say_small(sets.statement)
    return {
        "slope": np.full(outputs, 1 / temperature),
        "shift": np.zeros(outputs),
        "set": 1 - sets.cut,
    }


def _of_labels(
    logits: np.ndarray, truth: np.ndarray, groups: np.ndarray, options: TextOptions
) -> dict[str, np.ndarray | float]:
    outputs, blocks = truth.shape[1], len(np.unique(groups))
    affine = AffineCalibration(np.ones(outputs), np.zeros(outputs))
    thresholds = options.thresholds
    if blocks < LEAST_BLOCKS:
        what = f"the validation part has {blocks} groups, too few to fit probabilities and"
        note("assumed", f"{what} thresholds to: a label is given from 0.5 on")
        thresholds = "half"
    elif options.calibrate == "platt":
        affine = fit_platt(truth, logits, groups)
    elif options.calibrate == "temperature":
        affine = fit_label_temperature(truth, logits)
    scaled = affine.apply(logits)
    values: dict[str, np.ndarray | float] = {"slope": affine.slope, "shift": affine.shift}
    match thresholds:
        case "one":
            values["threshold"] = np.full(outputs, best_single_threshold(truth, scaled))
        case "half":
            values["threshold"] = np.zeros(outputs)
        case "budget":
            values["threshold"] = budget_thresholds(scaled, labels_per_text=options.budget)
        case "per-label":
            values["threshold"] = shrunk_thresholds(
                truth, scaled, groups, allowed_loss=ALLOWED_LOSS
            ).thresholds
    sets = fit_label_sets(truth, scaled, 1 - options.coverage, groups, values["threshold"])
    _say_small(sets.statement)
    # What is given is possible.
    values["set"] = values["threshold"] + min(sets.shift, 0.0)
    if options.unlabelled:
        values["share_given"] = fit_positive_unlabelled(truth, scaled).c
    return values


def _width(errors: np.ndarray, coverage: float) -> float:
    """Half the width of an interval that holds the truth so often: split conformal."""
    residuals = torch.from_numpy(errors)[:, None, None]
    width = ConformalIntervals.fit(residuals, (coverage,)).widths.item()
    if np.isinf(width):
        note("assumed", f"too few texts of validation for intervals of {coverage:.0%}")
    return width


def _say_small(statement: str) -> None:
    if statement:
        note("assumed", statement)
