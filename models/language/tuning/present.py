"""Which tokens of a batch are no padding, for layers that see hidden states only.

Shapes: B texts, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class PresentTokens:
    """Shared by the layers of a model; whoever calls the model says what is there."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    @contextmanager
    def told(self, mask: Tensor | None) -> Iterator[None]:
        """mask: bool (B, N), True = a token; None: all are, while the block lasts."""
        before, self._mask = self._mask, mask
        try:
            yield
        finally:
            self._mask = before

    def mask_of(self, x: Tensor) -> Tensor | None:
        """The mask of hidden states (B, N, ...); None where nothing is known of them."""
        mask = self._mask
        return mask if mask is not None and mask.shape == x.shape[:2] else None

    def __deepcopy__(self, memo: dict[int, object]) -> PresentTokens:
        # Layers of one model share it, also in a copy.
        return memo.setdefault(id(self), PresentTokens())  # type: ignore[return-value]
