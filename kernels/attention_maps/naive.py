"""The formula of attention with its maps, with the weights of all heads."""

from collections.abc import Sequence

from torch import Tensor

from ..attention_stats.naive import attention_weights


def attention_maps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Sequence[int],
    mean: bool,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(output (B, H, N, e), maps (B, S, N, M), or (B, 1, N, M) of a mean)."""
    weights, _ = attention_weights(query, key, mask, scale)
    maps = weights[:, list(heads)]
    output = (weights @ value.to(weights.dtype)).to(value.dtype)
    return output, maps.mean(1, keepdim=True) if mean else maps
