"""What a training leaves of a backbone as it is: weights, statistics, and what is drawn."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from headwise.models.layers.pyramid import build_pyramid
from headwise.models.layers.tuning import TunedBackbone
from headwise.models.layers.vit_trunk import SCRATCH, Trunk, build_trunk
from headwise.models.vision.cca import ConditionalEmbedder

Build = Callable[[], TunedBackbone]


def pyramid() -> TunedBackbone:
    return build_pyramid("small", "random")


def mobile() -> TunedBackbone:
    return build_pyramid("mobilenetv2_050", "random")


def trunk() -> Trunk:
    return build_trunk(SCRATCH, image=(32, 32), patch=8, width=16, depth=12, heads=2)


LAST = {
    pyramid: ("model.layer4",),
    mobile: ("model.blocks.5", "model.blocks.6"),
    trunk: ("model.blocks.10", "model.blocks.11", "model.norm"),
}


def loss_of(backbone: TunedBackbone) -> Tensor:
    result = backbone(torch.rand(2, 3, 32, 32))
    maps = result if isinstance(result[1], Tensor) else [backbone.norm(result[0])]  # type: ignore[operator]
    return torch.stack([(x - 0.3).square().mean() for x in maps]).sum()


def changed_by_a_step(backbone: TunedBackbone) -> set[str]:
    """Names of the weights and statistics that a step of training changes."""
    before = copy.deepcopy(backbone.state_dict())
    backbone.train()
    weights = [weight for weight in backbone.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=0.1)
    loss_of(backbone).backward()
    optimizer.step()
    return {name for name, value in backbone.state_dict().items() if not value.equal(before[name])}


@pytest.mark.parametrize("build", LAST)
def test_the_last_stage_alone_changes(build: Build) -> None:
    torch.manual_seed(0)
    backbone = build()
    backbone.tune("last")
    changed = changed_by_a_step(backbone)
    assert changed
    assert all(name.startswith(LAST[build]) for name in changed)
    for part in LAST[build]:
        assert any(name.startswith(part) for name in changed), part


@pytest.mark.parametrize("build", [pyramid, trunk])
def test_without_a_choice_every_weight_learns(build: Build) -> None:
    backbone = build().train()
    loss_of(backbone).backward()
    assert all(weight.grad is not None for weight in backbone.parameters())


def test_what_is_held_is_neither_changed_nor_drawn() -> None:
    torch.manual_seed(0)
    backbone = build_trunk(
        SCRATCH, image=(32, 32), patch=8, width=16, depth=6, heads=2, drop_path=0.9
    )
    backbone.tune("none")
    backbone.train()
    assert not any(weight.requires_grad for weight in backbone.parameters())
    x = torch.rand(1, 3, 32, 32)
    assert backbone(x)[0].equal(backbone(x)[0])


@pytest.mark.parametrize("build", [pyramid, trunk])
def test_evaluation_is_evaluation_for_all_of_it(build: Build) -> None:
    backbone = build()
    backbone.tune("last")
    backbone.train().eval()
    assert not any(module.training for module in backbone.modules())


def test_a_weight_that_nothing_uses_stays_without_gradients() -> None:
    """The norm that the embedder leaves out is in the last stage."""
    model = ConditionalEmbedder(trunk(), 2)
    model.trunk.tune("last")
    norm: nn.LayerNorm = model.trunk.model.norm
    assert not norm.weight.requires_grad
    assert model.trunk.blocks[-1].mlp.fc1.weight.requires_grad
