"""Which keys a head attends to when it may hold few: those with the largest scores, the first and
the most recent ones.

Shapes: B samples, K heads of keys, G query heads that share one (H = K G, consecutive), Q queries,
N keys, d width of a head, C chosen keys.

    score_qj = (mean over the group of q) . k_j

Work: 2 K Q N d flops, one pass over the keys and the largest of N numbers. The score is that of
LycheeDecode (arXiv 2602.04541), without a scale, which changes no order. Only keys that exist at a
query's time take part, so that a set is the same in training and when it is used."""

import torch
from torch import Tensor


def select_keys(
    query: Tensor,
    key: Tensor,
    count: int,
    *,
    sink: int = 0,
    recent: int = 0,
    mask: Tensor | None = None,
    last: Tensor | None = None,
    block: int = 1,
) -> tuple[Tensor, Tensor]:
    """The keys that each query of a head of keys may attend to.

    query: (B, H, Q, d); key: (B, K, N, d), in the order of the tokens; count: of the keys of a set;
    sink, recent: the first and the last real keys that are always in it; mask: bool (B, N), False
    at padding; last: int64 (B, Q), the last key that a query sees, by default the queries are those
    of the last Q keys; block: keys are taken in blocks of so many neighbours, a block by its best
    key, and a block with a key that must be in is in.

    Returns chosen, int64 (B, K, Q, C), places of keys without repetition, and valid, bool of the
    same shape: False behind the chosen keys where fewer exist. C = min(count, N). With block 1 a
    set has exactly min(count, keys that the query sees) keys. Carries no gradient.

    Raises ValueError if shapes or types do not fit, or if `count` cannot hold what must be in.

    >>> key = torch.tensor([3.0, 0.0, 2.0, 1.0, 4.0]).view(1, 1, 5, 1)
    >>> select_keys(torch.ones(1, 1, 1, 1), key, 3, sink=1, recent=1)[0].sort().values.tolist()
    [[[[0, 2, 4]]]]
    """
    mask, last = _checked(query, key, count, sink, recent, mask, last, block)
    with torch.no_grad():
        visible, forced = _roles(mask, last, sink, recent)
        shared = query.unflatten(1, (key.shape[1], -1)).mean(2)
        # (B, K, Q, N). Keys of few queries come first: they need no turning, which costs more.
        if query.shape[2] <= 8:
            scores = (key @ shared.transpose(2, 3)).transpose(2, 3).contiguous()
        else:
            scores = shared @ key.transpose(2, 3)
        scores = scores.masked_fill(forced[:, None], torch.inf)
        scores = scores.masked_fill(~visible[:, None], -torch.inf)
        if block > 1:
            return _by_blocks(scores, visible, count, block)
        chosen = scores.topk(min(count, key.shape[2]), -1).indices
        return chosen, _taken(visible, chosen)


def _roles(mask: Tensor, last: Tensor, sink: int, recent: int) -> tuple[Tensor, Tensor]:
    """bool (B, Q, N): keys that a query sees, and those that must be in its set."""
    place = torch.arange(mask.shape[1], device=mask.device)
    visible = mask[:, None] & (place <= last[..., None])
    rank = mask.cumsum(-1)[:, None]  # of a real key, from 1
    total = visible.sum(-1, keepdim=True)
    return visible, visible & ((rank <= sink) | (rank > total - recent))


def _taken(visible: Tensor, chosen: Tensor) -> Tensor:
    """Of visible (B, Q, N), what is at the chosen places (B, K, Q, C)."""
    return visible[:, None].expand(*chosen.shape[:3], -1).gather(-1, chosen)


def _by_blocks(scores: Tensor, visible: Tensor, count: int, block: int) -> tuple[Tensor, Tensor]:
    """The keys of the best blocks, those that the query sees first."""
    keys = scores.shape[3]
    padded = torch.nn.functional.pad(scores, (0, -keys % block), value=-torch.inf)
    best = padded.unflatten(-1, (-1, block)).amax(-1)
    blocks = best.topk(min(count // block, best.shape[-1]), -1).indices
    inside = torch.arange(block, device=scores.device)
    chosen = (blocks[..., None] * block + inside).flatten(-2)
    valid = (chosen < keys) & _taken(visible, chosen.clamp(max=keys - 1))
    order = (~valid).to(torch.uint8).argsort(dim=-1, stable=True)[..., : min(count, keys)]
    return chosen.gather(-1, order).clamp_(max=keys - 1), valid.gather(-1, order)


def _checked(
    query: Tensor,
    key: Tensor,
    count: int,
    sink: int,
    recent: int,
    mask: Tensor | None,
    last: Tensor | None,
    block: int,
) -> tuple[Tensor, Tensor]:
    """Mask and last, with what they are by default."""
    fit = query.ndim == 4 and key.ndim == 4 and query.shape[::3] == key.shape[::3]
    if not fit or key.shape[1] < 1 or query.shape[1] % key.shape[1] or query.dtype != key.dtype:
        raise ValueError(
            f"select_keys: query (B, H, Q, d) and key (B, K, N, d), K dividing H, do not fit: "
            f"{tuple(query.shape)} {query.dtype} and {tuple(key.shape)} {key.dtype}"
        )
    (samples, _, queries, _), keys = query.shape, key.shape[2]
    if keys < 1 or min(sink, recent) < 0 or block < 1 or count < 1 or count % block:
        raise ValueError(
            f"select_keys: needs keys, sink and recent from 0 and a count of whole blocks, got "
            f"{keys} keys, sink {sink}, recent {recent}, count {count}, block {block}"
        )
    # Keys that must be in may begin within a block.
    least = sum((size + 2 * (block - 1)) // block * block for size in (sink, recent) if size)
    if count < least:
        raise ValueError(
            f"select_keys: {count} keys cannot hold a sink of {sink} and {recent} recent keys"
            + (f" in blocks of {block}; {least} can" if block > 1 else "")
        )
    if mask is None:
        mask = torch.ones((samples, keys), dtype=torch.bool, device=key.device)
    if last is None:
        last = torch.arange(keys - queries, keys, device=key.device).expand(samples, queries)
    for name, x, dtype, shape in (
        ("mask", mask, torch.bool, (samples, keys)),
        ("last", last, torch.int64, (samples, queries)),
    ):
        if x.dtype != dtype or x.shape != shape:
            raise ValueError(
                f"select_keys: {name} must be {dtype} {shape}, got {x.dtype} {tuple(x.shape)}"
            )
    return mask, last
