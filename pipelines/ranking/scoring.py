"""Losses and scores of click models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.clicks.batches import ClickRows
from ...data.clicks.schema import schema_of
from ..engine.pipeline import Review
from ..metrics.ranking import auc, log_loss, ranking_scores
from .baselines import rate_scores
from .build import embedding_of
from .options import RankingOptions

SMALL = 5  # rows that a score of cold users or items needs to be shown


def forward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Logits (B, S)."""
    return model(batch["fields"], batch["events"], batch["ages"], batch["offsets"])


def loss(model: nn.Module, batch: dict[str, Tensor], options: RankingOptions) -> Tensor:
    """sum_s weight_s (mean log-loss of the rows that count) + l2 (mean over rows of the squared
    embeddings).
    """
    logits, counts = forward(model, batch), batch["counts"].float()
    each = F.binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none") * counts
    mean = each.sum(0) / counts.sum(0).clamp(min=1)
    weights = mean.new_tensor(options.task_weights or [1.0] * len(mean))
    if len(weights) != len(mean):
        raise ValueError(f"--task-weights: {len(weights)} weights for {len(mean)} tasks")
    found = (mean * weights).sum()
    if options.embedding_l2:
        table = embedding_of(model).table
        found = found + options.embedding_l2 * table(batch["fields"]).square().sum() / len(logits)
    return found


def validate(model: nn.Module, batches: Any) -> dict[str, float]:
    """AUC and log-loss, means over tasks, and one minus that AUC."""
    found = [
        (forward(model, batch).sigmoid().float(), batch["labels"], batch["counts"])
        for batch in batches
    ]
    probability, labels, counts = (torch.cat(part).cpu().numpy() for part in zip(*found))
    aucs, losses = [], []
    for task in range(labels.shape[1]):
        rows = counts[:, task]
        if rows.any():
            aucs.append(auc(labels[rows, task].astype(np.int8), probability[rows, task]))
            losses.append(log_loss(labels[rows, task].astype(np.int8), probability[rows, task]))
    mean = float(np.nanmean(aucs)) if np.isfinite(aucs).any() else float("nan")
    return {"auc": mean, "log_loss": float(np.mean(losses)), "one_minus_auc": 1 - mean}


@torch.no_grad()
def batch_probability(
    model: nn.Module, batch: dict[str, Tensor], device: torch.device
) -> np.ndarray:
    """float32 (B, S)."""
    return (
        forward(model, {name: value.to(device) for name, value in batch.items()})
        .sigmoid()
        .float()
        .cpu()
        .numpy()
    )


def probabilities(
    model: nn.Module, dataset: ClickRows, device: torch.device, batch_size: int = 4096
) -> Iterator[np.ndarray]:
    """float32 (B, S) of batch after batch, in the order of the rows."""
    for start in range(0, len(dataset), batch_size):
        batch = dataset.__getitems__(range(start, min(start + batch_size, len(dataset))))
        yield batch_probability(model, batch, device)


def review(
    model: nn.Module,
    dataset: ClickRows,
    spec: dict[str, Any],
    options: RankingOptions,
    device: torch.device,
) -> Review:
    """Scores of each task, beside what counting users and items gives, and for cold users and items
    apart.
    """
    from .figures import pictures

    probability = np.concatenate(list(probabilities(model, dataset, device)))
    rows, which = dataset.rows, dataset.which
    assert rows.labels is not None
    user, item, labels = rows.user[which], rows.item[which], rows.labels[which]
    encoder = dataset.encoder
    cold = {
        "cold_users": ~encoder.trained_on("user", user),
        "cold_items": ~encoder.trained_on("item", item),
    }
    metrics: dict[str, Any] = {
        "rows": len(dataset),
        **{name: int(part.sum()) for name, part in cold.items()},
    }
    table, said = [], []
    for place, task in enumerate(spec["tasks"]):
        counts = labels[:, place] >= 0
        found = _scores(labels[counts, place], probability[counts, place], user[counts])
        base = rate_scores(encoder, user[counts], item[counts], place)
        found["baseline_auc"] = _scores(labels[counts, place], base, user[counts]).get(
            "auc", float("nan")
        )
        for name, part in cold.items():
            both = counts & part
            if both.sum() >= SMALL:
                found[f"auc_{name}"] = auc(labels[both, place], probability[both, place])
        metrics[task] = found
        table.append({"task": task, **found})
        said.append(
            f"{task} AUC {found.get('auc', float('nan')):.4f} (users and items counted: "
            f"{found['baseline_auc']:.4f}), gAUC {found.get('gauc', float('nan')):.4f}"
        )
    shown = pl.DataFrame(table, strict=False)
    headline = f"{options.model} on {len(dataset):,} rows: " + "; ".join(said)
    figures = pictures(labels, probability, spec["tasks"], schema_of(spec["schema"]))
    return Review(metrics, headline, figures, {"scores of each task": shown})


def _scores(labels: np.ndarray, probability: np.ndarray, users: np.ndarray) -> dict[str, float]:
    return ranking_scores(labels, probability, users) if len(labels) else {}
