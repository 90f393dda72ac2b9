"""Losses for labels and classes that few samples have.

Shapes: B samples, L labels, C classes, E experts. Of labels, each a yes-or-no question: logits (B,
L); truth (B, L) of 0 and 1 (or between); losses by entry, (B, L), so that masks, weights and means
are the caller's. Of classes that exclude each other: logits (B, C), or (E, B, C) of diverse
experts; losses by sample, (B,). All are in 32 bits at least.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..moe.diverse import PREFERENCES, preferred

LabelImbalance = Literal["none", "pos-weight", "focal", "asymmetric", "logit-adjust"]
ClassImbalance = Literal["none", "pos-weight", "focal", "logit-adjust", "diverse"]
Imbalance = LabelImbalance | ClassImbalance
MOST_WEIGHT = 100.0  # of a positive entry


def asymmetric_loss(
    logits: Tensor,
    truth: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """-y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q) with q = max(p - margin, 0): (B, L).

    Easy negatives count less, and below the margin nothing (Ridnik et al., arXiv 2009.14119); its
    probabilities are too high for rare labels, so calibrate. Raises ValueError for gammas between 0
    and 1, whose gradient is not finite where p is 0, and margins outside of 0 up to 1."""
    if any(gamma != 0 and gamma < 1 for gamma in (gamma_positive, gamma_negative)):
        raise ValueError(
            f"asymmetric_loss: gammas are 0 or at least 1, got {gamma_positive}, {gamma_negative}"
        )
    if not 0 <= margin < 1:
        raise ValueError(f"asymmetric_loss: margin = {margin} must be from 0 up to 1")
    logits, truth = _wide(logits), _wide(truth)
    of_true = F.logsigmoid(logits) * torch.sigmoid(-logits) ** gamma_positive
    if margin:
        shifted = (torch.sigmoid(logits) - margin).clamp(min=0)
        of_false = torch.log1p(-shifted) * shifted**gamma_negative
    else:  # stays exact where p is near 1
        of_false = F.logsigmoid(-logits) * torch.sigmoid(logits) ** gamma_negative
    return -(truth * of_true + (1 - truth) * of_false)


def focal_loss(
    logits: Tensor, truth: Tensor, *, gamma: float = 2.0, alpha: float | None = None
) -> Tensor:
    """-a (1 - p)^g log p of positive entries, -(1 - a) p^g log(1 - p) of negative ones: (B, L)
    (Lin et al., arXiv 1708.02002); without `alpha` both have the weight 1.

    Raises ValueError for a gamma between 0 and 1 and an alpha outside of 0 to 1."""
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"focal_loss: alpha = {alpha} must lie between 0 and 1")
    loss = asymmetric_loss(logits, truth, gamma_positive=gamma, gamma_negative=gamma, margin=0)
    return loss if alpha is None else loss * (alpha * truth + (1 - alpha) * (1 - truth))


def positive_weights(
    counts: Tensor, samples: int | Tensor, *, power: float = 1.0, most: float = MOST_WEIGHT
) -> Tensor:
    """((samples - count) / count)^power, at most `most`: the weights (L,) of positive entries, with
    which a label weighs as much with as without it; power 0.5 goes halfway.

    counts: (L,), how many samples have each label; samples: of all, or (L,) of each label, where it
    is not known of all. Use: `pos_weight` of
    `torch.nn.functional.binary_cross_entropy_with_logits`. Raises ValueError for counts outside of
    0 to `samples`."""
    counts = _checked_counts("positive_weights", counts, samples)
    return (((samples - counts) / counts.clamp(min=0.5)) ** power).clamp(max=most)


def label_adjustment(counts: Tensor, samples: int | Tensor, strength: float = 1.0) -> Tensor:
    """strength log(share / (1 - share)) of each label, half a sample added to both sides: (L,).

    Added to the logits in the loss of the training (Menon et al., arXiv 2007.07314, for yes-or-no
    questions), and not when predicting, it makes labels equally easy to reach; added there too, it
    gives true probabilities again. counts, samples: as of `positive_weights`. Raises ValueError for
    counts outside of 0 to `samples`."""
    counts = _checked_counts("label_adjustment", counts, samples)
    return strength * ((counts + 0.5).log() - (samples - counts + 0.5).log())


def class_adjustment(counts: Tensor, strength: float = 1.0) -> Tensor:
    """strength log(share) of each class, half a sample added to every class: (C,), to be added to
    the logits of a softmax in the loss of the training (Menon et al., arXiv 2007.07314).

    counts: (C,), of at least one class. Raises ValueError for counts below 0."""
    counts = _checked_counts("class_adjustment", counts, None) + 0.5
    return strength * (counts / counts.sum()).log()


class LabelLoss(nn.Module):
    """The loss by entry (B, L) of one of the ways to treat labels that few samples have.

    kind: "none" (binary cross-entropy), "asymmetric", "logit-adjust", "pos-weight" or "focal".
    counts, samples: as of `positive_weights`, of the training part. Raises ValueError for other
    kinds and for counts that do not fit."""

    weight: Tensor
    adjustment: Tensor

    def __init__(self, kind: Imbalance, counts: Tensor, samples: int | Tensor) -> None:
        super().__init__()
        if kind == "diverse":
            raise ValueError(
                "imbalance diverse: is for classes that exclude each other, not for labels"
            )
        if kind not in get_args(LabelImbalance):
            raise ValueError(
                f"LabelLoss: {kind!r} is none of {', '.join(get_args(LabelImbalance))}"
            )
        counts = _checked_counts("LabelLoss", counts, samples)
        self.kind = kind
        weight, adjustment = torch.ones_like(counts), torch.zeros_like(counts)
        if kind == "pos-weight":
            weight = positive_weights(counts, samples)
        if kind == "logit-adjust":
            adjustment = label_adjustment(counts, samples)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Logits and truth (B, L) -> (B, L)."""
        if self.kind == "asymmetric":
            return asymmetric_loss(logits, truth)
        if self.kind == "focal":
            return focal_loss(logits, truth)
        return F.binary_cross_entropy_with_logits(
            _wide(logits) + self.adjustment, _wide(truth), pos_weight=self.weight, reduction="none"
        )


