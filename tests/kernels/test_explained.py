"""Operators say which form computes an input, and why the others do not."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from headwise.kernels import (
    attention_maps,
    attention_moments,
    attention_stats,
    differential_combine,
    expert_combine,
    expert_gate,
    forms,
    gated_scores,
    gathered_heads,
    gelu_linear,
    label_attention,
    neighbourhood,
    pair_attention,
    partial_softmax,
    ragged_attention,
    ragged_decode,
    signed_root_attention,
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
    (neighbourhood.forms, (1, 2, 9, 4), 2),
    (attention_maps.forms, (2, 3, 5, 4), 3),
    (attention_stats.forms, (2, 3, 5, 4), 2),
    (gathered_heads.forms, (2, 3, 5, 4), 1),
    (pair_attention.forms, (2, 3, 5, 4), 2),
    (ragged_attention.forms, (2, 5, 3, 4), 2),
    (ragged_decode.forms, (2, 6, 3, 4), 2),
    (signed_root_attention.forms, (2, 5, 4), 1),
    (label_attention.forms, (2, 5, 4), 1),
)


def refused_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operator takes the tensors for tensors of a GPU."""
    for forms_of, _, _ in WITH_TRITON:
        monkeypatch.setitem(forms_of.__globals__, "triton_refused", lambda *_: "")


@pytest.mark.parametrize(("forms_of", "shape", "count"), WITH_TRITON)
def test_on_a_cpu_the_triton_form_is_refused_and_another_runs(
    forms_of: Callable[..., list[Form]], shape: tuple[int, ...], count: int
) -> None:
    text = forms.explain("operator", forms_of(*[torch.zeros(shape)] * count))
    assert "the kernel is for CUDA" in text
    assert "no form can run" not in text


@pytest.mark.parametrize(("forms_of", "shape", "count"), WITH_TRITON)
def test_on_a_gpu_the_triton_form_runs_unless_numbers_are_of_64_bits(
    forms_of: Callable[..., list[Form]], shape: tuple[int, ...], count: int, monkeypatch
) -> None:
    refused_nowhere(monkeypatch)

    def taken(dtype: torch.dtype) -> str:
        some_forms = forms_of(*[torch.zeros(shape, dtype=dtype)] * count)
        return next(form.name for form in some_forms if not form.refused)

    assert "Triton" in taken(torch.float32)
    assert "Triton" not in taken(torch.float64)


def test_every_operator_with_a_triton_form_says_which_form_runs() -> None:
    folder = Path(forms.__file__).parent
    names = {file.parent.name for file in folder.glob("*/triton.py")}
    assert len(names) > 12
    for name in names:
        assert callable(getattr(import_module(f"headwise.kernels.{name}"), "forms", None)), name


def heads(width: int, dtype: torch.dtype = torch.float32, queries: int = 4) -> Tensor:
    return torch.empty(1, 1, queries, width, dtype=dtype)


HALF = torch.bfloat16
REFUSED = (
    (attention_stats, (heads(128), heads(128), 16), ""),
    (attention_stats, (heads(8), None, 17), "more than the 16 largest weights"),
    (attention_stats, (heads(8), heads(129), 0), "heads wider than 128 in float32"),
    (pair_attention, (heads(128), heads(8)), ""),
    (pair_attention, (heads(8, HALF), heads(257, HALF)), "heads wider than 256 in bfloat16"),
    (ragged_attention, (heads(64), heads(64)), ""),
    (ragged_attention, (heads(65), heads(8)), "heads wider than 64 in float32"),
    (ragged_decode, (heads(128), heads(128)), ""),
    (ragged_decode, (heads(8), heads(129)), "heads wider than 128 in float32"),
    (signed_root_attention, [heads(4)[0]] * 3, ""),
    (signed_root_attention, [heads(9)[0]] * 3, "4 queries, fewer than their width of 9"),
    (neighbourhood, (heads(128, HALF),), ""),
    (neighbourhood, (heads(129, HALF),), "heads wider than 128 in bfloat16"),
)


@pytest.mark.parametrize(("module", "arguments", "expected"), REFUSED)
def test_what_does_not_fit_is_refused_in_words_on_a_gpu(
    module, arguments: tuple, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_nowhere(monkeypatch)
    refused = next(
        form.refused for form in module.forms(*arguments) if form.name.startswith("Triton")
    )
    assert refused.startswith(expected)
    assert module.fits(*arguments) == (refused == "") == (expected == "")


def test_maps_have_the_limits_of_read_outs_and_name_the_output_of_a_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused_nowhere(monkeypatch)
    narrow, wide = heads(128), heads(129)
    assert attention_maps.forms(narrow, narrow, narrow)[0].refused == ""
    assert "wider than 128" in attention_maps.forms(narrow, narrow, wide)[0].refused
    assert "the output, Triton" not in attention_maps.forms(narrow, narrow, narrow)[0].name
    narrow.requires_grad_()
    assert "the output, Triton" in attention_maps.forms(narrow, narrow, narrow)[0].name
    with torch.no_grad():
        assert "the output, Triton" not in attention_maps.forms(narrow, narrow, narrow)[0].name


@pytest.mark.parametrize(
    ("tokens", "width", "dtype", "taken"),
    [
        (1024, 512, HALF, "PyTorch's products"),
        (16, 512, HALF, "PyTorch's products"),
        (4096, 64, torch.float32, "PyTorch's products"),
        (4097, 64, torch.float32, "Triton kernel"),
        (1024, 63, HALF, "Triton kernel"),
        (1024, 512, torch.float16, "Triton kernel"),
        (16, 512, torch.float16, "PyTorch calls"),
        (16, 512, torch.float64, "PyTorch calls"),
    ],
)
def test_maps_of_signed_roots_are_formed_in_memory_while_they_fit_the_cache(
    tokens: int, width: int, dtype: torch.dtype, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_nowhere(monkeypatch)
    some = torch.empty(1, tokens, width, dtype=dtype, device="meta")
    names = [form.name for form in signed_root_attention.forms(some) if not form.refused]
    assert names[0].startswith(taken)
    assert signed_root_attention.fits(some, some, some) == (taken != "PyTorch calls")


def test_two_fused_calls_need_a_cpu_and_values_as_wide_as_queries() -> None:
    narrow, wide = heads(4), heads(5)
    assert pair_attention.forms(narrow, narrow)[1].refused == ""
    assert "as wide as" in pair_attention.forms(narrow, wide)[1].refused
    assert "on meta" in pair_attention.forms(narrow.to("meta"), narrow.to("meta"))[1].refused
    assert "on meta" in gathered_heads.forms(narrow.to("meta"))[1].refused


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
