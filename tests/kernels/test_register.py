"""The call that registers operators, with small operators of its own, on the CPU."""

import sys
from contextlib import nullcontext
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual

from headwise.kernels import register


def forward(x: Tensor, bias: Tensor | None, power: int) -> tuple[Tensor, Tensor]:
    """(x^power + bias, its exponential)."""
    out = x**power if bias is None else x**power + bias
    return out, out.exp()


def backward(
    grad: Tensor | None,
    grad_exponential: Tensor | None,
    x: Tensor,
    exponential: Tensor,
    power: int,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    slope = torch.zeros_like(x)
    if grad is not None:
        slope += grad
    if grad_exponential is not None:
        slope += grad_exponential * exponential
    d_bias = slope.clone() if bias is not None else x.new_empty((0,))
    return slope * power * x ** (power - 1), d_bias


def fake(x: Tensor, bias: Tensor | None, power: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


register.operator(
    "test_power",
    forward,
    fake=fake,
    results=("out", "exponential"),
    export=forward,
    backward=backward,
    gradients=("x", "bias"),
)


def random_inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, bias = (torch.rand(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return x, bias


def test_gradients_reach_the_arguments_that_are_present() -> None:
    x, bias = random_inputs()
    power = torch.ops.headwise.test_power
    assert torch.autograd.gradcheck(lambda a, b: power(a, b, 3), (x, bias))
    assert torch.autograd.gradcheck(lambda a: power(a, None, 3)[1], (x,))
    torch.library.opcheck(power.default, (x, bias, 2))
    torch.library.opcheck(power.default, (x, None, 2))


def test_a_result_whose_gradient_nobody_asks_for_is_not_differentiable() -> None:
    def first_only(grad: Tensor, x: Tensor) -> Tensor:
        return 2 * grad * x

    def square(x: Tensor) -> tuple[Tensor, Tensor]:
        return x**2, x**3

    register.operator(
        "test_square",
        square,
        fake=lambda x: (torch.empty_like(x), torch.empty_like(x)),
        results=("out", "cube"),
        backward=first_only,
        gradients=("x",),
    )
    x, _ = random_inputs()
    out, cube = torch.ops.headwise.test_square(x)
    assert out.requires_grad
    assert not cube.requires_grad
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], 2 * x)


@pytest.mark.parametrize("name", ["test_power", "test_power_backward"])
def test_a_derivative_that_an_operator_lacks_is_refused(name: str) -> None:
    """PyTorch takes a tangent for none at all: the derivative would be zero without a word."""
    x = random_inputs()[0].detach()

    def power(value: Tensor) -> Tensor:
        if name == "test_power":
            return torch.ops.headwise.test_power(value, None, 3)[0]
        return torch.ops.headwise.test_power_backward(value, None, x, x, 3, None)[0]

    how = "in forward mode" if name == "test_power" else "twice"
    line = rf"^headwise\.test_power cannot be differentiated {how}; the formula in .*naive can$"
    with pytest.raises(NotImplementedError, match=line):
        torch.func.jvp(power, (x,), (x,))
    with pytest.raises(NotImplementedError, match=line), dual_level():
        power(make_dual(x, x))
    with dual_level():
        make_dual(x, x)
        torch.testing.assert_close(power(x), power(x.clone()))  # no tangent, nothing to refuse
    with pytest.raises(NotImplementedError, match=r"by torch\.func, only by backward\(\)"):
        torch.func.grad(lambda value: power(value).sum())(x)


def test_the_form_for_export_is_listed() -> None:
    assert register.EXPORT_FORMS[torch.ops.headwise.test_power.default] is forward


def test_triton_runs_where_it_is_installed_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy.triton")
    module.form = lambda x, width: ("triton", width)  # type: ignore[attr-defined]
    package = ModuleType("toy")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "toy", package)
    monkeypatch.setitem(sys.modules, "toy.triton", module)
    devices: list[torch.device] = []
    guard = lambda device: devices.append(device) or nullcontext()  # noqa: E731
    monkeypatch.setattr(torch.cuda, "device", guard)

    def form(x: Tensor, width: int) -> tuple[str, int]:
        return "cpu", width

    form.__module__ = "toy.cpu"
    launch = register.on_cuda(form, lambda width: width < 10)
    for installed, width, expected in ((True, 9, "triton"), (True, 10, "cpu"), (False, 9, "cpu")):
        refused = "" if installed else "Triton is not installed"
        monkeypatch.setattr(register, "triton_refused", lambda *x, refused=refused: refused)
        assert launch(torch.zeros(1), width) == (expected, width)
    assert devices == [torch.device("cpu")]
