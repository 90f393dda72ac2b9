"""Losses for rare labels against their formulas in plain numbers, with gradients."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headwise.models.layers.label_losses import (
    LabelLoss,
    asymmetric_loss,
    class_adjustment,
    focal_loss,
    label_adjustment,
    positive_weights,
)

LOGITS = torch.tensor([[-3.0, -0.4, 0.0], [0.7, 2.5, -1.0]], dtype=torch.float64)
TRUTH = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64)


def by_entry(formula):
    """Of p and y of every entry."""
    rows = zip(LOGITS.tolist(), TRUTH.tolist(), strict=True)
    return [[formula(1 / (1 + math.exp(-z)), y) for z, y in zip(*row, strict=True)] for row in rows]


@pytest.mark.parametrize(
    ("positive", "negative", "margin"), [(0, 4, 0.05), (1, 2, 0.3), (0, 0, 0), (2, 1, 0)]
)
def test_the_asymmetric_loss_is_its_formula(positive, negative, margin):
    def formula(p, y):
        q = max(p - margin, 0)
        return -(y * (1 - p) ** positive * math.log(p) + (1 - y) * q**negative * math.log(1 - q))

    loss = asymmetric_loss(
        LOGITS, TRUTH, gamma_positive=positive, gamma_negative=negative, margin=margin
    )
    np.testing.assert_allclose(loss, by_entry(formula))


def test_the_focal_loss_is_its_formula():
    def formula(p, y):
        chance = p if y else 1 - p
        return -(0.25 if y else 0.75) * (1 - chance) ** 2 * math.log(chance)

    np.testing.assert_allclose(focal_loss(LOGITS, TRUTH, alpha=0.25), by_entry(formula))
    np.testing.assert_allclose(
        focal_loss(LOGITS, TRUTH, gamma=0),
        F.binary_cross_entropy_with_logits(LOGITS, TRUTH, reduction="none"),
    )


@pytest.mark.parametrize("kind", ["none", "asymmetric", "logit-adjust", "pos-weight", "focal"])
def test_gradients_are_those_of_differences_and_finite_at_the_ends(kind):
    loss = LabelLoss(kind, torch.tensor([1, 40, 5]), 100).double()
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, TRUTH), logits)
    ends = torch.tensor([[-200.0, 200.0], [200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    truth = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    values = LabelLoss(kind, torch.tensor([0, 100]), 100)(ends, truth)
    values.sum().backward()
    assert values.isfinite().all()
    assert ends.grad is not None
    assert ends.grad.isfinite().all()
    assert (values[0] < 1e-3).all()


def test_half_precision_is_computed_in_32_bits():
    loss = LabelLoss("asymmetric", torch.tensor([1, 2, 3]), 10)
    assert loss(LOGITS.bfloat16(), TRUTH.bfloat16()).dtype == torch.float32


def test_positive_weights_make_a_label_weigh_as_much_with_as_without():
    counts = torch.tensor([10, 50, 0, 1])
    weights = positive_weights(counts, 100)
    assert weights.tolist() == [9.0, 1.0, 100.0, 99.0]
    assert positive_weights(counts, 100, power=0.5)[0] == 3
    loss = LabelLoss("pos-weight", counts, 100)
    truth = torch.zeros(100, 4)
    truth[:10, 0] = 1
    by_label = loss(torch.zeros(100, 4), truth)[:, 0]
    torch.testing.assert_close(by_label[:10].sum(), by_label[10:].sum())


def test_adjusted_logits_learn_what_the_shares_do_not_explain():
    """Where logits say nothing, the best adjusted one is 0, whatever the share of the label."""
    counts = torch.tensor([5, 30])
    truth = (torch.arange(100)[:, None] < counts).double()
    loss = LabelLoss("logit-adjust", counts, 100).double()
    constant = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    loss(constant.expand(100, 2), truth).mean().backward()
    assert constant.grad is not None
    assert constant.grad.abs().max() < 0.003
    expected = [math.log(5.5 / 95.5), math.log(30.5 / 70.5)]
    np.testing.assert_allclose(label_adjustment(counts, 100), expected, rtol=1e-5)
    np.testing.assert_allclose(label_adjustment(counts, 100, 0.5), np.array(expected) / 2, 1e-5)


def test_class_adjustment_is_the_logarithm_of_the_shares():
    adjustment = class_adjustment(torch.tensor([9.5, 89.5]))
    np.testing.assert_allclose(adjustment.exp(), [0.1, 0.9], rtol=1e-6)
    np.testing.assert_allclose(
        class_adjustment(torch.tensor([0, 8]), 2.0).exp(), [1 / 324, 289 / 324], 1e-5
    )


def test_what_does_not_fit_is_refused():
    counts = torch.tensor([1, 2])
    for call in (
        lambda: asymmetric_loss(LOGITS, TRUTH, gamma_negative=0.5),
        lambda: asymmetric_loss(LOGITS, TRUTH, margin=1.0),
        lambda: focal_loss(LOGITS, TRUTH, alpha=2.0),
        lambda: LabelLoss("other", counts, 10),  # pyright: ignore
        lambda: LabelLoss("none", counts, 1),
        lambda: positive_weights(-counts, 10),
        lambda: class_adjustment(counts[None]),
    ):
        with pytest.raises(ValueError, match=r"asymmetric|focal|LabelLoss|weights|class_adjust"):
            call()
