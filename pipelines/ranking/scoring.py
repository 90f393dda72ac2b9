"""Losses and scores of click models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.clicks.batches import ClickRows
from ...models.clicks.click import ClickModel
from ..engine.class_ladder import certainty_of
from ..engine.pipeline import Batch
from ..engine.training.counts import factor
from ..metrics.operating import fit_logistic
from ..metrics.ranking import auc, log_loss, ranking_scores
from .baselines import rate_scores
from .optimizers import embedding_of
from .options import RankingOptions

SMALL = 5  # rows that a score of cold users or items needs to be shown


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Logits (B, S)."""
    return model(batch["fields"], batch["events"], batch["ages"], batch["offsets"])


def weighted_loss(model: nn.Module, batch: Batch, options: RankingOptions) -> Tensor:
    """sum_s weight_s (mean log-loss of the rows that count) + l2 (mean over rows of the squared
    embeddings).
    """
    logits, counts = forward(model, batch), batch["counts"].float()
    losses = F.binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none") * counts
    mean = losses.sum(0) / counts.sum(0).clamp(min=1) * factor(batch, "rows")
    weights = mean.new_tensor(options.task_weights or [1.0] * len(mean))
    if len(weights) != len(mean):
        raise ValueError(f"--task-weights: {len(weights)} weights for {len(mean)} tasks")
    loss = (mean * weights).sum()
    if options.embedding_l2:
        embedding = embedding_of(model)
        vectors = embedding.knots(embedding.table, batch["fields"])
        loss = loss + options.embedding_l2 * vectors.square().sum() / len(logits)
    return loss


def validation_scores(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """AUC and log-loss, means over tasks, and what epochs are compared by: one minus that AUC, or
    the log-loss where no task has rows of both labels.
    """
    columns = [
        (forward(model, batch).sigmoid().float(), batch["labels"], batch["counts"])
        for batch in batches
    ]
    probability, labels, counts = (torch.cat(part).cpu().numpy() for part in zip(*columns))
    aucs, losses = [], []
    for task in range(labels.shape[1]):
        rows = counts[:, task]
        if rows.any():
            aucs.append(auc(labels[rows, task].astype(np.int8), probability[rows, task]))
            losses.append(log_loss(labels[rows, task].astype(np.int8), probability[rows, task]))
    mean = float(np.nanmean(aucs)) if np.isfinite(aucs).any() else float("nan")
    scores = {"auc": mean, "log_loss": float(np.mean(losses)), "one_minus_auc": 1 - mean}
    return scores if np.isfinite(mean) else {**scores, "one_minus_auc": scores["log_loss"]}


def calibrate(model: ClickModel, logits: np.ndarray, labels: np.ndarray) -> None:
    """Scale the logits of each task by logistic regression on the validation part. The epoch is
    chosen by AUC, and a network goes on to order rows better when it is too sure already.

    logits: (N, S) of the model; labels: (N, S), -1 where they do not count. The fewer rows of one
    label there are, the less is changed; logits that tell nothing stay as they are.
    """
    for task in range(labels.shape[1]):
        known = labels[:, task] >= 0
        positive = labels[known, task] == 1
        slope, shift = fit_logistic(logits[known, task], positive)
        if slope > 0:
            certainty = certainty_of(int(min(positive.sum(), (~positive).sum())))
            model.towers.rescale(task, slope**certainty, shift * certainty)


@torch.no_grad()
def batch_probability(model: nn.Module, batch: Batch, device: torch.device) -> np.ndarray:
    """float32 (B, S)."""
    moved = {name: value.to(device) for name, value in batch.items()}
    return forward(model, moved).sigmoid().float().cpu().numpy()


def probabilities(
    model: nn.Module, dataset: ClickRows, device: torch.device, batch_size: int = 4096
) -> Iterator[np.ndarray]:
    """float32 (B, S) of batch after batch, in the order of the rows."""
    for start in range(0, len(dataset), batch_size):
        batch = dataset.__getitems__(range(start, min(start + batch_size, len(dataset))))
        yield batch_probability(model, batch, device)


def scores_by_task(
    dataset: ClickRows, probability: np.ndarray, tasks: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Scores of each task, with the AUC of what counting users and items gives (`baseline_auc`),
    and the AUC for cold users and items where there are enough.

    probability: (N, S) of the rows of the data set.
    """
    rows, which, encoder = dataset.rows, dataset.which, dataset.encoder
    assert rows.labels is not None
    user, item, labels = rows.user[which], rows.item[which], rows.labels[which]
    cold = cold_rows(dataset)
    by_task = {}
    for place, task in enumerate(tasks):
        counts = labels[:, place] >= 0
        scores = _scores(labels[counts, place], probability[counts, place], user[counts])
        rate = rate_scores(encoder, user[counts], item[counts], place)
        baseline = _scores(labels[counts, place], rate, user[counts])
        scores["baseline_auc"] = baseline.get("auc", float("nan"))
        for name, part in cold.items():
            both = counts & part
            if both.sum() >= SMALL:
                scores[f"auc_{name}"] = auc(labels[both, place], probability[both, place])
        by_task[task] = scores
    return by_task


def cold_rows(dataset: ClickRows) -> dict[str, np.ndarray]:
    """bool (N,): the rows whose user, or item, the training part does not have."""
    rows, which, encoder = dataset.rows, dataset.which, dataset.encoder
    cold = {
        "cold_users": ~encoder.trained_on("user", rows.user[which]),
        "cold_items": ~encoder.trained_on("item", rows.item[which]),
    }
    plain = {"cold_users": encoder.schema.user is None, "cold_items": encoder.schema.item is None}
    return {name: mask for name, mask in cold.items() if not plain[name]}


def _scores(labels: np.ndarray, probability: np.ndarray, users: np.ndarray) -> dict[str, float]:
    return ranking_scores(labels, probability, users) if len(labels) else {}
