"""Scores of gated attention against the formula, on the CPU."""

import pytest
import torch
from torch import Tensor

from headwise.kernels import gated_scores as module
from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.gated_scores import gated_scores


def formula(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    inner = out_weight.shape[1]
    v = torch.tanh(h @ weight[:inner].T + bias[:inner])
    u = torch.sigmoid(h @ weight[inner:].T + bias[inner:])
    return (v * u) @ out_weight.T + out_bias


def drawn(
    rows: int,
    width: int = 12,
    inner: int = 7,
    branches: int = 3,
    dtype: torch.dtype = torch.float64,
) -> list:
    torch.manual_seed(rows)
    shapes = (rows, width), (2 * inner, width), (2 * inner,), (branches, inner), (branches,)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("rows", [0, 1, 5, 33])
@pytest.mark.parametrize("branches", [1, 5])
def test_values_and_gradients_are_the_formulas(
    rows: int, branches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 8)
    given = drawn(rows, branches=branches)
    got, expected = gated_scores(*given), formula(*given)
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((out * weight).sum(), given) for out in (got, expected)]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


def test_gradients_by_differences() -> None:
    assert torch.autograd.gradcheck(gated_scores, drawn(6, 4, 3, 2))


def test_rows_of_a_transposed_gradient_and_input() -> None:
    h, *weights = drawn(9)
    turned = h.detach().t().contiguous().t().requires_grad_()
    torch.testing.assert_close(gated_scores(turned, *weights), gated_scores(h, *weights))
    (a,) = torch.autograd.grad(gated_scores(turned, *weights).t().square().sum(), turned)
    (b,) = torch.autograd.grad(formula(h, *weights).square().sum(), h)
    torch.testing.assert_close(a, b)


def test_only_the_input_is_kept_for_the_backward_pass() -> None:
    given = drawn(50, dtype=torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (kept.append(x.data_ptr()), x)[1], lambda x: x
    ):
        gated_scores(*given)
    assert set(kept) <= {x.data_ptr() for x in given}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    given = [x.detach().to(dtype).requires_grad_() for x in drawn(40)]
    exact = [x.detach().double().requires_grad_() for x in given]
    got, expected = gated_scores(*given), formula(*exact)
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=16 * eps, rtol=4 * eps)
    for a, b in zip(
        torch.autograd.grad(got.sum(), given), torch.autograd.grad(expected.sum(), exact)
    ):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, atol=64 * eps, rtol=16 * eps)


def test_autocast_compile_and_promises() -> None:
    given = drawn(20, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gated_scores(*given).dtype == torch.bfloat16
    torch.library.opcheck(torch.ops.headwise.gated_scores.default, tuple(given))
    compiled = torch.compile(gated_scores, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), gated_scores(*given))
    decomposed = plain_decompositions()[torch.ops.headwise.gated_scores.default]
    torch.testing.assert_close(decomposed(*given), gated_scores(*given))


def test_mistakes_are_named() -> None:
    h, weight, bias, out_weight, out_bias = drawn(4)
    with pytest.raises(ValueError, match="do not fit"):
        gated_scores(h, weight[:-1], bias, out_weight, out_bias)
    with pytest.raises(ValueError, match="do not fit"):
        gated_scores(h[None], weight, bias, out_weight, out_bias)
    with pytest.raises(ValueError, match="do not fit"):
        gated_scores(h, weight, bias, out_weight, out_bias[:-1])
