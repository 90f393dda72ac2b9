"""PyTorch form of pair-wise cross-attention: for the CPU, for GPUs without Triton, and where
PyTorch's fused attention is ahead of the Triton form.

Shapes: B batch, H heads, N queries, M keys, d width of queries and keys, e width of values.

A sample is two parts, its own keys and a view of its partner's, merged by log-sum-exp. Samples of a
few tokens are taken several at a time, because calls would cost more than attention: their
partners' keys are gathered into a tile of bounded size. A part is `fused_attention`. Values of
another width and types that its kernels do not take are computed by blocks of queries instead."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import fused_attention
from ..precision import SLICE_NUMBERS, compute_type

TILE_NUMBERS = (
    1 << 18
)  # keys and values of small samples that are gathered for one call: 1 MiB of float32
DEVICE_NUMBERS = 1 << 26  # on a GPU of either, and scores of a block: many blocks are many launches


def room(query: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """New memory for out (B, H, N, e), the heads of a token next to each other so that joining them
    is a view, and lse.
    """
    batch, heads, queries, _ = query.shape
    out = query.new_empty((batch, queries, heads, width)).transpose(1, 2)
    return out, query.new_empty((batch, heads, queries), dtype=compute_type(query))


def partners(partner: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[slice, slice | Tensor]]:
    """(samples, their partners) as places along the batch: a slice where the partner is read in
    place, else places, of as many samples as a tile holds. On a GPU the partner stays there, so
    that nothing waits.

    Raises ValueError for a partner out of range, on the CPU.
    """
    places = partner.tolist() if partner.is_cpu else None
    if places and not 0 <= min(places) <= max(places) < len(places):
        raise ValueError(
            f"pair_attention: partners must be places 0 to {len(places) - 1}, got {places}"
        )
    room = TILE_NUMBERS if key.is_cpu else DEVICE_NUMBERS
    step = max(1, room // max(1, key[:1].numel() + value[:1].numel()))
    for start in range(0, partner.shape[0], step):
        samples = slice(start, start + step)
        alone = step == 1 and places is not None
        in_place = slice(places[start], places[start] + 1) if alone and places else None
        yield samples, in_place or partner[samples]


def forward(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, e), lse (B, H, N)); lse is +inf without keys."""
    pairs = list(partners(partner, key, value))
    out, lse = room(query, value.shape[3])
    if key.shape[2] == 0 or out.numel() == 0:
        return out.zero_(), lse.fill_(torch.inf)
    query, key, value = rowwise(query, key, value)
    for samples, partner_samples in pairs:
        (own_out, own_lse), (partner_out, partner_lse) = (
            _attend(query[samples], key[c], value[c], scale) for c in (samples, partner_samples)
        )
        # The share of the partner's keys: exp(lse_theirs) / (exp(lse_mine) + exp(lse_theirs)).
        share = torch.sigmoid(partner_lse - own_lse)[..., None]
        out[samples] = torch.lerp(own_out.to(lse.dtype), partner_out.to(lse.dtype), share)
        lse[samples] = torch.logaddexp(own_lse, partner_lse)
    return out, lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    partner: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    kind = compute_type(query)
    # Contiguous, as the fake tensors promise; sums over several samples are kept in `kind`.
    d_query, d_key, d_value = (
        torch.zeros(x.shape, dtype=kind, device=x.device) for x in (query, key, value)
    )
    if key.shape[2] and out.numel():
        grad, query, key, value, out = rowwise(grad, query, key, value, out)
        for samples, partner_samples in partners(partner, key, value):
            rows = grad[samples], query[samples], out[samples], lse[samples]
            for at in (samples, partner_samples):
                for_query, for_key, for_value = _attend_backward(*rows, key[at], value[at], scale)
                d_query[samples] += for_query
                add(d_key, at, for_key)
                add(d_value, at, for_value)
    return d_query.to(query.dtype), d_key.to(key.dtype), d_value.to(value.dtype)


def add(total: Tensor, at: slice | Tensor, part: Tensor) -> None:
    """Add the parts of the samples of a call to the sums."""
    if isinstance(at, slice):
        total[at] += part
    elif at.is_cpu:  # index_add_ there takes ten times as long as these sums
        for place, slope in zip(at.tolist(), part):
            total[place] += slope
    else:
        total.index_add_(0, at, part.to(total.dtype))


def rowwise(*tensors: Tensor) -> list[Tensor]:
    """Tensors whose rows are contiguous, with any other strides, as the fused operator reads
    them.
    """
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


def takes_fused(query: Tensor, value: Tensor, backward: bool = False) -> bool:
    """Whether PyTorch's fused operator takes a block of keys."""
    return not fused_refused(query, value, backward)


def fused_refused(query: Tensor, value: Tensor, backward: bool = False) -> str:
    """Why PyTorch's fused operator does not take a block of keys; "" where it does."""
    if query.shape[3] != value.shape[3]:
        return "values are not as wide as queries"
    if query.is_cpu:
        return ""
    most = fused_attention.MOST_WIDTH_BACKWARD if backward else fused_attention.MOST_WIDTH
    return fused_attention.refused(query, query.shape[3], most)


def _blocks(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Queries whose scores fit the cache, or a good part of a GPU."""
    room = SLICE_NUMBERS if query.is_cpu else DEVICE_NUMBERS
    step = max(1, room // (query.shape[0] * query.shape[1] * key.shape[2]))
    return (slice(start, start + step) for start in range(0, query.shape[2], step))


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse) over one block of keys."""
    if takes_fused(query, value):
        return fused_attention.attend(query, key, value, scale)
    kind = compute_type(query)
    out, lse = (
        torch.empty((*query.shape[:3], n), dtype=kind, device=query.device)
        for n in (value.shape[3], 1)
    )
    for rows in _blocks(query, key):
        scores = _scores(query[:, :, rows], key, scale)
        top = scores.amax(-1, keepdim=True)
        weights = scores.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        out[:, :, rows] = (weights @ value.to(weights.dtype)).div_(total)
        lse[:, :, rows] = total.log_().add_(top)
    return out, lse[..., 0]


def _attend_backward(
    grad: Tensor, query: Tensor, out: Tensor, lse: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value of one block of keys; out and lse are those over both
    blocks.
    """
    if takes_fused(query, value, backward=True):
        return fused_attention.attend_backward(grad, query, key, value, out, lse, scale)
    kind = compute_type(query)
    d_query, k, v = (
        torch.empty(query.shape, dtype=kind, device=query.device),
        key.to(kind),
        value.to(kind),
    )
    d_key, d_value = torch.zeros_like(k), torch.zeros_like(v)
    for rows in _blocks(query, key):
        q, g = query[:, :, rows].to(kind), grad[:, :, rows].to(kind)
        weights = _scores(q, k, scale).sub_(lse[:, :, rows, None]).exp_()
        d_value += weights.mT @ g
        delta = (g * out[:, :, rows]).sum(-1, keepdim=True)
        slope = (g @ v.mT).sub_(delta).mul_(weights).mul_(scale)
        d_query[:, :, rows] = slope @ k
        d_key += slope.mT @ q
    return d_query, d_key, d_value


def _scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    kind = compute_type(query)
    return (query.to(kind) * scale) @ key.to(kind).mT
