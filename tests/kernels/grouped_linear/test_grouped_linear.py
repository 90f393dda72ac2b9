"""Linear layers of many experts against their formula, by both forms that the CPU has."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.dispatch import Dispatch, dispatch
from headwise.kernels.grouped_linear import fits, forms, grouped_linear, naive, native
from headwise.tests.kernels.agreement import assert_agree
from headwise.tests.kernels.choices import random_choices
from headwise.tests.kernels.layouts import check_layouts
from headwise.tests.kernels.waiting import assert_never_waits

FORMS = {"loop": lambda *_: "by this test", "grouped_mm": lambda *_: ""}
Sources = tuple[Tensor | None, Tensor | None]


def random_inputs(
    where: Dispatch, gather: bool, gated: bool, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    rows = len(where.place) if gather else len(where.order)
    shapes = (rows, 16 if gated else 8), (4, 12, 8), (4, 12)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def expected_of(inputs: list[Tensor], where: Dispatch, gather: bool, *how: object) -> Tensor:
    sources = sources_of(where, gather)
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
    monkeypatch.setattr(native, "refused", FORMS[form])
    where = dispatch(random_choices(13, 4, 2, dropped=True), 4)
    inputs = random_inputs(where, gather, gated)
    arguments = [*inputs[:2], inputs[2] if bias else None]
    out = grouped_linear(*arguments, where, gather=gather, activation=activation, gated=gated)
    expected = expected_of(arguments, where, gather, activation, gated)
    assert_agree(out, expected, inputs[: 2 + bias], rtol=1e-4, atol=1e-5)


def sources_of(where: Dispatch, gather: bool) -> Sources:
    return (where.tokens, where.place) if gather else (None, None)


@pytest.mark.parametrize(
    ("gather", "activation", "gated"),
    [(True, "none", False), (False, "gelu", False), (False, "silu", True)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_what_a_gpu_runs_around_grouped_mm_is_the_formula(
    gather: bool, activation: str, gated: bool, bias: bool
) -> None:
    where = dispatch(random_choices(29, 4, 2, dropped=True), 4)
    inputs = random_inputs(where, gather, gated)
    arguments = [*inputs[:2], inputs[2] if bias else None]
    expected = expected_of(arguments, where, gather, activation, gated)
    grad = torch.randn_like(expected)
    slopes = torch.autograd.grad(expected, inputs[: 2 + bias], grad)
    values = [None if x is None else x.detach() for x in arguments]
    tokens, place = sources_of(where, gather)
    out = native.forward(*values, where.offsets, tokens, activation, gated)
    rest = (where.offsets, tokens, place, activation, gated)
    gradients = native.backward(grad, *values, *rest)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[: 2 + bias], slopes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gather", [True, False])
def test_a_gpu_never_waits_for_the_host(gather: bool) -> None:
    where, activation = dispatch(random_choices(29, 4, 2), 4), "none" if gather else "silu"
    shapes = (29 if gather else 58, 16 if gather else 32), (4, 24, 16), (4, 24)
    values = [torch.zeros(shape, dtype=torch.bfloat16) for shape in shapes]

    def step(grad: Tensor, *values: Tensor) -> None:
        out = native.forward(*values[:5], activation, not gather)
        gradients = native.backward(grad, *values, activation, not gather)
        assert out.shape == grad.shape
        assert [tuple(g.shape) for g in gradients] == list(shapes)

    grad = torch.zeros(58, 24, dtype=torch.bfloat16)
    assert_never_waits(step, grad, *values, where.offsets, *sources_of(where, gather))


def test_what_grouped_mm_leaves_unwritten_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of no expert, and the weight gradients of experts without rows: as on a GPU, where
    memory that was not written may hold anything.
    """
    grouped_mm = F.grouped_mm

    def leaving(x: Tensor, weight: Tensor, *, offs: Tensor) -> Tensor:
        out = grouped_mm(x, weight, offs=offs)
        if weight.ndim == 3:
            out[int(offs[-1]) :] = torch.nan
        else:
            out[offs.diff(prepend=offs.new_zeros(1)) == 0] = torch.nan
        return out

    monkeypatch.setattr(F, "grouped_mm", leaving)
    where = dispatch(random_choices(29, 4, 2, dropped=True), 4)
    assert int(where.offsets[-1]) < 58
    assert (where.offsets.diff() == 0).any()
    x, weight, bias = (t.detach() for t in random_inputs(where, False, False))
    out = native.forward(x, weight, bias, where.offsets, None, "gelu", False)
    rest = (where.offsets, None, None, "gelu", False)
    gradients = native.backward(torch.randn(58, 12), x, weight, bias, *rest)
    assert all(tensor.isfinite().all() for tensor in (out, *gradients))
    assert not out[int(where.offsets[-1]) :].any()
    assert not gradients[1][1].any()
    assert not gradients[2][1].any()


class Pretended(Tensor):
    """A tensor that says it is on a GPU."""

    is_cpu, is_cuda = False, True  # type: ignore[assignment]
    device = torch.device("cuda:0")  # type: ignore[assignment]


def test_on_a_gpu_grouped_mm_comes_first_where_it_is_ahead(monkeypatch) -> None:
    monkeypatch.setattr(native, "fast", lambda device: True)
    weight = torch.zeros(4, 24, 16, dtype=torch.bfloat16)

    def on_gpu(rows: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.zeros(rows, 16, dtype=dtype).as_subclass(Pretended)

    enough = 4 * native.LEAST_ROWS
    assert not fits(on_gpu(enough), weight, None)
    assert fits(on_gpu(enough - 1), weight, None)
    assert not fits(on_gpu(9), weight, torch.zeros(enough))
    assert "rows an expert" in forms(on_gpu(9), weight)[0].refused
    assert forms(on_gpu(9), weight, enough)[0].refused == ""
    assert "reads the offsets back" in native.refused(on_gpu(enough, torch.float32), weight, enough)
    monkeypatch.setattr(native, "fast", lambda device: False)
    assert fits(on_gpu(enough), weight, None)


@pytest.mark.parametrize("gather", [True, False])
def test_tensors_may_lie_in_memory_in_any_way(gather: bool) -> None:
    for tokens in (7, 0):
        where = dispatch(random_choices(tokens, 4, 2, dropped=True), 4)
        inputs = random_inputs(where, gather, False)
        rest = (where.offsets, *sources_of(where, gather), "none" if gather else "gelu", False)
        check_layouts(torch.ops.headwise.grouped_linear.default, (*inputs, *rest))


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
    assert [bool(form.refused) for form in forms(x, weight)] == [False, True, False]
    for refused, arguments in (
        ("the cache", (x.repeat(13, 1), weight)),
        ("float64", (x.double(), weight.double())),
        ("16 bytes", (x[:, :3], weight[:, :, :3])),
        ("contiguous", (x, weight.mT.contiguous().mT)),
    ):
        assert refused in forms(*arguments)[0].refused


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
