"""The variants of Deconstructing Attention against plain formulas, what their maps must not depend
on, indicators.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.attention import (
    ATTENTION,
    FixedAttention,
    NoMixing,
    QueryFreeAttention,
    SoftmaxAttention,
    StaticAttention,
    TaylorAttention,
    build_attention,
)
from headwise.models.attention.deconstructed.indicators import indicators, local_focus
from headwise.models.attention.deconstructed.query_free import prefix_pool
from headwise.models.attention.deconstructed.taylor import features, linear, quadratic
from headwise.models.layers.vit import TokenModel

DOUBLE = {"dtype": torch.float64}
VARIANTS = ("no-mixing", "taylor", "query-free", "random", "fixed-sequence", "static")


def heads_of(x: Tensor, layer: torch.nn.Module, heads: int) -> Tensor:
    """(N, D) -> (H, N, d)."""
    return (x @ layer.weight.t() + layer.bias).unflatten(-1, (heads, -1)).transpose(0, 1)


def finish(mixed: Tensor, layer: torch.nn.Module) -> Tensor:
    """(H, N, d) -> (N, D)."""
    return mixed.transpose(0, 1).flatten(1) @ layer.weight.t() + layer.bias


@pytest.mark.parametrize("width", [32, 96, 128])
def test_variants_have_the_parameters_of_softmax_attention(width: int) -> None:
    count = sum(p.numel() for p in SoftmaxAttention(width).parameters())
    for name in VARIANTS:
        weights = sum(p.numel() for p in build_attention(name, width).parameters())
        assert weights == count or (name == "no-mixing" and abs(weights / count - 1) < 0.02), name


def test_no_mixing_is_its_formula_and_sees_no_other_token() -> None:
    torch.manual_seed(0)
    model, x = NoMixing(6).double(), torch.randn(2, 4, 6, **DOUBLE)
    gate, up = (x @ layer.weight.t() + layer.bias for layer in (model.gate, model.up))
    expected = (gate * gate.sigmoid() * up) @ model.down.weight.t() + model.down.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda tokens: model(tokens[None])[0], x[0])
    for i in range(4):
        for j in range(4):
            assert (jacobian[i, :, j].abs().max() > 0) == (i == j)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("form", ["linear", "quadratic"])
def test_taylor_equals_a_loop(causal: bool, form: str) -> None:
    torch.manual_seed(1)
    model = TaylorAttention(12, heads=3, causal=causal, form=form).double()
    x = 2 * torch.randn(2, 9, 12, **DOUBLE)
    mask = torch.rand(2, 9) < 0.6
    mask[:, 0] = False
    out = model(x, mask=mask)
    for row in range(2):
        query = heads_of(x[row], model.query, 3)
        both = (x[row] @ model.key_value.weight.t() + model.key_value.bias).chunk(2, -1)
        key, value = (part.unflatten(-1, (3, -1)).transpose(0, 1) for part in both)
        mixed = torch.zeros_like(query)
        for h in range(3):
            for i in range(9):
                above, below = torch.zeros(4, **DOUBLE), 0.0
                for j in range(i + 1 if causal else 9):
                    if mask[row, j]:
                        s = query[h, i] @ key[h, j] / 2.0
                        above, below = (
                            above + (1 + s + s * s / 2) * value[h, j],
                            below + 1 + s + s * s / 2,
                        )
                mixed[h, i] = above / below if below else above
        torch.testing.assert_close(out[row], finish(mixed, model.out), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tokens", [1, 127, 128, 300])
@pytest.mark.parametrize("causal", [False, True])
def test_the_scan_equals_the_parallel_form(tokens: int, causal: bool) -> None:
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 2, 2, tokens, 5, **DOUBLE, requires_grad=True).unbind()
    mask = torch.rand(2, tokens) < 0.7
    inputs = (query, key, value)
    scan, parallel = (f(*inputs, mask, causal=causal) for f in (linear, quadratic))
    torch.testing.assert_close(scan, parallel, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(scan)
    torch.testing.assert_close(
        torch.autograd.grad(scan, inputs, grad), torch.autograd.grad(parallel, inputs, grad)
    )
    single = linear(*(part.detach().float() for part in inputs), mask, causal=causal)
    torch.testing.assert_close(single, parallel.float().detach(), rtol=1e-5, atol=1e-5)


def test_taylor_features_give_the_series() -> None:
    torch.manual_seed(3)
    x, y = torch.randn(2, 6, **DOUBLE), torch.randn(2, 6, **DOUBLE)
    assert features(x).shape == (2, 1 + 6 + 21)
    s = (x * y).sum(-1) / 6**0.5
    torch.testing.assert_close(
        (features(x) * features(y)).sum(-1), 1 + s + s * s / 2, rtol=1e-12, atol=1e-12
    )


def test_taylor_is_softmax_for_small_scores_and_positive_for_large_ones() -> None:
    torch.manual_seed(4)
    taylor, softmax = TaylorAttention(8, heads=2).double(), SoftmaxAttention(8, heads=2).double()
    softmax.load_state_dict(taylor.state_dict())
    x = torch.randn(1, 10, 8, **DOUBLE)
    # Without biases scores shrink with the square of x, and so the third order, the first that is
    # left out, with its sixth power.
    with torch.no_grad():
        taylor.query.bias.zero_(), taylor.key_value.bias.zero_()
        softmax.load_state_dict(taylor.state_dict())
    near = [
        (taylor.weights(x * scale) - softmax.weights(x * scale)).abs().max().item()
        for scale in (0.5, 0.25)
    ]
    assert 32 < near[0] / near[1] < 96
    weights = taylor.weights(50 * x)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 10, **DOUBLE))


def test_taylor_takes_the_form_by_size() -> None:
    model = TaylorAttention(16, heads=4)  # 15 features
    assert "linear form, plain PyTorch: 30 tokens, 15 features" in model.explain(
        torch.zeros(1, 30, 16)
    )
    assert model.explain(torch.zeros(1, 31, 16)).startswith("TaylorAttention: linear form")
    causal = TaylorAttention(16, heads=4, causal=True).double()
    x, context = torch.randn(1, 3, 16, **DOUBLE), torch.randn(1, 40, 16, **DOUBLE)
    # The last of 3 tokens is at the last of 40 keys, as in a decoder that continues from a cache.
    full = causal(torch.cat([context[:, :37], x], 1), context)
    torch.testing.assert_close(causal(x, context), full[:, 37:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_query_free_equals_a_loop(causal: bool) -> None:
    torch.manual_seed(5)
    model, x = (
        QueryFreeAttention(12, heads=3, causal=causal).double(),
        2 * torch.randn(2, 7, 12, **DOUBLE),
    )
    mask = torch.rand(2, 7) < 0.6
    mask[:, 0] = False
    out, weights = model(x, mask=mask), model.weights(x, mask=mask)
    for row in range(2):
        query, key, value = (
            heads_of(x[row], layer, 3) for layer in (model.query, model.key, model.value)
        )
        score = (query * query.sigmoid() * key).sum(-1) / 2.0
        mixed = torch.zeros_like(value)
        for i in range(7):
            visible = [j for j in range(i + 1 if causal else 7) if mask[row, j]]
            if visible:
                share = score[:, visible].exp() / score[:, visible].exp().sum(-1, keepdim=True)
                mixed[:, i] = (share[..., None] * value[:, visible]).sum(1)
                torch.testing.assert_close(
                    weights[row, :, i, visible], share, rtol=1e-10, atol=1e-10
                )
        torch.testing.assert_close(out[row], finish(mixed, model.out), rtol=1e-10, atol=1e-10)
    if not causal:
        torch.testing.assert_close(out, out[:, :1].expand_as(out))


@pytest.mark.parametrize("tokens", [1, 128, 129, 300])
def test_the_running_softmax_equals_cumulative_sums(tokens: int) -> None:
    torch.manual_seed(6)
    scores = torch.randn(2, 3, tokens, **DOUBLE, requires_grad=True)
    values = torch.randn(2, 3, tokens, 4, **DOUBLE, requires_grad=True)
    weight = scores.exp()
    expected = (weight[..., None] * values).cumsum(2) / weight.cumsum(2)[..., None]
    out = prefix_pool(scores, values)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(out)
    inputs = (scores, values)
    torch.testing.assert_close(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )


def test_the_running_softmax_takes_scores_of_any_size() -> None:
    """Cumulative sums of exponentials with one maximum for all would give 0 / 0 before the large
    score.
    """
    scores, values = (
        torch.tensor([[[0.0, -500.0, 300.0, 0.0]]]),
        torch.tensor([[[[1.0], [2.0], [3.0], [4.0]]]]),
    )
    assert prefix_pool(scores, values).flatten().tolist() == [1.0, 1.0, 3.0, 3.0]
    mask = torch.tensor([[False, True, False, True]])
    assert prefix_pool(scores, values, mask).flatten().tolist() == [0.0, 2.0, 2.0, 4.0]


def test_causal_query_free_tokens_are_at_the_end_of_a_context() -> None:
    torch.manual_seed(7)
    model, context = (
        QueryFreeAttention(8, heads=2, causal=True).double(),
        torch.randn(1, 6, 8, **DOUBLE),
    )
    full = model(context)
    torch.testing.assert_close(
        model(torch.randn(1, 2, 8, **DOUBLE), context), full[:, 4:], rtol=1e-12, atol=1e-12
    )
    longer = model(torch.randn(1, 8, 8, **DOUBLE), context)
    torch.testing.assert_close(longer[:, 2:], full, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(longer[:, :2], model.out.bias.expand(1, 2, 8))


@pytest.mark.parametrize("name", ["random", "fixed-sequence", "position-only"])
@pytest.mark.parametrize("causal", [False, True])
def test_fixed_maps_do_not_depend_on_the_input(name: str, causal: bool) -> None:
    torch.manual_seed(8)
    model = build_attention(name, 12, 3, causal=causal).double()
    x = torch.randn(3, 7, 12, **DOUBLE)
    weights = model.weights(x)
    assert torch.equal(weights, model.weights(torch.randn(3, 7, 12, **DOUBLE)))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 7, **DOUBLE))
    assert not causal or weights.triu(1).count_nonzero() == 0
    for row in range(3):
        query, key = (heads_of(model.rows[:7], layer, 3) for layer in (model.query, model.key))
        score = query @ key.transpose(1, 2) / 2.0
        score = score.masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf) if causal else score
        mixed = score.softmax(-1) @ heads_of(x[row], model.value, 3)
        torch.testing.assert_close(model(x)[row], finish(mixed, model.out), rtol=1e-10, atol=1e-10)
    # A mask takes another path to the same result.
    torch.testing.assert_close(
        model(x, mask=torch.ones(3, 7, 7, dtype=torch.bool)), model(x), rtol=1e-10, atol=1e-10
    )
    # Linear in x except for the biases.
    doubled, zero = model(2 * x) - model(x), model(x) - model(0 * x)
    torch.testing.assert_close(doubled, zero, rtol=1e-10, atol=1e-10)


def test_fixed_rows() -> None:
    first, second = (FixedAttention(8, heads=2, seed=seed).rows for seed in (0, 1))
    assert torch.equal(first, FixedAttention(8, heads=2).rows)
    assert not torch.equal(first, second)
    assert not first.requires_grad
    text = FixedAttention(8, heads=2, source="sequence", tokens=200).rows
    assert len(text.unique(dim=0)) <= 27  # letters repeat
    sequence = torch.randn(5, 8)
    model = FixedAttention(8, heads=2, source="sequence", sequence=sequence)
    assert torch.equal(model.rows, sequence)
    with pytest.raises(ValueError, match="6 tokens, built for up to 5"):
        model(torch.zeros(1, 6, 8))
    with pytest.raises(ValueError, match=r"sequence must be \(tokens, 8\)"):
        FixedAttention(8, heads=2, source="sequence", sequence=torch.zeros(5, 9))
    assert build_attention("position-only", 8, 2).rows.requires_grad


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("side", ["both", "queries", "keys"])
def test_static_equals_the_formula(side: str, causal: bool) -> None:
    torch.manual_seed(9)
    model = StaticAttention(12, heads=3, static=side, causal=causal).double()
    x, static = torch.randn(2, 6, 12, **DOUBLE), torch.randn(2, 6, 12, **DOUBLE)
    out = model(x, static=static)
    for row in range(2):
        query = heads_of(x[row] if side == "keys" else static[row], model.query, 3)
        key = heads_of(x[row] if side == "queries" else static[row], model.key, 3)
        score = query @ key.transpose(1, 2) / 2.0
        score = score.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf) if causal else score
        mixed = score.softmax(-1) @ heads_of(x[row], model.value, 3)
        torch.testing.assert_close(out[row], finish(mixed, model.out), rtol=1e-10, atol=1e-10)


def test_static_maps_follow_the_static_tokens_only() -> None:
    torch.manual_seed(10)
    model, static = StaticAttention(8, heads=2).double(), torch.randn(1, 6, 8, **DOUBLE)
    x, embedded = torch.randn(1, 6, 8, **DOUBLE), torch.randn(1, 6, 8, **DOUBLE)
    assert torch.equal(model.weights(x, static=static), model.weights(embedded, static=static))
    assert not torch.allclose(model.weights(x, static=embedded), model.weights(x, static=static))
    order = torch.randperm(6)
    torch.testing.assert_close(
        model(x[:, order], static=static[:, order]), model(x, static=static)[:, order]
    )
    softmax = SoftmaxAttention(8, heads=2).double()
    with torch.no_grad():
        softmax.query.load_state_dict(model.query.state_dict())
        softmax.out.load_state_dict(model.out.state_dict())
        softmax.key_value.weight.copy_(torch.cat([model.key.weight, model.value.weight]))
        softmax.key_value.bias.copy_(torch.cat([model.key.bias, model.value.bias]))
    torch.testing.assert_close(model(x), softmax(x), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="static must be"):
        model(x, static=static[:, :5])


@pytest.mark.parametrize("name", [*VARIANTS, "position-only"])
def test_hybrids_build_run_and_get_the_embedding(name: str) -> None:
    torch.manual_seed(11)
    model = TokenModel(
        3, 2, width=16, tokens=20, depth=4, heads=2, attention=(name, "softmax"), hidden=16
    )
    kinds = [ATTENTION[name].cls, "SoftmaxAttention"] * 2
    assert [type(layer.mixer).__name__ for layer in model.encoder.layers] == kinds
    received = []
    if name == "static":
        mixer = model.encoder.layers[2].mixer
        sides = mixer.sides
        mixer.sides = lambda x, static, cache: (received.append((x, static)), sides(x, static))[1]
    x = torch.randn(2, 10, 3)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for hidden, static in received:  # the third layer still receives the embedding
        torch.testing.assert_close(static, model.embed(x) + model.positions[:10])
        assert not torch.allclose(static, hidden)
    assert len(received) == (name == "static")


def test_indicators_of_known_maps() -> None:
    identity = torch.eye(6, **DOUBLE).expand(1, 2, 6, 6)
    even = torch.full((1, 2, 6, 6), 1 / 6, **DOUBLE)
    first = F.one_hot(torch.zeros(1, 2, 6, dtype=torch.long), 6).double()
    previous = torch.eye(6, **DOUBLE).roll(1, 0).expand(1, 2, 6, 6)
    for weights, expected in (
        (identity, (0, 6**0.5, 0, 1 / 6, 1, 0)),
        (even, (math.log(6), 1, 0, 1 / 6, 1 / 6, 1 / 6)),
        (first, (0, 6**0.5, 0, 1, 1 / 6, 1 / 5)),
        (previous, (0, 6**0.5, 0, 1 / 6, 0, 1)),
    ):
        got = indicators(weights)
        names = (
            "entropy",
            "concentration",
            "head_diversity",
            "sink",
            "local_focus_0",
            "local_focus_1",
        )
        for name, value in zip(names, expected):
            torch.testing.assert_close(
                got[name].flatten()[0].item(), float(value), rtol=1e-12, atol=1e-12, msg=name
            )
    with pytest.raises(ValueError, match="back must lie"):
        local_focus(even, 6)


def test_diversity_of_heads_equals_a_loop() -> None:
    torch.manual_seed(12)
    weights = torch.randn(2, 3, 5, 5, **DOUBLE).tril().softmax(-1)
    for causal in (False, True):
        expected = []
        for row in range(2):
            entries = [(i, j) for i in range(5) for j in range(5) if j <= i or not causal]
            spread = [weights[row, :, i, j].var(correction=0).sqrt() for i, j in entries]
            expected.append(sum(spread) / len(spread))
        got = indicators(weights, causal=causal)["head_diversity"]
        torch.testing.assert_close(got, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"form": "linear"}, {"causal": True}])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_taylor_squares_large_scores_in_half_precision(
    options: dict, kind: torch.dtype, autocast: bool
) -> None:
    torch.manual_seed(0)
    model = build_attention("taylor", 16, 4, **options).eval().to(kind)
    x = (60 * torch.randn(2, 9, 16)).to(kind)
    exact = copy.deepcopy(model).double()(x.double())
    if autocast:
        with torch.autocast("cpu", kind):
            out = model.float()(x.float())
    else:
        out = model(x)
        assert model.weights(x).dtype == kind
    assert (out.double() - exact).norm() < 0.01 * exact.norm()
