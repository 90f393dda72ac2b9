"""In evaluation a mixture draws nothing and counts nothing, whatever it does in training; its
gradients are whole.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from headwise.models.moe.attention import AttentionExperts
from headwise.models.moe.diverse import DiverseHead
from headwise.models.moe.layer import MoE, MoE2d
from headwise.models.moe.lora import MoELoRA
from headwise.models.moe.multi_gate import LayeredExtraction, MultiGate, TaskExpertLayer
from headwise.tests.models.contracts import (
    assert_evaluation_is_without_dropout,
    assert_gradient_is_the_derivative,
)

WIDTH = 8
TRAINING_ONLY = {
    "dropout": {"dropout": 0.5},
    "jitter": {"noise": "jitter", "noise_scale": 0.5},
    "gaussian": {"noise": "gaussian"},
    "bias": {"bias_rate": 0.1, "dropout": 0.5},
    "capacity": {"capacity": 0.7, "dropout": 0.5},
}
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "tokens": lambda **options: MoE(WIDTH, 12, experts=4, z=0.1, **options),
    "grid": lambda **options: MoE2d(WIDTH, 12, experts=4, kind="glu", **options),
}


def built(make: Callable[..., nn.Module], **options) -> nn.Module:
    torch.manual_seed(0)
    module = make(**options)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=0.4)
    return module


def sample_input(layer: str) -> Tensor:
    x = torch.randn(3, 10, WIDTH, generator=torch.Generator().manual_seed(4))
    return x if layer == "tokens" else x.transpose(1, 2).unflatten(2, (2, 5))


@pytest.mark.parametrize("option", TRAINING_ONLY)
@pytest.mark.parametrize("layer", LAYERS)
def test_what_training_adds_is_off_in_evaluation(layer: str, option: str) -> None:
    options = TRAINING_ONLY[option]
    plain = built(
        LAYERS[layer], **{name: value for name, value in options.items() if name == "capacity"}
    )
    assert_evaluation_is_without_dropout(
        built(LAYERS[layer], **options), plain, lambda module: module(sample_input(layer))
    )


@pytest.mark.parametrize("option", ["jitter", "gaussian"])
def test_low_rank_experts_route_without_noise_in_evaluation(option: str) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(WIDTH, 5)
    plain = built(lambda: MoELoRA(linear))
    dropping = built(lambda: MoELoRA(nn.Linear(WIDTH, 5), **TRAINING_ONLY[option]))
    assert_evaluation_is_without_dropout(
        dropping, plain, lambda module: module(sample_input("tokens"))
    )


GRADIENTS: dict[str, Callable[[], nn.Module]] = {
    "moe": lambda: MoE(WIDTH, 12, experts=4, balance=0.3, z=0.2),
    "moe of sigmoids": lambda: MoE(
        WIDTH, 12, experts=4, score="sigmoid", balance=0.3, noise="gaussian"
    ),
    "moe that mixes": lambda: MoE(WIDTH, 12, experts=4, mixing="similarity", z=0.2),
    "one expert": lambda: MoE(WIDTH, 12, experts=4, active=1, capacity=0.8),
    "low rank": lambda: MoELoRA(nn.Linear(WIDTH, 5), balance=0.3),
    "attention": lambda: AttentionExperts(WIDTH, heads=2),
    "multi-gate": lambda: MultiGate(WIDTH, 2),
    "extraction": lambda: LayeredExtraction(WIDTH, 2),
    "diverse": lambda: DiverseHead(WIDTH, 5, hidden=6),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", GRADIENTS)
def test_the_gradient_of_the_weights_is_the_derivative(name: str, training: bool) -> None:
    module = built(GRADIENTS[name]).double().train(training)
    x = sample_input("tokens").double()
    x = x[0] if name == "diverse" else x

    def loss() -> Tensor:
        out = module(x)
        total = (out * torch.cos(torch.arange(out.numel())).view_as(out)).sum()
        auxiliary = getattr(module, "auxiliary", None)
        return total if auxiliary is None else total + auxiliary

    assert_gradient_is_the_derivative(module, loss)


def test_the_gradient_passes_the_memory_of_tasks() -> None:
    layers = nn.ModuleList([built(lambda: TaskExpertLayer(WIDTH, 2)) for _ in range(2)]).double()
    x = sample_input("tokens").double()

    def loss() -> Tensor:
        memory, total = None, torch.zeros((), dtype=torch.float64)
        for layer in layers:
            features, memory = layer(x, memory)
            total = total + features.square().sum()
        return total

    assert_gradient_is_the_derivative(layers, loss)
