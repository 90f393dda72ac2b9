"""Tensors of any layout in memory, and empty ones: values, and the strides that are promised."""

from importlib import import_module

import pytest
import torch

from headwise.kernels.dispatch import dispatch
from headwise.tests.kernels.choices import random_choices
from headwise.tests.kernels.layouts import check_layouts, permuted, strided
from headwise.tests.kernels.waiting import assert_never_waits

KERNELS = "headwise.kernels"


def arguments_of(name: str, batch: int) -> tuple[object, ...]:
    """Arguments of the operator for a batch, which may be empty."""
    torch.manual_seed(1)
    values, mask = torch.randn(batch, 6, 5), torch.rand(batch, 6) < 0.7
    offsets = torch.arange(batch + 1) * 3
    rows, sizes = torch.randn(3 * batch, 5), (torch.full((batch,), 4), torch.full((batch,), 5))
    query, key = torch.randn(batch, 4, 6, 8), torch.randn(batch, 4, 7, 8)
    where = dispatch(random_choices(3 * batch, 4, 2), 4)
    lam, weight = torch.tensor(0.3), torch.randn(5)
    return {
        "softmax_pool": (values, torch.randn(batch, 6, 5), mask, None, False),
        "softmax_pool per head": (values[..., :2], values, mask, None, True),
        "softmax_pool packed": (rows, None, None, offsets, False),
        "softmax_draw": (values, torch.tensor(3), mask, None),
        "softmax_draw packed": (rows, torch.tensor(3), None, offsets),
        "time_warp": (torch.randn(batch, 4, 5), *sizes),
        "median_filter": (torch.randn(batch, 4, 5), 3, sizes[1]),
        "gated_scores": (rows, torch.randn(6, 5), torch.randn(6), torch.randn(2, 3), lam.repeat(2)),
        "expert_gate": (rows, weight, torch.rand(3 * batch) < 0.7, 2, "softmax", True, 1.0),
        "expert_combine": (torch.randn(6 * batch, 5), torch.rand(3 * batch, 2), where.place),
        "differential_combine": (torch.randn(batch, 6, 5), lam, weight, 4, 1e-5, 0.5),
        "differential_combine without a norm": (torch.randn(batch, 6, 5), lam, None, 4, 1e-5, 0.5),
        "attend_with_lse": (query, key, key.flip(3), mask[:, None, :, None], None, 0.3),
        "attend_with_lse with a bias": (query, key, key, None, torch.randn(4, 6, 7), 0.3),
        "attention_moments": (
            *(query, key, None, query.logsumexp(3) + 4, torch.rand(batch, 7)),
            *(torch.full((batch,), 0.01), 0.3, False),
        ),
        "gelu_linear": (torch.randn(batch, 6, 5), torch.randn(3, 5), torch.randn(3)),
        "gelu_linear of rows": (rows, torch.randn(3, 5), None),
    }[name]


NAMES = (
    *("softmax_pool", "softmax_pool per head", "softmax_pool packed", "softmax_draw"),
    *("softmax_draw packed", "time_warp", "median_filter", "gated_scores", "expert_gate"),
    *("expert_combine", "differential_combine", "differential_combine without a norm"),
    *("attend_with_lse", "attend_with_lse with a bias", "attention_moments", "gelu_linear"),
    "gelu_linear of rows",
)
MODULES = {
    "softmax_draw": "softmax_pool",
    "time_warp": "time_warping",
    "median_filter": "time_warping",
    "attend_with_lse": "partial_softmax",
}


# Plain forms of a GPU, too, where no kernel takes the arguments: module, function.
PLAIN = {
    "softmax_pool": ("softmax_pool", "pool"),
    "softmax_pool per head": ("softmax_pool", "pool"),
    "gated_scores": ("gated_scores", "forward"),
    "expert_gate": ("expert_gate", "forward"),
    "expert_combine": ("expert_combine", "forward"),
    "differential_combine": ("differential_combine", "combine"),
    "attend_with_lse with a bias": ("partial_softmax", "attend"),
    "attention_moments": ("attention_moments", "moments"),
    "gelu_linear": ("gelu_linear", "forward"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [3, 0])
def test_tensors_may_lie_in_memory_in_any_way(name: str, batch: int) -> None:
    operator = name.partition(" ")[0]
    import_module(f"{KERNELS}.{MODULES.get(operator, operator)}")
    check_layouts(getattr(torch.ops.headwise, operator).default, arguments_of(name, batch))


@pytest.mark.parametrize("name", PLAIN)
def test_plain_forms_stay_on_a_device_and_never_wait_for_it(name: str) -> None:
    module, function = PLAIN[name]
    form = getattr(import_module(f"{KERNELS}.{module}.cpu"), function)
    assert_never_waits(form, *arguments_of(name, 3))


def test_layouts_hold_the_same_numbers() -> None:
    x = torch.randn(3, 4, 5)
    for layout in (permuted, strided):
        assert torch.equal(layout(x), x)
        assert not layout(x).is_contiguous()
    assert not permuted(x[0, 0]).is_contiguous()
