"""Attention of a language model under a plan: groups of heads, each over the keys that it holds.

Shapes: B rows of a batch, R some of them, H query heads, KV heads of keys and values, G = H / KV
queries that share keys, h heads of a group, Q queries, S keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ....kernels.key_selection import select_keys
from ....kernels.ragged_decode import decode_attention, pays
from ..plans.grouping import LayerPlan, Role, Shares
from ..plans.rules import Budget
from .parts import Part
from .reading import Chosen, Reading

_BLOCK = 256  # queries that are computed together, so that no mask of Q x S is made


@dataclass(frozen=True)
class Call:
    """One call of one attention layer.

    query: (B, H, Q, d), after rotation; mask: of transformers, bool (B, 1, Q, S) over all tokens so
    far, None where only causality matters; scaling: of scores; dropout: share of weights dropped;
    budget: of chosen keys, None where all keys are attended to.
    """

    module: nn.Module
    query: Tensor
    mask: Tensor | None
    scaling: float | None
    dropout: float
    reading: Reading
    budget: Budget | None


def dense(plan: LayerPlan, shares: Shares, call: Call) -> bool:
    """Whether all queries of a call attend to all earlier tokens, as in the model itself."""
    if call.reading.decoding and plan.selects and call.budget is not None:
        return False
    # What is forgotten grows with the text, so that the length so far speaks for all queries.
    return all(
        group.rule.keeps(length) == length
        for group, rows in shares
        for length in set(call.reading.lengths(rows))
    )


def attend_dense(call: Call, keys: Tensor, values: Tensor) -> Tensor:
    """What the model itself computes with PyTorch's attention, bit for bit: (B, Q, H, d).

    keys, values: (B, KV, S, d), of all tokens so far.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    output, _ = sdpa_attention_forward(
        call.module, call.query, keys, values, call.mask, call.dropout, call.scaling
    )
    return output


def attend_parts(call: Call, parts: Iterable[Part]) -> Tensor:
    """Attention over parts that together hold all heads of all rows: (B, Q, H, d)."""
    parts = list(parts)
    kv_heads = 1 + max(max(part.group.heads) for part in parts)
    query = call.query.unflatten(1, (kv_heads, -1))
    if call.reading.decoding:
        output = decode(call, query, parts)
    else:
        output = query.new_empty(*query.shape[:-1], parts[0].values.shape[-1])
        for part in parts:
            _place(output, part, _attend_many(call, _of_part(query, part), part))
    return output.flatten(1, 2).transpose(1, 2).contiguous()


def decode(call: Call, query: Tensor, parts: list[Part]) -> Tensor:
    """Attention of one query a row over parts of different lengths: (B, KV, G, 1, d).

    This is the one place where text is generated over ragged caches: heads of equal rule lie in one
    part and are one call of PyTorch's attention.
    """
    output = query.new_empty(*query.shape[:-1], parts[0].values.shape[-1])
    for part in parts:
        queries = _of_part(query, part)[:, :, :, 0]
        keys, values, mask = part.keys, part.values, _decode_mask(call, part)
        if part.group.role is Role.CHOOSES and call.budget is not None:
            choose_keys(call.reading, queries, part, call.budget)
        if part.group.role is Role.INHERITS and call.reading.chosen:
            keys, values, mask = _inherited(call.reading, part)
        _place(output, part, _attend_one(call, queries, keys, values, mask)[:, :, :, None])
    return output


