"""PyTorch form of softmax-free attention by the signed root: for the CPU, and for GPUs without
Triton.

Shapes: B batch, N queries, M keys, C width of queries and keys, E width of values.

One block of the map is computed at a time: rows of one sample, or several samples if their maps are
small."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..precision import compute_type

TILE = 1 << 18  # numbers of a block of the map, which are in the cache together
DEVICE_TILE = 1 << 26  # on a GPU, where many blocks would be many launches


def _blocks(query: Tensor, keys: int) -> Iterator[tuple[slice, list[slice]]]:
    """Samples that go together, and the rows of their map that are formed at a time."""
    batch, rows, _ = query.shape
    tile = TILE if query.is_cpu else DEVICE_TILE
    samples = max(1, tile // max(1, rows * keys))
    step = rows if samples > 1 else max(16, tile // max(1, keys))
    for first in range(0, batch, samples):
        yield (
            slice(first, first + samples),
            [slice(start, start + step) for start in range(0, rows, max(1, step))],
        )


def forward(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    """(B, N, E); sums in float32 or better."""
    kind = compute_type(query)
    out = query.new_empty((*query.shape[:2], value.shape[2]))
    for samples, blocks in _blocks(query, key.shape[1]):
        q, k, v = (x[samples].to(kind) for x in (query, key, value))
        for rows in blocks:
            s = torch.bmm(q[:, rows], k.mT)
            s.div_(s.abs().add_(eps).sqrt_().add_(eps**0.5))
            out[samples, rows] = torch.bmm(s, v)
    return out


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; the map is formed again."""
    kind = compute_type(query)
    d_query, d_key, d_value = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )
    for samples, blocks in _blocks(query, key.shape[1]):
        q, k, v, g = (x[samples].to(kind) for x in (query, key, value, grad))
        d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
        for rows in blocks:
            part, back = q[:, rows], g[:, rows]
            s = torch.bmm(part, k.mT)
            root = s.abs().add_(eps).sqrt_()
            slope = torch.bmm(back, v.mT)
            slope.div_(root)  # twice the gradient of s
            s.div_(root.add_(eps**0.5))
            d_v.baddbmm_(s.mT, back)
            d_query[samples, rows] = torch.bmm(slope, k).mul_(0.5)
            d_k.baddbmm_(slope.mT, part, alpha=0.5)
        d_key[samples], d_value[samples] = d_k, d_v
    return d_query, d_key, d_value
