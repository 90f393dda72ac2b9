"""gelu_linear and star_core against plain formulas, and what they keep for the backward pass."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch
from torch import Tensor

from headwise.kernels import KERNELS
from headwise.kernels import gelu_linear as linear
from headwise.kernels import star_core as star
from headwise.kernels.gelu_linear import gelu_linear
from headwise.kernels.softmax_pool import softmax_pool
from headwise.kernels.star_core import star_core


@pytest.fixture(autouse=True)
def every_size_takes_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs take plain PyTorch, which needs no test but that it is equal; here they would
    hide the operator.
    """
    monkeypatch.setattr(linear, "SMALL_NUMBERS", 0)


def test_small_inputs_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(s, requires_grad=True) for s in ((50, 8), (6, 8), (6,))]
    own = torch.autograd.grad(gelu_linear(*inputs).square().sum(), inputs)
    monkeypatch.setattr(linear, "SMALL_NUMBERS", 10**9)
    torch.testing.assert_close(
        torch.autograd.grad(gelu_linear(*inputs).square().sum(), inputs), own
    )
    scores = torch.randn(3, 40, 5)
    with torch.no_grad():
        small = softmax_pool(scores)
    torch.testing.assert_close(softmax_pool(scores.requires_grad_()).detach(), small)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


@pytest.mark.parametrize("shape", [(1, 3), (2, 5, 3), (700, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_gelu_linear_equals_the_formula(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "BLOCK_NUMBERS", 0)  # blocks of 256 rows
    torch.manual_seed(0)
    inputs = [
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, (4, 3), (4,))
    ][: 2 + bias]
    plain = gelu(inputs[0]) @ inputs[1].t() + (inputs[2] if bias else 0)
    out = gelu_linear(*inputs)
    torch.testing.assert_close(out, plain)
    weight = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, inputs, weight), torch.autograd.grad(plain, inputs, weight)
    )


def test_gelu_linear_gradcheck_and_promises() -> None:
    inputs = [
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 5, 3), (4, 3), (4,))
    ]
    assert torch.autograd.gradcheck(gelu_linear, inputs)
    torch.library.opcheck(torch.ops.headwise.gelu_linear.default, tuple(inputs))


def test_gelu_linear_keeps_one_tensor() -> None:
    kept: list[Tensor] = []
    h, weight, bias = (torch.randn(s, requires_grad=True) for s in ((50, 8), (6, 8), (6,)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gelu_linear(h, weight, bias)
    assert sorted(t.data_ptr() for t in kept) == sorted([h.data_ptr(), weight.data_ptr()])


def test_autocast_as_a_linear_layer() -> None:
    h, weight, bias = (torch.randn(s, requires_grad=True) for s in ((2, 5, 3), (4, 3), (4,)))
    with torch.autocast("cpu", torch.bfloat16):
        out = gelu_linear(h, weight, bias)
        core, _ = star_core(h, weight[:, :3], bias, torch.randn(6, 4), torch.zeros(6))
    assert out.dtype == core.dtype == torch.bfloat16
    (out.float().sum() + core.float().sum()).backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), gelu(h) @ weight.t() + bias, rtol=0.05, atol=0.1)


