"""The list of operators, and what the Triton forms of some take."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch

from headwise.kernels import KERNELS, time_warping


def test_lists_load_without_torch_and_name_functions() -> None:
    code = (
        "import sys, headwise.kernels as k, headwise.models as m, headwise.models.attention as a;"
        "assert k.KERNELS and a.ATTENTION; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, kernel in KERNELS.items():
        assert callable(getattr(import_module(f"headwise.kernels.{kernel.module}"), name))


@pytest.mark.parametrize(
    "module", ["expert_combine", "expert_gate", "gated_scores", "label_attention", "softmax_pool"]
)
def test_triton_sums_in_float32_so_float64_takes_the_plain_form(module: str) -> None:
    fits = import_module(f"headwise.kernels.{module}").fits
    assert fits(torch.zeros(2, 3))
    assert not fits(torch.zeros(2, 3, dtype=torch.float64))


def test_triton_warps_matrices_of_float32_up_to_a_number_of_rows() -> None:
    cost = torch.zeros(1, time_warping.MOST_ROWS, 1)
    assert time_warping.warp_fits(cost)
    assert not time_warping.warp_fits(cost.double())
    assert not time_warping.warp_fits(torch.cat([cost, cost], 1))
