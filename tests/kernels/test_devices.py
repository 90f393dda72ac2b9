"""The PyTorch forms of operators on a device that is not the CPU, pretended: nothing is read back,
and no tensor is made on the CPU (that raises where the two meet).
"""

from collections.abc import Callable

import pytest
import torch

from headwise.kernels.attention_moments import cpu as moments
from headwise.kernels.attention_stats import cpu as stats
from headwise.kernels.differential_combine import cpu as differential
from headwise.kernels.expert_combine import cpu as sums
from headwise.kernels.expert_gate import cpu as choice
from headwise.kernels.gated_scores import cpu as gates
from headwise.kernels.gathered_heads import cpu as gathered
from headwise.kernels.gelu_linear import cpu as gelu
from headwise.kernels.label_attention import cpu as labels
from headwise.kernels.neighbourhood import cpu as windows
from headwise.kernels.pair_attention import cpu as pairs
from headwise.kernels.partial_softmax import cpu as partial
from headwise.kernels.signed_root_attention import cpu as signed_root
from headwise.kernels.softmax_pool import cpu as pooling
from headwise.kernels.tensor_attention import cpu as third_order
from headwise.tests.kernels.waiting import assert_never_waits

X, ROWS = torch.randn(2, 4, 6, 8), torch.randn(2, 6, 8)  # heads of tokens, tokens
LSE, GATE = torch.randn(2, 4, 6), torch.rand(2, 4, 6).relu()
MARKS, PAIRS = torch.rand(2, 6) < 0.7, torch.rand(2, 1, 6, 6) < 0.7
PARTNER, GRID = torch.tensor([1, 0]), (2, 3, 3, False)
LOGITS = torch.randn(2, 4, 6, 9)
THIRD = (X, X, X, X, X, MARKS, MARKS)
TOKENS, FLAT, PLACES = torch.randn(2, 6, 8), torch.randn(6, 8), torch.arange(6).view(3, 2)
WIDE, NARROW, SCALAR = torch.randn(8, 8), torch.randn(2, 4), torch.tensor(0.5)
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
    "pool": (pooling.pool, TOKENS, TOKENS, MARKS, None, False),
    "pool per head": (pooling.pool, TOKENS[..., :2], TOKENS, MARKS, None, True),
    "pool backward": (
        *(pooling.pool_backward, TOKENS[:, 0], TOKENS, TOKENS, MARKS, None),
        *(TOKENS[:, 0], TOKENS[:, 0], False),
    ),
    "gates": (gates.forward, FLAT, WIDE, WIDE[:, 0], NARROW, NARROW[:, 0]),
    "gates backward": (gates.backward, FLAT[:, :2], FLAT, WIDE, WIDE[:, 0], NARROW, NARROW[:, 0]),
    "choice of experts": (choice.forward, FLAT, FLAT[0], MARKS[0], 2, "softmax", True, 1.0),
    "sum over experts": (sums.forward, FLAT, FLAT[:3, :2], PLACES),
    "sum over experts backward": (sums.backward, FLAT[:3], FLAT, FLAT[:3, :2], PLACES),
    "differential": (differential.combine, TOKENS, SCALAR, FLAT[0], 4, 1e-3, 0.5),
    "part of the keys": (partial.attend, X, X, X, None, LSE[..., None], 0.4),
    "part of the keys backward": (
        *(partial.attend_backward, X, LSE, X, X, X, None, LSE[..., None], X, LSE, 0.4),
    ),
    "moments": (moments.moments, X, X, None, LSE, LSE[:, 0], SCALAR.repeat(2), 0.4, False),
    "labels": (labels.forward, TOKENS, WIDE, WIDE, MARKS, 0.4),
    "labels backward": (
        *(labels.backward, TOKENS[:, 0], TOKENS, WIDE, WIDE, MARKS),
        *(TOKENS[:, 0], TOKENS[:, 0], 0.4),
    ),
    "gelu": (gelu.forward, TOKENS, NARROW.repeat(1, 2)[:, :8], NARROW[:, 0]),
}


@pytest.mark.parametrize("name", CALLS)
def test_plain_forms_stay_on_the_device(name: str) -> None:
    call, *arguments = CALLS[name]
    assert isinstance(call, Callable)
    assert_never_waits(call, *arguments)