def parameters(width: int, core: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = ((width + 1, width), (width + 1,), (core, width + 1), (core,))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


# (bags, tokens, core): one product; gathers over all rows; gathers over the drawn rows; several
# slices; one token
CASES = [(3, 9, 5), (2, 40, 64), (3, 200, 7), (5, 900, 11), (2, 1, 4)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masked", [False, True])
def test_star_core_equals_the_dense_form_at_the_same_draws(
    case: tuple[int, int, int], masked: bool
) -> None:
    torch.manual_seed(1)
    bags, tokens, core_width = case
    x = torch.randn(bags, tokens, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(bags, tokens) < 0.5 if masked else None
    if mask is not None:
        mask[0] = False
    weights = parameters(6, core_width)
    core, index = star_core(x, *weights, mask=mask)
    z = gelu(x @ weights[0].t() + weights[1]) @ weights[2].t() + weights[3]
    plain = z.gather(1, index.clamp_min(0)[:, None])[:, 0] * (index >= 0)
    torch.testing.assert_close(core, plain)
    if mask is not None:
        alive = mask.any(1)
        assert torch.equal(index[:, 0] == -1, ~alive)
        assert mask[alive].gather(1, index[alive]).all()
    grad = torch.randn_like(core)
    expected = torch.autograd.grad(plain, [x, *weights], grad)
    torch.testing.assert_close(
        torch.autograd.grad(core, [x, *weights], grad), expected, rtol=1e-9, atol=1e-9
    )


def test_star_core_draws_as_the_softmax() -> None:
    torch.manual_seed(2)
    x = torch.randn(1, 4, 3)
    weights = [w.detach() for w in parameters(3, 1, torch.float32)]
    many = [w.expand(20_000, -1).contiguous() if k == 2 else w for k, w in enumerate(weights)]
    many[3] = weights[3].expand(20_000).contiguous()
    z = gelu(x @ weights[0].t() + weights[1]) @ weights[2].t()
    expected = z[0, :, 0].softmax(0) * 20_000
    counts = star_core(x, *many, seed=3)[1].flatten().bincount(minlength=4)
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 16.3  # 0.999 quantile, 3 degrees of freedom


def test_star_core_seed_nan_empty_and_half() -> None:
    torch.manual_seed(3)
    x, weights = torch.randn(2, 50, 6), parameters(6, 5, torch.float32)
    assert torch.equal(star_core(x, *weights, seed=1)[1], star_core(x, *weights, seed=1)[1])
    poisoned = x.clone()
    poisoned[0, 3] = torch.nan
    core, index = star_core(poisoned, *weights)
    assert core[0].isnan().all()
    assert (index[0] == -2).all()
    assert core[1].isfinite().all()
    none, index = star_core(torch.zeros(2, 0, 6, requires_grad=True), *weights)
    assert (none == 0).all()
    assert (index == -1).all()
    none.sum().backward()
    half = [w.detach().bfloat16().requires_grad_() for w in weights]
    core, _ = star_core(x.bfloat16(), *half)
    core.float().sum().backward()
    assert half[0].grad is not None
    assert half[0].grad.isfinite().all()


@pytest.mark.parametrize("case", [*CASES[:3], (1, 40, 5)])
def test_star_core_promises(case: tuple[int, int, int]) -> None:
    bags, tokens, core_width = case
    x = torch.randn(bags, tokens, 6, requires_grad=True)
    weights = parameters(6, core_width, torch.float32)
    torch.library.opcheck(
        torch.ops.headwise.star_core.default, (x, *weights, torch.tensor(4), None)
    )
    compiled = torch.compile(star_core, fullgraph=True, backend="aot_eager")
    gradients = [
        torch.autograd.grad(f(x, *weights, seed=5)[0].sum(), x)[0] for f in (star_core, compiled)
    ]
    torch.testing.assert_close(*gradients)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="gelu_linear"):
        gelu_linear(torch.zeros(2, 3), torch.zeros(4, 5))
    x, weights = torch.zeros(2, 3, 6), parameters(6, 5, torch.float32)
    with pytest.raises(ValueError, match="do not fit"):
        star_core(x[..., :5], *weights)
    with pytest.raises(ValueError, match="mask must be bool"):
        star_core(x, *weights, mask=torch.ones(2, 3))


def test_names_resolve_lazily() -> None:
    code = (
        "import sys, headwise.kernels as k, headwise.models as m, headwise.models.attention as a;"
        "assert k.KERNELS and a.ATTENTION; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, kernel in KERNELS.items():
        assert callable(getattr(import_module(f"headwise.kernels.{kernel.module}"), name))
    assert star.FEW_TOKENS < 40 < 64  # the cases above reach all three ways of the backward pass
