"""The neighbourhood operators against their formulas, which gather each neighbourhood."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.forms import explain
from headwise.kernels.neighbourhood import (
    cpu,
    forms,
    naive,
    neighbourhood_attention,
    neighbourhood_index,
    neighbourhood_scores,
    neighbourhood_sum,
)
from headwise.kernels.partial_softmax import merge_partials
from headwise.tests.kernels.agreement import assert_agree

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
at_all_sizes = pytest.mark.parametrize(("size", "window", "border"), CASES)


def members(size: tuple[int, int], window: int, border: str) -> tuple[Tensor, Tensor]:
    """The definition, by loops."""
    height, width = size
    index = torch.zeros(height * width, window * window, dtype=torch.int64)
    inside = torch.ones(height * width, window * window, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            top, first_column = y - window // 2, x - window // 2
            if border == "clamp":
                top, first_column = (
                    min(max(top, 0), height - window),
                    min(max(first_column, 0), width - window),
                )
            for o in range(window * window):
                row, column = top + o // window, first_column + o % window
                if 0 <= row < height and 0 <= column < width:
                    index[y * width + x, o] = row * width + column
                else:
                    inside[y * width + x, o] = False
    return index, inside


@at_all_sizes
def test_the_members(size, window, border) -> None:
    index, inside = neighbourhood_index(size, window, border)
    expected = members(size, window, border)
    assert torch.equal(index, expected[0])
    assert torch.equal(inside, expected[1])


def part_of(logits: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to a part of the keys: its output and its log-sum-exp."""
    return logits.softmax(-1) @ value, logits.logsumexp(-1)


def random_windows(size: tuple[int, int], window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, values and a mask that hides all cells of the first sample."""
    torch.manual_seed(0)
    cells = size[0] * size[1]
    logits = torch.randn(2, 3, cells, window**2, dtype=torch.float64, requires_grad=True)
    value = torch.randn(2, 3, cells, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, cells) < 0.5
    mask[0] = False
    return logits, value, mask


@at_all_sizes
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_the_formula(size, window, border, masked: bool) -> None:
    logits, value, mask = random_windows(size, window)
    mask = mask if masked else None
    out = neighbourhood_attention(logits, value, size, window, border=border, mask=mask)
    expected, _ = naive.neighbourhood_read(logits, value, mask, *size, window, border == "clamp")
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    inputs, grad = [logits, value], torch.randn_like(out)
    slopes = torch.autograd.grad(out, inputs, grad)
    assert all(slope.isfinite().all() for slope in slopes)
    if not masked:  # the softmax of nothing has NaN gradients when written out
        reference = torch.autograd.grad(expected, inputs, grad)
        torch.testing.assert_close(slopes, reference, rtol=1e-9, atol=1e-10)
    single = neighbourhood_attention(
        logits.float(), value.float(), size, window, border=border, mask=mask
    )
    torch.testing.assert_close(single.double(), expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("size", "window", "border"), [((5, 7), 3, "mask"), ((4, 3), 17, "mask"), ((9, 50), 7, "clamp")]
)
def test_further_keys_share_the_softmax(size, window, border, masked: bool) -> None:
    logits, value, mask = random_windows(size, window)
    mask, cells = mask if masked else None, logits.shape[2]
    more_logits = torch.randn(2, 3, cells, 5, dtype=torch.float64)
    more_logits[0, ..., 1:] = -torch.inf
    more_value = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    inputs = [logits, value, more_logits.requires_grad_(), more_value]
    extra = more_logits.softmax(-1) @ more_value, more_logits.logsumexp(-1)
    out = neighbourhood_attention(
        logits, value, size, window, border=border, mask=mask, extra=extra
    )

    index, inside = members(size, window, border)
    allowed = inside if mask is None else inside & mask[:, None, index]
    scores = torch.cat([logits.masked_fill(~allowed, -torch.inf), more_logits], -1)
    further = more_value[:, :, None].expand(-1, -1, cells, -1, -1)
    values = torch.cat([value[:, :, index], further], 3)
    expected = (scores.softmax(-1)[..., None] * values).sum(3)
    assert_agree(out, expected, inputs, rtol=1e-9, atol=1e-10)


@at_all_sizes
def test_scores_and_sum_equal_the_formula(size, window, border) -> None:
    torch.manual_seed(1)
    cells, layout = size[0] * size[1], (*size, window, border == "clamp")
    query, key = (
        torch.randn(2, 2, cells, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    weights = torch.randn(2, 2, cells, window**2, dtype=torch.float64, requires_grad=True)
    scores = neighbourhood_scores(query, key, size, window, border=border)
    expected = naive.neighbourhood_scores(query, key, *layout)
    assert_agree(scores, expected, [query, key])
    summed = neighbourhood_sum(weights, key, size, window, border=border)
    assert_agree(summed, naive.neighbourhood_sum(weights, key, *layout), [weights, key])


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
    untiled = neighbourhood_attention(logits, value, (3, 4), 3)
    monkeypatch.setattr(cpu, "TILE", 3)
    torch.testing.assert_close(neighbourhood_attention(logits, value, (3, 4), 3), untiled)


def test_bf16_sums_in_float32() -> None:
    torch.manual_seed(3)
    logits, value = torch.randn(1, 1, 64, 49), torch.randn(1, 1, 64, 8)
    half = neighbourhood_attention(logits.bfloat16(), value.bfloat16(), (8, 8), 7)
    assert half.dtype == torch.bfloat16
    exact = neighbourhood_attention(logits.bfloat16().float(), value.bfloat16().float(), (8, 8), 7)
    torch.testing.assert_close(half.float(), exact, rtol=8e-3, atol=8e-3)


def test_mistakes_are_named_and_forms_agree() -> None:
    x = torch.zeros(1, 1, 12, 9)
    for call, message in (
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
        with pytest.raises(ValueError, match=message):
            call()
    assert "not Triton kernel" in explain("neighbourhood_attention", forms(x))
