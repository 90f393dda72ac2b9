"""gelu_linear against its formula, and what it keeps for the backward pass."""

import pytest
import torch
from torch import Tensor

from headwise.kernels import gelu_linear as module
from headwise.kernels.gelu_linear import cpu, gelu_linear, naive
from headwise.tests.kernels.agreement import assert_agree


@pytest.fixture(autouse=True)
def every_size_takes_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs take plain PyTorch, which would hide the operator."""
    monkeypatch.setattr(module, "SMALL_NUMBERS", 0)


def random_inputs(
    *shape: int, bias: bool = True, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = (shape, (4, shape[-1]), (4,))[: 2 + bias]
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in shapes]


@pytest.mark.parametrize("shape", [(2, 5, 3), (700, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_formulas(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK_NUMBERS", 0)  # blocks of 256 rows
    inputs = random_inputs(*shape, bias=bias)
    assert_agree(gelu_linear(*inputs), naive.gelu_linear(*inputs), inputs)


def test_small_inputs_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_inputs(50, 8)
    by_operator = gelu_linear(*inputs)
    monkeypatch.setattr(module, "SMALL_NUMBERS", 10**9)
    assert_agree(gelu_linear(*inputs), by_operator, inputs)


def test_gradients_by_differences_and_promises_to_pytorch() -> None:
    inputs = random_inputs(2, 5, 3)
    assert torch.autograd.gradcheck(gelu_linear, inputs)
    torch.library.opcheck(torch.ops.headwise.gelu_linear.default, tuple(inputs))


def test_the_input_is_all_that_is_kept() -> None:
    saved: list[Tensor] = []
    inputs = random_inputs(50, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        gelu_linear(*inputs)
    assert {t.data_ptr() for t in saved} <= {t.data_ptr() for t in inputs}


def test_autocast_as_a_linear_layer() -> None:
    inputs = random_inputs(2, 5, 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = gelu_linear(*inputs)
    assert out.dtype == torch.bfloat16
    (slope,) = torch.autograd.grad(out.float().sum(), inputs[1])
    assert slope.dtype == torch.float32
    torch.testing.assert_close(out.float(), naive.gelu_linear(*inputs), rtol=0.05, atol=0.1)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for weight, bias in ((torch.zeros(4, 5), None), (torch.zeros(4, 3), torch.zeros(3))):
        with pytest.raises(ValueError, match=r"gelu_linear: h \(2, 3\).* do not fit"):
            gelu_linear(torch.zeros(2, 3), weight, bias)
