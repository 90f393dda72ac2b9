"""Linear layers of many experts against their formula, by both forms that the CPU has."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.dispatch import Dispatch, dispatch
from headwise.kernels.grouped_linear import cpu, forms, grouped_linear, naive
from headwise.tests.kernels.agreement import assert_agree
from headwise.tests.kernels.choices import random_choices

FORMS = {"loop": lambda *_: "by this test", "grouped_mm": lambda *_: ""}


def random_inputs(
    where: Dispatch, gather: bool, gated: bool, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    rows = len(where.place) if gather else len(where.order)
    shapes = (rows, 16 if gated else 8), (4, 12, 8), (4, 12)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def expected_of(inputs: list[Tensor], where: Dispatch, gather: bool, *how: object) -> Tensor:
    sources = (where.tokens, where.place) if gather else (None, None)
    out = naive.grouped_linear(*inputs, where.offsets, *sources, *how)  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("gather", "activation", "gated"),
    [(True, "none", False)]
    + [(False, activation, gated) for activation in naive.ACTIVATIONS for gated in (False, True)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_formulas(
    form: str, gather: bool, activation: str, gated: bool, bias: bool, monkeypatch
) -> None:
    monkeypatch.setattr(cpu, "native_refused", FORMS[form])
    where = dispatch(random_choices(13, 4, 2, dropped=True), 4)
    inputs = random_inputs(where, gather, gated)
    arguments = [*inputs[:2], inputs[2] if bias else None]
    out = grouped_linear(*arguments, where, gather=gather, activation=activation, gated=gated)
    expected = expected_of(arguments, where, gather, activation, gated)
    assert_agree(out, expected, inputs[: 2 + bias], rtol=1e-4, atol=1e-5)


def test_activations_are_those_of_pytorch() -> None:
    h, (gate, up) = torch.randn(5, 8), torch.randn(2, 5, 4)
    expected = [h, F.relu(h), F.gelu(h), h * torch.sigmoid(1.702 * h), F.silu(h)]
    for activation, value in zip(naive.ACTIVATIONS, expected, strict=True):
        torch.testing.assert_close(naive.activate(h, activation, False), value)
    joined = torch.cat([gate, up], 1)
    torch.testing.assert_close(naive.activate(joined, "silu", True), F.silu(gate) * up)


@pytest.mark.parametrize("sizes", [(0, 2), (1, 2), (5, 4)])
def test_no_token_one_token_and_all_experts(sizes: tuple[int, int]) -> None:
    where = dispatch(random_choices(sizes[0], 4, sizes[1]), 4)
    inputs = random_inputs(where, True, False, torch.float64)
    expected = expected_of(inputs, where, True, "none", False)
    assert_agree(grouped_linear(*inputs, where, gather=True), expected, inputs)


def test_gradients_by_differences_and_promises_to_pytorch() -> None:
    where = dispatch(random_choices(7, 4, 2, dropped=True), 4)
    inputs = random_inputs(where, True, False, torch.float64)
    assert torch.autograd.gradcheck(lambda *x: grouped_linear(*x, where, gather=True), inputs)
    arguments = (*inputs, where.offsets, where.tokens, where.place, "none", False)
    operator = torch.ops.headwise.grouped_linear.default
    torch.library.opcheck(operator, arguments)
    exported = plain_decompositions()[operator](*arguments)
    torch.testing.assert_close(exported, operator(*arguments))


def test_forms_say_why_they_are_refused() -> None:
    x, weight = torch.zeros(40, 16), torch.zeros(4, 24, 16)
    assert [bool(form.refused) for form in forms(x, weight)] == [True, False, False]
    for refused, arguments in (
        ("the cache", (x.repeat(13, 1), weight)),
        ("float64", (x.double(), weight.double())),
        ("16 bytes", (x[:, :3], weight[:, :, :3])),
        ("contiguous", (x, weight.mT.contiguous().mT)),
    ):
        assert refused in forms(*arguments)[1].refused


def test_arguments_that_do_not_fit_are_refused() -> None:
    x, weight = torch.zeros(3, 8), torch.zeros(2, 4, 8)
    where = dispatch(torch.zeros(3, 2, dtype=torch.int64), 2)
    for message, bias, options in (
        ("do not fit 6 pairs", None, {}),
        ("bias must be", torch.zeros(4), {"gather": True}),
        ("one of", None, {"gather": True, "activation": "tanh"}),
        ("not both", None, {"gather": True, "activation": "relu"}),
    ):
        with pytest.raises(ValueError, match=message):
            grouped_linear(x, weight, bias, where, **options)
