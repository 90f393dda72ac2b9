"""The loss of texts against PyTorch's own and against plain formulas."""

from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from headwise.models.text.losses import TextLoss

COUNTS, SAMPLES = torch.tensor([60, 30, 10]), 100
Goal = Literal["class", "labels", "number"]


def logits_and_truth(goal: Goal, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    if goal == "class":
        classes = torch.randint(0, 3, (8,), generator=generator)
        return logits, F.one_hot(classes, 3).double()
    return logits, torch.randint(0, 2, (8, 3), generator=generator).double()


def test_of_a_class_it_is_cross_entropy() -> None:
    logits, truth = logits_and_truth("class")
    loss = TextLoss("class", "none", COUNTS, SAMPLES)(logits, truth)
    torch.testing.assert_close(loss, F.cross_entropy(logits, truth.argmax(1)))


def test_of_labels_it_is_binary_cross_entropy() -> None:
    logits, truth = logits_and_truth("labels")
    loss = TextLoss("labels", "none", COUNTS, SAMPLES)(logits, truth)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, truth))


def test_of_a_number_it_is_the_squared_error() -> None:
    logits, truth = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    loss = TextLoss("number", "none", torch.tensor([2]), 2)(logits, truth)
    assert loss.item() == pytest.approx((1 + 4) / 2)


def test_rare_classes_weigh_as_much_as_frequent_ones() -> None:
    logits, truth = logits_and_truth("class")
    loss = TextLoss("class", "pos-weight", COUNTS, SAMPLES)(logits, truth)
    weights = SAMPLES / 3 / COUNTS.double().numpy()
    logarithm = F.log_softmax(logits, 1).numpy()
    classes = truth.argmax(1).numpy()
    rows = [-weights[k] * logarithm[row, k] for row, k in enumerate(classes)]
    assert loss.item() == pytest.approx(np.mean(rows))
    assert (weights * COUNTS.numpy()).sum() / SAMPLES == pytest.approx(1), "the mean weight is 1"


def test_adjusted_logits_of_classes_know_how_frequent_they_are() -> None:
    logits, truth = logits_and_truth("class")
    loss = TextLoss("class", "logit-adjust", COUNTS, SAMPLES)(logits, truth)
    shifted = logits + (COUNTS.double() / SAMPLES).log()
    torch.testing.assert_close(loss, F.cross_entropy(shifted, truth.argmax(1)), rtol=1e-2, atol=0)


def test_easy_classes_count_less_by_the_focal_loss() -> None:
    logits, truth = logits_and_truth("class")
    p = (logits.softmax(1) * truth).sum(1)
    loss = TextLoss("class", "focal", COUNTS, SAMPLES)(logits, truth)
    torch.testing.assert_close(loss, (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("imbalance", ["pos-weight", "focal", "asymmetric", "logit-adjust"])
def test_each_way_to_help_rare_labels_changes_the_loss_and_stays_finite(imbalance) -> None:
    logits, truth = logits_and_truth("labels")
    logits = (30 * logits).requires_grad_()
    plain = TextLoss("labels", "none", COUNTS, SAMPLES)(logits, truth)
    loss = TextLoss("labels", imbalance, COUNTS, SAMPLES)(logits, truth)
    loss.backward()
    assert loss.item() != pytest.approx(plain.item())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("goal", ["class", "labels", "number"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32, torch.float64])
def test_logits_of_any_precision_are_taken(goal: Goal, precision: torch.dtype) -> None:
    logits, truth = logits_and_truth(goal)
    objective = TextLoss(goal, "none", COUNTS, SAMPLES)
    if precision == torch.float64:
        objective = objective.double()
    loss = objective(logits.to(precision), truth.float())
    assert loss.dtype == (torch.float64 if precision == torch.float64 else torch.float32)
    exact = TextLoss(goal, "none", COUNTS, SAMPLES)(logits, truth)
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)


def test_it_stores_no_tensors() -> None:
    for goal in ("class", "labels"):
        assert not TextLoss(goal, "pos-weight", COUNTS, SAMPLES).state_dict()


@pytest.mark.parametrize(
    ("goal", "imbalance", "reason"),
    [
        ("number", "focal", "a number has no rare labels"),
        ("class", "asymmetric", "is for labels, not for one class"),
    ],
)
def test_ways_that_a_goal_does_not_have_are_refused(goal, imbalance, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        TextLoss(goal, imbalance, COUNTS, SAMPLES)
