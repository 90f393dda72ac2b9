"""Gaussian adaptive attention against the densities themselves, and its invariants."""

import math

import pytest
import torch

from headwise.models.attention.gaussian import GaussianAdaptiveAttention


def make(**options) -> GaussianAdaptiveAttention:
    torch.manual_seed(0)
    model = GaussianAdaptiveAttention(6, **({"heads": 2} | options)).double()
    torch.nn.init.normal_(model.offset, std=0.5)
    return model


def density(value: float, scale: float) -> float:
    return math.exp(-(value**2) / (2 * scale**2)) / math.sqrt(2 * math.pi * scale**2)


@pytest.mark.parametrize("mode", ["mixture", "product"])
@pytest.mark.parametrize("axis", ["tokens", "features"])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_it_equals_the_densities(mode, axis, masked: bool) -> None:
    model = make(mode=mode, axis=axis, gaussians=3, gain=False)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True], [True] * 5])
    out = model(x, mask=mask if masked else None)
    present = mask if masked else torch.ones_like(mask)
    expected = torch.zeros_like(x)
    for b in range(2):
        tokens = [n for n in range(5) if present[b, n]]
        for h in range(2):
            features = range(3 * h, 3 * h + 3)
            if axis == "tokens":
                chunks = [[(n, f) for n in tokens] for f in features]
            else:
                chunks = [[(n, f) for f in features] for n in tokens]
            for chunk in chunks:
                values = torch.stack([x[b, n, f] for n, f in chunk])
                mean, deviation = values.mean(), (values.var() + 1e-8).sqrt()
                raw = []
                for value in values:
                    densities = [
                        density(
                            float((value - mean - model.offset[h, k]) / deviation),
                            math.exp(model.log_scale[h, k]),
                        )
                        for k in range(3)
                    ]
                    raw.append(math.prod(densities) if mode == "product" else sum(densities))
                for (n, f), weight in zip(chunk, raw):
                    expected[b, n, f] = x[b, n, f] * weight / sum(raw)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def test_a_product_of_gaussians_is_one() -> None:
    """w = softmax(-P (z - m)^2 / 2) with P = sum 1/c^2 and m = sum(o / sigma / c^2) / P."""
    model = make(mode="product", gaussians=4, heads=1)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    deviation = (x.var(1, keepdim=True) + 1e-8).sqrt()
    z = (x - x.mean(1, keepdim=True)) / deviation
    precision = (-2 * model.log_scale[0]).exp()
    middle = (model.offset[0] * precision).sum() / precision.sum() / deviation
    parabola = (-precision.sum() * (z - middle) ** 2 / 2).softmax(1)
    torch.testing.assert_close(model.importance(x), parabola, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(
        make(mode="mixture", gaussians=4, heads=1).importance(x), parabola, atol=1e-3
    )


@pytest.mark.parametrize("axis", ["tokens", "features"])
def test_weights_sum_to_one_and_ignore_shift_and_scale(axis) -> None:
    model = make(axis=axis)
    torch.nn.init.zeros_(model.offset)
    x = torch.randn(3, 8, 6, dtype=torch.float64)
    weights = model.importance(x)
    total = weights.sum(1) if axis == "tokens" else weights.unflatten(2, (2, 3)).sum(3)
    torch.testing.assert_close(total, torch.ones_like(total))
    torch.testing.assert_close(model.importance(3 * x + 7), weights, rtol=1e-6, atol=1e-7)


def test_a_constant_and_a_single_token_do_not_change() -> None:
    model = make()
    x = torch.full((2, 7, 6), 1.5, dtype=torch.float64)
    torch.testing.assert_close(model(x), x)
    single = torch.randn(2, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(model(single), single)
    assert (model(x, mask=torch.zeros(2, 7, dtype=torch.bool)) == 0).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least one Gaussian"):
        make(gaussians=0)
    with pytest.raises(ValueError, match="mode 'mixture' or 'product'"):
        make(mode="sum")
    with pytest.raises(ValueError, match="axis is 'tokens'"):
        make(axis="heads")


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_with_scales_of_features_it_is_algorithm_1_of_the_authors(masked: bool) -> None:
    """out = x exp(-(x - mean - o)^2 / (2 c (var + eps))), o of 0 and c of 2 at the start."""
    torch.manual_seed(0)
    model = GaussianAdaptiveAttention(
        6, heads=2, gaussians=1, mode="product", scales="feature", normalised=False
    ).double()
    assert not model.offset.any()
    torch.testing.assert_close((2 * model.log_scale).exp(), torch.full((2, 1, 3), 2.0).double())
    torch.nn.init.normal_(model.offset, std=0.5)
    torch.nn.init.normal_(model.log_scale, std=0.5)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True], [True] * 5])
    present = mask if masked else torch.ones_like(mask)
    expected = torch.zeros_like(x)
    offset, c = model.offset.flatten(), (2 * model.log_scale).exp().flatten()
    for b in range(2):
        for f in range(6):
            values = x[b, present[b], f]
            variance = float(values.var()) + 1e-8
            for n in range(5):
                if present[b, n]:
                    away = float(x[b, n, f] - values.mean() - offset[f])
                    expected[b, n, f] = x[b, n, f] * math.exp(-(away**2) / (2 * c[f] * variance))
    out = model(x, mask=mask if masked else None)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_several_gaussians_that_are_not_normalised_are_a_product_of_height_1() -> None:
    model = make(mode="product", gaussians=3, normalised=False)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    weights = model.importance(x)
    deviation = (x.var(1) + 1e-8).sqrt()
    z = (x - x.mean(1)) / deviation
    for f in range(6):
        h = f // 3
        expected = torch.ones(4, dtype=torch.float64)
        for k in range(3):
            away = (z[0, :, f] - model.offset[h, k] / deviation[0, f]) / model.log_scale[h, k].exp()
            expected = expected * (-away.square() / 2).exp()
        torch.testing.assert_close(weights[0, :, f], expected)


def test_a_mixture_that_is_not_normalised_is_refused() -> None:
    with pytest.raises(ValueError, match="only mode 'product'"):
        GaussianAdaptiveAttention(4, heads=2, normalised=False)
