"""One contract for every registered mechanism and each of its variants; what is special to one is
tested in a file of its own.
"""

import copy
import inspect

import pytest
import torch
from torch import Tensor, nn

from headwise.kernels.decompositions import PlainForms
from headwise.models.attention import ATTENTION, attention_class, build_attention
from headwise.models.attention.base import Attention
from headwise.models.layers.blocks import EncoderLayer, FeedForward
from headwise.tests.models.contracts import (
    assert_evaluation_is_without_dropout,
    assert_gradient_is_the_derivative,
)

WIDTH, HEADS = 16, 4


def all_cases() -> list:
    cases = []
    for name in ATTENTION:
        for options in ({}, *attention_class(name).variants):
            values = ",".join(f"{key}={value}" for key, value in options.items())
            cases.append(pytest.param(name, options, id=f"{name}[{values}]"))
    return cases


every_mechanism = pytest.mark.parametrize(("name", "options"), all_cases())
# Every mechanism in `make test`, and its variants in `make test-all`.
every_default = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(*case.values, id=case.id, marks=pytest.mark.full if case.values[1] else ())
        for case in all_cases()
    ],
)
FEW, MORE = (1, 3, 31, 257), (2, 7, 16, 64, 129)  # tokens

# Variants whose traced program has the operators of another case of the same class, in other sizes.
# They are not compiled and exported a second time, which is the slow part of the contract.
SAME_PROGRAM = {
    "agent[agents=3]",
    "agent-grid[agents=4]",
    "agent-learned[agents=1]",
    "aggregated[reduction=1]",
    "aggregated[window=5,reduction=4,hidden=8]",
    "combiner[segment=4]",
    "contmix[window=13,heads=2]",
    "coordinate[reduction=2]",
    "fixed-sequence[causal=True]",
    "fixed-sequence[positions=rotary,scale=2.0]",
    "gaussian[gaussians=1]",
    "gaussian[heads=16,axis=features]",
    "induced[queries=1]",
    "induced[queries=3,heads=2]",
    "no-mixing[hidden=5]",
    "position-only[causal=True]",
    "position-only[positions=rotary,scale=2.0]",
    "signed-root[bias=False]",
    "softmax[kv_heads=2]",
    "softmax[kv_heads=2,diversify=0.5]",
    "squeeze[reduction=2]",
    "star[core=5]",
    "star[stochastic=False]",
    "tap[diversify=1.0]",
    "tensor[degree=2,heads=2]",
}
every_program = pytest.mark.parametrize(
    ("name", "options"), [case for case in all_cases() if case.id not in SAME_PROGRAM]
)


def dropping_cases() -> list:
    """Those whose mechanism has an option `dropout`."""
    known = {name: type(build_attention(name, WIDTH, HEADS)) for name in ATTENTION}
    return [
        case
        for case in all_cases()
        if "dropout" in inspect.signature(known[case.values[0]]).parameters
    ]


def make(name: str, options: dict, dtype: torch.dtype = torch.float32) -> Attention:
    torch.manual_seed(0)
    options = dict(options)
    heads = options.pop("heads", HEADS)
    mechanism = build_attention(name, WIDTH, heads, **options)
    assert isinstance(mechanism, Attention)
    # Parameters that begin at zero would hide what they do.
    with torch.no_grad():
        for parameter in mechanism.parameters():
            if parameter.numel() and not parameter.any():
                parameter.normal_(std=0.2)
    return mechanism.to(dtype).eval()


