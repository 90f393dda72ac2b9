"""Signed root attention and squeeze-and-excitation against formulas written here."""

import pytest
import torch
from torch import Tensor

from headwise.models.attention import build_attention
from headwise.models.attention.signed_root import SignedRootAttention
from headwise.models.attention.squeeze import SqueezeExcitation


def linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


@pytest.mark.parametrize("kind", ["none", "keys", "pairs"])
def test_signed_root_is_its_formula(kind: str) -> None:
    torch.manual_seed(0)
    mechanism = SignedRootAttention(12, 3).double()
    x, context = (
        torch.randn(2, 5, 12, dtype=torch.float64),
        torch.randn(2, 7, 12, dtype=torch.float64),
    )
    mask = {"none": None, "keys": torch.rand(2, 7) < 0.6, "pairs": torch.rand(2, 5, 7) < 0.6}[kind]
    parts = []
    for head in range(3):
        columns = slice(4 * head, 4 * head + 4)
        query, key, value = (
            linear(layer, y)[..., columns]
            for layer, y in (
                (mechanism.query, x),
                (mechanism.key, context),
                (mechanism.value, context),
            )
        )
        scores = query @ key.mT
        rooted = torch.sign(scores) * ((scores.abs() + 1e-4).sqrt() - 1e-2)
        if mask is not None:
            rooted = rooted * (mask if kind == "pairs" else mask[:, None])
        mixed = rooted @ value
        parts.append(2 * mixed / mixed.norm(dim=-1, keepdim=True).clamp_min(1e-12))
    torch.testing.assert_close(
        mechanism(x, context, mask=mask), linear(mechanism.out, torch.cat(parts, -1))
    )


def test_the_number_of_equal_keys_changes_nothing() -> None:
    torch.manual_seed(0)
    mechanism = build_attention("signed-root", 8, 2)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(mechanism(x, context.repeat(1, 6, 1)), mechanism(x, context))


def test_weights_are_those_of_the_output() -> None:
    torch.manual_seed(0)
    mechanism = SignedRootAttention(8, 2)
    weights = mechanism.weights(torch.randn(2, 4, 8), mask=torch.ones(2, 4, dtype=torch.bool))
    assert weights.shape == (2, 2, 4, 4)
    assert (weights < 0).any()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="eps must be positive"):
        SignedRootAttention(8, 2, eps=0.0)
    with pytest.raises(ValueError, match="reduction must be positive"):
        SqueezeExcitation(8, reduction=0)


def test_squeeze_is_its_formula_and_equal_to_timms() -> None:
    torch.manual_seed(0)
    mechanism = SqueezeExcitation(32, reduction=4)
    x = torch.randn(2, 12, 32)
    mask = torch.rand(2, 12) < 0.5
    mean = torch.stack([row[present].mean(0) for row, present in zip(x, mask)])
    gate = torch.sigmoid(linear(mechanism.excite, linear(mechanism.squeeze, mean).relu()))
    torch.testing.assert_close(mechanism(x, mask=mask), x * gate[:, None])
    layers = pytest.importorskip("timm.layers", reason="the extra `vision` is not installed")
    reference = layers.SqueezeExcite(32, rd_channels=8)
    with torch.no_grad():
        for theirs, ours in ((reference.fc1, mechanism.squeeze), (reference.fc2, mechanism.excite)):
            theirs.weight.copy_(ours.weight[..., None, None])
            theirs.bias.copy_(ours.bias)
    image = x.mT.unflatten(2, (3, 4))
    torch.testing.assert_close(reference(image).flatten(2).mT, mechanism(x))
