"""Two fused calls of a GPU, without one: what they are called with, and when they are chosen."""

import pytest
import torch
from torch import Tensor

from headwise.kernels import fused_attention, pair_attention
from headwise.kernels.pair_attention import cpu


def heads(
    tokens: int, width: int = 64, dtype: torch.dtype = torch.bfloat16, device: str = "meta"
) -> Tensor:
    return torch.empty(3, 2, tokens, width, dtype=dtype, device=device)


def test_shapes_and_types_of_both_passes_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention, "device_refused", lambda _: "")
    query, key, value = heads(5, 12), heads(7, 12), heads(7, 12)
    partner = torch.empty(3, dtype=torch.int64, device="meta")
    out, lse = cpu.forward(query, key, value, partner, 0.3)
    assert (out.shape, out.dtype) == (query.shape, torch.bfloat16)
    assert (lse.shape, lse.dtype) == (query.shape[:3], torch.float32)
    slopes = cpu.backward(out, query, key, value, partner, out, lse, 0.3)
    assert [(x.shape, x.dtype) for x in slopes] == [(x.shape, x.dtype) for x in (query, key, value)]


@pytest.mark.parametrize(
    ("query", "value", "forward", "backward"),
    [
        (heads(512), heads(512), True, True),
        (heads(197), heads(197), False, True),
        (heads(100), heads(900), False, False),
        (heads(900), heads(900, 32), False, False),
        (heads(900, 200), heads(900, 200), True, False),
        (heads(900, 264), heads(900, 264), False, False),
        (heads(900, dtype=torch.float32), heads(900, dtype=torch.float32), False, False),
    ],
)
def test_on_a_gpu_many_tokens_in_half_precision_take_two_fused_calls(
    monkeypatch: pytest.MonkeyPatch, query: Tensor, value: Tensor, forward: bool, backward: bool
) -> None:
    monkeypatch.setattr(fused_attention, "device_refused", lambda _: "")
    monkeypatch.setattr(pair_attention, "triton_refused", lambda *_: "")
    for back, taken in ((False, forward), (True, backward)):
        name = next(x.name for x in pair_attention.forms(query, value, back) if not x.refused)
        assert ("fused" in name) == taken
        limits = pair_attention.backward_fits if back else pair_attention.fits
        assert limits(query, value) == ("Triton" in name)


def test_all_samples_go_into_one_call_of_a_gpu() -> None:
    partner = torch.empty(3, dtype=torch.int64, device="meta")
    some = torch.empty(3, 16, 4096, 64, device="meta")
    assert len(list(cpu.partners(partner, some, some))) == 1
