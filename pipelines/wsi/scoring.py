"""Scores of bags by patient, compared with a baseline, and the attention of each bag.

Shapes: N bags, n instances of a bag, D width of a feature, C classes, K branches of attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...models.bags.acmil import ACMIL
from ...models.bags.simple import BlendedBags
from ..engine.pipeline import Batch, Calibration, Metrics
from ..engine.training import order
from ..figures.classifier import with_interval
from ..metrics.classification import NAMES
from ..metrics.linear_baseline import fit_linear_baseline
from .data import BagSet


def loader(bags: BagSet, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """All bags in their order, in batches on the device."""
    for batch in order.loader(bags, order.sequential(len(bags), batch_size)):
        yield {name: value.to(device) for name, value in batch.items()}


@torch.no_grad()
def probabilities(model: nn.Module, batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """labels (N,) and probability (N, C) over batches of bags."""
    labels, probability = [], []
    for batch in batches:
        logits = model(batch["x"], batch["offsets"])
        labels.append(batch["labels"].cpu())
        probability.append(logits.float().softmax(1).cpu())
    return torch.cat(labels).numpy(), torch.cat(probability).numpy()


def mean_features(bags: BagSet) -> np.ndarray:
    """Mean of the instances of each bag: (N, D)."""
    return np.stack([bags[k][0].double().mean(0).numpy() for k in range(len(bags))])


def fit_baseline(bags: BagSet, seed: int) -> Calibration:
    """Logistic regression (scikit-learn) on the mean instance, standardised: its weights (C, D) and
    bias (C,).
    """
    return fit_linear_baseline(
        mean_features(bags),
        bags.labels,
        len(bags.classes),
        inverse_penalty=0.05,
        iterations=2000,
        seed=seed,
        standardise=True,
    )


def score_table(metrics: Metrics, baseline: Metrics, model: str) -> pl.DataFrame:
    """One row per score, of the model (its name is a column) and of the baseline."""
    return pl.DataFrame(
        [
            {
                "score": name,
                model: with_interval(metrics, name),
                "logistic regression of the mean instance": with_interval(baseline, name),
            }
            for name in NAMES
        ]
    )


def headline_of(metrics: Metrics, baseline: Metrics) -> str:
    """One sentence with the main figures."""
    return (
        f"{metrics['bags']} slides or bags of {metrics['patients']} patients: AUC "
        f"{with_interval(metrics, 'auc')}, balanced accuracy "
        f"{with_interval(metrics, 'balanced_accuracy')}; baseline AUC "
        f"{with_interval(baseline, 'auc')}"
    )


def attending(model: nn.Module) -> ACMIL | None:
    """The model whose attention explains a prediction: itself, or the part of a blend that has
    one.
    """
    part = model.model if isinstance(model, BlendedBags) else model
    return part if isinstance(part, ACMIL) else None


@torch.no_grad()
def attention_of_bags(model: nn.Module, bags: BagSet, device: torch.device) -> list[np.ndarray]:
    """Attention (n, K) of each bag; an empty list for a model without."""
    attentive = attending(model)
    if attentive is None:
        return []
    attention: list[np.ndarray] = []
    for k in range(len(bags)):
        bag_scores = attentive.attend(bags[k][0].to(device)).scores
        assert isinstance(bag_scores, Tensor)
        attention.append(attentive.attention_of(bag_scores).float().cpu().numpy())
    return attention
