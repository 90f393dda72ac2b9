"""Combiner: full attention at less than quadratic cost, because far tokens are reached through
summaries of groups.

Shapes: B batch, N tokens, D width, H heads, d = D / H, S segments of g tokens, e width of a value.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.forms import Form
from .base import Attention, attend, join_heads, split_heads
from .cache import Cache

SPAN = 32  # tokens of a segment of the logsparse form, a power of two, at least 2


class Combiner(Attention):
    """Structured factorisation of attention, p(j|i) = p(group|i) p(j|group) for far j (Ren et al.,
    arXiv 2107.05768).

    Near tokens are attended to directly, each group of far ones through one key and one value, in
    one joint softmax:

        key of a group = max of its keys,  value = attend(max of its queries, its keys, its values)
        fixed      near: the segment of i;  groups: the other segments             O(N (g + N/g) D)
        axial      near: the row of i;      groups: the columns without that row   O(N (g + N/g) D)
        logsparse  near: i itself;          groups: 1, 2, 4, ... tokens next to i  O(N log N D)

    Near tokens and groups never overlap, and together they are all tokens (with causal: all up to
    i), so that each row of p sums to 1 and no token is out of reach. Near tokens and summaries are
    together the keys of fused calls over blocks, so scores are not held: memory is O(N D), and that
    of masks, which serve all heads, O(N (g + N/g)) or O(N log N).

    With a cache only the projections are remembered: each call mixes all tokens so far.

    width: D; heads: H; factorisation; causal: token i sees tokens up to i; segment: g, a number and
    not the root of N, because padding a sequence would change the root and with it the result.

    Readings: pooling is by maximum (the published default). The two official versions are different
    functions (running maxima in one, running sums in the other); ours is the first. Published
    bidirectional forms count the segment of i twice; here the groups leave it out, so that one
    segment, or segments of one token, are exact attention. Of the published axial forms this is the
    one with near rows and columns as groups.
    """

    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"segment": 4},
        {"segment": 4, "causal": True},
        {"segment": 4, "factorisation": "axial"},
        {"segment": 5, "factorisation": "axial", "causal": True},
        {"factorisation": "logsparse"},
        {"factorisation": "logsparse", "causal": True},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        factorisation: Literal["fixed", "axial", "logsparse"] = "fixed",
        causal: bool = False,
        segment: int = 32,
    ) -> None:
        super().__init__(width, heads)
        if factorisation not in ("fixed", "axial", "logsparse"):
            raise ValueError(
                f"Combiner: factorisation is 'fixed', 'axial' or 'logsparse', got {factorisation!r}"
            )
        if segment < 1:
            raise ValueError(f"Combiner: segment must be positive, got {segment}")
        self.factorisation = factorisation
        self.segment = segment
        self.causal = causal
        self.equivariant = False
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = may be attended to; cache: of earlier tokens, see
        `Cache` -> (B, N, D).

        Raises ValueError if mask, cache or width do not fit or a context is given.
        """
        self.check(x, context, mask, cache)
        query, key, value = self._project(x)
        if cache is not None:
            # The queries, too, since a group is read by the largest of its queries.
            query = cache.extended("query", query)
            key, value = cache.extended("key", key), cache.extended("value", value)
            mask = cache.read(x.shape[1], mask, x.device)
        mixed = self.mix(query, key, value, mask)
        return self.out(join_heads(mixed[:, :, mixed.shape[2] - x.shape[1] :]))

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """The factorised weights p (B, H, N, N)."""
        self.check(x, context, mask)
        query, key, _ = self._project(x)
        unit = torch.eye(x.shape[1], dtype=query.dtype, device=x.device).expand(
            *query.shape[:2], -1, -1
        )
        return self.mix(query, key, unit, mask)

    def forms(self, x: Tensor) -> list[Form]:
        """PyTorch's operator: one call over blocks, and one for the values of the groups."""
        return [Form("PyTorch's fused operator, near tokens and summaries as keys of a block")]

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (
            split_heads(part, self.heads) for part in self.query_key_value(x).chunk(3, -1)
        )
        return query * query.shape[-1] ** -0.5, key, value

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """p value for scaled queries and keys (B, H, N, d), values (B, H, N, e), mask (B, N) -> (B,
        H, N, e).
        """
        tokens = query.shape[2]
        present = query.new_ones(1, tokens, dtype=torch.bool) if mask is None else mask
        if torch.compiler.is_exporting() and not isinstance(tokens, int):
            if self.factorisation != "fixed":
                raise ValueError(
                    f"Combiner: the shapes of {self.factorisation!r} depend on the number of "
                    "tokens; export it for a fixed number, or take 'fixed'"
                )
            return _fixed_of_any_length(
                query, key, value, present[:, None], self.causal, self.segment
            )
        if self.factorisation == "logsparse":
            more = (1 << (tokens - 1).bit_length()) - tokens
            function = _logsparse
        else:
            more = -tokens % self.segment
            function = _fixed if self.factorisation == "fixed" else _axial
        if more:
            query, key, value = (F.pad(part, (0, 0, 0, more)) for part in (query, key, value))
            present = F.pad(present, (0, more))
        return function(query, key, value, present[:, None], self.causal, self.segment)[
            :, :, :tokens
        ]


