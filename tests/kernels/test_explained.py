"""Operators say which form computes an input, and why the others do not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from headwise.kernels import (
    attention_moments,
    differential_combine,
    expert_combine,
    expert_gate,
    forms,
    gated_scores,
    gelu_linear,
    partial_softmax,
    softmax_pool,
    time_warping,
)
from headwise.kernels.forms import Form

WITH_TRITON: tuple[tuple[Callable[..., list[Form]], tuple[int, ...], int], ...] = (
    (softmax_pool.forms, (2, 3, 4), 1),
    (gated_scores.forms, (3, 4), 2),
    (expert_gate.forms, (3, 4), 1),
    (expert_combine.forms, (3, 4), 1),
    (differential_combine.forms, (2, 3, 4, 5), 1),
    (time_warping.forms, (2, 3, 4), 1),
)


@pytest.mark.parametrize(("forms_of", "shape", "count"), WITH_TRITON)
def test_on_a_cpu_the_triton_form_is_refused_and_another_runs(
    forms_of: Callable[..., list[Form]], shape: tuple[int, ...], count: int
) -> None:
    said = forms.explain("operator", forms_of(*[torch.zeros(shape)] * count))
    assert "the kernel is for CUDA" in said
    assert "no form can run" not in said


@pytest.mark.parametrize(("forms_of", "shape", "count"), WITH_TRITON)
def test_on_a_gpu_the_triton_form_runs_unless_numbers_are_of_64_bits(
    forms_of: Callable[..., list[Form]], shape: tuple[int, ...], count: int, monkeypatch
) -> None:
    for module in (softmax_pool, gated_scores, expert_gate, expert_combine):
        monkeypatch.setattr(module, "triton_refused", lambda *_: "")
    for module in (differential_combine, time_warping):
        monkeypatch.setattr(module, "triton_refused", lambda *_: "")

    def taken(dtype: torch.dtype) -> str:
        some_forms = forms_of(*[torch.zeros(shape, dtype=dtype)] * count)
        return next(form.name for form in some_forms if not form.refused)

    assert "Triton" in taken(torch.float32)
    assert "Triton" not in taken(torch.float64)


def test_small_scores_without_a_gradient_take_the_formula() -> None:
    def first(scores: Tensor) -> Form:
        return softmax_pool.forms(scores)[0]

    assert "gradient" in first(torch.zeros(2, 3, 4)).refused
    with torch.no_grad():
        assert first(torch.zeros(2, 3, 4)).refused == ""
        assert "cache" in first(torch.zeros(1).expand(2, 1024, 1024)).refused
        assert "float64" in first(torch.zeros(2, 3, 4).double()).refused


def test_gelu_linear_keeps_its_input_alone_where_that_is_large() -> None:
    large = torch.zeros(1).expand(1024, 1024)
    assert gelu_linear.forms(torch.zeros(2, 3))[0].refused == ""
    assert "keep" in gelu_linear.forms(large)[0].refused
    assert "2048 rows" in gelu_linear.forms(large)[1].name
    with torch.no_grad():
        assert "cache" in gelu_linear.forms(large)[0].refused
        assert gelu_linear.forms(large.to("meta"))[0].refused == ""


def test_blocks_are_those_of_a_cpu_or_of_a_device() -> None:
    query = torch.empty(8, 8, 1024, 64, device="meta")
    assert "1 blocks" in partial_softmax.forms(query, query)[0].name
    assert "128 blocks" in partial_softmax.forms(*[torch.zeros(1).expand(query.shape)] * 2)[0].name
    assert "blocks" in attention_moments.forms(query, query)[0].name
