"""Learning several findings: the loss, the figures of an epoch, temperatures and operating points.

Shapes: B pictures of a batch, N of a part, K findings.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from ....base.errors import InputError
from ....models.layers.label_losses import LabelLoss
from ...engine.pipeline import Calibration
from ...engine.training.order import Batch
from ...metrics.classification import LEAST_PROBABILITY, weighted_auc
from ...metrics.operating import choose_threshold, fit_temperature


def findings_loss(logits: Tensor, batch: Batch, objective: LabelLoss) -> Tensor:
    """The mean over all pictures and findings; a label that is not known counts as 0, so that parts
    of a batch sum to the batch. logits: (B, K).
    """
    return (objective(logits, batch["label"]) * batch["known"]).mean()


def epoch_figures(batches: Iterable[tuple[Tensor, Batch]]) -> dict[str, float]:
    """Log-loss and AUC of a validation part, means over the findings; of the labels that are known.

    batches: logits (B, K) with the batch that they are of.
    """
    parts = [
        (logits.float().sigmoid().cpu(), batch["label"].cpu(), batch["known"].cpu())
        for logits, batch in batches
    ]
    probability, label, is_known = (
        torch.cat(column).double().numpy() for column in zip(*parts, strict=True)
    )
    truth, known = label > 0, is_known > 0
    losses, areas = [], []
    for k in range(truth.shape[1]):
        rows = known[:, k]
        if not rows.any():
            continue
        positive, chance = truth[rows, k], probability[rows, k]
        of_truth = np.where(positive, chance, 1 - chance).clip(LEAST_PROBABILITY, 1)
        losses.append(float(-np.log(of_truth).mean()))
        if 0 < positive.sum() < len(positive):
            areas.append(float(weighted_auc(positive, chance, np.ones((1, len(chance))))[0]))
    return {"loss": float(np.mean(losses)), "auc": float(np.mean(areas)) if areas else float("nan")}


def calibrate_findings(
    truth: np.ndarray, known: np.ndarray, logits: np.ndarray, sensitivity: float | None
) -> Calibration:
    """A temperature and an operating point for each finding, both (K,), of a validation part.

    truth, known: bool (N, K); logits: (N, K). sensitivity: as in `choose_threshold`.
    """
    temperatures, thresholds = [], []
    for k in range(truth.shape[1]):
        rows = known[:, k]
        positive, score = truth[rows, k], logits[rows, k].astype(np.float64)
        # Of two classes with the logits 0 and z, softmax is the sigmoid of z.
        pair = np.stack([np.zeros_like(score), score], 1)
        temperatures.append(fit_temperature(positive.astype(np.int64), pair))
        chance = expit(score / temperatures[-1])
        thresholds.append(choose_threshold(positive, chance, sensitivity))
    return {"temperature": torch.tensor(temperatures), "threshold": torch.tensor(thresholds)}


def check_calibration(calibration: Calibration, count: int) -> None:
    """Raise `InputError` unless there is a temperature and an operating point for each of `count`
    findings.
    """
    for name in ("temperature", "threshold"):
        if name not in calibration or tuple(calibration[name].shape) != (count,):
            raise InputError(f"calibration.safetensors holds no {name} of each finding")


def probability_of(logits: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Calibrated probabilities (N, K) of logits (N, K)."""
    return expit(logits.astype(np.float64) / calibration["temperature"].cpu().double().numpy())
