"""The sum over a token's experts against its formula."""

import pytest
import torch

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.dispatch import dispatch
from headwise.kernels.expert_combine import expert_combine, naive
from headwise.tests.kernels.agreement import assert_agree
from headwise.tests.kernels.choices import random_choices

FLOAT64 = torch.float64
SIZES = [(0, 3, 2), (1, 1, 1), (17, 5, 2)]  # tokens, experts, choices


@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_are_the_formulas(sizes: tuple[int, int, int]) -> None:
    where = dispatch(random_choices(*sizes, dropped=True), sizes[1])
    y = torch.randn(len(where.order), 6, dtype=FLOAT64, requires_grad=True)
    weights = torch.rand(where.place.shape, dtype=FLOAT64, requires_grad=True)
    expected = naive.expert_combine(y, weights, where.place)
    assert_agree(expert_combine(y, weights, where), expected, [y, weights])


@pytest.mark.parametrize("sizes", SIZES)
def test_unit_weights_give_k_times_x_back(sizes: tuple[int, int, int]) -> None:
    chosen = random_choices(*sizes)
    where, x = dispatch(chosen, sizes[1]), torch.randn(sizes[0], 6, dtype=FLOAT64)
    out = expert_combine(x[where.tokens], torch.ones(chosen.shape, dtype=FLOAT64), where)
    torch.testing.assert_close(out, sizes[2] * x, rtol=1e-14, atol=0)


def test_promises_to_pytorch_export_and_half_precision() -> None:
    where = dispatch(random_choices(7, 3, 2), 3)
    y, weights = torch.randn(14, 4, dtype=FLOAT64, requires_grad=True), torch.rand(7, 2)
    operator = torch.ops.headwise.expert_combine.default
    torch.library.opcheck(operator, (y, weights.double().requires_grad_(), where.place))
    out = expert_combine(y, weights, where)
    exported = plain_decompositions()[operator](y, weights, where.place)
    torch.testing.assert_close(exported, out)
    half = expert_combine(y.bfloat16(), weights, where)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), out, rtol=0.02, atol=0.02)


def test_shapes_that_do_not_fit_are_refused() -> None:
    where = dispatch(torch.zeros(3, 2, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="do not fit"):
        expert_combine(torch.zeros(3, 8), torch.ones(3, 2), where)