def sizes(count: int) -> tuple[int, int]:
    """The most nearly square grid of that many cells."""
    if not count:
        return 0, 0
    return next(
        (side, count // side) for side in range(int(count**0.5), 0, -1) if count % side == 0
    )


def call(
    mechanism: nn.Module, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    static = (
        torch.cos(3 * torch.arange(x.shape[1] * WIDTH))
        .view(1, -1, WIDTH)
        .expand(len(x), -1, -1)
        .to(x)
    )
    known = {"size": sizes(x.shape[1]), "static": static}
    extras = {key: known[key] for key in getattr(mechanism, "extras", ()) if key in known}
    return mechanism(x, context, mask=mask, **extras)


@every_mechanism
@pytest.mark.parametrize("count", [*FEW, *(pytest.param(n, marks=pytest.mark.full) for n in MORE)])
def test_any_number_of_tokens(name: str, options: dict, count: int) -> None:
    mechanism = make(name, options, torch.float64)
    x = torch.randn(2, count, WIDTH, dtype=torch.float64)
    out = call(mechanism, x)
    assert out.shape == x.shape
    assert out.isfinite().all()
    single = call(make(name, options), x.float())
    error = (single - out).abs().max() / out.abs().max().clamp_min(1e-3)
    assert error < 1e-5, error
    half = call(make(name, options, torch.bfloat16), x.bfloat16())
    assert half.dtype == torch.bfloat16
    errors = (half.double() - out).norm(dim=2) / out.norm(dim=2).mean().clamp_min(1e-3)
    # A choice that rounding flips changes its token completely, the others not at all.
    error = errors.quantile(0.7) if mechanism.discrete else errors.square().mean().sqrt()
    assert error < 0.06, error


@every_mechanism
def test_it_has_a_shape_on_a_device_without_memory(name: str, options: dict) -> None:
    """How models of billions of weights are laid out before anything is loaded."""
    out = call(make(name, options).to("meta"), torch.empty(2, 12, WIDTH, device="meta"))
    assert out.shape == (2, 12, WIDTH)


@every_mechanism
def test_a_batch_is_its_rows(name: str, options: dict) -> None:
    mechanism, x = (
        make(name, options, torch.float64),
        torch.randn(3, 20, WIDTH, dtype=torch.float64),
    )
    row_by_row = torch.cat([call(mechanism, row[None]) for row in x])
    torch.testing.assert_close(call(mechanism, x), row_by_row, rtol=1e-10, atol=1e-10)


@every_mechanism
def test_a_context_gives_the_keys_or_is_refused(name: str, options: dict) -> None:
    mechanism, x = make(name, options), torch.randn(2, 12, WIDTH)
    if not mechanism.crosses:
        with pytest.raises(ValueError, match="takes no context"):
            call(mechanism, x, torch.randn(2, 5, WIDTH))
        return
    assert call(mechanism, x, torch.randn(2, 5, WIDTH)).shape == x.shape
    assert call(mechanism, x, torch.randn(2, 30, WIDTH)).shape == x.shape
    torch.testing.assert_close(call(mechanism, x, x), call(mechanism, x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="context must be"):
        call(mechanism, x, torch.randn(3, 5, WIDTH))


@every_mechanism
@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
def test_an_empty_batch_and_no_tokens_give_nothing(
    name: str, options: dict, shape: tuple[int, int]
) -> None:
    mechanism = make(name, options).train()
    for mask in (None, torch.ones(shape, dtype=torch.bool)):
        x = torch.zeros(*shape, WIDTH, requires_grad=True)
        out = call(mechanism, x, mask=mask)
        assert out.shape == x.shape
        assert mechanism.auxiliary is None
        out.sum().backward()
        for key, weight in mechanism.named_parameters():
            assert weight.grad is not None, key
            assert not weight.grad.any(), key
    with pytest.raises(ValueError, match="mask must be"):
        call(mechanism, x, mask=torch.ones(3, 5, dtype=torch.bool))
    if not mechanism.crosses:
        with pytest.raises(ValueError, match="takes no context"):
            call(mechanism, x, x)


@every_mechanism
def test_without_any_key_a_token_receives_nothing(name: str, options: dict) -> None:
    mechanism = make(name, options)
    if not mechanism.crosses:
        return
    x, nothing = torch.randn(2, 3, WIDTH), torch.zeros(2, 0, WIDTH)
    out = call(mechanism, x, nothing)
    hidden = call(mechanism, x, torch.randn(2, 1, WIDTH), torch.zeros(2, 1, dtype=torch.bool))
    torch.testing.assert_close(out, hidden)


def masks(mechanism: Attention, batch: int, count: int) -> dict[str, Tensor]:
    shapes = {
        "keys": (batch, count),
        "pairs": (batch, count, count),
        "heads": (batch, mechanism.heads, count, count),
    }
    by_kind = {kind: torch.rand(shapes[kind]) < 0.6 for kind in mechanism.masks}
    for mask in by_kind.values():
        mask[0] = False  # nothing may be attended to
        mask[1, ..., 3] = False
    return by_kind


@every_mechanism
def test_masks(name: str, options: dict) -> None:
    mechanism = make(name, options, torch.float64).train()
    assert "keys" in mechanism.masks
    for kind, mask in masks(mechanism, 3, 12).items():
        mechanism.eval()
        x = torch.randn(3, 12, WIDTH, dtype=torch.float64, requires_grad=True)
        out = call(mechanism, x, mask=mask)
        assert out.isfinite().all(), kind
        assert all(
            g.isfinite().all()
            for g in torch.autograd.grad(out.sum(), [x, *mechanism.parameters()], allow_unused=True)
            if g is not None
        )
        # Token 3 of row 1 is hidden from the others: its content changes only its own
        # output.
        hidden_changed = x.detach().clone()
        hidden_changed[1, 3] = 50 * torch.randn(WIDTH)
        changed = call(mechanism, hidden_changed, mask=mask)
        keep = torch.arange(12) != 3
        torch.testing.assert_close(
            changed[1, keep], out[1, keep].detach(), rtol=1e-9, atol=1e-9, msg=kind
        )
        torch.testing.assert_close(changed[2], out[2].detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            call(mechanism, x, mask=torch.ones_like(mask)), call(mechanism, x)
        )
    with pytest.raises(ValueError, match="mask must be bool"):
        call(mechanism, x, mask=torch.ones(3, 12))
    with pytest.raises(ValueError, match="mask must be"):
        call(mechanism, x, mask=torch.ones(3, 11, dtype=torch.bool))


@every_mechanism
def test_padding_changes_nothing(name: str, options: dict) -> None:
    """A sequence that is padded at its end and masked gives the same as without padding."""
    mechanism = make(name, options, torch.float64)
    if ATTENTION[name].fits == "grid":
        pytest.skip("a grid has no end to pad; see test_masks")
    x = torch.randn(2, 13, WIDTH, dtype=torch.float64)
    padded = torch.cat([x, 9 * torch.randn(2, 8, WIDTH, dtype=torch.float64)], 1)
    mask = torch.arange(21).expand(2, 21) < 13
    torch.testing.assert_close(
        call(mechanism, padded, mask=mask)[:, :13], call(mechanism, x), rtol=1e-9, atol=1e-9
    )


@every_mechanism
def test_equivariant_mechanisms_follow_the_order_of_tokens(name: str, options: dict) -> None:
    mechanism, x = (
        make(name, options, torch.float64),
        torch.randn(2, 40, WIDTH, dtype=torch.float64),
    )
    out = call(mechanism, x)
    order = torch.randperm(40)
    if "static" in mechanism.extras:
        assert not mechanism.equivariant
    elif mechanism.equivariant:
        assert ATTENTION[name].fits == "any tokens"
        torch.testing.assert_close(
            call(mechanism, x[:, order]), out[:, order], rtol=1e-9, atol=1e-9
        )
    else:
        assert not torch.allclose(call(mechanism, x[:, order]), out[:, order], rtol=1e-3, atol=1e-3)
    later = x.clone()
    later[:, 7:] += 1.0
    same = torch.allclose(call(mechanism, later)[:, :7], out[:, :7], rtol=1e-9, atol=1e-9)
    assert same or not mechanism.causal


@every_mechanism
def test_gradients(name: str, options: dict) -> None:
    mechanism = make(name, options, torch.float64)
    x = torch.randn(2, 6, WIDTH, dtype=torch.float64, requires_grad=True)
    if not mechanism.straight_through:
        assert torch.autograd.gradcheck(
            lambda tokens: call(mechanism, tokens), (x,), fast_mode=True
        )
    mechanism.train()
    out = call(mechanism, x)
    loss = out.square().sum() + (0 if mechanism.auxiliary is None else mechanism.auxiliary)
    loss.backward()
    for key, parameter in mechanism.named_parameters():
        assert parameter.grad is not None, f"{key} takes no part"
        assert parameter.grad.isfinite().all(), key


@every_mechanism
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_the_weights(name: str, options: dict, training: bool) -> None:
    mechanism = make(name, options, torch.float64).train(training)
    if mechanism.straight_through:
        pytest.skip("its gradients are not those of the function by design")
    x, weight = torch.randn(2, 2, 6, WIDTH, dtype=torch.float64)

    def loss() -> Tensor:
        out = (call(mechanism, x) * weight).sum()
        return out if mechanism.auxiliary is None else out + mechanism.auxiliary

    assert_gradient_is_the_derivative(mechanism, loss)


@pytest.mark.parametrize(("name", "options"), dropping_cases())
def test_dropout_is_off_in_evaluation(name: str, options: dict) -> None:
    plain, dropping = make(name, options), make(name, options | {"dropout": 0.5})
    x, context, mask = torch.randn(3, 12, WIDTH), torch.randn(3, 7, WIDTH), torch.rand(3, 12) < 0.7
    live = options.get("compute") != "gathered"  # the gathered form of a mixture of heads has none
    assert_evaluation_is_without_dropout(dropping, plain, lambda module: call(module, x), live=live)
    assert_evaluation_is_without_dropout(
        dropping, plain, lambda module: call(module, x, mask=mask), live=live
    )
    if plain.crosses:
        assert_evaluation_is_without_dropout(
            dropping, plain, lambda module: call(module, x, context), live=live
        )


def test_the_mechanisms_with_dropout_are_known() -> None:
    """An option that is renamed would leave the test above without its case."""
    assert {case.values[0] for case in dropping_cases()} == {
        "differential",
        "moh",
        "softmax",
        "tap",
    }


class Masked(nn.Module):
    """A mechanism with its mask as a second input, as a pipeline exports it."""

    def __init__(self, mechanism: nn.Module) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return call(self.mechanism, x, mask=mask)


@every_program
def test_compiled_and_exported(name: str, options: dict) -> None:
    """Both in one graph. What a pipeline exports runs where Headwise is absent: every mechanism of
    sequences in plain PyTorch.
    """
    torch._dynamo.reset()
    model, x = Masked(make(name, options)), torch.randn(2, 12, WIDTH, requires_grad=True)
    mask = torch.rand(2, 12) < 0.7
    mask[0] = False
    expected = model(x, mask)
    gradient = torch.autograd.grad(expected.square().sum(), x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(x, mask)
    torch.testing.assert_close(compiled, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(compiled.square().sum(), x), gradient, rtol=1e-4, atol=1e-5
    )
    with torch.no_grad():
        with PlainForms():
            program = torch.export.export(model, (x.detach(), mask), strict=False)
        if ATTENTION[name].fits != "grid":
            assert "headwise" not in program.graph_module.code
        torch.testing.assert_close(
            program.module()(x, mask), expected.detach(), rtol=1e-5, atol=1e-5
        )


@every_mechanism
def test_a_mechanism_can_be_stored_and_copied(name: str, options: dict) -> None:
    mechanism, x = make(name, options), torch.randn(2, 9, WIDTH)
    out = call(mechanism, x)
    assert torch.equal(call(mechanism, x), out)
    loaded = make(name, options)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1.0)
    loaded.load_state_dict(mechanism.state_dict())
    torch.testing.assert_close(call(loaded, x), out)
    call(mechanism.train(), x)
    torch.testing.assert_close(call(copy.deepcopy(mechanism).eval(), x), call(mechanism.eval(), x))


@every_mechanism
def test_autocast_gives_finite_results_and_gradients(name: str, options: dict) -> None:
    mechanism, x = make(name, options).train(), torch.randn(2, 9, WIDTH, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = call(mechanism, x)
    out.float().sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@every_default
def test_in_a_layer_it_learns(name: str, options: dict) -> None:
    """A few steps lower the error of a target that needs no mixing at all, in both orders of the
    layer (variants in one).
    """
    for norm in ("pre",) if options else ("pre", "post"):
        layer = EncoderLayer(WIDTH, make(name, options), FeedForward(WIDTH, 32), norm=norm).train()
        x = torch.randn(8, 12, WIDTH)
        target = torch.roll(x, 1, -1)
        optimiser = torch.optim.Adam(layer.parameters(), lr=3e-3)
        errors = []
        for _ in range(30):
            static = torch.zeros(1, 12, WIDTH)
            error = (layer(x, size=(3, 4), static=static) - target).square().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
            errors.append(error.item())
        assert errors[-1] < 0.9 * errors[0], (norm, errors[0], errors[-1])


@every_mechanism
def test_explain_and_weights(name: str, options: dict) -> None:
    mechanism, x = (
        make(name, options, torch.float64),
        torch.randn(2, 12, WIDTH, dtype=torch.float64),
    )
    assert type(mechanism).__name__ in mechanism.explain(x)
    if type(mechanism).weights is Attention.weights:
        with pytest.raises(ValueError, match="no attention weights"):
            mechanism.weights(x)
        return
    extras = {"size": (3, 4)} if "size" in mechanism.extras else {}
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 5] = False
    weights = mechanism.weights(x, mask=mask, **extras)
    assert weights.shape[0] == 2
    assert weights.shape[2:] == (12, 12)
    assert (weights[1, :, :, 5] == 0).all()


@every_mechanism
def test_mistakes_are_named(name: str, options: dict) -> None:
    mechanism = make(name, options)
    with pytest.raises(ValueError, match="needs"):
        call(mechanism, torch.zeros(2, 4, WIDTH + 1))
    with pytest.raises(ValueError, match="no option 'hedas'"):
        build_attention(name, WIDTH, hedas=3)


def test_every_row_is_complete() -> None:
    for name, row in ATTENTION.items():
        assert row.fits in ("any tokens", "sequence", "grid"), name
        assert all(row[:6]), name
        mechanism = build_attention(name, WIDTH, HEADS)
        assert ("size" in mechanism.extras) == (row.fits == "grid"), name
        assert type(mechanism).__doc__, name
