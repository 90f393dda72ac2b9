"""The neighbourhood operators against gathered neighbourhoods."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.forms import explain
from headwise.kernels.neighbourhood import cpu as neighbourhood_plain
from headwise.kernels.neighbourhood import (
    forms,
    neighbourhood_attention,
    neighbourhood_index,
    neighbourhood_scores,
    neighbourhood_sum,
)
from headwise.kernels.partial_softmax import merge_partials

CASES = [
    ((1, 1), 1, "mask"),
    ((1, 1), 5, "mask"),
    ((1, 9), 3, "mask"),
    ((5, 7), 3, "mask"),
    ((4, 3), 17, "mask"),
    ((6, 30), 5, "mask"),
    ((3, 3), 3, "clamp"),
    ((5, 7), 3, "clamp"),
    ((9, 50), 7, "clamp"),
    ((17, 18), 17, "clamp"),
]
every = pytest.mark.parametrize(("size", "window", "border"), CASES)


def members(size: tuple[int, int], window: int, border: str) -> tuple[Tensor, Tensor]:
    """The definition, by loops."""
    height, width = size
    index = torch.zeros(height * width, window * window, dtype=torch.int64)
    inside = torch.ones(height * width, window * window, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            top, left = y - window // 2, x - window // 2
            if border == "clamp":
                top, left = min(max(top, 0), height - window), min(max(left, 0), width - window)
            for o in range(window * window):
                row, column = top + o // window, left + o % window
                if 0 <= row < height and 0 <= column < width:
                    index[y * width + x, o] = row * width + column
                else:
                    inside[y * width + x, o] = False
    return index, inside


def gathered(logits: Tensor, value: Tensor, case, mask=None, extra=None) -> Tensor:
    """Attention with each neighbourhood written out."""
    index, inside = members(*case)
    allowed = inside.expand(logits.shape[0], 1, -1, -1)
    if mask is not None:
        allowed = allowed & mask[:, index][:, None]
    scores = logits.masked_fill(~allowed, -torch.inf)
    values = value[:, :, index]
    if extra is not None:
        scores = torch.cat([scores, extra[0]], -1)
        values = torch.cat([values, extra[1][:, :, None].expand(-1, -1, len(index), -1, -1)], 3)
    return (scores.softmax(-1).nan_to_num()[..., None] * values).sum(3)


@every
def test_the_members(size, window, border) -> None:
    index, inside = neighbourhood_index(size, window, border)
    expected = members(size, window, border)
    assert torch.equal(index, expected[0])
    assert torch.equal(inside, expected[1])


def part_of(logits: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to a part of the keys: its output and its log-sum-exp."""
    return logits.softmax(-1) @ value, logits.logsumexp(-1)


@every
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("more", [False, True])
def test_attention_equals_the_gathered_form(size, window, border, masked: bool, more: bool) -> None:
    torch.manual_seed(0)
    cells = size[0] * size[1]
    logits = torch.randn(2, 3, cells, window**2, dtype=torch.float64, requires_grad=True)
    value = torch.randn(2, 3, cells, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, cells) < 0.5 if masked else None
    if mask is not None:
        mask[0] = False
    extra = None
    if more:
        extra_logits = torch.randn(2, 3, cells, 5, dtype=torch.float64)
        extra_logits[0, ..., 1:] = -torch.inf
        extra = (
            extra_logits.requires_grad_(),
            torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True),
        )
    given = {"extra": part_of(*extra)} if extra else {}
    out = neighbourhood_attention(logits, value, size, window, border=border, mask=mask, **given)
    expected = gathered(logits, value, (size, window, border), mask, extra)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    inputs, grad = [logits, value, *(extra or ())], torch.randn_like(out)
    found = torch.autograd.grad(out, inputs, grad)
    assert all(g.isfinite().all() for g in found)
    plain = [g.nan_to_num() for g in torch.autograd.grad(expected, inputs, grad)]
    if not (masked and not more):  # the softmax of nothing has NaN gradients when written out
        torch.testing.assert_close(list(found), plain, rtol=1e-9, atol=1e-10)
    single = [t.detach().float() for t in inputs]
    given = {"extra": part_of(*single[2:])} if extra else {}
    out32 = neighbourhood_attention(
        single[0], single[1], size, window, border=border, mask=mask, **given
    )
    torch.testing.assert_close(out32.double(), expected.detach(), rtol=1e-5, atol=1e-5)


