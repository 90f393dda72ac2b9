"""Grouped differential attention: softmax attention minus a shared map of noise.

Shapes: B batch, N tokens, M tokens of the context, D width, S signal heads, R noise heads, G = S /
R, K heads of keys and values, d width of queries and keys, 2 d width of values.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...kernels.differential_combine import differential_combine, forms
from ...kernels.forms import Form
from ..checks import check_dropout, check_number
from .base import (
    Attention,
    attend,
    causal_mask,
    joint_mask,
    masked_softmax,
    remembered_mask,
    split_heads,
    spread_mask,
)
from .cache import Cache
from .positions import rotary, rotary_pair

RATIOS = (4, 3, 5, 2, 1)  # of signal to noise heads, the paper's best first


class GroupedDifferentialAttention(Attention):
    """Differential attention whose noise heads are shared by groups of signal heads (arXiv
    2510.06949).

    out_i = (1 - lambda_init) RMSNorm((A_i - lambda B_{i // G}) V), A and B softmax maps; then heads
    are joined and W_o applied. lambda = exp(q1.k1) - exp(q2.k2) + lambda_init, lambda_init = 0.8 -
    0.6 exp(-0.3 depth): one number for all heads, its four vectors learned. G = 1 is differential
    attention (Ye et al., arXiv 2410.05258, eq. 1-3).

    Cost: (S + R) / (2 S) of differential attention's O(N M D); one call of PyTorch's fused operator
    over S + R heads with values twice as wide as keys, then one operator of ours for difference,
    norm and scale.

    width: D; heads: S, the signal heads; noise_heads: R, must divide S, by default S/4, else S/3,
    S/5, S/2, S; head_width: d, by default D / (2 S), an integer; kv_heads: K, must divide R (or be
    a multiple of R that divides S), by default R: the signal heads of a group share keys and values
    with their noise head. With K > R a noise map is applied to K / R different values, so that it
    is computed K / R times. depth: index of the layer, from 0; norm: False leaves out both RMSNorm
    and (1 - lambda_init); fixed_lambda: a number instead of the learned lambda; positions, causal,
    dropout: as in softmax attention.

    A mask (B, S, N, M) has one map per signal head; the noise head follows it, so that noise maps
    are computed S times. Departures: the vectors are exponentiated in float32; projections have a
    bias. Reading: no code of the paper is public; groups of consecutive heads, and separate keys
    for signal and noise, follow the public Motif ports.
    """

    masks: ClassVar[tuple[str, ...]] = ("keys", "pairs", "heads")
    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"noise_heads": 4, "positions": "rotary", "depth": 3},
        {"heads": 8, "noise_heads": 2, "kv_heads": 4, "causal": True},
        {"heads": 6, "head_width": 2, "kv_heads": 1, "positions": "rotary", "causal": True},
        {"norm": False, "fixed_lambda": 0.3},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        noise_heads: int | None = None,
        kv_heads: int | None = None,
        head_width: int | None = None,
        depth: int = 0,
        norm: bool = True,
        fixed_lambda: float | None = None,
        positions: Literal["none", "rotary"] = "none",
        causal: bool = False,
        dropout: float = 0.0,
    ) -> None:
        # By default the values of all heads, two halves each, make up the width.
        super().__init__(width, 1)
        self.heads = heads
        if noise_heads is None:
            noise_heads = max(heads, 1) // next(ratio for ratio in RATIOS if heads % ratio == 0)
        kv_heads = noise_heads if kv_heads is None else kv_heads
        if head_width is None:
            head_width = 0 if heads < 1 or width % (2 * heads) else width // (2 * heads)
        _check(width, heads, noise_heads, kv_heads, head_width, positions)
        self.noise_heads, self.kv_heads, self.head_width = noise_heads, kv_heads, head_width
        self.noise_keys = min(kv_heads, noise_heads)
        self.rotary = positions == "rotary"
        self.causal = causal
        self.equivariant = not (causal or self.rotary)
        check_dropout(type(self).__name__, dropout)
        if fixed_lambda is not None:
            check_number(type(self).__name__, "fixed_lambda", fixed_lambda)
        self.dropout = dropout
        self.depth = depth
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.fixed_lambda = fixed_lambda
        self.query = nn.Linear(width, (heads + noise_heads) * head_width)
        self.key_value = nn.Linear(width, (3 * kv_heads + self.noise_keys) * head_width)
        # Rows q1, k1, q2, k2.
        self.vectors = (
            nn.Parameter(0.1 * torch.randn(4, head_width)) if fixed_lambda is None else None
        )
        self.norm = nn.Parameter(torch.ones(2 * head_width)) if norm else None
        self.out = nn.Linear(heads * 2 * head_width, width)

    def noise_weight(self) -> Tensor:
        """lambda, (), at least float32."""
        if self.vectors is None:
            assert self.fixed_lambda is not None
            return self.out.weight.new_tensor(self.fixed_lambda)
        return noise_weight(self.vectors, self.lambda_init)

    def project(
        self, x: Tensor, source: Tensor, maps: int, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, S + R', N, d), keys and values (B, P, M, ·), each of whose P heads serves
        (S + R') / P queries; with a cache those of all tokens so far.

        maps: R', the number of noise maps, a multiple of R and of K that divides S.
        """
        heads, groups, size = self.heads, self.kv_heads, self.head_width
        query = split_heads(self.query(x), heads + self.noise_heads)
        widths = [groups * size, self.noise_keys * size, 2 * groups * size]
        key, noise_key, value = self.key_value(source).split(widths, -1)
        key, noise_key = split_heads(key, groups), split_heads(noise_key, self.noise_keys)
        value = split_heads(value, groups)
        if self.rotary:
            noise_key = rotary(noise_key, start=0 if cache is None else cache.tokens)
            query, key = rotary_pair(query, key, cache)
        if cache is not None:
            key, noise_key = cache.extended("key", key), cache.extended("noise_key", noise_key)
            value = cache.extended("value", value)
        if maps != self.noise_heads:
            noise = query[:, heads:].repeat_interleave(maps // self.noise_heads, 1)
            query = torch.cat([query[:, :heads], noise], 1)
        # Each head of keys serves maps / K queries: a noise key serves all of its queries, a signal
        # key is repeated S / maps times. So one call has S + R' heads of queries, and each key has
        # the same number of them.
        times = heads // maps
        key = torch.cat([_repeated(key, times), _repeated(noise_key, groups // self.noise_keys)], 1)
        return query, key, torch.cat([_repeated(value, times), value], 1)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x -> (B, N, D).

        mask: bool, True = may attend: (B, M) over the context, (B, N, M), or (B, S, N, M); cache:
        of earlier tokens, see `Cache`. A token that may attend to nothing receives 0 before the
        last layer.

        Raises ValueError if mask, cache or widths do not fit.
        """
        source = self.check(x, context, mask, cache)
        query, key, value = self.project(x, source, self._maps(mask), cache)
        dropout = self.dropout if self.training else 0.0
        allowed = self._for_all_maps(remembered_mask(cache, x, mask))
        mixed = attend(query, key, value, allowed, causal=self.causal, dropout=dropout)
        joined = differential_combine(
            mixed, self.noise_weight(), self.norm, signal=self.heads, scale=1.0 - self.lambda_init
        )
        return self.out(joined)

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """A_i - lambda B_{i // G}, (B, S, N, M), before the norm.

        Rows sum to 1 - lambda, or to 0 if there is no key.
        """
        source = self.check(x, context, mask)
        query, key, _ = self.project(x, source, self._maps(mask))
        key = _repeated(key, query.shape[1] // key.shape[1])
        allowed = self._for_all_maps(spread_mask(mask))
        if self.causal:
            allowed = joint_mask(allowed, causal_mask(query.shape[2], key.shape[2], x.device))
        maps = masked_softmax(query @ key.transpose(2, 3) / self.head_width**0.5, allowed)
        signal, noise = maps[:, : self.heads], maps[:, self.heads :]
        return signal - self.noise_weight().to(maps.dtype) * _repeated(
            noise, self.heads // noise.shape[1]
        )

    def _maps(self, mask: Tensor | None) -> int:
        if mask is not None and mask.ndim == 4:
            return self.heads
        return max(self.noise_heads, self.kv_heads)

    def _for_all_maps(self, allowed: Tensor | None) -> Tensor | None:
        """A mask with one map per signal head, for signal and noise."""
        if allowed is None or allowed.shape[1] == 1:
            return allowed
        return torch.cat([allowed, allowed], 1)

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the last operator; the attention itself is PyTorch's operator."""
        attention = "PyTorch's fused attention, then differential_combine"
        return [Form(f"{attention}: {form.name}", form.refused) for form in forms(x)]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, noise_heads={self.noise_heads}, kv_heads={self.kv_heads}"


def noise_weight(vectors: Tensor, start: float) -> Tensor:
    """lambda = exp(q1.k1) - exp(q2.k2) + start, (), at least float32. vectors: (4, d), rows q1, k1,
    q2, k2.
    """
    kind = torch.float64 if vectors.dtype == torch.float64 else torch.float32
    q1, k1, q2, k2 = vectors.to(kind).unbind()
    return (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + start


def _repeated(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.repeat_interleave(times, 1)


def _check(width: int, heads: int, noise: int, groups: int, size: int, positions: str) -> None:
    name = "GroupedDifferentialAttention"
    if noise < 1 or heads < 1 or heads % noise:
        raise ValueError(f"{name}: noise_heads {noise} must divide heads {heads}")
    if groups < 1 or heads % groups or (groups % noise and noise % groups):
        raise ValueError(
            f"{name}: kv_heads {groups} must divide noise_heads {noise} or be a multiple of "
            f"it that divides heads {heads}"
        )
    if size < 1:
        raise ValueError(
            f"{name}: {heads} heads of two halves do not fit width {width}; give head_width"
        )
    if positions not in ("none", "rotary"):
        raise ValueError(f"{name}: positions must be 'none' or 'rotary', got {positions!r}")
    if positions == "rotary" and size % 2:
        raise ValueError(f"{name}: rotary positions need heads of even width, got {size}")


@torch.no_grad()
def grow(
    attention: GroupedDifferentialAttention, factor: int, *, spread: float = 0.0
) -> GroupedDifferentialAttention:
    """The same function with `factor` times the signal heads, for continued training (group growth,
    arXiv 2510.06949).

    Signal heads are copied, each copy with 1 / factor of its columns of the last layer; noise
    heads, keys and values stay. Equal copies receive equal gradients and stay equal. spread > 0
    adds normal noise to the queries of all copies but the first, with that share of the weights'
    standard deviation; the start is then no longer exact.

    Raises ValueError for a factor below 1.
    """
    if factor < 1:
        raise ValueError(f"grow: factor must be at least 1, got {factor}")
    old, size = attention, attention.head_width
    new = GroupedDifferentialAttention(
        old.width,
        heads=old.heads * factor,
        noise_heads=old.noise_heads,
        kv_heads=old.kv_heads,
        head_width=size,
        depth=old.depth,
        norm=old.norm is not None,
        fixed_lambda=old.fixed_lambda,
        positions="rotary" if old.rotary else "none",
        causal=old.causal,
        dropout=old.dropout,
    ).to(old.out.weight)
    state = old.state_dict()
    for name in ("query.weight", "query.bias"):
        signal, noise = state[name].split([old.heads * size, old.noise_heads * size])
        copies = signal.unflatten(0, (old.heads, 1, size)).repeat(1, factor, *[1] * signal.ndim)
        if spread and factor > 1:
            copies[:, 1:] += spread * signal.std() * torch.randn_like(copies[:, 1:])
        state[name] = torch.cat([copies.flatten(0, 2), noise])
    columns = state["out.weight"].unflatten(1, (old.heads, 1, 2 * size)) / factor
    state["out.weight"] = columns.repeat(1, 1, factor, 1).flatten(1)
    new.load_state_dict(state)
    return new.train(old.training)
