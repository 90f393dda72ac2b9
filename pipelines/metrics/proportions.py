"""Intervals of shares, such as of right answers."""

from __future__ import annotations

import math

Z = 1.959963984540054  # of a 95 % interval


def wilson(count: int, total: int, z: float = Z) -> tuple[float, float]:
    """Wilson's interval of a share, `count` of `total`; (nan, nan) of nothing.

    It holds for few items and for shares of 0 and 1, where others collapse (Wilson, JASA 1927).

    >>> [round(end, 3) for end in wilson(8, 8)]
    [0.676, 1.0]
    """
    if not total:
        return math.nan, math.nan
    share = count / total
    scale = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)
