"""The loss of classes against plain formulas, experts, and what they do for rare classes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headwise.models.layers.label_losses import ClassLoss, Imbalance
from headwise.models.moe.diverse import PREFERENCES, DiverseClassifier, LinearExperts

COUNTS, LABELS = torch.tensor([60, 30, 10]), torch.tensor([0, 1, 2, 2])
KINDS: tuple[Imbalance, ...] = ("none", "pos-weight", "focal", "logit-adjust")


def plain(row: list[float], label: int, kind: str, smoothing: float) -> float:
    """Of one sample, in plain numbers."""
    if kind == "logit-adjust":
        row = [z + math.log((n + 0.5) / 101.5) for z, n in zip(row, COUNTS.tolist(), strict=True)]
    total = math.log(sum(math.exp(z) for z in row))
    logarithms = [z - total for z in row]
    loss = -(1 - smoothing) * logarithms[label] - smoothing * sum(logarithms) / len(row)
    if kind == "pos-weight":
        loss *= 100 / 3 / COUNTS.tolist()[label]
    return loss * (1 - math.exp(logarithms[label])) ** 2 if kind == "focal" else loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_plain_formula(kind, smoothing) -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = ClassLoss(kind, COUNTS, smoothing=smoothing)
    expected = [
        plain(row, label, kind, smoothing)
        for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True)
    ]
    assert loss(logits, LABELS).tolist() == pytest.approx(expected, rel=1e-5)
    assert loss.mean(logits, LABELS).item() == pytest.approx(sum(expected) / 4, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_of_experts_it_is_the_formula_summed_over_their_preferences(smoothing) -> None:
    logits = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = ClassLoss("diverse", COUNTS, smoothing=smoothing).mean(logits, LABELS)
    expected = sum(
        F.cross_entropy(expert + preference * COUNTS.log(), LABELS, label_smoothing=smoothing)
        for expert, preference in zip(logits, PREFERENCES, strict=True)
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    unseen = ClassLoss("diverse", torch.tensor([5, 0, 3]))(logits, LABELS)
    assert unseen.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_help_it_is_pytorch_to_the_last_bit(smoothing) -> None:
    torch.manual_seed(2)
    for size in range(2, 40):
        logits, labels = torch.randn(size, 7), torch.randint(0, 7, (size,))
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss = ClassLoss("none", torch.ones(7), smoothing=smoothing)
        assert torch.equal(loss.mean(logits, labels), expected)


def test_what_it_is_not_for_is_refused_and_nothing_is_stored() -> None:
    with pytest.raises(ValueError, match="is for labels"):
        ClassLoss("asymmetric", COUNTS)
    assert not ClassLoss("diverse", COUNTS).state_dict()


@pytest.mark.parametrize("head", [DiverseClassifier, LinearExperts])
def test_a_head_answers_with_the_mean_of_the_experts(head) -> None:
    torch.manual_seed(3)
    model, x = head(6, 4), torch.randn(5, 6)
    experts = model(x)
    assert experts.shape == (3, 5, 4)
    torch.testing.assert_close(model.eval()(x), experts.mean(0))


def test_the_mean_of_linear_experts_is_linear() -> None:
    model = LinearExperts(6, 4).eval()
    weight, bias = (values.unflatten(0, (3, 4)).mean(0) for values in (model.weight, model.bias))
    x = torch.randn(5, 6)
    torch.testing.assert_close(model(x), x @ weight.T + bias)


def uneven_sample(sizes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Generated: eight classes that overlap, points around centres in six dimensions."""
    generator = torch.Generator().manual_seed(0)
    centres = 1.2 * torch.randn(8, 6, generator=generator)
    generator.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(8), sizes)
    return centres[labels] + torch.randn(len(labels), 6, generator=generator), labels


def balanced_accuracy(
    kind: Imbalance, build: Callable[[int, int], nn.Module], *, known: bool = True
) -> float:
    """Of a head that is trained by a loss on 80 to 2 points, on as many of each; known: whether the
    loss knows how many.
    """
    sizes = (80 * (2 / 80) ** (torch.arange(8) / 7)).round().int()
    x, labels = uneven_sample(sizes, 1)
    test, truth = uneven_sample(torch.full((8,), 100), 2)
    torch.manual_seed(4)
    head, loss = build(6, 8), ClassLoss(kind, sizes if known else torch.ones(8))
    optimizer = torch.optim.Adam(head.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss.mean(head(x), labels).backward()
        optimizer.step()
    right = head.eval()(test).argmax(1) == truth
    return float(right.double().mean())


def test_rare_classes_that_cross_entropy_misses_are_told() -> None:
    missed = balanced_accuracy("none", nn.Linear)
    assert balanced_accuracy("logit-adjust", nn.Linear) > missed + 0.03
    assert balanced_accuracy("diverse", LinearExperts) > missed + 0.03


def test_cosine_experts_tell_more_with_preferences_than_without() -> None:
    """Without counts each expert has plain cross-entropy."""
    missed = balanced_accuracy("diverse", DiverseClassifier, known=False)
    assert balanced_accuracy("diverse", DiverseClassifier) > missed + 0.03
