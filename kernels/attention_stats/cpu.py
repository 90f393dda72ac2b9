"""PyTorch form of the read-outs of softmax attention: for the CPU, and for GPUs without Triton.

Shapes: B batch, N queries, M keys, H heads, K heads of keys, G = H / K, d width of a head, e width
of a value; b, k, r, m: batch entries, heads of keys, queries and keys of one block. A block holds
full rows, so its softmax takes one pass; it stays in the cache between product, exponential
and sums. Keys beyond the last that a causal block may see are not computed. Hidden scores are
-1e30, not -inf: products with a weight of 0 stay 0."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..precision import compute_type, outside_autocast

BLOCK_NUMBERS = 1 << 19  # scores in a block: 2 MiB of float32, with its exponentials twice that
DEVICE_NUMBERS = 1 << 26  # on a GPU, where many blocks would be many launches
FEW_ROWS = 128  # with fewer queries the product of a block is inefficient: one head at a time
LEAST_ROWS = 8  # for any number of keys
LARGEST_TOP = 16  # of the Triton form; more would not stay in registers
HIDDEN, FLOOR = -1e30, -1e29
# Scores up to here need no shift by the largest: neither M e^60 nor e^-60 leaves float32.
UNSHIFTED = 60.0


class Block(NamedTuple):
    """Slices of batch, heads of keys, heads and queries, and the number of keys that the block can
    see.
    """

    batch: slice
    kv: slice
    heads: slice
    rows: slice
    keys: int


def blocks(query: Tensor, key: Tensor, causal: bool, all_heads: bool = False) -> Iterator[Block]:
    """The blocks that cover (B, H, N, M) scores; all_heads keeps the heads of a query together."""
    (batch, heads, rows), (kv, keys) = query.shape[:3], key.shape[1:3]
    room = BLOCK_NUMBERS if query.is_cpu else DEVICE_NUMBERS
    group = heads // kv
    kv_step = (
        kv if all_heads else min(kv, max(1, room // max(1, min(rows, FEW_ROWS) * group * keys)))
    )
    row_step = max(1, min(rows, max(LEAST_ROWS, room // max(1, kv_step * group * keys))))
    complete = kv_step == kv and row_step >= rows
    batch_step = max(1, room // max(1, heads * rows * keys)) if complete else 1
    for first in range(0, batch, batch_step):
        for head in range(0, kv, kv_step):
            for row in range(0, rows, row_step):
                end = min(rows, row + row_step)
                visible = min(keys, max(0, end + keys - rows)) if causal else keys
                if visible:
                    last = min(kv, head + kv_step)
                    yield Block(
                        slice(first, min(batch, first + batch_step)),
                        slice(head, last),
                        slice(head * group, last * group),
                        slice(row, end),
                        visible,
                    )


def part(x: Tensor, block: Block) -> Tensor:
    """Of (B or 1, H or 1, N or 1, M or 1) the part that the block sees."""
    spans = (block.batch, block.heads, block.rows, slice(block.keys))
    return x[tuple(span if size > 1 else slice(None) for span, size in zip(spans, x.shape))]


def grouped(x: Tensor, kv: int) -> Tensor:
    """(b, k G, r, ·) -> (b, k, G r, ·)."""
    return x.unflatten(1, (kv, -1)).flatten(2, 3)


def scores(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    block: Block,
    scale: float,
    causal: bool,
    room: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled scores (b, k G, r, m) of a block, its scaled queries (b, k, G r, d) and keys (b, k, m,
    d).

    room: memory that the scores are written to.
    """
    kind, kv = compute_type(query), block.kv.stop - block.kv.start
    q = grouped(query[block.batch, block.heads, block.rows].to(kind) * scale, kv)
    k = key[block.batch, block.kv, : block.keys].to(kind)
    rows = block.rows.stop - block.rows.start
    if room is None:
        logits = q @ k.mT
    else:
        logits = room[: q.shape[:3].numel() * block.keys].view(-1, q.shape[2], block.keys)
        torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT, out=logits)
    logits = logits.view(q.shape[0], -1, rows, block.keys)
    if mask is not None:
        logits.masked_fill_(~part(mask, block), HIDDEN)
    if causal:
        shift = key.shape[2] - query.shape[2]
        start = max(0, block.rows.start + shift)  # all queries of the block see the keys before it
        places = torch.arange(block.rows.start, block.rows.stop, device=query.device)
        future = torch.arange(start, block.keys, device=query.device) > (places + shift)[:, None]
        logits[..., start:].masked_fill_(future, HIDDEN)
    return logits, q, k


