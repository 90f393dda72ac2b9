"""The mixture-of-experts layer against loops, and the invariants that every such layer has."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headwise.kernels.grouped_linear import native as grouped_mm
from headwise.models.moe.experts import Experts
from headwise.models.moe.layer import MoE, MoE2d

FLOAT64 = torch.float64
ACTIVATE = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "quick_gelu": lambda h: h * torch.sigmoid(1.702 * h),
    "none": lambda h: h,
}


def single_expert(experts: Experts, e: int, x: Tensor) -> Tensor:
    """Expert e on a token, written out."""
    h = experts.up[e] @ x
    h = h if experts.up_bias is None else h + experts.up_bias[e]
    act = ACTIVATE[experts.activation]
    h = act(h[: experts.hidden]) * h[experts.hidden :] if experts.gated else act(h)
    y = experts.down[e] @ h
    return y if experts.down_bias is None else y + experts.down_bias[e]


def loop(experts: Experts, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    rows = []
    for t in range(len(x)):
        row = torch.zeros_like(x[t])
        for k in range(chosen.shape[1]):
            if chosen[t, k] < experts.experts:
                row = row + weights[t, k] * single_expert(experts, int(chosen[t, k]), x[t])
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros_like(x)


def choices(kind: str, tokens: int, experts: int, active: int) -> Tensor:
    torch.manual_seed(1)
    if kind == "one":
        return torch.full((tokens, 1), experts - 1)
    if kind == "all":
        return torch.arange(experts).expand(tokens, -1).clone()
    chosen = torch.rand(tokens, experts).argsort(1)[:, :active]
    if kind == "some":  # an expert without tokens, tokens without an expert
        chosen = torch.where(chosen == 1, experts, chosen)
        chosen[: tokens // 3] = experts
    return chosen


@pytest.mark.parametrize(
    ("kind", "activation", "bias"),
    [
        ("mlp", "gelu", True),
        ("mlp", "relu", False),
        ("glu", "silu", False),
        ("glu", "gelu", True),
        ("mlp", "quick_gelu", True),
        ("mlp", "none", True),
    ],
)
@pytest.mark.parametrize("which", ["random", "one", "all", "some"])
@pytest.mark.parametrize(("tokens", "width", "hidden"), [(0, 4, 3), (1, 7, 5), (13, 8, 12)])
def test_values_and_gradients_equal_the_loop(
    kind, activation, bias, which, tokens, width, hidden
) -> None:
    torch.manual_seed(0)
    experts = Experts(width, 4, hidden, kind=kind, activation=activation, bias=bias).double()
    chosen = choices(which, tokens, 4, 2)
    x = torch.randn(tokens, width, dtype=FLOAT64, requires_grad=True)
    weights = torch.rand(chosen.shape, dtype=FLOAT64, requires_grad=True)
    inputs = [x, weights, *experts.parameters()]
    got, expected = experts(x, weights, chosen), loop(experts, x, weights, chosen)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(got)
    gradients = torch.autograd.grad(got, inputs, grad, allow_unused=True)
    if tokens:
        plain = torch.autograd.grad(expected, inputs, grad, allow_unused=True)
        for a, b, of in zip(gradients, plain, inputs):
            b = torch.zeros_like(of) if b is None else b
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    for g in gradients:
        assert g is not None
        assert g.isfinite().all()
    single = copy.deepcopy(experts).float()
    out = single(x.detach().float(), weights.detach().float(), chosen)
    torch.testing.assert_close(out.double(), expected.detach(), rtol=1e-5, atol=1e-5)


def test_gradients_by_differences() -> None:
    torch.manual_seed(2)
    chosen = choices("some", 7, 3, 2)
    experts = Experts(4, 3, 5, kind="glu", activation="silu").double()
    x = torch.randn(7, 4, dtype=FLOAT64, requires_grad=True)
    weights = torch.rand(7, 2, dtype=FLOAT64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: experts(a, b, chosen), (x, weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_form_agrees(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    experts = Experts(16, 4, 24, kind="glu").to(dtype)
    chosen, x = choices("some", 40, 4, 2), torch.randn(40, 16, dtype=dtype, requires_grad=True)
    weights = torch.rand(40, 2)

    def both() -> list[Tensor]:
        out = experts(x, weights, chosen)
        return [out, *torch.autograd.grad(out.float().square().sum(), [x, *experts.parameters()])]

    monkeypatch.setattr(grouped_mm, "refused", lambda *_: "")
    native = both()
    monkeypatch.setattr(grouped_mm, "refused", lambda *_: "by this test")
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(native, both(), rtol=tolerance, atol=tolerance)


def test_an_expert_without_tokens_has_gradient_zero() -> None:
    experts = Experts(8, 3, 8)
    chosen = torch.tensor([[0], [2], [0]])
    experts(torch.randn(3, 8), torch.ones(3, 1), chosen).sum().backward()
    for parameter in experts.parameters():
        assert parameter.grad is not None
        assert (parameter.grad[1] == 0).all()
        assert parameter.grad[0].abs().sum() > 0


def test_two_runs_are_equal_bit_by_bit() -> None:
    torch.manual_seed(4)
    layer, x = MoE(8, experts=4, active=2), torch.randn(2, 15, 8)

    def run() -> list[Tensor]:
        layer.zero_grad()
        out = layer(x)
        (out.square().sum() + layer.auxiliary).backward()
        return [out, *(p.grad.clone() for p in layer.parameters())]

    for a, b in zip(run(), run()):
        assert torch.equal(a, b)


def test_one_expert_is_the_dense_network_and_all_are_the_soft_mixture() -> None:
    torch.manual_seed(5)
    x = torch.randn(2, 6, 8, dtype=FLOAT64)
    single = MoE(8, 12, experts=1, active=1).double()
    torch.testing.assert_close(
        single(x), single.experts.all_outputs(x)[..., 0, :], rtol=1e-12, atol=1e-12
    )
    soft = MoE(8, 12, experts=3, active=3).double()
    p = soft.router.logits(x).softmax(-1)
    expected = torch.einsum("bne,bned->bnd", p, soft.experts.all_outputs(x))
    torch.testing.assert_close(soft(x), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_order_of_tokens_and_names_of_experts_do_not_matter() -> None:
    torch.manual_seed(6)
    layer, x = MoE(8, experts=5, active=2).double().eval(), torch.randn(1, 11, 8, dtype=FLOAT64)
    order = torch.randperm(11)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=1e-13, atol=1e-13)
    renamed, names = copy.deepcopy(layer), torch.randperm(5)
    renamed.router.gate.weight.copy_(layer.router.gate.weight[names])
    for mine, its in zip(renamed.experts.parameters(), layer.experts.parameters()):
        mine.copy_(its[names])
    torch.testing.assert_close(renamed(x), layer(x), rtol=1e-13, atol=1e-13)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(7)
    for options in (
        {},
        {"capacity": 1.0},
        {"mixing": "similarity"},
        {"score": "sigmoid", "bias_rate": 0.1},
    ):
        layer = MoE(8, experts=4, active=2, **options).double().train()
        unpadded = copy.deepcopy(layer)
        x = torch.randn(1, 9, 8, dtype=FLOAT64)
        padded = torch.cat([x, torch.full((1, 4, 8), torch.nan, dtype=FLOAT64)], 1)
        mask = torch.arange(13)[None] < 9
        out, full = layer(padded, mask=mask), unpadded(x)
        torch.testing.assert_close(out[:, :9], full, rtol=1e-12, atol=1e-12)
        assert (out[:, 9:] == 0).all()
        torch.testing.assert_close(layer.auxiliary, unpadded.auxiliary, rtol=1e-12, atol=1e-12)
        assert layer.routing is not None
        assert unpadded.routing is not None
        assert torch.equal(layer.routing.counts, unpadded.routing.counts)
        assert torch.equal(layer.router.bias, unpadded.router.bias)
        (out.square().sum() + layer.auxiliary).backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


def test_on_maps_experts_are_convolutions() -> None:
    torch.manual_seed(5)
    layer = MoE2d(4, 6, experts=3, active=3, activation="relu").double().eval()
    x = torch.randn(2, 4, 3, 5, dtype=FLOAT64)
    share = F.conv2d(x, layer.router.gate.weight[:, :, None, None]).softmax(1)
    expected = torch.zeros_like(x)
    for e in range(3):
        h = F.relu(F.conv2d(x, layer.experts.up[e][:, :, None, None], layer.experts.up_bias[e]))
        y = F.conv2d(h, layer.experts.down[e][:, :, None, None], layer.experts.down_bias[e])
        expected += share[:, e : e + 1] * y
    torch.testing.assert_close(layer(x), expected)
    mask = torch.rand(2, 3, 5) < 0.5
    torch.testing.assert_close(layer(x, mask=mask), expected * mask[:, None])
    with pytest.raises(ValueError, match="MoE2d"):
        layer(x[0])


def test_both_losses_are_weighted_and_summed() -> None:
    torch.manual_seed(6)
    layer, x = MoE(6, 8, experts=4, balance=0.3, z=0.2), torch.randn(1, 9, 6)
    layer(x)
    p = layer.router.logits(x)[0]
    share = layer.routing.counts.sum(0) / 18
    expected = 0.3 * 4 * (share * p.softmax(1).mean(0)).sum() + 0.2 * p.logsumexp(1).square().mean()
    torch.testing.assert_close(layer.auxiliary, expected)
    layer.eval()(x)
    assert layer.auxiliary is None


def test_padding_alone_gives_zeros() -> None:
    layer = MoE(8, experts=4, active=2)
    out = layer(torch.randn(2, 3, 8), mask=torch.zeros(2, 3, dtype=torch.bool))
    assert (out == 0).all()
    (out.sum() + layer.auxiliary).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_compiled_exported_and_bf16() -> None:
    torch.manual_seed(8)
    layer, x = MoE(16, experts=4, active=2, kind="glu").eval(), torch.randn(2, 6, 16)
    layer.routing = None
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    torch.testing.assert_close(half.float(), layer(x), rtol=5e-2, atol=5e-2)
    batch, other_size = torch.export.Dim("batch"), torch.randn(5, 6, 16)
    with torch.no_grad():
        program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: batch}}, strict=False)
    torch.testing.assert_close(program.module()(other_size), layer(other_size))
    copied = copy.deepcopy(layer.train())
    assert copied.routing is None


def test_mistakes_are_named() -> None:
    x = torch.randn(2, 3, 8)
    for call, message in (
        (lambda: MoE(8, experts=2, active=3), "1 <= active <= experts"),
        (lambda: MoE(8, experts=4, active=1, normalise=True), "no gradient"),
        (lambda: MoE(8, kind="conv"), "kind must be"),  # type: ignore[arg-type]
        (lambda: MoE(8, mixing="graph"), "mixing must be one of"),
        (lambda: MoE(8, capacity=0.0), "must be positive"),
        (lambda: MoE(8, convention="hf")(x), "convention must be"),  # type: ignore[arg-type]
        (lambda: MoE(8)(x[..., :5]), "needs .batch, tokens, 8."),
        (lambda: MoE(8)(x, mask=torch.ones(2, 3)), "mask must be bool"),
        (lambda: MoE(8, mixing="attention")(x), "needs attention"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
