"""The PyTorch forms of attention on a device that is not the CPU, pretended: nothing is read back,
and no tensor is made on the CPU (that raises where the two meet).
"""

from collections.abc import Callable

import pytest
import torch

from headwise.kernels.attention_stats import cpu as stats
from headwise.kernels.gathered_heads import cpu as gathered
from headwise.kernels.neighbourhood import cpu as windows
from headwise.kernels.pair_attention import cpu as pairs
from headwise.kernels.signed_root_attention import cpu as signed_root
from headwise.kernels.tensor_attention import cpu as third_order
from headwise.tests.kernels.waiting import assert_never_waits

X, ROWS = torch.randn(2, 4, 6, 8), torch.randn(2, 6, 8)  # heads of tokens, tokens
LSE, GATE = torch.randn(2, 4, 6), torch.rand(2, 4, 6).relu()
MARKS, PAIRS = torch.rand(2, 6) < 0.7, torch.rand(2, 1, 6, 6) < 0.7
PARTNER, GRID = torch.tensor([1, 0]), (2, 3, 3, False)
LOGITS = torch.randn(2, 4, 6, 9)
THIRD = (X, X, X, X, X, MARKS, MARKS)
CALLS = {
    "stats": (stats.stats, X, X, X, PAIRS, None, None, 0.4, True, True, True, 3),
    "stats backward": (
        *(stats.stats_backward, X, LSE, LSE, LSE, None, X, X, X, PAIRS, None, None),
        *(LSE, 0.4, True),
    ),
    "gathered": (gathered.forward, X, X, X, GATE, PAIRS, True, 0.4),
    "gathered backward": (gathered.backward, X, X, X, X, GATE, PAIRS, X, LSE, True, 0.4),
    "pairs": (pairs.forward, X, X, X, PARTNER, 0.4),
    "pairs backward": (pairs.backward, X, X, X, X, PARTNER, X, LSE, 0.4),
    "third order": (third_order.forward, *THIRD, 0.4),
    "third order backward": (third_order.backward, X, *THIRD, X, LSE, 0.4),
    "windows": (windows.read, LOGITS, X, MARKS, *GRID),
    "windows backward": (windows.read_backward, X, LSE, LOGITS, X, MARKS, X, LSE, *GRID),
    "windows, products": (windows.products, X, X, *GRID),
    "windows, scattered": (windows.scattered, LOGITS, X, *GRID),
    "signed root": (signed_root.forward, ROWS, ROWS, ROWS, 1e-3),
    "signed root backward": (signed_root.backward, ROWS, ROWS, ROWS, ROWS, 1e-3),
}


@pytest.mark.parametrize("name", CALLS)
def test_plain_forms_stay_on_the_device(name: str) -> None:
    call, *arguments = CALLS[name]
    assert isinstance(call, Callable)
    assert_never_waits(call, *arguments)
