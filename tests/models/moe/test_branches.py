"""Separately trained models, mixed into one."""

import copy

import pytest
import torch
from torch import Tensor, nn

from headwise.models.layers.blocks import FeedForward
from headwise.models.layers.vit import TokenModel
from headwise.models.moe.attention import AttentionExperts
from headwise.models.moe.branches import mix_branches
from headwise.models.moe.layer import MoE

FLOAT64 = torch.float64


def branches(count: int = 3) -> list[TokenModel]:
    """Copies of one seed model, changed at random."""
    torch.manual_seed(0)
    seed = TokenModel(3, 2, width=16, tokens=9, depth=2, heads=2).double().eval()
    models = [copy.deepcopy(seed) for _ in range(count)]
    with torch.no_grad():
        for model in models:
            for value in model.parameters():
                value += 0.3 * torch.randn_like(value)
    return models


def x() -> Tensor:
    return torch.randn(2, 9, 3, dtype=FLOAT64, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"shared": True}, {"attention": False}], ids=str)
def test_a_mixture_of_equal_models_is_that_model(options: dict) -> None:
    model = branches(1)[0]
    mixed = mix_branches([model] * 3, active=2, **options).eval()
    torch.testing.assert_close(mixed(x()), model(x()), rtol=1e-10, atol=1e-10)
    experts = [type(part) for part in mixed.modules() if isinstance(part, MoE | AttentionExperts)]
    assert experts.count(MoE) == 2
    assert experts.count(AttentionExperts) == (0 if "attention" in options else 2)


@torch.no_grad()
def test_certain_routers_give_one_model_and_the_rest_is_the_mean() -> None:
    models = branches()
    mixed = mix_branches(models).eval()
    for name, value in mixed.named_parameters():
        if (
            name in dict(models[0].named_parameters())
            and ".mixer." not in name
            and ".feedforward." not in name
        ):
            parts = [dict(model.named_parameters())[name] for model in models]
            torch.testing.assert_close(value, torch.stack(parts).mean(0))
    # If what is averaged comes from one model, and the routers always choose it, the mixture is
    # that model.
    branch = models[1]
    parameters = dict(branch.named_parameters())
    for name, value in mixed.named_parameters():
        if name in parameters and parameters[name].shape == value.shape and ".mixer." not in name:
            value.copy_(parameters[name])
    for part in mixed.modules():
        if isinstance(part, AttentionExperts):
            part.gate.weight.zero_()
            part.gate.register_forward_hook(
                lambda *_: torch.tensor([-1e3, 0.0, -1e3], dtype=FLOAT64).expand(2, 9, 3)
            )
        if isinstance(part, MoE):
            part.router.logits = lambda x: torch.tensor([-1e3, 0.0, -1e3], dtype=FLOAT64).expand(
                2, 9, 3
            )
    torch.testing.assert_close(mixed(x()), branch(x()), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_running_statistics_are_averaged_and_counters_are_not() -> None:
    models = [nn.Sequential(nn.BatchNorm1d(3), FeedForward(3)) for _ in range(2)]
    models[1](torch.randn(8, 3))
    mixed = mix_branches(models)
    torch.testing.assert_close(mixed[0].running_mean, models[1][0].running_mean / 2)
    assert int(mixed[0].num_batches_tracked) == 0


def test_it_trains() -> None:
    mixed = mix_branches(branches(2))
    mixed.train()(x()).square().sum().backward()
    assert all(value.grad is not None for name, value in mixed.named_parameters() if "gate" in name)


def test_mistakes_are_named() -> None:
    single = branches(1)
    for models in ([], single, [single[0], nn.Linear(2, 2)]):
        with pytest.raises(ValueError, match="two models or more of the same parts"):
            mix_branches(models)
    with pytest.raises(ValueError, match="Linear has no feed-forward"):
        mix_branches([nn.Linear(2, 2), nn.Linear(2, 2)])
