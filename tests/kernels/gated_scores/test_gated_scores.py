"""Scores of gated attention against the formula, on the CPU."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.gated_scores import cpu, gated_scores, naive
from headwise.tests.kernels.agreement import assert_agree


def written_out(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    inner = out_weight.shape[1]
    v = torch.tanh(h @ weight[:inner].T + bias[:inner])
    u = torch.sigmoid(h @ weight[inner:].T + bias[inner:])
    return (v * u) @ out_weight.T + out_bias


def random_inputs(rows: int, branches: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(rows)
    shapes = (rows, 12), (14, 12), (14,), (branches, 7), (branches,)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(("rows", "branches"), [(0, 5), (1, 5), (33, 5), (33, 1)])
def test_values_and_gradients_are_the_formulas(
    rows: int, branches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK", 8)
    inputs = random_inputs(rows, branches)
    assert_agree(gated_scores(*inputs), written_out(*inputs), inputs)
    assert_agree(naive.gated_scores(*inputs), written_out(*inputs), inputs)


def test_gradients_by_differences() -> None:
    assert torch.autograd.gradcheck(gated_scores, random_inputs(6))


def test_rows_of_a_transposed_gradient_and_input() -> None:
    h, *weights = random_inputs(9)
    turned = h.detach().t().contiguous().t().requires_grad_()
    out = gated_scores(turned, *weights)
    assert_agree(out.t(), naive.gated_scores(turned, *weights).t(), [turned])


def test_only_the_inputs_are_kept_for_the_backward_pass() -> None:
    inputs = random_inputs(50, dtype=torch.float32)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (saved.append(x.data_ptr()), x)[1], lambda x: x
    ):
        gated_scores(*inputs)
    assert set(saved) <= {x.data_ptr() for x in inputs}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    inputs = [x.detach().to(dtype).requires_grad_() for x in random_inputs(40)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = gated_scores(*inputs), written_out(*exact)
    eps = torch.finfo(dtype).eps
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=16 * eps, rtol=4 * eps)
    slopes = torch.autograd.grad(out.sum(), inputs)
    for slope, exact_slope in zip(slopes, torch.autograd.grad(expected.sum(), exact)):
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.double(), exact_slope, atol=64 * eps, rtol=16 * eps)


def test_autocast_compile_and_promises_to_pytorch() -> None:
    inputs = random_inputs(20, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gated_scores(*inputs).dtype == torch.bfloat16
    operator = torch.ops.headwise.gated_scores.default
    torch.library.opcheck(operator, tuple(inputs))
    compiled = torch.compile(gated_scores, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), gated_scores(*inputs))
    torch.testing.assert_close(plain_decompositions()[operator](*inputs), gated_scores(*inputs))


def test_shapes_that_do_not_fit_are_refused() -> None:
    h, weight, bias, out_weight, out_bias = random_inputs(4)
    for arguments in (
        (h, weight[:-1], bias, out_weight, out_bias),
        (h[None], weight, bias, out_weight, out_bias),
        (h, weight, bias, out_weight, out_bias[:-1]),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            gated_scores(*arguments)
