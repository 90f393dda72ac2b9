"""States of texts that are longer than what an encoder sees at once.

Shapes: B texts, N tokens, W windows of M tokens, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .encoder import TextEncoder
from .frozen import FrozenEncoder


def windowed_states(
    encoder: TextEncoder | FrozenEncoder, tokens: Tensor, mask: Tensor, window: int | None
) -> Tensor:
    """States (B, N, D) of tokens (B, N), encoded in windows of M tokens; None: all at once."""
    rows, length = tokens.shape
    if window is None or length <= window:
        return encoder(tokens, mask)
    room = -length % window
    tokens, mask = (F.pad(values, (0, room)) for values in (tokens, mask))
    parts, masks = tokens.reshape(-1, window), mask.reshape(-1, window)
    filled = masks.any(1).nonzero()[:, 0]  # windows of padding alone cost nothing
    encoded = encoder(parts[filled], masks[filled])
    states = encoded.new_zeros(len(parts), *encoded.shape[1:]).index_copy(0, filled, encoded)
    return states.reshape(rows, length + room, -1)[:, :length]