@every
def test_scores_and_sum_equal_the_gathered_form(size, window, border) -> None:
    torch.manual_seed(1)
    cells, (index, inside) = size[0] * size[1], members(size, window, border)
    query, key = (
        torch.randn(2, 2, cells, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    weights = torch.randn(2, 2, cells, window**2, dtype=torch.float64, requires_grad=True)
    scores = neighbourhood_scores(query, key, size, window, border=border)
    expected = (query[:, :, :, None] * key[:, :, index]).sum(-1) * inside
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-10)
    summed = neighbourhood_sum(weights, key, size, window, border=border)
    plain = ((weights * inside)[..., None] * key[:, :, index]).sum(3)
    torch.testing.assert_close(summed, plain, rtol=1e-10, atol=1e-10)
    for got, want, inputs in ((scores, expected, [query, key]), (summed, plain, [weights, key])):
        grad = torch.randn_like(got)
        torch.testing.assert_close(
            torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad)
        )


def test_gradients_operators_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    logits = torch.randn(1, 2, 12, 9, dtype=torch.float64, requires_grad=True)
    value = torch.randn(1, 2, 12, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b: neighbourhood_attention(a, b, (3, 4), 3), (logits, value)
    )
    for border in (False, True):
        torch.library.opcheck(
            torch.ops.headwise.neighbourhood_read, (logits, value, None, 3, 4, 3, border)
        )
        torch.library.opcheck(
            torch.ops.headwise.neighbourhood_sum, (logits, value, 3, 4, 3, border)
        )
        torch.library.opcheck(
            torch.ops.headwise.neighbourhood_scores, (value, value, 3, 4, 3, border)
        )
    whole = neighbourhood_attention(logits, value, (3, 4), 3)
    monkeypatch.setattr(neighbourhood_plain, "TILE", 3)
    torch.testing.assert_close(neighbourhood_attention(logits, value, (3, 4), 3), whole)


def test_bf16_sums_in_float32() -> None:
    torch.manual_seed(3)
    logits, value = torch.randn(1, 1, 64, 49), torch.randn(1, 1, 64, 8)
    half = neighbourhood_attention(logits.bfloat16(), value.bfloat16(), (8, 8), 7)
    assert half.dtype == torch.bfloat16
    exact = neighbourhood_attention(logits.bfloat16().float(), value.bfloat16().float(), (8, 8), 7)
    torch.testing.assert_close(half.float(), exact, rtol=8e-3, atol=8e-3)


def test_mistakes_and_forms() -> None:
    x = torch.zeros(1, 1, 12, 9)
    for call, said in (
        (lambda: neighbourhood_attention(x, x, (3, 5), 3), "does not hold 12 cells"),
        (lambda: neighbourhood_attention(x, x, (3, 4), 2), "must be odd"),
        (lambda: neighbourhood_attention(x, x, (3, 4), 5), "needs 25 logits"),
        (lambda: neighbourhood_attention(x, x, (3, 4), 3, border="wrap"), "'mask' or 'clamp'"),  # type: ignore[arg-type]
        (
            lambda: neighbourhood_attention(x, x, (3, 4), 3, mask=torch.ones(1, 12)),
            "mask must be bool",
        ),
        (lambda: neighbourhood_attention(x, x, (3, 4), 3, extra=(x, x)), "must be .out, lse."),
        (lambda: neighbourhood_scores(x, x, (3, 4), 5, border="clamp"), "cannot be shifted"),
        (lambda: neighbourhood_sum(x, x[:, :, :3], (3, 4), 3), "needs two"),
        (lambda: merge_partials([]), "at least one part"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    assert "not Triton kernel" in explain("neighbourhood_attention", forms(x))
