"""Dense networks to experts and back: exact where the docstrings promise it, and wrong where
they say so.
"""

import pytest
import torch
from torch import nn

from headwise.models.layers.blocks import FeedForward
from headwise.models.layers.vit import TokenModel
from headwise.models.moe.layer import MoE
from headwise.models.moe.upcycle import (
    _parts,
    assemble,
    cut,
    decompose,
    joined,
    merge,
    upcycle,
    upcycle_model,
)

FLOAT64 = torch.float64
KINDS = pytest.mark.parametrize("kind", ["mlp", "glu"])


def network(kind: str = "mlp", seed: int = 0) -> FeedForward:
    torch.manual_seed(seed)
    return FeedForward(6, 8, kind=kind).double()  # type: ignore[arg-type]


def tokens() -> torch.Tensor:
    return torch.randn(2, 20, 6, dtype=FLOAT64)


@KINDS
@torch.no_grad()
def test_copies_are_the_dense_network_for_any_router(kind: str) -> None:
    dense, x = network(kind), tokens()
    layer = upcycle(dense, experts=4, active=2)
    for _ in range(3):
        layer.router.gate.weight.normal_()
        torch.testing.assert_close(layer(x), dense(x), rtol=1e-12, atol=1e-12)
    raw = upcycle(dense, experts=4, active=2, normalise=False)
    raw.router.load_state_dict(layer.router.state_dict())
    p = raw.router.logits(x).softmax(-1).topk(2).values.sum(-1, keepdim=True)
    torch.testing.assert_close(raw(x), p * dense(x), rtol=1e-12, atol=1e-12)
    assert p.max() < 1


@KINDS
@torch.no_grad()
def test_there_and_back(kind: str) -> None:
    dense, x = network(kind), tokens()
    back = merge(upcycle(dense, experts=4, active=2))
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=1e-15, atol=1e-15)
    assembled = assemble([network(kind, seed) for seed in range(3)], active=1)
    torch.testing.assert_close(
        merge(assembled, torch.tensor([0.0, 1.0, 0.0]))(x), network(kind, 1)(x)
    )


@torch.no_grad()
def test_a_certain_router_picks_one_of_the_assembled_networks() -> None:
    networks, x = [network("mlp", seed) for seed in range(3)], tokens().abs()
    layer = assemble(networks, active=1)
    for e in range(3):
        layer.router.gate.weight.fill_(-100.0)[e] = 100.0
        torch.testing.assert_close(layer(x), networks[e](x), rtol=1e-12, atol=1e-12)


class TestDecomposition:
    @KINDS
    @pytest.mark.parametrize(("copies", "slices"), [(1, 2), (4, 2), (3, 4), (2, 8)])
    @torch.no_grad()
    def test_it_is_the_dense_network_at_first(self, kind: str, copies: int, slices: int) -> None:
        dense, x = network(kind), tokens()
        layer = decompose(dense, copies=copies, slices=slices)
        assert (layer(x) - dense(x)).abs().max() < 1e-12
        assert (layer.float()(x.float()) - dense.float()(x.float())).abs().max() < 1e-5
        sets = layer.routing.experts.sort(1).values
        assert (sets // slices == sets[:, :1] // slices).all()  # slices of one copy

    def test_the_usual_weights_would_be_wrong_and_these_teach_the_router(self) -> None:
        dense, x = network(), tokens()
        layer = decompose(dense, copies=4, slices=2)
        layer.router.gate.weight.data.normal_()
        layer.router.gate.weight.data[1::2] = layer.router.gate.weight.data[::2]
        layer(x).square().sum().backward()
        assert layer.router.gate.weight.grad.abs().max() > 1e-6
        with torch.no_grad():
            for wrong in ({"scale": 1.0}, {"scale": 1.0, "normalise": False}):
                for name, value in wrong.items():
                    setattr(layer.router, name, value)
                error = (layer(x) - dense(x)).abs().max()
                assert error > 0.2 * dense(x).abs().max()

    def test_gradients_of_the_slices_are_those_of_the_dense_network(self) -> None:
        dense, x = network(), tokens()
        layer = decompose(dense, copies=1, slices=2)
        grad = torch.randn(2, 20, 6, dtype=FLOAT64)
        layer(x).backward(grad)
        dense(x).backward(grad)
        experts = layer.experts
        torch.testing.assert_close(
            experts.up.grad.flatten(0, 1), dense.up.weight.grad, rtol=1e-10, atol=1e-12
        )
        across = torch.cat(list(experts.down.grad), 1)
        torch.testing.assert_close(across, dense.down.weight.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            experts.up_bias.grad.flatten(), dense.up.bias.grad, rtol=1e-10, atol=1e-12
        )


@KINDS
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_slices_are_joined_again(kind: str, bias: bool) -> None:
    dense = network(kind)
    if not bias:
        for linear in dense.children():
            linear.bias = None
    parts = _parts(dense)
    for part, back in zip(parts, joined(cut(parts, 3, 4)), strict=True):
        torch.testing.assert_close(back, part, rtol=1e-14, atol=1e-14)


@torch.no_grad()
def test_an_entire_model() -> None:
    torch.manual_seed(1)
    model = TokenModel(3, 2, width=16, tokens=9, depth=2, heads=2).double().eval()
    x = torch.randn(2, 9, 3, dtype=FLOAT64)
    mixed = upcycle_model(model, experts=3, active=2).eval()
    assert sum(isinstance(part, MoE) for part in mixed.modules()) == 2
    assert not any(isinstance(part, MoE) for part in model.modules())
    torch.testing.assert_close(mixed(x), model(x), rtol=1e-10, atol=1e-10)


def test_mistakes_are_named() -> None:
    for call, message in (
        (lambda: decompose(network(), slices=3), "must divide the inner width 8"),
        (lambda: assemble([]), "one shape"),
        (lambda: assemble([network(), FeedForward(6, 9).double()]), "one shape"),
        (lambda: merge(MoE(6, experts=2), torch.ones(3)), "needs 2 shares"),
        (lambda: merge(MoE(6, experts=2, activation="relu")), "FeedForward has gelu"),
        (lambda: upcycle_model(nn.Linear(2, 2)), "no feed-forward network"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
