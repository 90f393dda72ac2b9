"""Grouped differential attention against loops over heads, its invariants, timm's form, growth of a
layer.
"""

import pytest
import torch
from torch import Tensor

from headwise.models.attention import GroupedDifferentialAttention, build_attention
from headwise.models.attention.differential import grow

FLOAT64 = torch.float64


def formula(
    model: GroupedDifferentialAttention,
    x: Tensor,
    source: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Head by head, every map written out; mask (B, S, N, M)."""
    source = x if source is None else source
    signal, noise, groups, d = model.heads, model.noise_heads, model.kv_heads, model.head_width
    query = x @ model.query.weight.t() + model.query.bias
    pair = source @ model.key_value.weight.t() + model.key_value.bias
    q1, k1, q2, k2 = model.vectors
    lam = (q1 @ k1).exp() - (q2 @ k2).exp() + model.lambda_init

    def one_map(head: int, key_at: int, allowed: Tensor | None) -> Tensor:
        q, k = query[..., head * d : head * d + d], pair[..., key_at * d : key_at * d + d]
        scores = q @ k.transpose(1, 2) / d**0.5
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1).nan_to_num()

    outs = []
    for head in range(signal):
        group = head // (signal // groups)
        partner = head // (signal // noise)
        noise_key = partner // (noise // min(noise, groups))
        allowed = None if mask is None else mask[:, head]
        first = one_map(head, group, allowed)
        second = one_map(signal + partner, groups + noise_key, allowed)
        start = (groups + min(noise, groups) + 2 * group) * d
        y = (first - lam * second) @ pair[..., start : start + 2 * d]
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * model.norm
        outs.append((1 - model.lambda_init) * y)
    return torch.cat(outs, -1) @ model.out.weight.t() + model.out.bias


CASES = [
    (1, 1, 1),
    (2, 1, 1),
    (4, 1, 1),
    (4, 1, 4),
    (4, 4, 4),
    (8, 2, 2),
    (8, 2, 1),
    (8, 2, 4),
    (6, 2, 2),
    (3, 1, 3),
]


@pytest.mark.parametrize(("heads", "noise", "groups"), CASES)
def test_equals_the_formula(heads: int, noise: int, groups: int) -> None:
    torch.manual_seed(0)
    options = {"noise_heads": noise, "kv_heads": groups, "head_width": 3, "depth": 2}
    model = GroupedDifferentialAttention(10, heads=heads, **options).double()
    torch.nn.init.normal_(model.norm)
    x, source = (
        torch.randn(2, 7, 10, dtype=FLOAT64, requires_grad=True),
        torch.randn(2, 5, 10, dtype=FLOAT64),
    )
    mask = torch.rand(2, heads, 7, 5) < 0.6
    inputs = [x, *model.parameters()]
    for some_mask in (None, mask):
        out, plain = model(x, source, mask=some_mask), formula(model, x, source, some_mask)
        torch.testing.assert_close(out, plain, rtol=1e-10, atol=1e-10)
        grad = torch.randn_like(out)
        got, expected = (
            torch.autograd.grad(o, inputs, grad, retain_graph=True) for o in (out, plain)
        )
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    single = GroupedDifferentialAttention(10, heads=heads, **options)
    single.load_state_dict(model.state_dict())
    with torch.no_grad():
        error = (single(x.float()) - formula(model, x)).abs().max() / formula(model, x).abs().max()
    assert error < 1e-5


def test_default_heads() -> None:
    noise_heads = {
        heads: build_attention("differential", 32, heads).noise_heads for heads in (1, 2, 4, 8, 16)
    }
    assert noise_heads == {1: 1, 2: 1, 4: 1, 8: 2, 16: 4}
    assert [
        GroupedDifferentialAttention(60, heads=heads).noise_heads for heads in (3, 5, 6, 10)
    ] == [1, 1, 2, 2]


def parts(model: GroupedDifferentialAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Signal maps times values, and lambda times noise maps times values, (B, S, N, 2 d)."""
    query, key, value = model.project(x, x, model.noise_heads)
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    mixed = (query @ key.transpose(2, 3) / model.head_width**0.5).softmax(-1) @ value
    noise = mixed[:, model.heads :].repeat_interleave(model.heads // model.noise_heads, 1)
    return mixed[:, : model.heads], model.noise_weight() * noise


def test_rows_sum_to_one_minus_lambda_and_the_difference_is_linear() -> None:
    torch.manual_seed(1)
    model, x = (
        GroupedDifferentialAttention(16, heads=8).double(),
        torch.randn(2, 9, 16, dtype=FLOAT64),
    )
    weights = model.weights(x)
    lam = model.noise_weight()
    torch.testing.assert_close(weights.sum(-1), (1 - lam).expand(2, 8, 9), rtol=1e-12, atol=1e-12)
    value = model.project(x, x, model.noise_heads)[2][:, -model.kv_heads :].repeat_interleave(4, 1)
    signal, noise = parts(model, x)
    torch.testing.assert_close(weights @ value, signal - noise, rtol=1e-12, atol=1e-12)


def test_without_norm_and_lambda_it_is_softmax_attention() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 9, 16, dtype=FLOAT64)
    model = GroupedDifferentialAttention(16, heads=4, norm=False, fixed_lambda=0.0).double()
    plain = parts(model, x)[0].transpose(1, 2).flatten(2)
    torch.testing.assert_close(model(x), model.out(plain), rtol=1e-12, atol=1e-12)
    # With the norm it is (1 - lambda_init) RMSNorm of softmax attention: never the attention
    # itself.
    normed = GroupedDifferentialAttention(16, heads=4, fixed_lambda=0.0, depth=4).double()
    signal = parts(normed, x)[0]
    signal = (
        signal / (signal.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (1 - normed.lambda_init)
    )
    torch.testing.assert_close(
        normed(x), normed.out(signal.transpose(1, 2).flatten(2)), rtol=1e-12, atol=1e-12
    )


def test_lambda_starts_by_depth_and_zero_vectors_do_not_switch_it_off() -> None:
    model = GroupedDifferentialAttention(16, heads=4, depth=0)
    torch.nn.init.zeros_(model.vectors)
    assert abs(model.noise_weight().item() - 0.2) < 1e-6
    assert abs(GroupedDifferentialAttention(16, heads=4, depth=100).lambda_init - 0.8) < 1e-6


@torch.no_grad()
def test_groups_are_differential_attention_with_repeated_noise_heads() -> None:
    torch.manual_seed(3)
    grouped = GroupedDifferentialAttention(24, heads=6, noise_heads=2, kv_heads=6).double()
    full = GroupedDifferentialAttention(24, heads=6, noise_heads=6).double()
    state, d = grouped.state_dict(), grouped.head_width

    def repeated(rows: Tensor, heads: int) -> Tensor:
        return rows.unflatten(0, (heads, d)).repeat_interleave(6 // heads, 0).flatten(0, 1)

    for end in ("weight", "bias"):
        signal, noise = state[f"query.{end}"].split([6 * d, 2 * d])
        state[f"query.{end}"] = torch.cat([signal, repeated(noise, 2)])
        key, noise_key, value = state[f"key_value.{end}"].split([6 * d, 2 * d, 12 * d])
        state[f"key_value.{end}"] = torch.cat([key, repeated(noise_key, 2), value])
    full.load_state_dict(state)
    x = torch.randn(2, 8, 24, dtype=FLOAT64)
    torch.testing.assert_close(grouped(x), full(x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_ratio_one_is_the_differential_attention_of_timm(causal: bool) -> None:
    from timm.layers import DiffAttention

    torch.manual_seed(4)
    theirs = DiffAttention(24, num_heads=3, qkv_bias=True, depth=5).double()
    torch.nn.init.normal_(theirs.sub_norm.weight)
    ours = GroupedDifferentialAttention(24, heads=3, noise_heads=3, depth=5, causal=causal).double()
    d = 4
    query, key, value = theirs.qkv.weight.chunk(3)
    biases = theirs.qkv.bias.chunk(3)

    def first_then_second(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (3, 2, d)).transpose(0, 1).flatten(0, 2)

    ours.query.weight.copy_(first_then_second(query))
    ours.query.bias.copy_(first_then_second(biases[0]))
    ours.key_value.weight.copy_(torch.cat([first_then_second(key), value]))
    ours.key_value.bias.copy_(torch.cat([first_then_second(biases[1]), biases[2]]))
    vectors = [theirs.lambda_q1, theirs.lambda_k1, theirs.lambda_q2, theirs.lambda_k2]
    ours.vectors.copy_(torch.stack(vectors))
    ours.norm.copy_(theirs.sub_norm.weight)
    ours.out.load_state_dict(theirs.proj.state_dict())
    x = torch.randn(2, 11, 24, dtype=FLOAT64)
    # timm keeps its vectors' exponentials in float32.
    torch.testing.assert_close(ours(x), theirs(x, is_causal=causal), rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"noise_heads": 2, "kv_heads": 4, "positions": "rotary", "causal": True}]
)
def test_growth_does_not_change_the_function(options: dict) -> None:
    torch.manual_seed(5)
    model, x = (
        GroupedDifferentialAttention(16, heads=4, **options).double(),
        torch.randn(2, 9, 16, dtype=FLOAT64),
    )
    for factor in (1, 2, 3):
        grown = grow(model, factor)
        assert (grown.heads, grown.noise_heads) == (4 * factor, model.noise_heads)
        torch.testing.assert_close(grown(x), model(x), rtol=1e-12, atol=1e-12)
    spread_copies = grow(model, 2, spread=0.1)
    copies = spread_copies.query.weight[: 8 * spread_copies.head_width].unflatten(0, (4, 2, -1))
    assert not torch.allclose(copies[:, 0], copies[:, 1])
    assert 0 < (spread_copies(x) - model(x)).abs().max() < 0.5


def test_masks_of_any_kind_agree() -> None:
    torch.manual_seed(6)
    model, x = (
        GroupedDifferentialAttention(16, heads=4).double(),
        torch.randn(2, 6, 16, dtype=FLOAT64),
    )
    keys = torch.rand(2, 6) < 0.5
    pairs = keys[:, None].expand(2, 6, 6)
    expected = formula(model, x, mask=pairs[:, None].expand(2, 4, 6, 6))
    for mask in (keys, pairs, pairs[:, None].expand(2, 4, 6, 6)):
        torch.testing.assert_close(model(x, mask=mask), expected, rtol=1e-10, atol=1e-10)


def test_mistakes_are_named() -> None:
    for options, message in (
        ({"noise_heads": 3}, "must divide heads"),
        ({"kv_heads": 3}, "kv_heads 3"),
        ({"heads": 16}, "do not fit width"),
        ({"heads": 8, "positions": "rotary"}, "even width"),
        ({"positions": "learned"}, "positions must be"),
    ):
        with pytest.raises(ValueError, match=message):
            GroupedDifferentialAttention(16, **({"heads": 4} | options))
    with pytest.raises(ValueError, match="factor"):
        grow(GroupedDifferentialAttention(16, heads=4), 0)
