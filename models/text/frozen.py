"""An encoder that no training changes, which keeps the states of texts that it has seen.

Shapes: B texts, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .encoder import TextEncoder

MOST_BYTES = 2 << 30  # of states in memory; texts beyond it are encoded again each time


class FrozenEncoder(nn.Module):
    """A pretrained encoder whose weights get no gradients.

    The states of a text are kept by its tokens, in full precision: what comes out does not depend
    on whether they were. Only on the CPU, where encoding is what costs.

    encoder: in evaluation mode from here on; most_bytes: of the states that are kept.
    """

    def __init__(self, encoder: TextEncoder, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self.encoder, self.most_bytes = encoder, most_bytes
        self.width, self.positions = encoder.width, encoder.positions
        encoder.tune("none")
        self._states: dict[bytes, Tensor] = {}
        self._bytes = 0

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids (B, N), mask bool (B, N), True = a token -> (B, N, D)."""
        if torch.compiler.is_compiling() or ids.device.type != "cpu":
            return self.encoder(ids, mask)
        keys = [row[present].numpy().tobytes() for row, present in zip(ids, mask, strict=True)]
        fresh = [row for row, key in enumerate(keys) if key not in self._states]
        encoded: dict[int, Tensor] = {}
        if fresh:
            longest = int(mask[fresh].sum(1).max())
            with torch.no_grad():
                states = self.encoder(*self._packed(ids[fresh], mask[fresh], longest))
            for row, values in zip(fresh, states, strict=True):
                encoded[row] = values[: int(mask[row].sum())]
        result = torch.zeros(*ids.shape, self.width)
        for row, key in enumerate(keys):
            values = encoded[row] if row in encoded else self._states[key]
            result[row, mask[row]] = values
            self._keep(key, values)
        return result

    @staticmethod
    def _packed(ids: Tensor, mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Tokens without the padding that no text of these needs."""
        order = torch.argsort(mask.int(), dim=1, descending=True, stable=True)[:, :longest]
        return ids.gather(1, order), mask.gather(1, order)

    def _keep(self, key: bytes, values: Tensor) -> None:
        size = values.numel() * values.element_size()
        if key not in self._states and self._bytes + size <= self.most_bytes:
            self._states[key] = values.clone()
            self._bytes += size
