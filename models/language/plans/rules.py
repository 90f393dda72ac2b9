"""What one head of keys and values of a language model attends to, from positions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

MOST_TOKENS = 1 << 30  # of a sink, a window, a budget


@dataclass(frozen=True)
class Budget:
    """How many keys a chosen set holds: `keys`, of which the first `sink` and the last `recent`."""

    keys: int
    sink: int
    recent: int

    def __post_init__(self) -> None:
        if not (min(self.sink, self.recent) >= 0 and 1 <= self.keys <= MOST_TOKENS):
            raise ValueError(f"a budget needs whole numbers above zero, not {self}")
        if self.sink + self.recent > self.keys:
            raise ValueError(
                f"a budget of {self.keys} keys cannot hold {self.sink} first and {self.recent} last"
            )


@dataclass(frozen=True)
class Rule:
    """What one head of keys and values holds: the first `sink` tokens and a window of
    alpha + beta n tokens at a length of n; alpha infinite: all.
    """

    sink: int
    alpha: float
    beta: float

    @property
    def full(self) -> bool:
        return math.isinf(self.alpha)

    def window(self, length: int) -> int:
        """The window in tokens at a length: clip(round(alpha + beta n), 1, n), halves upwards."""
        if self.full:
            return length
        return min(max(math.floor(self.alpha + self.beta * length + 0.5), 1), length)

    def keeps(self, length: int) -> int:
        """How many tokens of a text of this length are held."""
        return min(length, self.sink + self.window(length))

    def allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Which keys queries may attend to: bool (..., Q, K).

        queries, keys: positions in the text, int64 (..., Q) and (..., K), counted from 0; a key
        below 0 is padding. A query at position p sees the window of a text of p + 1 tokens, so that
        a text read in one piece and token by token is the same.
        """
        queries, keys = queries[..., :, None], keys[..., None, :]
        past = (keys <= queries) & (keys >= 0)
        if self.full:
            return past
        lengths = queries + 1
        windows = (lengths.double() * self.beta + self.alpha + 0.5).floor().long()
        return past & ((keys < self.sink) | (keys >= lengths - windows.clamp(min=1)))


FULL = Rule(0, math.inf, 0.0)