def _attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Block by block, one fused call: queries (B, H, S, n, d), keys and values (B, H, S, m, ·) ->
    (B, H, S, n, e).

    allowed: (B or 1, 1, S or 1, n or 1, m).
    """
    batch, _, blocks, rows = query.shape[:4]
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    allowed = allowed.expand(batch, -1, blocks, rows, -1).transpose(1, 2).flatten(0, 1)
    return (
        attend(query, key, value, allowed, scale=1.0).unflatten(0, (batch, blocks)).transpose(1, 2)
    )


def _largest(x: Tensor, present: Tensor) -> Tensor:
    """Maximum over the present tokens (..., g) of each group (..., g, d); 0 for an empty group."""
    top = x.masked_fill(~present[..., None], torch.finfo(x.dtype).min).amax(-2)
    return top.masked_fill(~present.any(-1)[..., None], 0.0)


def _summaries(query: Tensor, key: Tensor, value: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Key (B, H, S, d) and value (B, H, S, e) of each group (B, H, S, g, ·), 0 for an empty one."""
    reader = _largest(query, present)[..., None, :]
    return _largest(key, present), _attend(reader, key, value, present[:, :, :, None]).squeeze(3)


def _fixed(
    query: Tensor, key: Tensor, value: Tensor, present: Tensor, causal: bool, segment: int
) -> Tensor:
    known = present.unflatten(2, (-1, segment))
    group_key, group_value = _summaries(
        *(part.unflatten(2, (-1, segment)) for part in (query, key, value)), present=known
    )
    # Queries of several segments share one copy of the summaries, so that all copies together are
    # only as large as the keys.
    count = group_key.shape[2]
    block = segment * -(-count // segment)
    more = -query.shape[2] % block
    query, key, value = (
        F.pad(part, (0, 0, 0, more)).unflatten(2, (-1, block)) for part in (query, key, value)
    )
    present = F.pad(present, (0, more)).unflatten(2, (-1, block))
    at = torch.arange(query.shape[2] * block, device=query.device).view(-1, block)
    segment_of, group = at // segment, torch.arange(count, device=query.device)
    near = (segment_of[:, :, None] == segment_of[:, None]) & present[:, :, :, None]
    far = group < segment_of[..., None] if causal else group != segment_of[..., None]
    far = far & known.any(-1)[:, :, None, None]
    if causal:
        near = near & (at[:, :, None] >= at[:, None])
    copies = [part[:, :, None].expand(-1, -1, len(at), -1, -1) for part in (group_key, group_value)]
    key, value = torch.cat([key, copies[0]], 3), torch.cat([value, copies[1]], 3)
    return _attend(query, key, value, torch.cat([near, far], -1)).flatten(2, 3)


def _fixed_of_any_length(
    query: Tensor, key: Tensor, value: Tensor, present: Tensor, causal: bool, segment: int
) -> Tensor:
    """`_fixed` in one call over all tokens, for exported programs, where nothing may depend on the
    number of tokens: O(N^2) time.
    """
    at = torch.arange(query.shape[2], device=query.device)
    segment_of = at // segment
    # One group more than there can be, an empty one, since programs are special for a single group.
    groups = query.shape[2] // segment + 2
    group = torch.arange(groups, device=query.device)
    members = (group[:, None] == segment_of) & present[:, :, None]  # (B or 1, 1, S, N)
    has = members.any(-1)

    def largest(x: Tensor) -> Tensor:
        low = torch.finfo(x.dtype).min
        start = x.new_full((*x.shape[:2], groups, x.shape[3]), low)
        places = segment_of[:, None].expand_as(x)
        top = start.scatter_reduce(2, places, x.masked_fill(~present[..., None], low), "amax")
        return top.masked_fill(~has[..., None], 0.0)

    group_key = largest(key)
    group_value = attend(largest(query), key, value, members, scale=1.0)
    near = (segment_of[:, None] == segment_of) & present[:, :, None]
    far = group < segment_of[:, None] if causal else group != segment_of[:, None]
    far = far & has[:, :, None]
    if causal:
        near = near & (at[:, None] >= at)
    key, value = torch.cat([key, group_key], 2), torch.cat([value, group_value], 2)
    return attend(query, key, value, torch.cat([near, far], -1), scale=1.0)


def _axial(
    query: Tensor, key: Tensor, value: Tensor, present: Tensor, causal: bool, segment: int
) -> Tensor:
    query, key, value = (
        part.unflatten(2, (-1, segment)) for part in (query, key, value)
    )  # (B, H, R, g, ·)
    present = present.unflatten(2, (-1, segment))
    rows = query.shape[2]
    others = torch.ones(rows, rows, dtype=torch.bool, device=query.device)
    others = others.tril(-1) if causal else ~others.tril().triu()
    # (B, 1, g, R, R): which rows are in the group that a row sees in a column
    column = present.transpose(2, 3)[:, :, :, None] & others
    has = column.any(-1).transpose(2, 3)  # (B, 1, R, g)
    reader = _elsewhere(query, present, causal).masked_fill(~has[..., None], 0.0)
    group_key = _elsewhere(key, present, causal).masked_fill(~has[..., None], 0.0)
    group_value = _attend(
        reader.transpose(2, 3), key.transpose(2, 3), value.transpose(2, 3), column
    ).transpose(2, 3)
    near = present[:, :, :, None].expand(-1, -1, -1, segment, -1)
    if causal:
        near = near & torch.ones(segment, segment, dtype=torch.bool, device=query.device).tril()
    allowed = torch.cat([near, has[:, :, :, None].expand_as(near)], -1)
    return _attend(
        query, torch.cat([key, group_key], 3), torch.cat([value, group_value], 3), allowed
    ).flatten(2, 3)


def _elsewhere(x: Tensor, present: Tensor, causal: bool) -> Tensor:
    """Maximum (B, H, R, g, d) over the rows before each row (causal), or over all other rows,
    column by column.
    """
    low = torch.finfo(x.dtype).min
    # Rows last: cummax is many times faster along memory than across it.
    x = x.masked_fill(~present[..., None], low).permute(0, 1, 3, 4, 2).contiguous()
    top = F.pad(x[..., :-1].cummax(-1).values, (1, 0), value=low)
    if not causal:
        top = torch.maximum(
            top, F.pad(x[..., 1:].flip(-1).cummax(-1).values.flip(-1), (0, 1), value=low)
        )
    return top.permute(0, 1, 4, 2, 3)


def _logsparse(
    query: Tensor, key: Tensor, value: Tensor, present: Tensor, causal: bool, _: int
) -> Tensor:
    """One fused call over segments of c tokens.

    Its keys are all blocks inside a segment, under a mask, and the larger blocks next to it, which
    its tokens share.
    """
    size = min(query.shape[2], SPAN)
    blocks = _blocks(query, key, present)
    query, key, value = (part.unflatten(2, (-1, size)) for part in (query, key, value))
    known = present.unflatten(2, (-1, size))  # (B, 1, S, c)
    at, segment = (torch.arange(count, device=query.device) for count in (size, query.shape[2]))
    row = at[:, None]
    near = (at == row) | ((at == row ^ 1) & (at < row if causal else at >= 0))
    keys, values, allowed = [key], [value], [near & known[:, :, :, None]]
    for level, (reader, group_key, has) in enumerate(blocks, 1):
        width = 1 << level
        if width < size:
            block_of, block = row >> level, at[: size >> level]
            reader, group_key, has = (
                part.unflatten(2, (-1, size >> level)) for part in (reader, group_key, has)
            )
            keys.append(group_key)
            values.append(
                _attend(reader, key, value, (block[:, None] == at >> level) & known[:, :, :, None])
            )
            allowed.append(
                (block == block_of ^ 1)
                & (block < block_of if causal else block >= 0)
                & has[:, :, :, None]
            )
        else:
            all_keys, all_values = (
                part.flatten(2, 3).unflatten(2, (-1, width)) for part in (key, value)
            )
            group_value = _attend(
                reader[:, :, :, None], all_keys, all_values, present.unflatten(2, (-1, 1, width))
            )
            block_of = segment // (width // size)
            has = has[:, :, block_of ^ 1] & (block_of % 2 == 1 if causal else block_of >= 0)
            keys.append(group_key[:, :, block_of ^ 1, None])
            values.append(group_value[:, :, block_of ^ 1])
            allowed.append(has[..., None, None].expand(-1, -1, -1, size, -1))
    return _attend(query, torch.cat(keys, 3), torch.cat(values, 3), torch.cat(allowed, -1)).flatten(
        2, 3
    )


def _blocks(query: Tensor, key: Tensor, present: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For blocks of 2, 4, ... tokens up to half of all: largest query, largest key, and whether the
    block has a token.
    """
    low = torch.finfo(query.dtype).min
    query, key = (part.masked_fill(~present[..., None], low) for part in (query, key))
    blocks = []
    while query.shape[2] > 2:
        query, key = (part.unflatten(2, (-1, 2)).amax(3) for part in (query, key))
        present = present.unflatten(2, (-1, 2)).any(3)
        empty = ~present[..., None]
        blocks.append((query.masked_fill(empty, 0.0), key.masked_fill(empty, 0.0), present))
    return blocks
