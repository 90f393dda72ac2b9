"""Losses: cross-entropy and batch-hard triplets of every branch, weighed by learned variances.

Shapes: B pictures, D width of a vector.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.vision.cca import ConditionalEmbedder
from ..engine.training.wrapped import call_method
from .augment import augment


def loss(model: nn.Module, batch: dict[str, Tensor], options: Any) -> Tensor:
    """DCAL: 1/2 sum_b (exp(-w_b) L_b + w_b) over the branches b (Zhu et al., arXiv 2205.02151,
    section 3.4, as FairMOT; w_b the learned logarithm of a variance), L_b cross-entropy and
    triplets; the conditional embedder: triplets among pictures of one condition."""
    x = augment(batch["image"], options)
    if isinstance(model, ConditionalEmbedder) or isinstance(
        getattr(model, "module", None), ConditionalEmbedder
    ):
        vectors = call_method(model, "embed", x, batch["condition"])
        return triplet_loss(vectors, batch["label"], options.margin, batch["condition"])
    found = call_method(model, "branches", x)
    each = []
    for name, logits in found.logits.items():
        own = F.cross_entropy(logits, batch["label"], label_smoothing=options.smoothing)
        if bool(batch["triplet"][0]):
            own = own + triplet_loss(found.tokens[name], batch["label"], options.margin)
        each.append(own)
    losses = torch.stack(each)
    weights: Tensor = model.log_variance  # pyright: ignore[reportAssignmentType]
    if not options.balance:
        return (
            losses.sum() + 0 * weights.sum()
        )  # several devices wait for the gradient of every weight
    return 0.5 * (torch.exp(-weights) * losses + weights).sum()


def triplet_loss(
    vectors: Tensor, labels: Tensor, margin: float | None = None, group: Tensor | None = None
) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., arXiv 1703.07737): for each picture the farthest of
    its identity against the nearest of another, Euclidean; margin None: the soft margin, log(1 +
    exp(positive - negative)).

    vectors: (B, D); labels: int64 (B,); group: int64 (B,), pictures of other groups are no
    negatives. Pictures without a positive or a negative are left out; without any that has both the
    loss is 0."""
    x = vectors.float()
    square = x.square().sum(1)
    with torch.autocast(
        x.device.type, enabled=False
    ):  # 16 bits of the product would leave nothing of small distances
        product = x @ x.T
    # The square root has no gradient at 0, where a picture stands twice in a batch.
    distance = (square[:, None] + square - 2 * product).clamp_min(1e-12).sqrt()
    same = labels[:, None] == labels
    other = ~same if group is None else ~same & (group[:, None] == group)
    same = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    far = distance.masked_fill(~same, -torch.inf).amax(1)
    near = distance.masked_fill(~other, torch.inf).amin(1)
    counts = same.any(1) & other.any(1)
    gap = torch.where(counts, far - near, 0.0)
    each = F.softplus(gap) if margin is None else F.relu(gap + margin)
    return (each * counts).sum() / counts.sum().clamp_min(1)
