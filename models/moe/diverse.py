"""Experts for classes of different frequency, trained to differ and to be sure (MDCS, arXiv
2308.09922, ICCV 2023).

Shapes: B batch, D width, C classes, E experts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFERENCES = (-0.5, 1.0, 2.5)  # of the paper: for frequent, even, rare classes


class DiverseHead(nn.Module):
    """E cosine classifiers on one feature: logits scale cos(W_ec, x). At prediction their mean is
    taken.

    width: D; classes: C; experts: E, one for each preference of the losses; scale: of the cosines;
    hidden: width of a layer of its own before each classifier (the paper gives each expert its own
    last stages), None: none."""

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        experts: int = 3,
        scale: float = 30.0,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        inner = width if hidden is None else hidden
        self.own = (
            None
            if hidden is None
            else nn.ModuleList(nn.Linear(width, hidden) for _ in range(experts))
        )
        self.weight = nn.Parameter(torch.empty(experts, classes, inner).uniform_(-1, 1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D) -> logits of each expert (E, B, C)."""
        each = x.expand(len(self.weight), -1, -1)
        if self.own is not None:
            each = torch.stack([F.relu(layer(x)) for layer in self.own])
        unit = F.normalize(self.weight, dim=-1)
        return self.scale * torch.einsum("ebd,ecd->ebc", F.normalize(each, dim=-1), unit)


def adjusted(logits: Tensor, counts: Tensor, preferences: Sequence[float] = PREFERENCES) -> Tensor:
    """logits (E, B, C) + preference_e log(count_c): an expert that learns with more of it favours
    rarer classes.

    counts: (C,) of the training part, at least 1 each; their scale does not matter.

    Raises ValueError if shapes do not fit or a class has no example.
    """
    if logits.ndim != 3 or len(preferences) != len(logits) or counts.shape != logits.shape[2:]:
        raise ValueError(
            f"adjusted: needs logits (experts, batch, classes), {len(preferences)} experts and {counts.numel()} "
            f"classes, got {tuple(logits.shape)}"
        )
    if counts.min() <= 0:
        raise ValueError(f"adjusted: class {int(counts.argmin())} has no example")
    weight = torch.tensor(preferences, dtype=logits.dtype, device=logits.device)
    return logits + weight[:, None, None] * counts.to(logits).log()


def diversity_loss(
    logits: Tensor, labels: Tensor, counts: Tensor, preferences: Sequence[float] = PREFERENCES
) -> Tensor:
    """Sum over experts of the cross entropy of their adjusted logits. logits: (E, B, C); labels:
    int64 (B,).

    A preference of 0 is plain cross entropy, 1 is logit adjustment (Menon et al., arXiv
    2007.07314)."""
    shifted = adjusted(logits, counts, preferences)
    return (
        F.cross_entropy(shifted.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
        .view(len(logits), -1)
        .mean(1)
        .sum()
    )


def consistency_loss(
    weak: Tensor,
    strong: Tensor,
    labels: Tensor,
    counts: Tensor,
    preferences: Sequence[float] = PREFERENCES,
) -> Tensor:
    """Sum over experts of KL(weak || strong) of a sample's two views, where the weak one is classified rightly.

    weak, strong: logits (E, B, C) of the weakly and the strongly augmented view. The weak view is
    the teacher and gets no gradient. Samples whose adjusted weak view is wrong do not count
    (confident instance sampling); the mean is over the others. Reading: distributions are those of
    the adjusted logits. 0 where no teacher is right."""
    teacher = adjusted(weak.detach(), counts, preferences)
    student = adjusted(strong, counts, preferences).log_softmax(-1)
    right = (teacher.argmax(-1) == labels).to(student.dtype)
    each = F.kl_div(student, teacher.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    return ((each * right).sum(1) / right.sum(1).clamp_min(1)).sum()
