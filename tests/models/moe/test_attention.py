"""Attention experts against the attentions from which they are made, and the paper's parameter
counts.
"""

import pytest
import torch
from torch import Tensor, nn

from headwise.models.attention.softmax import SoftmaxAttention
from headwise.models.moe.attention import AttentionExperts
from headwise.models.moe.layer import MoE

FLOAT64 = torch.float64
OPTIONS = [
    {},
    {"kv_heads": 2},
    {"positions": "rotary", "causal": True},
    {"kv_heads": 1, "causal": True},
]


def layers(count: int, same: bool = False, **options) -> list[SoftmaxAttention]:
    layers = []
    for i in range(count):
        torch.manual_seed(0 if same else i)
        layers.append(SoftmaxAttention(16, heads=4, **options).double())
    return layers


def masks() -> list[Tensor | None]:
    torch.manual_seed(9)
    shapes = [(2, 7), (2, 5, 7), (2, 4, 5, 7)]
    return [None, *(torch.rand(shape) < 0.6 for shape in shapes)]


@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_it_is_the_weighted_sum_of_its_attentions(options: dict) -> None:
    parts = layers(3, **options)
    mixture = AttentionExperts.assemble(parts)
    mixture.gate.weight.normal_()
    x, context = torch.randn(2, 5, 16, dtype=FLOAT64), torch.randn(2, 7, 16, dtype=FLOAT64)
    for mask in masks():
        gate = mixture.gate(x).softmax(-1)
        expected = sum(
            gate[..., e, None] * part(x, context, mask=mask) for e, part in enumerate(parts)
        )
        torch.testing.assert_close(mixture(x, context, mask=mask), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_copies_are_the_attention_for_any_router(options: dict, shared: bool) -> None:
    parts = layers(3, same=True, **options)
    mixture = AttentionExperts.assemble(parts, shared=shared)
    mixture.gate.weight.normal_()
    x, context = torch.randn(2, 5, 16, dtype=FLOAT64), torch.randn(2, 7, 16, dtype=FLOAT64)
    for mask in masks():
        expected = parts[0](x, context, mask=mask)
        torch.testing.assert_close(mixture(x, context, mask=mask), expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_shared_keys_are_those_of_each_where_they_are_equal() -> None:
    parts = layers(2, kv_heads=2)
    parts[1].key_value.load_state_dict(parts[0].key_value.state_dict())
    x = torch.randn(2, 5, 16, dtype=FLOAT64)
    both = [AttentionExperts.assemble(parts, shared=shared) for shared in (False, True)]
    both[1].gate.load_state_dict(both[0].gate.state_dict())
    torch.testing.assert_close(both[0](x), both[1](x), rtol=1e-10, atol=1e-10)


def test_gradients() -> None:
    torch.manual_seed(3)
    for shared in (False, True):
        mixture = AttentionExperts(8, heads=2, experts=2, shared=shared).double()
        x = torch.randn(1, 4, 8, dtype=FLOAT64, requires_grad=True)
        assert torch.autograd.gradcheck(mixture, (x,))
        mixture(x).square().sum().backward()
        assert mixture.gate.weight.grad is not None
        assert mixture.gate.weight.grad.abs().max() > 0


def parameters(experts: int, attention: str) -> int:
    """The paper's small model: width 1024, 6 layers with attention parallel to the network, 256,000
    words, untied.
    """
    with torch.device("meta"):
        if attention == "dense":
            mixer: nn.Module = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(4))
        else:
            mixer = AttentionExperts(
                1024, heads=8, experts=experts, shared=attention == "shared", bias=False
            )
        if experts == 1:
            network: nn.Module = nn.ModuleList(nn.Linear(1024, 2048, bias=False) for _ in range(3))
        else:
            network = MoE(1024, 2048, experts=experts, active=1, kind="glu", bias=False)
        block = nn.ModuleList([mixer, network, nn.LayerNorm(1024, bias=False)])
    count = sum(p.numel() for p in block.parameters())
    return 6 * count + 1024 + 2 * 256_000 * 1024


def test_parameters_are_those_of_the_paper() -> None:
    assert parameters(1, "dense") == 587_209_728
    assert parameters(4, "own") == 776_002_560
    assert parameters(4, "shared") == 738_253_824
    assert parameters(4, "dense") == 700_480_512


def test_mistakes_are_named() -> None:
    for call, message in (
        (lambda: AttentionExperts(8, heads=2, kv_heads=3), "must divide heads"),
        (lambda: AttentionExperts(6, heads=2, positions="rotary"), "no positions"),
        (lambda: AttentionExperts.assemble([]), "one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
