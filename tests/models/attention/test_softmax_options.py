"""Grouped queries, rotary positions, causality and packed sequences of softmax attention, each
against loops.
"""

import math

import pytest
import torch
from torch import Tensor

from headwise.models.attention import build_attention
from headwise.models.attention.base import attend, auxiliary_loss, grid_of, masked_softmax
from headwise.models.attention.positions import rotary
from headwise.models.attention.softmax import SoftmaxAttention


def turned(x: Tensor, start: int = 0) -> Tensor:
    """Rotary positions as multiplication by complex numbers, token by token; x: (N, d)."""
    half = x.shape[1] // 2
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for i in range(half):
            angle = (start + n) * 10_000 ** (-i / half)
            number = complex(x[n, i], x[n, half + i]) * complex(math.cos(angle), math.sin(angle))
            out[n, i], out[n, half + i] = number.real, number.imag
    return out


def formula(model: SoftmaxAttention, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """One sequence (N, D), one context (M, D), mask (N, M); a loop over heads and tokens."""
    size = model.width // model.heads
    group = model.heads // model.kv_heads
    query = (x @ model.query.weight.t() + model.query.bias).view(len(x), model.heads, size)
    both = (context @ model.key_value.weight.t() + model.key_value.bias).view(
        len(context), 2, model.kv_heads, size
    )
    out = torch.zeros(len(x), model.heads, size, dtype=x.dtype)
    for h in range(model.heads):
        q, k, v = query[:, h], both[:, 0, h // group], both[:, 1, h // group]
        if model.rotary:
            q, k = turned(q, len(context) - len(x)), turned(k)
        for i in range(len(x)):
            visible = [j for j in range(len(context)) if mask[i, j]]
            if model.causal:
                visible = [j for j in visible if j <= i + len(context) - len(x)]
            if visible:
                weight = torch.softmax(torch.stack([q[i] @ k[j] / size**0.5 for j in visible]), 0)
                out[i, h] = sum(w * v[j] for w, j in zip(weight, visible))
    return out.flatten(1) @ model.out.weight.t() + model.out.bias


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("positions", ["none", "rotary"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (6, 6), (3, 7), (5, 2)])
@torch.no_grad()
def test_every_option_equals_the_loop(
    kv_heads: int, positions, causal: bool, sizes: tuple[int, int]
) -> None:
    torch.manual_seed(sum(sizes))
    model = SoftmaxAttention(
        16, heads=4, kv_heads=kv_heads, positions=positions, causal=causal
    ).double()
    x, context = (torch.randn(2, size, 16, dtype=torch.float64) for size in sizes)
    mask = torch.rand(2, *sizes) < 0.7
    mask[0, 0] = False
    expected = torch.stack([formula(model, *parts) for parts in zip(x, context, mask)])
    torch.testing.assert_close(model(x, context, mask=mask), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(x, context, mask=mask)[0, 0], model.out.bias)
    weights = model.weights(x, context, mask=mask)
    total = weights.sum(-1)
    assert ((total - 1).abs().lt(1e-12) | (total == 0)).all()
    assert (weights >= 0).all()


@pytest.mark.parametrize("positions", ["none", "rotary"])
@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_equal_separate_ones(positions, causal: bool) -> None:
    torch.manual_seed(1)
    model = SoftmaxAttention(16, heads=4, kv_heads=2, positions=positions, causal=causal).double()
    lengths, others = [3, 0, 1, 7], [5, 2, 0, 7]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    ends = torch.tensor([0, *others]).cumsum(0)
    x = torch.randn(sum(lengths), 16, dtype=torch.float64, requires_grad=True)
    context = torch.randn(sum(others), 16, dtype=torch.float64, requires_grad=True)
    alone = torch.cat([model(part[None])[0] for part in x.split(lengths)])
    torch.testing.assert_close(model.packed(x, offsets), alone)
    pairs = zip(x.split(lengths), context.split(others))
    expected = [
        model(a[None], b[None])[0] if len(b) else model.out.bias.expand_as(a) for a, b in pairs
    ]
    out = model.packed(x, offsets, context, ends)
    torch.testing.assert_close(out, torch.cat(expected))
    grads = torch.autograd.grad(out.square().sum(), [x, context])
    torch.testing.assert_close(
        grads, torch.autograd.grad(torch.cat(expected).square().sum(), [x, context])
    )
    assert model.packed(x[:0], torch.tensor([0])).shape == (0, 16)
    with pytest.raises(ValueError, match="packed needs"):
        model.packed(x, offsets, context, ends[:-1])
    for wrong, message in (
        ([0, 3, 2, 4, 11], "offsets must ascend"),
        ([0, 3, 3, 4, 12], "offsets must ascend"),
        ([0, 3, 3, 4, 10], "must begin at 0 and end at 11"),
        ([1, 3, 3, 4, 11], "must begin at 0 and end at 11"),
    ):
        with pytest.raises(ValueError, match=message):
            model.packed(x, torch.tensor(wrong))
    with pytest.raises(ValueError, match=r"ascend from 0 to 14, the number of tokens"):
        model.packed(x, offsets, context, ends + 1)


def test_rotary_sees_distances_only() -> None:
    torch.manual_seed(2)
    x, y = torch.randn(2, 1, 1, 9, 8, dtype=torch.float64)
    scores = rotary(x) @ rotary(y).transpose(2, 3)
    later = rotary(x, start=5) @ rotary(y, start=5).transpose(2, 3)
    torch.testing.assert_close(scores, later)
    torch.testing.assert_close(rotary(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotary(x)[0, 0], turned(x[0, 0]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["softmax", "moh", "differential"])
def test_the_last_tokens_alone_stand_at_the_end_of_their_context(name: str, causal: bool) -> None:
    torch.manual_seed(4)
    model = build_attention(name, 16, 4, positions="rotary", causal=causal).double().eval()
    x = torch.randn(2, 10, 16, dtype=torch.float64)
    for count in (1, 3, 10):
        torch.testing.assert_close(model(x[:, -count:], x), model(x)[:, -count:])


def test_a_bias_and_a_mask_together() -> None:
    torch.manual_seed(3)
    q, k, v = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64)
    bias, mask = torch.randn(1, 3, 5, 5, dtype=torch.float64), torch.rand(2, 1, 5, 5) < 0.6
    mask[0, 0, 2] = False
    scores = (q @ k.transpose(2, 3) / 2 + bias).masked_fill(~mask, -torch.inf)
    expected = scores.softmax(-1).nan_to_num() @ v
    torch.testing.assert_close(attend(q, k, v, mask, bias=bias), expected)
    torch.testing.assert_close(masked_softmax(q @ k.transpose(2, 3) / 2 + bias, mask) @ v, expected)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="kv_heads 3 must divide heads 4"):
        SoftmaxAttention(16, heads=4, kv_heads=3)
    with pytest.raises(ValueError, match="'none' or 'rotary'"):
        SoftmaxAttention(16, positions="sine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="even width"):
        SoftmaxAttention(12, heads=4, positions="rotary")
    with pytest.raises(ValueError, match="must be even"):
        rotary(torch.zeros(1, 1, 2, 3))
    with pytest.raises(ValueError, match="do not form a square grid"):
        grid_of("X", 12, None)
    with pytest.raises(ValueError, match="does not hold"):
        grid_of("X", 12, (2, 5))


def test_auxiliary_losses_are_summed() -> None:
    model = torch.nn.Sequential(SoftmaxAttention(8), SoftmaxAttention(8))
    assert auxiliary_loss(model) is None
    for part in model:
        assert isinstance(part, SoftmaxAttention)
        part.auxiliary = torch.tensor(1.5)
    total = auxiliary_loss(model)
    assert total is not None
    assert total.item() == 3.0
