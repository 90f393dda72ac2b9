"""Combiner: full attention at less than quadratic cost, since far tokens are reached through summaries of groups.

Shapes: B batch, N tokens, D width, H heads, d = D / H, S segments of g tokens, e width of a value.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Attention, join_heads, masked_softmax, split_heads


class Combiner(Attention):
    """Structured factorisation of attention, p(j|i) = p(group|i) p(j|group) for far j (Ren et al., arXiv 2107.05768).

    Near tokens are attended to directly, each group of far ones through one key and one value, in one joint softmax:

        key of a group = max of its keys,  value = attend(max of its queries, its keys, its values)
        fixed      near: the own segment;   groups: the other segments                        O(N (g + N/g) D)
        axial      near: the own row of g;  groups: the columns, own row left out             O(N (g + N/g) D)
        logsparse  near: the token itself;  groups: blocks of 1, 2, 4, ... tokens beside it   O(N log N D)

    Near tokens and groups never overlap and together are all tokens (with causal: all up to i), so each row of p sums
    to 1 and no token is out of reach.

    width: D; heads: H; factorisation; causal: token i sees tokens up to i; segment: g. It is a number and not the root
    of N, since padding a sequence would change its root, and with it the result.

    Readings: pooling is by maximum (the published default). The two official versions are not the same function
    (running maxima in one, running sums in the other); ours is the first. Published bidirectional forms count the own
    segment twice; here the groups leave it out, so that one segment, or segments of one token, are exact attention.
    Of the published axial forms this is the one with the row near and the columns as groups.
    """

    crosses: ClassVar[bool] = False
    variants: ClassVar[tuple[dict, ...]] = (
        {"segment": 4}, {"segment": 4, "causal": True},
        {"segment": 4, "factorisation": "axial"}, {"segment": 5, "factorisation": "axial", "causal": True},
        {"factorisation": "logsparse"}, {"factorisation": "logsparse", "causal": True},
    )  # fmt: skip

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
            raise ValueError(f"Combiner: factorisation is 'fixed', 'axial' or 'logsparse', got {factorisation!r}")
        if segment < 1:
            raise ValueError(f"Combiner: segment must be positive, got {segment}")
        self.factorisation = factorisation
        self.segment = segment
        self.causal = causal
        self.equivariant = False
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = may be attended to -> (B, N, D).

        Raises ValueError if mask or width do not fit or a context is given.
        """
        self.check(x, context, mask)
        query, key, value = self._project(x)
        return self.out(join_heads(self.mix(query, key, value, mask)))

    def weights(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """The factorised weights p (B, H, N, N)."""
        self.check(x, context, mask)
        query, key, _ = self._project(x)
        unit = torch.eye(x.shape[1], dtype=query.dtype, device=x.device).expand(*query.shape[:2], -1, -1)
        return self.mix(query, key, unit, mask)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (split_heads(part, self.heads) for part in self.query_key_value(x).chunk(3, -1))
        return query * query.shape[-1] ** -0.5, key, value

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """p value for scaled queries and keys (B, H, N, d), values (B, H, N, e), mask (B, N) -> (B, H, N, e)."""
        tokens = query.shape[2]
        there = torch.ones(query.shape[0], tokens, dtype=torch.bool, device=query.device) if mask is None else mask
        if self.factorisation == "logsparse":
            more = (1 << (tokens - 1).bit_length()) - tokens
            function = _logsparse
        else:
            more = -tokens % self.segment
            function = _fixed if self.factorisation == "fixed" else _axial
        if more:
            query, key, value = (F.pad(part, (0, 0, 0, more)) for part in (query, key, value))
            there = F.pad(there, (0, more))
        return function(query, key, value, there[:, None], self.causal, self.segment)[:, :, :tokens]


def _largest(x: Tensor, there: Tensor) -> Tensor:
    """Maximum over the tokens of each group (..., g, d) that are there (..., g), 0 where none is."""
    top = x.masked_fill(~there[..., None], torch.finfo(x.dtype).min).amax(-2)
    return top.masked_fill(~there.any(-1)[..., None], 0.0)


def _summaries(query: Tensor, key: Tensor, value: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Key (..., S, d) and value (..., S, e) of each group (..., S, g, ·), which are 0 for a group without tokens."""
    reader = _largest(query, there)
    weights = masked_softmax((key @ reader[..., None]).squeeze(-1), there)
    return _largest(key, there), (weights[..., None, :] @ value).squeeze(-2)


def _fixed(query: Tensor, key: Tensor, value: Tensor, there: Tensor, causal: bool, segment: int) -> Tensor:
    query, key, value = (part.unflatten(2, (-1, segment)) for part in (query, key, value))
    there = there.unflatten(2, (-1, segment))  # (B, 1, S, g)
    count = query.shape[2]
    group_key, group_value = _summaries(query, key, value, there)
    near = there[:, :, :, None]
    far = torch.ones(count, count, dtype=torch.bool, device=query.device)
    far = far.tril(-1) if causal else ~far.tril().triu()
    if causal:
        near = near & torch.ones(segment, segment, dtype=torch.bool, device=query.device).tril()
    far = far[:, None] & there.any(-1)[:, :, None, None]
    scores = [query @ key.transpose(-1, -2), query @ group_key[:, :, None].transpose(-1, -2)]
    return _joint(scores, [near, far], [value, group_value[:, :, None]]).flatten(2, 3)


def _axial(query: Tensor, key: Tensor, value: Tensor, there: Tensor, causal: bool, segment: int) -> Tensor:
    query, key, value = (part.unflatten(2, (-1, segment)) for part in (query, key, value))  # (B, H, R, g, ·)
    there = there.unflatten(2, (-1, segment))
    rows = query.shape[2]
    others = torch.ones(rows, rows, dtype=torch.bool, device=query.device)
    others = others.tril(-1) if causal else ~others.tril().triu()
    column = there.transpose(2, 3)[:, :, :, None] & others  # (B, 1, g, R, R): rows that a row's group in a column holds
    has = column.any(-1).transpose(2, 3)  # (B, 1, R, g)
    reader = _elsewhere(query, there, causal).masked_fill(~has[..., None], 0.0)
    group_key = _elsewhere(key, there, causal).masked_fill(~has[..., None], 0.0)
    along = masked_softmax(reader.transpose(2, 3) @ key.permute(0, 1, 3, 4, 2), column)
    group_value = (along @ value.transpose(2, 3)).transpose(2, 3)
    near = there[:, :, :, None]
    if causal:
        near = near & torch.ones(segment, segment, dtype=torch.bool, device=query.device).tril()
    scores = [query @ key.transpose(-1, -2), query @ group_key.transpose(-1, -2)]
    return _joint(scores, [near, has[:, :, :, None]], [value, group_value]).flatten(2, 3)


def _elsewhere(x: Tensor, there: Tensor, causal: bool) -> Tensor:
    """Maximum (B, H, R, g, d) over the rows before (causal) or over all rows but the own, column by column."""
    low = torch.finfo(x.dtype).min
    x = x.masked_fill(~there[..., None], low)
    before = F.pad(x[:, :, :-1].cummax(2).values, (0, 0, 0, 0, 1, 0), value=low)
    if causal:
        return before
    after = F.pad(x[:, :, 1:].flip(2).cummax(2).values.flip(2), (0, 0, 0, 0, 0, 1), value=low)
    return torch.maximum(before, after)


def _logsparse(query: Tensor, key: Tensor, value: Tensor, there: Tensor, causal: bool, _: int) -> Tensor:
    scores, allowed, values = [(query * key).sum(-1)], [there.expand(query.shape[:3])], []
    for level in range(query.shape[2].bit_length() - 1):
        parts = [part.unflatten(2, (-1, 1 << level)) for part in (query, key, value)]
        here = there.unflatten(2, (-1, 1 << level))
        # The block beside each block: 0 and 1, 2 and 3, and so on, change places.
        beside = [_swapped(part) for part in _summaries(parts[0], parts[1], parts[2], here)]
        known = _swapped(here.any(-1)[..., None]).squeeze(-1)
        if causal:
            known = known & (torch.arange(known.shape[2], device=query.device) % 2 == 1)
        scores.append((parts[0] @ beside[0][..., None]).squeeze(-1).flatten(2))
        allowed.append(known[..., None].expand(-1, query.shape[1], -1, 1 << level).flatten(2))
        values.append(beside[1])
    weights = masked_softmax(torch.stack(scores, -1), torch.stack(allowed, -1))
    out = weights[..., 0, None] * value
    for level, summary in enumerate(values):
        share = weights[..., level + 1].unflatten(2, (-1, 1 << level))[..., None]
        out = out + (share * summary[..., None, :]).flatten(2, 3)
    return out


def _swapped(x: Tensor) -> Tensor:
    """(B, ·, 2 n, ·) with the entries of each pair exchanged."""
    return x.unflatten(2, (-1, 2)).flip(3).flatten(2, 3)


def _joint(scores: list[Tensor], allowed: list[Tensor], values: list[Tensor]) -> Tensor:
    """One softmax over several sets of keys, then the weighted sum of their values."""
    sizes = [part.shape[-1] for part in scores]
    mask = torch.cat([part.expand(score.shape) for part, score in zip(allowed, scores)], -1)
    weights = masked_softmax(torch.cat(scores, -1), mask).split(sizes, -1)
    return weights[0] @ values[0] + weights[1] @ values[1]
