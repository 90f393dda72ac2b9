"""Rows of segments that lie one behind another: which row belongs to which.

B segments, T rows.
"""

import torch
from torch import Tensor


def segment_of(offsets: Tensor, count: int) -> Tensor:
    """int64 (count,): the segment of each of `count` rows, given offsets (B + 1,) of all segments
    and their end.
    """
    return ended(offsets[1:], count)


def ended(ends: Tensor, count: int) -> Tensor:
    """int64 (count,): how many of the ends (B,), in any order, are at or before each of the places
    0 to count - 1.

    `torch.searchsorted(ends, torch.arange(count), right=True)` in T + B steps instead of T log B,
    and of operators that ONNX has."""
    at = ends.long().clamp(
        max=count
    )  # what ends behind the last place is counted at a place that is cut off
    return at.new_zeros(count + 1).index_add(0, at, torch.ones_like(at))[:count].cumsum(0)
