"""Attention over parts of the keys: the parts exchanged by log-sum-exp are the whole."""

import math

import pytest
import torch
from torch import Tensor

from headwise.kernels.partial_softmax import attend_with_lse, cpu, merge_partials, naive


def formula(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    return naive.attend_with_lse(q, k, v, mask, bias, q.shape[-1] ** -0.5)


def inputs(keys: int = 9, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 3, 5, 4), (2, 3, keys, 4), (2, 3, keys, 6)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("splits", [[9], [4, 5], [0, 1, 8], [3, 3, 2, 1, 0]])
@pytest.mark.parametrize("with_bias", [False, True])
def test_any_split_of_the_keys_is_the_whole(
    splits: list[int], with_bias: bool, monkeypatch
) -> None:
    monkeypatch.setattr(cpu, "SLICE_NUMBERS", 100)  # several blocks of queries
    q, k, v = inputs()
    mask = torch.rand(2, 1, 5, 9) < 0.5
    mask[0, 0, 2] = False
    mask[1, 0, :, :4] = False
    bias = torch.randn(3, 5, 9, dtype=torch.float64) if with_bias else None
    parts, start = [], 0
    for count in splits:
        at = slice(start, start + count)
        part_bias = None if bias is None else bias[..., at]
        parts.append(
            attend_with_lse(q, k[:, :, at], v[:, :, at], mask=mask[..., at], bias=part_bias)
        )
        start += count
    out, lse = merge_partials(parts)
    expected, expected_lse = formula(q, k, v, mask, bias)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-12, atol=1e-12)
    assert (out[0, :, 2] == 0).all()
    assert (lse[0, :, 2] == -math.inf).all()


def test_large_scores_do_not_overflow() -> None:
    q, k, v = inputs(dtype=torch.float32)
    q = 1e4 * q
    parts = [attend_with_lse(q, k[:, :, at], v[:, :, at]) for at in (slice(0, 2), slice(2, 9))]
    out, lse = merge_partials(parts)
    expected, expected_lse = formula(q.double(), k.double(), v.double(), None, None)
    torch.testing.assert_close(out, expected.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lse, expected_lse.float(), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("shape", [None, (1,), (5, 9), (3, 1, 9), (2, 1, 5, 1), (2, 3, 5, 9)])
def test_gradients_through_out_and_lse(shape: tuple | None, monkeypatch) -> None:
    monkeypatch.setattr(cpu, "SLICE_NUMBERS", 100)
    tensors = [x.requires_grad_() for x in inputs()]
    mask = torch.rand(2, 1, 1, 9) < 0.6
    bias = None if shape is None else torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def merged(q: Tensor, k: Tensor, v: Tensor, b: Tensor | None) -> tuple[Tensor, ...]:
        parts = []
        for at in (slice(0, 4), slice(4, 9)):
            part = b[..., at] if b is not None and b.shape[-1] == 9 else b
            parts.append(
                attend_with_lse(
                    q, k[:, :, at], v[:, :, at], mask=mask[..., at], bias=part, scale=0.7
                )
            )
        return *merge_partials(parts), *parts[1]

    assert torch.autograd.gradcheck(merged, (*tensors, bias), fast_mode=True)  # type: ignore[arg-type]


def test_empty_everywhere_is_zero_with_zero_gradients() -> None:
    tensors = [x.requires_grad_() for x in inputs()]
    q, k, v = tensors
    mask = torch.zeros(1, 9, dtype=torch.bool)
    parts = [
        attend_with_lse(q, k[:, :, at], v[:, :, at], mask=mask[:, at])
        for at in (slice(0, 0), slice(0, 9))
    ]
    out, lse = merge_partials(parts)
    assert (out == 0).all()
    assert (lse == -math.inf).all()
    (out.sum() + lse.masked_fill(lse == -math.inf, 0.0).sum()).backward()
    for tensor in tensors:
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


def test_the_operators_are_whole() -> None:
    q, k, v = (x.requires_grad_() for x in inputs())
    bias = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.headwise.attend_with_lse.default, (q, k, v, None, bias, 0.5))
    half = attend_with_lse(*(x.detach().bfloat16() for x in (q, k, v)))
    assert half[0].dtype == torch.bfloat16
    assert half[1].dtype == torch.float32


def test_mistakes_are_named() -> None:
    q, k, v = inputs()
    with pytest.raises(ValueError, match="do not fit queries"):
        attend_with_lse(q, k[:, :2], v[:, :2])
    with pytest.raises(ValueError, match="mask must be bool"):
        attend_with_lse(q, k, v, mask=torch.ones(5, 9))
    with pytest.raises(ValueError, match=r"bias .* does not broadcast"):
        attend_with_lse(q, k, v, bias=torch.ones(5, 8))
    with pytest.raises(ValueError, match="one floating type"):
        attend_with_lse(q, k.float(), v)
    with pytest.raises(ValueError, match="batch, heads, tokens, width"):
        attend_with_lse(q[0], k, v)
    with pytest.raises(ValueError, match="at least one part"):
        merge_partials([])
