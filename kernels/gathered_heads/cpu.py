"""CPU form of gathered heads: PyTorch's fused attention on the gathered queries of each batch row
and head.

Shapes: B batch, H heads, N tokens, M keys, K heads of keys and values, d width of a head. The ATen
operator that `scaled_dot_product_attention` uses on the CPU is called itself, because only it gives
the logarithm of each row's sum, without which the backward pass would have to compute the attention
again."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..precision import compute_type
from . import device

BLOCK = 256  # queries at a time where each has a mask of its own

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Piece(NamedTuple):
    """Gathered queries first..last of one head that meet keys up to `end`; bias: 0 or -inf, (1 or
    queries, end).
    """

    batch: int
    head: int
    gathered: slice
    end: int
    bias: Tensor | None
    causal: bool


def token_major(query: Tensor) -> Tensor:
    """New memory (B, H, N, d) in which the heads of a token are next to each other, so that joining
    them is a view.
    """
    batch, heads, tokens, width = query.shape
    return query.new_empty((batch, tokens, heads, width)).transpose(1, 2)


def places(gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, head and token of every gate that is not 0, head by head, tokens in order."""
    b, h, n = (gate != 0).nonzero().unbind(1)
    return b, h, n


def taken(x: Tensor, where: tuple[Tensor, ...]) -> Tensor:
    """Rows (T, d) of x (B, H, N, d), copied row by row; indexing by three tensors copies number by
    number.
    """
    (b, h, n), (_, heads, tokens, width) = where, x.shape
    if x.stride(1) < x.stride(2):
        return x.transpose(1, 2).reshape(-1, width).index_select(0, (b * tokens + n) * heads + h)
    return x.reshape(-1, width).index_select(0, (b * heads + h) * tokens + n)


def room(q: Tensor, key: Tensor, causal: bool) -> Tensor:
    """Memory for the rows (T, d) of all pieces, and a row of 0 after them; with a causal mask some
    rows have no piece, without keys none has one.
    """
    partial = causal or not key.shape[2]
    rows = (q.new_zeros if partial else q.new_empty)((q.shape[0] + 1, q.shape[1]))
    rows[-1] = 0.0
    return rows


def put(rows: Tensor, where: tuple[Tensor, ...], like: Tensor) -> Tensor:
    """(B, H, N, d) from the rows of a `room`, 0 at all other places; the heads of a token are next
    to each other.
    """
    (b, h, n), (batch, heads, tokens, width) = where, like.shape
    # Reading from everywhere is several times quicker than clearing the result and writing into it.
    source = torch.full((batch * tokens * heads,), rows.shape[0] - 1)
    source[(b * tokens + n) * heads + h] = torch.arange(rows.shape[0] - 1)
    return rows.index_select(0, source).view(batch, tokens, heads, width).transpose(1, 2)


def pieces(
    query: Tensor,
    keys: int,
    gate: Tensor,
    where: tuple[Tensor, ...],
    mask: Tensor | None,
    causal: bool,
) -> Iterator[Piece]:
    """What is to be computed, head by head, without heads that no token uses."""
    batch, heads, tokens, _ = query.shape
    counts = (gate != 0).sum(-1).flatten().tolist()
    if mask is not None:
        mask = mask.expand(batch, heads, *mask.shape[2:])
    by_query = causal or (mask is not None and mask.shape[2] > 1)
    begin = 0
    for pair, count in enumerate(counts if keys else ()):
        b, h = divmod(pair, heads)
        if not count:
            continue
        if count == tokens == keys and causal and mask is None:
            yield Piece(b, h, slice(begin, begin + count), keys, None, True)
        else:
            step = BLOCK if by_query else count
            for first in range(begin, begin + count, step):
                gathered = slice(first, min(first + step, begin + count))
                rows = where[2][gathered]
                # Query i sees keys up to i + M - N; those of a block lie in order.
                end = min(keys, int(rows[-1]) + keys - tokens + 1) if causal else keys
                if end > 0:
                    allowed = None if mask is None else mask[b, h]
                    yield Piece(
                        b, h, gathered, end, _bias(query, keys, rows, end, allowed, causal), False
                    )
        begin += count


def _bias(
    query: Tensor, keys: int, rows: Tensor, end: int, mask: Tensor | None, causal: bool
) -> Tensor | None:
    """0 where these queries may attend, else -inf; mask (1 or N, 1 or M) of their head."""
    allowed = None
    if mask is not None:
        allowed = (mask if mask.shape[0] == 1 else mask[rows]).expand(-1, keys)[:, :end]
    if causal:
        before = torch.arange(end) <= (rows + (keys - query.shape[2]))[:, None]
        allowed = before if allowed is None else allowed & before
    if allowed is None:
        return None
    return query.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)


def _shared(piece: Piece, query: Tensor, key: Tensor) -> tuple[int, int, slice]:
    """Where the keys and values of a piece lie."""
    return piece.batch, piece.head // (query.shape[1] // key.shape[1]), slice(piece.end)


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, d), lse (B, H, N)); lse is +inf where nothing is computed."""
    if not query.is_cpu:
        out, lse = device.forward(query, key, value, gate, mask, causal, scale)
        return token_major(query).copy_(out), lse
    kind, where = compute_type(query), places(gate)
    q = taken(query, where)
    mixed, sums = room(q, key, causal), q.new_full(q.shape[:1], torch.inf, dtype=kind)
    for piece in pieces(query, key.shape[2], gate, where, mask, causal):
        at, rows = _shared(piece, query, key), piece.gathered
        mixed[rows], sums[rows] = _attend(
            q[None, None, rows],
            key[at][None, None],
            value[at][None, None],
            0.0,
            piece.causal,
            attn_mask=piece.bias,
            scale=scale,
        )
    lse = query.new_full(query.shape[:-1], torch.inf, dtype=kind)
    lse[where] = sums
    mixed[:-1] *= gate[where][:, None].to(kind)
    return put(mixed, where, query), lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and gate."""
    if not query.is_cpu:
        parts = (grad, query, key, value, gate, mask, out, lse, causal, scale)
        d_query, *others = device.backward(*parts)
        return token_major(query).copy_(d_query), others[0], others[1], others[2]
    kind, where = compute_type(query), places(gate)
    q, g, sums, weight = (
        taken(query, where),
        taken(grad, where).to(kind),
        lse[where],
        gate[where][:, None].to(kind),
    )
    mixed = taken(out, where).to(kind).div_(weight)
    d_gate = torch.zeros_like(gate, memory_format=torch.contiguous_format)
    d_gate[where] = (g * mixed).sum(-1).to(gate.dtype)
    g, mixed, d_q = g.mul_(weight).to(q.dtype), mixed.to(q.dtype), room(q, key, causal)
    d_key = torch.zeros(key.shape, dtype=kind)
    d_value = torch.zeros_like(d_key)
    for piece in pieces(query, key.shape[2], gate, where, mask, causal):
        at, rows = _shared(piece, query, key), piece.gathered
        d_q[rows], for_key, for_value = _attend_backward(
            g[None, None, rows],
            q[None, None, rows],
            key[at][None, None],
            value[at][None, None],
            mixed[None, None, rows],
            sums[None, None, rows],
            0.0,
            piece.causal,
            attn_mask=piece.bias,
            scale=scale,
        )
        d_key[at] += for_key[0, 0]
        d_value[at] += for_value[0, 0]
    return put(d_q, where, query), d_key.to(key.dtype), d_value.to(value.dtype), d_gate
