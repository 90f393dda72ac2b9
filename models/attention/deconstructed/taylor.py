"""Taylor attention: the exponential of softmax attention replaced by its second-order Taylor
series.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, d = D / H, P = 1 + d + d (d +
1) / 2 features.

    a_ij = 1 + s + s^2 / 2,  s = q_i k_j / sqrt(d);   out_i = sum_j a_ij v_j / sum_j a_ij
    a_ij = f(q_i) f(k_j) with f(x) = [1, x, x_a x_b (a < b), x_a^2 / sqrt(2)] of x / d^(1/4)

1 + s + s^2/2 is at least 1/2, so the sum is positive and no row can vanish. Each pair a < b occurs
once (twice in the plain vec(x x^T) / sqrt(2)): the same sums from half the features.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ....kernels.forms import Form
from ....kernels.precision import autocast_type, compute_type, outside_autocast
from ..base import Attention, causal_mask, join_heads, joint_mask, split_heads, spread_mask
from ..cache import Cache

CHUNK = 128  # tokens; only the features of one chunk are held at a time


class TaylorAttention(Attention):
    """Linear attention that approximates softmax (Based, arXiv 2402.18668; "Approximate" of arXiv
    2510.11602).

    Cost: O((N + M) d D) features and products in the linear form, O(N M D) in the quadratic one;
    memory O(N P H) or O(N M H) in training. width: D; heads: H; causal: token i sees tokens up to
    i, by a running sum over chunks; form: "auto" takes the linear form for more than 2 P tokens
    (measured on a CPU), "linear", "quadratic". Reading: the recurrence of arXiv 2510.11602
    (equations 14-18) divides each order by its own sum; ours is the joint form, as in Based. A
    causal call with a context of another length takes the quadratic form. Sums and squares are at
    least float32, because those of float16 overflow at scores above 360. With a cache the form is
    linear, and the running sum, (H, P, d + 1) for a sequence, is all that the cache holds.
    """

    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"causal": True},
        {"form": "linear"},
        {"form": "linear", "causal": True},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        causal: bool = False,
        form: Literal["auto", "linear", "quadratic"] = "auto",
    ) -> None:
        super().__init__(width, heads)
        if form not in ("auto", "linear", "quadratic"):
            raise ValueError(
                f"TaylorAttention: form must be 'auto', 'linear' or 'quadratic', got {form!r}"
            )
        self.form = form
        self.causal = causal
        self.equivariant = not causal
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def linear_refused(self, tokens: int, keys: int) -> str:
        """Why the linear form is not taken; "" if it is."""
        size = self.width // self.heads
        count = 1 + size + size * (size + 1) // 2
        if self.causal and tokens != keys:
            return f"causal with {tokens} tokens over {keys}"
        if torch.compiler.is_exporting():  # one form for any number of tokens, so no chunks
            if self.causal:
                return "an exported causal program has no chunks"
            if self.form == "auto":
                return ""
        if self.form == "quadratic" or (self.form == "auto" and keys <= 2 * count):
            return f"{keys} tokens, {count} features" if self.form == "auto" else "form='quadratic'"
        return ""

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x; mask: bool (B, M), True = may be attended
        to; cache: of earlier tokens, see `Cache` -> (B, N, D).

        A token that may attend to nothing receives 0 before the last layer. Raises ValueError if
        mask, cache or widths do not fit.
        """
        source = self.check(x, context, mask, cache)
        query = split_heads(self.query(x), self.heads)
        key, value = (split_heads(part, self.heads) for part in self.key_value(source).chunk(2, -1))
        with without_float16(x):
            if cache is None and self.linear_refused(x.shape[1], source.shape[1]):
                mixed = quadratic(query, key, value, mask, causal=self.causal)
            else:
                mixed = linear(query, key, value, mask, causal=self.causal, cache=cache)
        return self.out(join_heads(mixed.to(value.dtype)))

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights (B, H, N, M), positive where allowed.

        A token that may attend to nothing has a row of 0.
        """
        source = self.check(x, context, mask)
        query, key = self.query(x), self.key_value(source).chunk(2, -1)[0]
        pair_weights = series(
            split_heads(query, self.heads), split_heads(key, self.heads), mask, causal=self.causal
        )
        shares = pair_weights / pair_weights.sum(-1, keepdim=True).clamp_min(0.25)
        return shares.to(query.dtype)

    def forms(self, x: Tensor) -> list[Form]:
        refused = self.linear_refused(x.shape[1], x.shape[1])
        return [Form("linear form, plain PyTorch", refused), Form("quadratic form, plain PyTorch")]


def without_float16(x: Tensor) -> AbstractContextManager[object]:
    """Products in the type of their factors, where autocast would take float16."""
    return outside_autocast(x) if autocast_type(x) == torch.float16 else nullcontext()


def series(query: Tensor, key: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    """1 + s + s^2 / 2 of all pairs (B, H, N, M) in the type of the sums, 0 where not allowed."""
    query, key = query.to(compute_type(query)), key.to(compute_type(key))
    score = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5
    allowed = spread_mask(mask)
    if causal:
        allowed = joint_mask(allowed, causal_mask(query.shape[2], key.shape[2], query.device))
    value = 1 + score * (1 + 0.5 * score)
    return value if allowed is None else value * allowed


def quadratic(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool
) -> Tensor:
    """All pairs: (B, H, N, d) from keys and values (B, H, M, d), mask (B, M)."""
    pair_weights = series(query, key, mask, causal=causal)
    # Any allowed key adds at least 1/2 to the sum, so only rows without keys reach the bound; these
    # are 0.
    value = value.to(pair_weights.dtype)
    return pair_weights @ value / pair_weights.sum(-1, keepdim=True).clamp_min(0.25)


def features(x: Tensor) -> Tensor:
    """f: (..., d) -> (..., P) in the type of the sums, such that f(q) f(k) = 1 + s + s^2 / 2."""
    size = x.shape[-1]
    x = x.to(compute_type(x)) * size**-0.25
    # Products by distance b - a: slices, whose gradients are slices, too; an index would scatter.
    products = [x[..., : size - back] * x[..., back:] for back in range(1, size)]
    return torch.cat([torch.ones_like(x[..., :1]), x, x * x * 0.5**0.5, *products], -1)


def linear(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    cache: Cache | None = None,
) -> Tensor:
    """Features chunk by chunk: (B, H, N, d) from keys and values (B, H, M, d), mask (B, M).

    Causal: N = M; cache: goes on after its tokens, and holds the sums.
    """
    kind = compute_type(value)
    # A last column of ones in the values gives the sum of the weights.
    value = torch.cat([value.to(kind), torch.ones_like(value[..., :1], dtype=kind)], -1)
    if mask is not None:
        value = value.masked_fill(~mask[:, None, :, None], 0.0)
    if torch.compiler.is_exporting() and not causal:  # any number of tokens, so no number of chunks
        queries, keys, values = (query,), (key,), (value,)
    else:
        queries, keys, values = query.split(CHUNK, 2), key.split(CHUNK, 2), value.split(CHUNK, 2)
    added = [features(k).transpose(2, 3) @ v for k, v in zip(keys, values)]
    if causal:
        rows, state = [], torch.zeros_like(added[0])
        if cache is not None:
            state = cache.parts.get("state", state)
            cache.tokens += query.shape[2]
        for q, k, v, more in zip(queries, keys, values, added):
            rows.append(series(q, k, None, causal=True) @ v + features(q) @ state)
            state = state + more
        if cache is not None:
            cache.parts = {"state": state}
    else:
        total = torch.stack(added).sum(0)
        rows = [features(q) @ total for q in queries]
    mixed = torch.cat(rows, 2)
    return mixed[..., :-1] / mixed[..., -1:].clamp_min(0.25)
