"""Gradients of gradients, as a gradient penalty needs them: right, or refused in one line."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from headwise.kernels.softmax_pool import naive, softmax_pool
from headwise.models.attention import ATTENTION
from headwise.tests.models.attention.test_contract import WIDTH, call, make

# Those with an operator of the package, by the operator that refuses.
REFUSED = {
    "aggregated": "neighbourhood_scatter",
    "contmix": "neighbourhood_read",
    "differential": "differential_combine",
    "induced": "softmax_pool",
    "query-free": "softmax_pool",
    "signed-root": "signed_root_attention",
    "star": "softmax_pool",
    "tensor": "tensor_attention",
}


@pytest.mark.parametrize("name", list(ATTENTION))
def test_a_gradient_of_gradients_is_right_or_refused_in_a_line(name: str) -> None:
    mechanism = make(name, {}, torch.float64)
    x = torch.randn(1, 4, WIDTH, dtype=torch.float64, requires_grad=True)
    # PyTorch's fused forms have no second derivative, its plain one has.
    with sdpa_kernel(SDPBackend.MATH):
        if name not in REFUSED:
            assert torch.autograd.gradgradcheck(
                lambda tokens: call(mechanism, tokens), (x,), fast_mode=True
            )
            return
        out = call(mechanism, x).square().sum()
        (slope,) = torch.autograd.grad(out, x, create_graph=True)
        again = r"( twice; the formula in headwise\.kernels\.\w+\.naive can)?"
        line = rf"^headwise\.{REFUSED[name]} cannot be differentiated{again}$"
        with pytest.raises(NotImplementedError, match=line):
            slope.square().sum().backward()


def test_the_formula_that_the_line_names_has_one() -> None:
    scores = torch.randn(2, 5, 1, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    def formula(*pair: torch.Tensor) -> torch.Tensor:
        return naive.softmax_pool(*pair, None, None, True)[0]

    expected = softmax_pool(scores, values, per="head")
    torch.testing.assert_close(formula(scores, values), expected.view(2, 1, 3))
    assert torch.autograd.gradgradcheck(formula, (scores, values))
