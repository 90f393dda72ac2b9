"""PyTorch form of attention that returns the weights of chosen heads: for the CPU, and for GPUs
without Triton.

Shapes: B batch, N queries, M keys, H heads, d width of a head, e width of a value, S chosen heads.
Heads whose map is not asked for take the fused operator. The others are computed in blocks of full
rows, whose softmax takes one pass and stays in the cache between product, exponential, output
and map."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention_stats.cpu import FLOOR, blocks, scores
from ..precision import compute_type, outside_autocast


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Tensor,
    mean: bool,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(output, maps); heads: int64 (S,); mask: bool, four dimensions that broadcast to (B, H, N,
    M).
    """
    output, maps = empty(query, key, value, len(heads), mean)
    maps.zero_()
    output.zero_()
    chosen = heads.tolist()
    rest = [head for head in range(query.shape[1]) if head not in chosen]
    with outside_autocast(query):
        if rest:
            parts = (x[:, rest] for x in (query, key, value))
            output[:, rest] = F.scaled_dot_product_attention(
                *parts, attn_mask=_of(mask, rest), scale=scale
            )
        for place, head in enumerate(chosen):
            query_, key_, value_ = (x[:, head : head + 1] for x in (query, key, value))
            _attend_head(
                query_,
                key_,
                value_,
                _of(mask, [head]),
                scale,
                output[:, head],
                maps[:, 0 if mean else place],
                mean,
            )
    return output, maps.div_(len(chosen)) if mean else maps


def _of(mask: Tensor | None, heads: list[int]) -> Tensor | None:
    return mask if mask is None or mask.shape[1] == 1 else mask[:, heads]


def _attend_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    output: Tensor,
    maps: Tensor,
    add: bool,
) -> None:
    """Write one head into output (B, N, e) and maps (B, N, M); add: onto what maps hold."""
    values = value[:, 0].to(maps.dtype)
    room: Tensor | None = None  # one for all blocks: new memory costs more than the exponentials
    for block in blocks(query, key, False):
        batch, rows = block.batch, block.rows
        if room is None:
            room = maps.new_empty(
                (batch.stop - batch.start) * (rows.stop - rows.start) * key.shape[2]
            )
        logits = scores(query, key, mask, block, scale, False, room)[0][:, 0]
        hidden = None if mask is None else logits.le(FLOOR)
        target = logits if add else maps[batch, rows]
        torch.softmax(logits, -1, out=target)
        if hidden is not None:
            target.masked_fill_(hidden, 0.0)
        output[batch, rows] = (target @ values[batch]).to(output.dtype)
        if add:
            maps[batch, rows] += target


def empty(
    query: Tensor, key: Tensor, value: Tensor, count: int, mean: bool
) -> tuple[Tensor, Tensor]:
    """Room for output and maps."""
    (batch, heads, rows), keys = query.shape[:3], key.shape[2]
    output = value.new_empty((batch, heads, rows, value.shape[3]))
    return output, query.new_empty(
        (batch, 1 if mean else count, rows, keys), dtype=compute_type(query)
    )
