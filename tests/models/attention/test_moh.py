"""Mixture of heads against loops over tokens, the paper's identities, and the operator that skips
heads.
"""

import pytest
import torch
from torch import Tensor, nn

from headwise.models.attention import moh
from headwise.models.attention.moh import MixtureOfHeads
from headwise.models.attention.softmax import SoftmaxAttention


def make(**options) -> MixtureOfHeads:
    torch.manual_seed(0)
    return MixtureOfHeads(12, **({"heads": 6, "shared": 2, "active": 2} | options)).double()


def formula(model: MixtureOfHeads, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    """One sequence, token by token; x (N, D), context (M, D), mask (N, M)."""
    size, s = model.width // model.heads, model.shared
    query = (x @ model.query.weight.t() + model.query.bias).view(len(x), model.heads, size)
    key, value = (
        (context @ model.key_value.weight.t() + model.key_value.bias)
        .view(len(context), 2, -1, size)
        .unbind(1)
    )
    rows = []
    for n in range(len(x)):
        gate = [0.0] * model.heads
        first = (
            torch.softmax(model.share.weight @ x[n], 0)
            if model.share is not None
            else torch.ones(1)
        )
        p = torch.softmax(model.route.weight @ x[n], 0)
        chosen = sorted(range(model.routed), key=lambda e: -float(p[e]))[: model.active]
        between = 2 * torch.softmax(model.between.weight @ x[n], 0) if s else torch.ones(2)
        for h in range(s):
            gate[h] = between[0] * s * first[h]
        for e in chosen:
            gate[s + e] = between[1] * model.active * p[e] / sum(p[c] for c in chosen)
        heads = []
        for h in range(model.heads):
            visible = mask[n].nonzero().flatten()
            mixed = torch.zeros(size, dtype=x.dtype)
            if len(visible):
                weight = torch.softmax(key[visible, h] @ query[n, h] / size**0.5, 0)
                mixed = weight @ value[visible, h]
            heads.append(gate[h] * mixed)
        rows.append(model.out.weight @ torch.cat(heads) + model.out.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("options", [{}, {"shared": 1, "active": 3}, {"shared": 0, "active": 1}])
@pytest.mark.parametrize("compute", ["dense", "gathered"])
@torch.no_grad()
def test_it_equals_the_loop(options: dict, compute) -> None:
    model = make(compute=compute, **options)
    x, context = (
        torch.randn(2, 5, 12, dtype=torch.float64),
        torch.randn(2, 7, 12, dtype=torch.float64),
    )
    mask = torch.rand(2, 5, 7) < 0.6
    mask[0, 0] = False
    expected = torch.stack([formula(model, *parts) for parts in zip(x, context, mask)])
    torch.testing.assert_close(model(x, context, mask=mask), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mask_kind", ["none", "keys", "pairs", "heads"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("router", ["linear", "query-norm"])
def test_heads_that_are_off_need_not_be_computed(mask_kind: str, causal: bool, router) -> None:
    """Gathered and dense agree, in gradients, too."""
    dense = make(compute="dense", causal=causal, kv_heads=3, router=router)
    gathered = make(compute="gathered", causal=causal, kv_heads=3, router=router)
    gathered.load_state_dict(dense.state_dict())
    shape = {"keys": (2, 9), "pairs": (2, 9, 9), "heads": (2, 6, 9, 9)}.get(mask_kind)
    mask = None if shape is None else torch.rand(shape) < 0.6
    x = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    outs = [model(x, mask=mask) for model in (dense, gathered)]
    torch.testing.assert_close(outs[1], outs[0], rtol=1e-10, atol=1e-10)
    grads = [
        torch.autograd.grad((out.square()).sum(), [x, *model.parameters()], allow_unused=True)
        for out, model in zip(outs, (dense, gathered))
    ]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-8, atol=1e-9)


def test_all_heads_on_with_routers_at_zero_is_softmax_attention() -> None:
    plain = SoftmaxAttention(12, heads=6, kv_heads=3, positions="rotary").double()
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    for options in (
        {"shared": 2, "active": 4},
        {"shared": 0, "active": 6},
        {"shared": 6, "active": 0},
    ):
        mixture = MixtureOfHeads.from_softmax(plain, **options)
        torch.testing.assert_close(mixture(x), plain(x), rtol=1e-12, atol=1e-12)
    binary = MixtureOfHeads.from_softmax(plain, shared=2, active=4, router="query-norm")
    torch.testing.assert_close(binary(x), plain(x))
    assert not torch.allclose(MixtureOfHeads.from_softmax(plain, shared=2, active=2)(x), plain(x))


def test_gates_add_up_and_count() -> None:
    model, x = make(), torch.randn(3, 11, 12, dtype=torch.float64)
    query = model.project(x, x)[0]
    gate, on, p = model.gates(x, query)
    assert p is not None
    assert torch.equal(on.sum(1), torch.full((3, 11), 4))
    assert torch.equal(gate != 0, on)
    between = 2 * model.between(x).softmax(-1)
    torch.testing.assert_close(gate.sum(1), 2 * between[..., 0] + 2 * between[..., 1])
    torch.testing.assert_close(between.sum(-1), torch.full((3, 11), 2.0, dtype=torch.float64))
    binary = make(router="query-norm")
    gate, on, _ = binary.gates(x, query)
    assert torch.equal(gate, on.to(gate))
    norms = query[:, 2:].norm(dim=-1)
    assert torch.equal(
        on[:, 2:].nonzero(),
        torch.zeros_like(norms).scatter(1, norms.topk(2, 1).indices, 1).nonzero(),
    )


def test_masked_heads_pass_no_gradient_to_their_values() -> None:
    for compute in ("dense", "gathered"):
        model = make(compute=compute, shared=0, active=1)
        nn.init.zeros_(model.route.weight)
        with torch.no_grad():
            model.route.weight[3] = 10.0  # positive tokens all choose head 3
        x = torch.rand(1, 5, 12, dtype=torch.float64)
        model(x).square().sum().backward()
        values = model.key_value.weight.grad.view(2, 6, 2, 12)[1].abs().sum((1, 2))
        assert values[3] > 0
        assert (values[[0, 1, 2, 4, 5]] == 0).all()


def test_the_balance_loss_is_k_when_even_and_ignores_padding() -> None:
    model = make(balance=1.0).train()
    nn.init.zeros_(model.route.weight)
    p = torch.full((2, 4, 50), 0.25, dtype=torch.float64)
    chosen = torch.zeros(2, 4, 50, dtype=torch.bool)
    for n in range(50):
        chosen[:, [n % 4, (n + 1) % 4], n] = True
    torch.testing.assert_close(model.imbalance(p[:, :, :48], chosen[:, :, :48], None).item(), 2.0)
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    model = make(balance=1.0).train()
    model(x[:, :6])
    alone = model.auxiliary
    model(x, mask=torch.arange(9).expand(2, 9) < 6)
    torch.testing.assert_close(model.auxiliary, alone)
    assert alone is not None
    alone.backward()
    assert model.route.weight.grad.any()
    model.eval()(x)
    assert model.auxiliary is None


def test_routed_heads_can_change_places() -> None:
    model, x = make(), torch.randn(2, 7, 12, dtype=torch.float64)
    permuted, order = make(), torch.tensor([2, 0, 3, 1])
    size = 2
    heads = torch.cat([torch.arange(2), 2 + order])
    rows = (heads[:, None] * size + torch.arange(size)).flatten()
    with torch.no_grad():
        permuted.load_state_dict(model.state_dict())
        permuted.route.weight.copy_(model.route.weight[order])
        permuted.query.weight.copy_(model.query.weight[rows])
        permuted.query.bias.copy_(model.query.bias[rows])
        both = torch.cat([rows, 12 + rows])
        permuted.key_value.weight.copy_(model.key_value.weight[both])
        permuted.key_value.bias.copy_(model.key_value.bias[both])
        permuted.out.weight.copy_(model.out.weight[:, rows])
    torch.testing.assert_close(permuted(x), model(x))


def test_explain_says_which_form_is_taken() -> None:
    model = MixtureOfHeads(16, heads=8)
    assert "all heads, gates afterwards" in model.explain(torch.zeros(1, 10, 16)).splitlines()[0]
    assert "gathered by head" in model.explain(torch.zeros(1, 1000, 16)).splitlines()[0]
    assert "save too little" in model.explain(torch.zeros(1, 10, 16))
    assert "compute is 'dense'" in MixtureOfHeads(16, heads=8, compute="dense").explain(
        torch.zeros(1, 1000, 16)
    )
    with pytest.raises(ValueError, match="do not fit"):
        MixtureOfHeads(16, heads=8, shared=2, active=7)
    with pytest.raises(ValueError, match="not supported"):
        model.packed()
    with pytest.raises(ValueError, match="no router"):
        MixtureOfHeads(16, router="hash")  # type: ignore[arg-type]


def test_the_faster_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    operator = moh.gathered_heads
    monkeypatch.setattr(
        moh, "gathered_heads", lambda *a, **k: calls.append(a[0].shape[2]) or operator(*a, **k)
    )
    half = MixtureOfHeads(8, heads=4, shared=1, active=1).eval()
    half(torch.randn(1, 100, 8))
    half(torch.randn(1, 500, 8))
    half(torch.randn(1, 500, 8), mask=torch.ones(1, 500, dtype=torch.bool))
    half(torch.randn(1, 500, 8), mask=torch.ones(1, 500, 500, dtype=torch.bool))
    assert calls == [500, 500]
    long = torch.zeros(1, 2000, 8)
    assert "all heads are on" in MixtureOfHeads(8, heads=4, shared=2, active=2).explain(long)
    assert "need masks" in MixtureOfHeads(8, heads=4, shared=2, active=1, causal=True).explain(long)
    assert "need masks" not in MixtureOfHeads(8, heads=8, shared=1, active=2, causal=True).explain(
        long
    )
    assert "no dropout" in MixtureOfHeads(8, heads=4, shared=1, active=1, dropout=0.1).explain(long)


def test_on_a_gpu_heads_are_gathered_up_to_forty_percent_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    operator = moh.gathered_heads
    monkeypatch.setattr(
        moh, "gathered_heads", lambda *a, **k: calls.append(a[0].shape[1]) or operator(*a, **k)
    )
    x = torch.empty(1, 10, 40, device="meta")

    def first_line(active: int, **options) -> str:
        model = MixtureOfHeads(40, heads=10, shared=1, active=active, **options).to("meta").eval()
        model(x)
        return model.explain(x).splitlines()[0]

    gathered, dense = "Triton kernel, tokens gathered by head", "all heads, gates afterwards"
    assert dense in first_line(3)  # neither a CPU nor CUDA
    monkeypatch.setitem(moh.forms.__globals__, "triton_refused", lambda *_: "")
    assert calls == []
    assert gathered in first_line(3)
    assert gathered in first_line(3, causal=True)
    assert len(calls) == 2
    assert dense in first_line(4)
    assert len(calls) == 2
    assert gathered in first_line(4, compute="gathered")
    half = MixtureOfHeads(40, heads=10, shared=1, active=4)
    assert "50% of the heads are on; above 40%" in half.explain(x)
    assert "not measured" in half.explain(x)
    assert (
        "all rows times the gate"
        in MixtureOfHeads(40, heads=10, shared=1, active=4, compute="gathered")
        .explain(x.double())
        .splitlines()[0]
    )


@pytest.mark.parametrize("router", ["linear", "query-norm"])
def test_sums_of_gates_for_other_splits(router) -> None:
    x = torch.randn(3, 20, 12, dtype=torch.float64)
    for options in (
        {"shared": 0},
        {"shared": 1, "active": 3},
        {"shared": 6, "active": 0},
        {"shared": 5, "active": 1},
    ):
        model = make(router=router, **options)
        gate, on, _ = model.gates(x, model.project(x, x)[0])
        assert (on.sum(1) == model.shared + model.active).all()
        if model.between is None:
            total = torch.full((3, 20), float(model.shared + model.active), dtype=torch.float64)
        else:
            total = (2 * model.between(x).softmax(-1)) @ torch.tensor(
                [model.shared, model.active]
            ).double()
        torch.testing.assert_close(gate.sum(1), total)


def test_the_balance_loss_spreads_the_tokens() -> None:
    torch.manual_seed(4)
    model, x = MixtureOfHeads(16, heads=8, shared=2, active=2, balance=1.0), torch.randn(4, 64, 16)
    with torch.no_grad():
        model.route.weight[0] += 0.3 * x.mean((0, 1)) + 0.5 * x[0, 0]
    optimiser = torch.optim.Adam([model.route.weight], lr=0.02)
    losses = []
    for _ in range(40):
        model(x)
        losses.append(model.auxiliary.item())
        optimiser.zero_grad()
        model.auxiliary.backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert losses[-1] < 2.02  # k = 2, even routing


def test_weights_are_those_of_the_output() -> None:
    model, x = make(causal=True).eval(), torch.randn(2, 9, 12, dtype=torch.float64)
    mixed = (model.weights(x) @ model.project(x, x)[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(model.out(mixed), model(x), rtol=1e-10, atol=1e-10)
