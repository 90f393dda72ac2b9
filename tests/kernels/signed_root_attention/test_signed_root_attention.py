"""Signed root attention against its formula, on the CPU."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.signed_root_attention import cpu, naive, signed_root_attention
from headwise.tests.kernels.agreement import assert_agree


def formula(query: Tensor, key: Tensor, value: Tensor, eps: float = 1e-4) -> Tensor:
    return naive.signed_root_attention(query, key, value, eps)


def test_the_signed_root_is_odd_and_smooth_at_zero() -> None:
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    expected = torch.sign(x) * ((x.abs() + 0.2).sqrt() - 0.2**0.5)
    torch.testing.assert_close(naive.signed_root(x, 0.2), expected)


def random_inputs(
    shape: tuple[int, ...] = (2, 7, 9, 5, 3), dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    batch, tokens, keys, width, wide = shape
    torch.manual_seed(sum(shape))
    sizes = (batch, tokens, width), (batch, keys, width), (batch, keys, wide)
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


SHAPES = [(2, 7, 9, 5, 3), (1, 1, 1, 1, 1), (3, 40, 33, 8, 16), (2, 0, 4, 3, 2), (2, 4, 0, 3, 2)]


@pytest.mark.parametrize("tile", [64, 700])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_the_formulas(shape, tile, monkeypatch) -> None:
    monkeypatch.setattr(
        cpu, "TILE", tile
    )  # several blocks of rows, or of samples, the last one smaller
    inputs = random_inputs(shape)
    assert_agree(signed_root_attention(*inputs), formula(*inputs), inputs)


def test_gradients_by_differences() -> None:
    assert torch.autograd.gradcheck(
        lambda q, k, v: signed_root_attention(q, k, v, eps=0.3), random_inputs((2, 4, 5, 3, 2))
    )


def test_at_zero_scores_value_and_gradient_are_finite() -> None:
    query, key, value = random_inputs()
    nothing = torch.zeros_like(key).requires_grad_()
    out = signed_root_attention(query, nothing, value)
    assert (out == 0).all()
    (slope,) = torch.autograd.grad(out.sum(), nothing)
    expected = 0.5 / 1e-4**0.5 * torch.einsum("bnc,bme->bmc", query, value)
    torch.testing.assert_close(slope, expected)


def test_any_leading_dimensions_and_strides() -> None:
    query, key, value = random_inputs((6, 7, 9, 5, 3))
    parts = [x.detach().unflatten(0, (2, 3)).transpose(0, 1) for x in (query, key, value)]
    torch.testing.assert_close(signed_root_attention(*parts), formula(*parts))
    flat = [x[0].detach() for x in (query, key, value)]
    torch.testing.assert_close(signed_root_attention(*flat), formula(*flat))
    turned = [x.detach().mT.contiguous().mT.requires_grad_() for x in (query, key, value)]
    assert_agree(signed_root_attention(*turned).mT, formula(*turned).mT, turned)


def test_only_the_inputs_are_kept_for_the_backward_pass() -> None:
    inputs = random_inputs(dtype=torch.float32)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (saved.append(x.data_ptr()), x)[1], lambda x: x
    ):
        signed_root_attention(*inputs)
    assert set(saved) <= {x.data_ptr() for x in inputs}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    inputs = [x.detach().to(dtype).requires_grad_() for x in random_inputs((2, 20, 30, 8, 4))]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got, expected = signed_root_attention(*inputs), formula(*exact)
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype
    most = float(expected.detach().abs().max())
    torch.testing.assert_close(got.double(), expected, atol=4 * eps * most, rtol=4 * eps)
    for a, b in zip(
        torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(expected.sum(), exact)
    ):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, atol=4 * eps * float(b.abs().max()), rtol=4 * eps)


def test_autocast_compile_and_promises() -> None:
    inputs = random_inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert signed_root_attention(*inputs).dtype == torch.bfloat16
    torch.library.opcheck(torch.ops.headwise.signed_root_attention.default, (*inputs, 1e-4))
    compiled = torch.compile(signed_root_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), signed_root_attention(*inputs))
    decomposed = plain_decompositions()[torch.ops.headwise.signed_root_attention.default]
    torch.testing.assert_close(decomposed(*inputs, 1e-4), signed_root_attention(*inputs))


def test_a_backward_pass_within_autocast_sums_as_one_outside() -> None:
    inputs = random_inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = signed_root_attention(*inputs).float().square().sum()
        within = torch.autograd.grad(out, inputs, retain_graph=True)
    outside = torch.autograd.grad(out, inputs)
    assert all(torch.equal(*pair) for pair in zip(within, outside, strict=True))


def test_mistakes_are_named() -> None:
    query, key, value = random_inputs()
    fewer = (query[..., :-1], key, value), (query, key[:, :-1], value), (query[:1], key, value)
    for wrong in (*fewer, (query[0, 0],) * 3):
        with pytest.raises(ValueError, match="do not fit"):
            signed_root_attention(*wrong)
    with pytest.raises(ValueError, match="positive"):
        signed_root_attention(query, key, value, eps=0.0)
    with pytest.raises(ValueError, match="one floating type"):
        signed_root_attention(query, key.float(), value)
