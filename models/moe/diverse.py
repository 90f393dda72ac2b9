"""Experts for classes of different frequency, trained to be diverse and consistent (MDCS, arXiv
2308.09922, ICCV 2023).

Shapes: B batch, D width, C classes, E experts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFERENCES = (-0.5, 1.0, 2.5)  # the paper's, for frequent, even and rare classes
SCALE = 16.0  # of the cosines of classifiers


class DiverseHead(nn.Module):
    """E cosine classifiers on one feature: logits scale cos(W_ec, x); a prediction is their mean.

    width: D; classes: C; experts: E, one for each preference of the losses; scale: of the cosines;
    hidden: width of a separate layer before each classifier (in the paper, each expert has its own
    last stages); None: no such layer.
    """

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
        self.hidden = (
            None
            if hidden is None
            else nn.ModuleList(nn.Linear(width, hidden) for _ in range(experts))
        )
        self.weight = nn.Parameter(torch.empty(experts, classes, inner).uniform_(-1, 1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D) -> logits of each expert (E, B, C)."""
        features = x.expand(len(self.weight), -1, -1)
        if self.hidden is not None:
            features = torch.stack([F.relu(layer(x)) for layer in self.hidden])
        unit = F.normalize(self.weight, dim=-1)
        return self.scale * torch.einsum("ebd,ecd->ebc", F.normalize(features, dim=-1), unit)


class DiverseClassifier(DiverseHead):
    """The experts as the last layer of a classifier: in training their logits (E, B, C), each of
    which has its loss, otherwise the mean of these, (B, C).

    width, classes: D and C. Each expert has a layer of width D of its own.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes, experts=len(PREFERENCES), scale=SCALE, hidden=width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D) -> (E, B, C) in training, else (B, C)."""
        return all_or_mean(super().forward(x), self.training)


class LinearExperts(nn.Linear):
    """The same of linear experts, for models that start at 0 or whose logits are sums: the mean of
    linear experts is linear.

    width, classes: D and C.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, len(PREFERENCES) * classes)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """x: (B, D) -> (E, B, C) in training, else (B, C)."""
        return all_or_mean(by_expert(super().forward(x)), self.training)


def by_expert(logits: Tensor) -> Tensor:
    """Logits of all experts side by side, (B, E C) -> (E, B, C)."""
    return torch.stack(logits.chunk(len(PREFERENCES), 1))


def all_or_mean(logits: Tensor, training: bool) -> Tensor:
    """Logits of each expert (E, B, C) in training, else their mean (B, C)."""
    return logits if training else logits.mean(0)


def preferred(counts: Tensor, preferences: Sequence[float]) -> Tensor:
    """preference_e log(count_c), (E, 1, C), of counts (C,) above 0."""
    weight = torch.tensor(preferences, dtype=counts.dtype, device=counts.device)
    return weight[:, None, None] * counts.log()


def adjusted(logits: Tensor, counts: Tensor, preferences: Sequence[float] = PREFERENCES) -> Tensor:
    """logits (E, B, C) + preference_e log(count_c): a higher preference teaches an expert to favour
    rarer classes.

    counts: (C,), examples of each class in the training part, at least 1; their scale does not
    matter.

    Raises ValueError if shapes do not fit or a class has no example.
    """
    if logits.ndim != 3 or len(preferences) != len(logits) or counts.shape != logits.shape[2:]:
        raise ValueError(
            f"adjusted: needs logits (experts, batch, classes), {len(preferences)} experts and "
            f"{counts.numel()} classes, got {tuple(logits.shape)}"
        )
    if counts.min() <= 0:
        raise ValueError(f"adjusted: class {int(counts.argmin())} has no example")
    return logits + preferred(counts.to(logits), preferences)


def diversity_loss(
    logits: Tensor, labels: Tensor, counts: Tensor, preferences: Sequence[float] = PREFERENCES
) -> Tensor:
    """Sum over experts of the cross entropy of their adjusted logits. logits: (E, B, C); labels:
    int64 (B,).

    A preference of 0 is plain cross entropy, 1 is logit adjustment (Menon et al., arXiv
    2007.07314).
    """
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
    """Sum over experts of KL(weak || strong) between two views of a sample, if the weak one is
    classified correctly.

    weak, strong: logits (E, B, C) of the weakly and the strongly augmented view. The weak view is
    the teacher and receives no gradient. Samples whose adjusted weak view is wrong do not count
    (confident instance sampling); the mean is over the others, 0 without any. Reading: the
    distributions are those of the adjusted logits.
    """
    teacher = adjusted(weak.detach(), counts, preferences)
    student = adjusted(strong, counts, preferences).log_softmax(-1)
    right = (teacher.argmax(-1) == labels).to(student.dtype)
    divergence = F.kl_div(student, teacher.log_softmax(-1), log_target=True, reduction="none").sum(
        -1
    )
    return ((divergence * right).sum(1) / right.sum(1).clamp_min(1)).sum()