def _attend_one(
    call: Call, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Tensor:
    """query: (R, h, G, d), of the heads that share keys (R, h, S, d); mask: bool, broadcasts to
    (R, h, 1, S). Returns (R, h, G, d).
    """
    trained = torch.is_grad_enabled() and (query.requires_grad or keys.requires_grad)
    if call.dropout or trained or not pays(query, keys):
        # Queries that share keys stand where a text has its queries: nothing is repeated.
        return scaled_dot_product_attention(
            query, keys, values, mask, dropout_p=call.dropout, scale=call.scaling
        )
    rows, heads, count, _ = keys.shape
    starts = torch.arange(rows * heads, device=keys.device).view(rows, heads) * count
    attended, _ = decode_attention(
        query.flatten(1, 2)[:, :, None],
        keys.flatten(0, 2),
        values.flatten(0, 2),
        starts,
        torch.full_like(starts, count),
        keep=None if mask is None else mask.expand(rows, heads, 1, count).flatten(),
        scale=call.scaling,
    )
    return attended.unflatten(1, (heads, -1))[:, :, :, 0]


def choose_keys(reading: Reading, query: Tensor, part: Part, budget: Budget) -> None:
    """Let heads choose the keys that heads above inherit, into `reading.chosen`; see `select_keys`.

    query: (B, h, G, d). A text shorter than the budget is chosen as a whole.
    """
    chosen, real = select_keys(
        query.flatten(1, 2)[:, :, None],
        part.keys,
        budget.keys,
        sink=budget.sink,
        recent=budget.recent,
        mask=reading.real,
    )
    # In the order of the text, which does not depend on how close scores are.
    chosen, order = chosen[:, :, 0].sort(-1)
    real = real[:, :, 0].gather(-1, order)
    for place, head in enumerate(part.group.heads):
        columns, is_real = chosen[:, place], real[:, place]
        reading.chosen[head] = Chosen(columns, None if reading.real is None else is_real)


def _inherited(reading: Reading, part: Part) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and mask of the sets that the heads of a part take over: (R, h, k, d)."""
    sets = [reading.chosen[head] for head in part.group.heads]
    columns = torch.stack([chosen.columns for chosen in sets], 1)
    index = columns[..., None].expand(-1, -1, -1, part.keys.shape[-1])
    mask = None
    if sets[0].real is not None:
        real = [chosen.real for chosen in sets if chosen.real is not None]
        mask = torch.stack(real, 1)[:, :, None]
    return part.keys.gather(2, index), part.values.gather(2, index), mask


def _decode_mask(call: Call, part: Part) -> Tensor | None:
    """Which keys of a part one query may attend to: bool (R or 1, 1, 1, S), None for all."""
    if part.positions is None:
        return _rows(call.mask, part.rows)
    if part.trimmed:
        return (part.positions >= 0)[:, None, None] if part.ragged else None
    return part.group.rule.allowed(call.reading.queries(part.rows), part.positions)[:, None]


def _attend_many(call: Call, query: Tensor, part: Part) -> Tensor:
    """Attention of several queries of a part: query (R, h, G, Q, d) -> (R, h, G, Q, d)."""
    shape = query.shape[:4]
    queries = query.flatten(1, 2)
    if part.positions is None:
        mask = _rows(call.mask, part.rows)
        attended = _attend_block(call, queries, part.keys, part.values, mask)
        return attended.unflatten(1, shape[1:3])
    attended = []
    for start in range(0, shape[3], _BLOCK):
        places = call.reading.queries(part.rows)[:, start : start + _BLOCK]
        mask = part.group.rule.allowed(places, part.positions)
        # Only keys that any query of the block may attend to are read.
        columns = torch.nonzero(mask.any(1).any(0)).flatten()
        if not len(columns):  # a block of padding
            columns = columns.new_zeros(1)
        attended.append(
            _attend_block(
                call,
                queries[:, :, start : start + _BLOCK],
                part.keys.index_select(2, columns),
                part.values.index_select(2, columns),
                mask[:, None, :, columns],
            )
        )
    return torch.cat(attended, 2).unflatten(1, shape[1:3])


def _attend_block(
    call: Call, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Tensor:
    """query: (R, h G, Q, d); keys, values: (R, h, S, d); no mask: causal, Q = S."""
    shared = query.shape[1] // keys.shape[1]
    return scaled_dot_product_attention(
        query,
        keys.repeat_interleave(shared, 1),
        values.repeat_interleave(shared, 1),
        mask,
        dropout_p=call.dropout,
        is_causal=mask is None and query.shape[2] > 1,
        scale=call.scaling,
    )


def _of_part(query: Tensor, part: Part) -> Tensor:
    """The queries of a part, of (B, KV, G, Q, d)."""
    if part.rows is not None:
        query = query.index_select(0, part.rows)
    return query[:, list(part.group.heads)]


def _place(output: Tensor, part: Part, attended: Tensor) -> None:
    heads = torch.tensor(part.group.heads, device=output.device)
    if part.rows is None:
        output[:, heads] = attended
    else:
        output[part.rows[:, None], heads] = attended


def _rows(mask: Tensor | None, rows: Tensor | None) -> Tensor | None:
    return mask if mask is None or rows is None or len(mask) == 1 else mask.index_select(0, rows)