def bounded(query: Tensor, key: Tensor, scale: float) -> bool:
    """Whether no score can lie beyond UNSHIFTED, by the lengths of queries and keys; not where they
    are not finite.
    """
    if not query.is_cpu or key.shape[2] < 8 * key.shape[3] or not query.numel() or not key.numel():
        # The host would wait for a GPU; with few keys the lengths cost more than a shift.
        return False
    longest = [
        torch.linalg.vector_norm(x, dim=-1, dtype=compute_type(x)).amax() for x in (query, key)
    ]
    return float(longest[0] * longest[1] * abs(scale)) <= UNSHIFTED


def stats(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    scale: float,
    causal: bool,
    entropy: bool,
    columns: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(output, lse, entropy, column mass, key mass, top weights, top indices); (0,) for those
    that are not requested.

    mask: bool, four dimensions that broadcast to (B, H, N, M); keys: weights (B, H or 1, M) of the
    keys; weights: (B, N), of the queries in the column mass."""
    out = empty(query, key, value, keys, entropy, columns, top)
    output, lse, spread, mass, held, top_values, top_indices = out
    for tensor, start in zip(out, (0, -torch.inf, 0, 0, 0, 0, -1)):
        tensor.fill_(start)
    kind = lse.dtype
    with outside_autocast(query):
        # The entropy is a difference of numbers that the shift keeps small.
        shifted = entropy or not bounded(query, key, scale)
        # One for all blocks on the CPU: new memory for each costs more than the exponentials.
        room: Tensor | None = None
        for block in blocks(query, key, causal):
            here = (block.batch, block.heads, block.rows)
            if query.is_cpu and room is None:
                room = lse.new_empty(lse[here].numel() * key.shape[2])  # no later block is larger
            logits, *_ = scores(query, key, mask, block, scale, causal, room)
            peak = logits.amax(-1, keepdim=True).clamp_min_(FLOOR) if shifted else 0.0
            most = (*here, slice(min(top, block.keys)))
            if top:
                largest, place = logits.topk(min(top, block.keys), -1)
                top_values[most], top_indices[most] = (
                    largest,
                    place.masked_fill_(largest.le(FLOOR), -1),
                )
            if shifted:
                logits -= peak
            exps = logits.exp() if entropy else logits.exp_()
            total = exps.sum(-1, keepdim=True)
            bare = total == 0
            total.masked_fill_(bare, 1.0)
            lse[here] = (total.log() + peak).masked_fill_(bare, -torch.inf)[..., 0]
            if entropy:
                spread[here] = (total.log() - logits.mul_(exps).sum(-1, keepdim=True) / total)[
                    ..., 0
                ]
            if value is not None:
                kv = block.kv.stop - block.kv.start
                mixed = grouped(exps, kv) @ value[block.batch, block.kv, : block.keys].to(kind)
                output[here] = (mixed.view(*exps.shape[:-1], -1) / total).to(output.dtype)
            if keys is not None:
                held[here] = (
                    dot_keys(exps, keys[block.batch, :, : block.keys], block) / total[..., 0]
                )
            if columns:
                share = total.reciprocal_().mT
                if weights is not None:
                    share = share * weights[block.batch, None, None, block.rows]
                mass[block.batch, block.heads, : block.keys] += (share @ exps)[:, :, 0]
            if top:
                top_values[most] = (
                    top_values[most] - lse[here][..., None].masked_fill(bare, 0.0)
                ).exp_()
    return out


def dot_keys(x: Tensor, keys: Tensor, block: Block) -> Tensor:
    """Sum over the keys of (b, h, r, m) times numbers (b, H or 1, m): (b, h, r)."""
    if keys.shape[1] == 1 and keys.shape[0] == 1:
        # One product of a matrix and a vector, much quicker than many small ones.
        return x @ keys[0, 0]
    keys = keys if keys.shape[1] == 1 else keys[:, block.heads]
    return (x @ keys[..., None])[..., 0]


def empty(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    keys: Tensor | None,
    entropy: bool,
    columns: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tensors for the requested read-outs, (0,) for the others."""
    lead, kind = tuple(query.shape[:3]), compute_type(query)
    return (
        query.new_empty((0,) if value is None else (*lead, value.shape[-1])),
        query.new_empty(lead, dtype=kind),
        query.new_empty(lead if entropy else (0,), dtype=kind),
        query.new_empty((*lead[:2], key.shape[2]) if columns else (0,), dtype=kind),
        query.new_empty((0,) if keys is None else lead, dtype=kind),
        query.new_empty((*lead, top) if top else (0,), dtype=kind),
        query.new_empty((*lead, top) if top else (0,), dtype=torch.int64),
    )


def stats_backward(
    grad: Tensor | None,
    grad_lse: Tensor | None,
    grad_spread: Tensor | None,
    grad_mass: Tensor | None,
    grad_key_mass: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    lse: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and weights, (0,) for one that is None.

    With p the weights of a row and w the gradient towards them: ds = p (w - <p, w> + dlse), where
    w = dO V^T - dentropy log p + weight dcolumns + dmass keys.
    """
    kind, grads = lse.dtype, (grad, grad_spread, grad_mass, grad_key_mass)
    # Contiguous, as the fake tensors promise.
    d_query, d_key = query.new_zeros(query.shape, dtype=kind), key.new_zeros(key.shape, dtype=kind)
    d_value = query.new_zeros((0,) if value is None else value.shape, dtype=kind)
    d_weights = query.new_zeros((0,) if weights is None else weights.shape, dtype=kind)
    with outside_autocast(query):
        for block in blocks(query, key, causal):
            here, kv = (block.batch, block.heads, block.rows), block.kv.stop - block.kv.start
            logits, q, k = scores(query, key, mask, block, scale, causal)
            p, logits = probabilities(logits, lse[here])
            w, shared = towards_weights(
                grads, block, p, logits, value, keys, weights, d_value, d_weights
            )
            if w is None:
                towards, common = torch.zeros_like(p), logits.new_zeros((*p.shape[:3], 1))
            else:
                towards = p * w if shared else w.mul_(p)
                common = towards.sum(-1, keepdim=True)
            if grad_lse is not None:
                common = common - grad_lse[here][..., None].masked_fill(
                    lse[here][..., None] == -torch.inf, 0.0
                )
            towards.addcmul_(p, common, value=-1.0)
            add_score_gradients(grouped(towards, kv), q, k, block, scale, d_query, d_key)
    value_kind = query.dtype if value is None else value.dtype
    d_weights = d_weights.to(query.dtype) if weights is None else d_weights
    return d_query.to(query.dtype), d_key.to(key.dtype), d_value.to(value_kind), d_weights


def towards_weights(
    grads: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    block: Block,
    p: Tensor,
    logs: Tensor,
    value: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    d_value: Tensor,
    d_weights: Tensor,
) -> tuple[Tensor | None, bool]:
    """Gradient towards the weights p of a block, and whether it is one row for all queries that
    must not be changed.

    Takes the memory of logs, the logarithms of p, and adds to d_value and d_weights.
    """
    g_output, g_entropy, g_columns, g_mass = grads
    here, kv = (block.batch, block.heads, block.rows), block.kv.stop - block.kv.start
    span = (block.batch, block.kv, slice(block.keys))
    w: Tensor | None = None
    shared = False
    if g_output is not None:
        assert value is not None
        g = grouped(g_output[here].to(p.dtype), kv)
        d_value[span] += grouped(p, kv).mT @ g
        w = (g @ value[span].to(p.dtype).mT).view_as(p)
    if g_entropy is not None:
        # What is cut off has a weight of exactly 0, and no product overflows.
        surprise = logs.clamp_min_(-1e4).mul_(-g_entropy[here][..., None])
        w = surprise if w is None else w.add_(surprise)
    if g_mass is not None:
        assert keys is not None
        numbers = keys[block.batch, :, None, : block.keys]
        numbers = numbers if keys.shape[1] == 1 else numbers[:, block.heads]
        w = (
            g_mass[here][..., None] * numbers
            if w is None
            else w.addcmul_(g_mass[here][..., None], numbers)
        )
    if g_columns is not None:
        columns = g_columns[block.batch, block.heads, None, : block.keys]
        if weights is None:
            shared = w is None
            w = columns if w is None else w.add_(columns)
        else:
            share = weights[block.batch, None, block.rows, None]
            w = share * columns if w is None else w.addcmul_(share, columns)
            d_weights[block.batch, block.rows] += (p @ columns.mT).sum((1, 3))
    return w, shared


def probabilities(logits: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """(weights, their logarithms, in the memory of the scores); a row without keys has weights of
    0.
    """
    logits -= lse.masked_fill(lse == -torch.inf, -HIDDEN)[..., None]
    return logits.exp(), logits


def add_score_gradients(
    ds: Tensor, q: Tensor, k: Tensor, block: Block, scale: float, d_query: Tensor, d_key: Tensor
) -> None:
    """Adds what the gradient of the scores (b, k, G r, m) means for queries and keys."""
    rows = block.rows.stop - block.rows.start
    turned = (ds @ k).mul_(scale)
    d_query[block.batch, block.heads, block.rows] = turned.view(q.shape[0], -1, rows, q.shape[-1])
    d_key[block.batch, block.kv, : block.keys] += ds.mT @ q