class ClassLoss(nn.Module):
    """The loss (B,) of one of the ways to treat classes that few samples have, each sample of one
    class.

    kind: "none" (cross-entropy), "pos-weight" (weights by the inverse of the frequency, whose mean
    over the samples is 1), "focal" (gamma 2), "logit-adjust", or "diverse" (the sum over experts
    that prefer classes of different frequency, see `models.moe.diverse`). counts: (C,), samples of
    the training part of each class; smoothing: of the labels, the share that all classes get alike.
    It has no tensors that are stored. Raises ValueError for other kinds."""

    weight: Tensor
    adjustment: Tensor

    def __init__(self, kind: Imbalance, counts: Tensor, *, smoothing: float = 0.0) -> None:
        super().__init__()
        if kind not in get_args(ClassImbalance):
            raise ValueError(
                f"imbalance {kind}: is for labels, not for classes that exclude each other"
            )
        self.kind, self.smoothing = kind, smoothing
        counts = _checked_counts("ClassLoss", counts, None)
        weight, adjustment = torch.ones_like(counts), torch.zeros_like(counts)
        if kind == "pos-weight":
            weight = float(counts.sum()) / len(counts) / counts.clamp(min=1)
        if kind == "logit-adjust":
            adjustment = class_adjustment(counts)
        if kind == "diverse":
            adjustment = preferred(counts.clamp(min=0.5), PREFERENCES)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C), or (E, B, C) of diverse experts, and classes int64 (B,) -> (B,)."""
        logits = _wide(logits)
        logarithm = F.log_softmax(logits + self.adjustment.to(logits.dtype), -1)
        places = labels.expand(logarithm.shape[:-1])[..., None]
        of_truth = logarithm.gather(-1, places).squeeze(-1)
        losses = -self.weight.to(logits.dtype)[labels] * of_truth
        if self.smoothing:
            of_all = -self.weight.to(logits.dtype)[labels] * logarithm.mean(-1)
            losses = (1 - self.smoothing) * losses + self.smoothing * of_all
        if self.kind == "focal":
            losses = losses * (1 - of_truth.exp()).square()
        return losses.sum(0) if losses.ndim == 2 else losses

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the samples, (); of "none" as PyTorch sums it up. Arguments as of
        `forward`.
        """
        if self.kind == "none":
            return F.cross_entropy(_wide(logits), labels, label_smoothing=self.smoothing)
        return self(logits, labels).mean()


def _wide(x: Tensor) -> Tensor:
    """In 32 bits at least."""
    return x if x.dtype == torch.float64 else x.float()


def _checked_counts(name: str, counts: Tensor, samples: int | Tensor | None) -> Tensor:
    counts = torch.as_tensor(counts).float()
    if counts.ndim != 1 or bool((counts < 0).any()):
        raise ValueError(f"{name}: counts are (labels,) from 0, got {tuple(counts.shape)}")
    if samples is not None and bool((counts > samples).any()):
        raise ValueError(f"{name}: a label has {counts.max():.0f} of fewer samples")
    return counts
