"""Updates of low rank beside the layers of a language model."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.models.language.tuning.lora import LoRA, TokenLoRA, add_lora, add_moe_lora, merge_lora
from headwise.models.language.tuning.present import PresentTokens
from headwise.tests.models.language.tuning.tuned_models import texts, tiny

ALL = ("q", "k", "v", "o", "gate", "up", "down")


def disturbed(model: nn.Module) -> nn.Module:
    """The model with updates that are not 0 any more."""
    torch.manual_seed(1)
    for part in model.modules():
        if isinstance(part, LoRA):
            nn.init.normal_(part.up, std=0.1)
    return model


@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_formula(bias):
    torch.manual_seed(0)
    linear = nn.Linear(7, 5, bias=bias)
    layer = LoRA(copy.deepcopy(linear), rank=3, alpha=12.0)
    nn.init.normal_(layer.up)
    x = torch.randn(2, 4, 7)
    expected = linear(x) + 12 / 3 * x @ layer.down.T @ layer.up.T
    torch.testing.assert_close(layer(x), expected)
    merged = layer.merged()
    torch.testing.assert_close(merged(x), expected, atol=1e-5, rtol=1e-5)
    assert merged.weight is not layer.linear.weight


def test_gradients_reach_the_update_alone():
    layer = LoRA(nn.Linear(6, 6), rank=2)
    nn.init.normal_(layer.up)
    assert torch.autograd.gradcheck(
        lambda down, up: F.linear(F.linear(torch.eye(6).double(), down), up),
        (
            layer.down.detach().double().requires_grad_(),
            layer.up.detach().double().requires_grad_(),
        ),
    )
    layer(torch.randn(3, 6)).sum().backward()
    assert layer.linear.weight.grad is None
    assert layer.up.grad is not None
    assert float(layer.down.grad.abs().sum()) > 0


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_a_model_with_updates_starts_as_it_came_and_can_be_merged(kind):
    model, ids = tiny(kind), texts()
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert add_lora(model, [0, 2], ALL, rank=4, alpha=8.0) == 14
        assert torch.equal(model(input_ids=ids).logits, expected)
        tuned = disturbed(model)(input_ids=ids).logits
        assert float((tuned - expected).abs().max()) > 1e-3
        assert merge_lora(model) == 14
        torch.testing.assert_close(model(input_ids=ids).logits, tuned, atol=2e-5, rtol=1e-4)
    assert not any(isinstance(part, LoRA) for part in model.modules())
    assert {name for name, _ in model.named_parameters()} == {
        name for name, _ in tiny(kind).named_parameters()
    }


def test_routed_updates_start_as_the_model_came_and_leave_padding_out_of_the_balance():
    model, ids = tiny(), texts()
    expected = model(input_ids=ids).logits.detach()
    present = PresentTokens()
    options = {"experts": 3, "active": 2, "rank": 2, "alpha": 4.0}
    assert add_moe_lora(model, [1], ("up", "down"), present, **options) == 2  # type: ignore[arg-type]
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-6, rtol=1e-5)
    model.train()
    layer = next(part for part in model.modules() if isinstance(part, TokenLoRA))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 6:] = False
    losses = []
    for changed in (ids, ids.masked_fill(~mask, 7)):
        with present.told(mask):
            model(input_ids=changed)
        assert layer.auxiliary is not None
        losses.append(float(layer.auxiliary))
    assert losses[0] == pytest.approx(losses[1], abs=1e-7), "what padding holds does not count"
    model(input_ids=ids)
    assert float(layer.auxiliary) != pytest.approx(losses[0], abs=1e-7)


def test_a_rank_below_1_is_refused():
    with pytest.raises(ValueError, match="rank must be positive"):
        LoRA(nn.Linear(3, 3), rank=0)
