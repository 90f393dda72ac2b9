"""Positions of tokens: rotary, which turn queries and keys by their place in the sequence, and
sinusoids, which are added.

Shapes: B batch, N tokens, M tokens of the context, H heads, K heads of keys, d width of a head.
"""

import torch
from torch import Tensor

from .cache import Cache


def rotary(x: Tensor, *, base: float = 10_000.0, start: int = 0) -> Tensor:
    """Rotary positions (Su et al., arXiv 2104.09864) of (B, H, N, d): each pair (i, i + d/2)
    is turned.

    base: of the wavelengths; start: position of the first token. Raises ValueError for an odd d.
    """
    tokens, size = x.shape[-2:]
    if size % 2:
        raise ValueError(f"rotary: the width of a head must be even, got {size}")
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    turn = base ** (-torch.arange(0, size, 2, device=x.device, dtype=kind) / size)
    angle = torch.arange(start, start + tokens, device=x.device, dtype=kind)[:, None] * turn
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def rotary_pair(query: Tensor, key: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
    """Rotary positions of queries (B, H, N, d) and keys (B, K, M, d) of which the last token is at
    the last key, as in a causal mask; with a cache both are of the new tokens.
    """
    first = 0 if cache is None else cache.tokens
    start = first + key.shape[2] - query.shape[2]
    return rotary(query, start=start), rotary(key, start=first)


def sinusoids(length: int, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines, then cosines, of places, (length, width), as in Whisper; width even."""
    half = width // 2
    rates = longest ** (-torch.arange(half) / max(1, half - 1))
    angle = torch.arange(length)[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], 1)
