"""Simple models of bags against plain loops and scikit-learn, and the blend."""

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from headwise.models.bags.acmil import ACMIL
from headwise.models.bags.simple import BlendedBags, KernelBags, LinearBags, PriorBags, SimpleBags
from headwise.models.layers.blend import BlendedClassifier

SIZES = (3, 1, 5)


def bags() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(sum(SIZES), 4, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([0, *SIZES]).cumsum(0)


def test_statistics_are_mean_least_and_largest_of_each_bag() -> None:
    x, offsets = bags()
    expected = [
        torch.cat([part.mean(0), part.min(0).values, part.max(0).values]) for part in x.split(SIZES)
    ]
    values = SimpleBags(4, extremes=True).statistics(x, offsets)
    torch.testing.assert_close(values, torch.stack(expected))
    torch.testing.assert_close(SimpleBags(4, extremes=False).statistics(x, offsets), values[:, :4])
    alone = SimpleBags(4, extremes=True).statistics(x[:3])
    torch.testing.assert_close(alone[0], values[0])


def test_regression_is_of_the_standardised_statistics() -> None:
    x, offsets = bags()
    model = LinearBags(4, 3, extremes=True)
    torch.manual_seed(0)
    for name in ("weight", "bias", "mean"):
        getattr(model, name).normal_()
    model.deviation.uniform_(0.5, 2)
    rows = (model.statistics(x, offsets) - model.mean) / model.deviation
    torch.testing.assert_close(model(x, offsets), rows @ model.weight.T + model.bias)


def test_a_kernel_machine_has_the_margin_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60, 4)).astype(np.float32)
    labels = (np.square(rows).sum(1) > 4).astype(int)
    machine = SVC(C=2.0).fit(rows, labels)
    model = KernelBags(4, len(machine.support_vectors_), extremes=False)
    model.vectors = torch.from_numpy(machine.support_vectors_).float()
    model.weights = torch.from_numpy(machine.dual_coef_[0]).float()
    model.bias = torch.tensor(float(machine.intercept_[0]))
    model.gamma, model.slope = torch.tensor(float(machine._gamma)), torch.tensor(2.0)
    offsets = torch.arange(61)  # a bag for each row
    logits = model(torch.from_numpy(rows), offsets)
    margin = machine.decision_function(rows)
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), 2 * margin, atol=1e-4)


def test_the_prior_is_the_same_for_all_bags() -> None:
    x, offsets = bags()
    model = PriorBags(4, 2)
    model.logits = torch.tensor([-1.0, 0.5])
    assert model(x, offsets).tolist() == [[-1.0, 0.5]] * 3


def test_a_blend_is_a_mean_of_probabilities() -> None:
    first, second = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    blend = BlendedClassifier(first, second)
    blend.share, blend.temperatures = torch.tensor(0.3), torch.tensor([2.0, 0.5])
    x = torch.randn(5, 4)
    expected = 0.3 * (first(x) / 2).softmax(1) + 0.7 * (second(x) / 0.5).softmax(1)
    torch.testing.assert_close(blend(x).exp(), expected)
    assert blend(x).exp().sum(1).detach().numpy() == pytest.approx(np.ones(5), abs=1e-5)


def test_a_blend_of_bags_has_the_attention_of_its_model() -> None:
    x, offsets = bags()
    torch.manual_seed(0)
    model = ACMIL(4, 2, inner=8, branches=2, hidden=4).eval()
    blend = BlendedBags(model, PriorBags(4, 2)).eval()
    attended = blend.attend(x, offsets)
    assert attended.scores is not None
    torch.testing.assert_close(attended.scores, model.attend(x, offsets).scores)
    torch.testing.assert_close(attended.logits, blend(x, offsets))
