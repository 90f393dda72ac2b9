"""HardKuma: closed forms against samples and an independent integral, gradients."""

import pytest
import torch
from scipy.special import beta as beta_function
from scipy.special import betainc

from headwise.models.language.search.kuma import HIGH, LOW, HardKuma

PAIRS = [(1.0, 1.0), (0.3, 2.0), (3.0, 0.4), (0.5, 0.5), (20.0, 5.0)]


def hard_kuma(a: float, b: float) -> HardKuma:
    return HardKuma(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))


def test_equal_shapes_of_one_give_a_twelfth_at_each_end() -> None:
    start = hard_kuma(1.0, 1.0)
    assert start.zero() == pytest.approx(1 / 12)
    assert start.one() == pytest.approx(1 / 12)
    assert start.mean() == pytest.approx(0.5)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_probabilities_and_mean_are_those_of_a_million_samples(a: float, b: float) -> None:
    kuma = hard_kuma(a, b)
    noise = torch.rand(1_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = kuma.sample(noise)
    # The noise keeps a thousandth away from both ends, which moves a probability by as much.
    assert (z == 0).double().mean() == pytest.approx(float(kuma.zero()), abs=3e-3)
    assert (z == 1).double().mean() == pytest.approx(float(kuma.one()), abs=3e-3)
    assert z.mean() == pytest.approx(float(kuma.mean()), abs=3e-3)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_mean_is_the_integral_by_the_incomplete_beta_function(a: float, b: float) -> None:
    low, high = ((x - LOW) / (HIGH - LOW) for x in (0, 1))
    shares = betainc(1 / a, b + 1, [low**a, high**a])
    expected = (HIGH - LOW) / a * beta_function(1 / a, b + 1) * (shares[1] - shares[0])
    assert hard_kuma(a, b).mean() == pytest.approx(expected, abs=1e-9)


def test_the_mean_is_not_that_of_the_variable_before_it_is_rectified() -> None:
    a, b = 0.3, 2.0
    plain = b * beta_function(1 + 1 / a, b)
    assert abs(float(hard_kuma(a, b).mean()) - plain) > 0.01


def test_gradients_of_samples_and_of_probabilities_are_differences() -> None:
    noise = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    a = torch.full((7,), 0.8, dtype=torch.float64, requires_grad=True)
    b = torch.full((7,), 1.3, dtype=torch.float64, requires_grad=True)

    def values(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kuma = HardKuma(a, b)
        return kuma.sample(noise), kuma.zero(), kuma.one(), kuma.mean()

    assert torch.autograd.gradcheck(values, (a, b))


@pytest.mark.parametrize("extreme", [1e-9, 1e-6, 100.0, 1e9])
def test_extreme_shapes_stay_finite(extreme: float) -> None:
    a = torch.tensor([extreme, 1.0, extreme], requires_grad=True)
    b = torch.tensor([1.0, extreme, extreme], requires_grad=True)
    kuma = HardKuma(a, b)
    for value in (kuma.zero(), kuma.one(), kuma.mean(), kuma.sample(torch.rand(5, 3))):
        assert value.isfinite().all()
        assert ((value >= 0) & (value <= 1)).all()
        value.sum().backward(retain_graph=True)
    for weight in (a, b):
        assert weight.grad is not None
        assert weight.grad.isfinite().all()
