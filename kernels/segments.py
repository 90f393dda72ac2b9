"""Rows of segments that lie one after the other: which row belongs to which segment.

B segments, T rows.
"""

import torch
from torch import Tensor


def segment_of(offsets: Tensor, count: int) -> Tensor:
    """int64 (count,): the segment of each of `count` rows. offsets: (B + 1,), where each segment
    begins and where the last one ends.
    """
    return ended(offsets[1:], count)


def places(offsets: Tensor, segment: Tensor) -> Tensor:
    """Place of each row within its segment: int64 (T,). segment: that of each row (T,)."""
    return torch.arange(segment.shape[0], device=segment.device) - offsets[segment]


def padded(x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (T, D) as (B, N, D), each segment from place 0 on and 0 behind it, and which places hold
    a row, bool (B, N). N is the length of the longest segment, at least 1; in an exported program,
    whose sizes cannot depend on values, it is T.
    """
    count, lengths = x.shape[0], offsets.diff()
    segment = segment_of(offsets, count)
    place = places(offsets, segment)
    if torch.compiler.is_exporting():
        longest = count
    else:
        longest = max(1, int(lengths.max())) if count else 1
    out = x.new_zeros((lengths.shape[0], longest, x.shape[1])).index_put((segment, place), x)
    return out, torch.arange(longest, device=x.device) < lengths[:, None]


def ended(ends: Tensor, count: int) -> Tensor:
    """int64 (count,): how many of the ends (B,), in any order, are at or before each of the places
    0 to count - 1.

    `torch.searchsorted(ends, torch.arange(count), right=True)` in T + B steps instead of T log B,
    and with operators that ONNX has."""
    # Ends after the last place are counted at an extra place, which is cut off.
    at = ends.long().clamp(max=count)
    return at.new_zeros(count + 1).index_add(0, at, torch.ones_like(at))[:count].cumsum(0)
