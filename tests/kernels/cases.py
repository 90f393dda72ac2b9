"""The calls by which every operator is checked, in one place: sizes, numbers, masks, layouts.

A case gets a `Maker`, which gives numbers, and `Sizes`, and returns a call without arguments. Its
inputs exist before the call, so that the call alone can be timed, captured or watched."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from headwise.kernels.attention_maps import attention_maps
from headwise.kernels.attention_moments import cosine_moments
from headwise.kernels.attention_stats import attention_stats
from headwise.kernels.differential_combine import differential_combine
from headwise.kernels.dispatch import dispatch
from headwise.kernels.expert_combine import expert_combine
from headwise.kernels.expert_gate import expert_gate
from headwise.kernels.gated_scores import gated_scores
from headwise.kernels.gathered_heads import gathered_heads
from headwise.kernels.grouped_linear import grouped_linear
from headwise.kernels.label_attention import label_attention
from headwise.kernels.neighbourhood import (
    neighbourhood_attention,
    neighbourhood_scores,
    neighbourhood_sum,
)
from headwise.kernels.pair_attention import pair_attention
from headwise.kernels.partial_softmax import attend_with_lse
from headwise.kernels.ragged_attention import ragged_attention
from headwise.kernels.ragged_decode import decode_attention
from headwise.kernels.signed_root_attention import signed_root_attention
from headwise.kernels.softmax_pool import softmax_draw, softmax_pool
from headwise.kernels.star_core import naive as star_formula
from headwise.kernels.star_core import star_core
from headwise.kernels.tensor_attention import tensor_attention
from headwise.kernels.time_warping import median_filter, time_warp


def straight(x: Tensor) -> Tensor:
    return x


class Sizes(NamedTuple):
    """groups: heads of keys, the queries of some operators have twice as many; mask: what it
    tells apart."""

    batch: int = 3
    groups: int = 2
    tokens: int = 5
    keys: int = 6
    width: int = 8
    values: int = 6
    mask: str = "pairs"
    causal: bool = False

    def __str__(self) -> str:
        numbers = " ".join(map(str, self[:6]))
        return f"{numbers} mask of {self.mask or 'nothing'}{' causal' * self.causal}"


class Maker:
    """Numbers of a fixed seed. dtype: of what the operator computes with; far: how far its scores
    are from 0; reference: the same rounded numbers as float64, and `notes` of the call that is
    checked, for operators that draw.
    """

    def __init__(
        self,
        lay: Callable[[Tensor], Tensor] = straight,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        far: float = 1.0,
        notes: dict[str, Tensor] | None = None,
    ) -> None:
        self.lay, self.dtype, self.far = lay, dtype, far
        self.device = torch.device(device)
        self.reference = notes is not None
        self.notes: dict[str, Tensor] = {} if notes is None else notes
        self.generator = torch.Generator().manual_seed(0)
        self.leaves: list[Tensor] = []

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _leaf(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        kind = torch.float64 if self.reference else dtype
        leaf = self.lay(numbers.to(dtype).to(self.device, kind)).requires_grad_()
        self.leaves.append(leaf)
        return leaf

    def __call__(self, *shape: int) -> Tensor:
        return self._leaf(self._random(*shape), self.dtype)

    def query(self, *shape: int) -> Tensor:
        """What makes the scores: numbers times `far`."""
        return self._leaf(self._random(*shape) * self.far, self.dtype)

    def single(self, *shape: int) -> Tensor:
        """Numbers that stay in float32 where the others are in half precision."""
        return self._leaf(self._random(*shape), torch.float32)

    def steps(self, *shape: int) -> Tensor:
        """Multiples of 1/8, whose sums are exact in any type."""
        return self._leaf((self._random(*shape) * 8).round().clamp(-32, 32) / 8, self.dtype)

    def marks(self, *shape: int) -> Tensor:
        """True for about seven of ten."""
        return self.lay((self._random(*shape) > -0.5).to(self.device))

    def mask(self, sizes: Sizes) -> Tensor | None:
        """The mask of attention with `2 * groups` heads that the sizes name."""
        batch, groups, tokens, keys = sizes[:4]
        shapes = {
            "keys": (batch, 1, 1, keys),
            "pairs": (batch, 1, tokens, keys),
            "heads": (batch, 2 * groups, tokens, keys),
        }
        return self.marks(*shapes[sizes.mask]) if sizes.mask else None

    def behind(self, mask: Tensor, x: Tensor) -> Tensor:
        """NaN where the mask is False."""
        return x.masked_fill(~mask, torch.nan)

    def whole(self, least: int, most: int, *shape: int) -> Tensor:
        """int64 from least to most."""
        numbers = torch.randint(least, most + 1, shape, generator=self.generator)
        return self.lay(numbers.to(self.device))

    def constant(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self.device)

    def offsets(self, samples: int, most: int) -> Tensor:
        """int64 (samples + 1,): places in packed rows, some samples without any."""
        lengths = torch.randint(0, most + 1, (samples,), generator=self.generator)
        return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(self.device)

    def choices(self, tokens: int, experts: int, active: int) -> Tensor:
        """int64 (tokens, active) without repetition; some choose no expert."""
        ranks = torch.rand(tokens, experts, generator=self.generator).argsort(1)[:, :active]
        dropped = torch.rand(ranks.shape, generator=self.generator) < 0.1
        return ranks.masked_fill(dropped, experts).to(self.device)


Call = Callable[[], object]
Case = Callable[[Maker, Sizes], Call]


def stats(x: Maker, s: Sizes) -> Call:
    query = x.query(s.batch, 2 * s.groups, s.tokens, s.width)
    key, value = (x(s.batch, s.groups, s.keys, width) for width in (s.width, s.values))
    mask, marks = x.mask(s), x.marks(s.batch, s.keys)
    weights = x.single(s.batch, s.tokens)
    want = ("lse", "entropy", "column_mass", "key_mass", "top")

    def call() -> object:
        read = attention_stats(
            query,
            key,
            value,
            mask=mask,
            causal=s.causal,
            want=want,
            keys=marks,
            weights=weights,
            k=2,
        ).__dict__
        # Which of two equal weights comes first may differ.
        return {name: x for name, x in read.items() if name != "top_indices"}

    return call


def fused_stats(x: Maker, s: Sizes) -> Call:
    """Read-outs whose gradients a fused call can give."""
    query = x.query(s.batch, 2 * s.groups, s.tokens, s.width)
    key, value = (x(s.batch, s.groups, s.keys, width) for width in (s.width, s.values))
    mask, marks = x.mask(s), x.marks(s.batch, s.keys)

    def call() -> object:
        about = {"mask": mask, "causal": s.causal}
        first = attention_stats(query, key, value, **about)
        rest = attention_stats(query, key, want=("entropy", "key_mass"), keys=marks, **about)
        return first.output, first.lse, rest.entropy, rest.key_mass

    return call


def maps(x: Maker, s: Sizes) -> Call:
    query = x.query(s.batch, 2 * s.groups, s.tokens, s.width)
    key, value = (x(s.batch, 2 * s.groups, s.keys, width) for width in (s.width, s.values))
    heads, mask = x.constant([1, 0]), x.mask(s)

    @torch.no_grad()
    def call() -> object:
        return tuple(attention_maps(query, key, value, heads, mean=s.causal, mask=mask))

    return call


def gathered(x: Maker, s: Sizes) -> Call:
    query = x.query(s.batch, 2 * s.groups, s.tokens, s.width)
    key, value = (x(s.batch, s.groups, s.keys, s.width) for _ in range(2))
    gate, mask = x.single(s.batch, 2 * s.groups, s.tokens), x.mask(s)
    # Small gates divide a rounded output: their gradient is not known well in half precision.
    gate = (gate.abs() + 0.5) * (gate > 0)
    return lambda: gathered_heads(query, key, value, gate, mask, causal=s.causal)


def pairs(x: Maker, s: Sizes) -> Call:
    query = x.query(s.batch, s.groups, s.tokens, s.width)
    key, value = (x(s.batch, s.groups, s.keys, width) for width in (s.width, s.values))
    partner = x.constant(range(s.batch)).flip(0) if s.batch else x.whole(0, 0, 0)
    return lambda: pair_attention(query, key, value, partner)


def third_order(x: Maker, s: Sizes) -> Call:
    tokens, keys = min(s.tokens, 33), min(s.keys, 33)
    marks = x.marks(s.batch, keys), x.marks(s.batch, tokens)
    query = x.query(s.batch, s.groups, tokens, s.width)
    parts = [
        x.behind(mask[:, None, :, None], x(s.batch, s.groups, mask.shape[1], width))
        for mask in marks
        for width in (s.width, s.values)
    ]
    return lambda: tensor_attention(query, *parts, mask1=marks[0], mask2=marks[1])


def windows(x: Maker, s: Sizes) -> Call:
    size = 3 if s.tokens > 2 else 1, s.tokens
    lead = s.batch, s.groups, size[0] * size[1]
    logits, value, key = x.query(*lead, 9), x(*lead, s.values), x(*lead, s.values)
    mask = x.marks(s.batch, lead[2])
    border = "clamp" if s.causal and s.tokens > 2 else "mask"
    return lambda: (
        neighbourhood_attention(logits, value, size, 3, mask=mask, border=border),
        neighbourhood_scores(key, value, size, 3, border=border),
        neighbourhood_sum(logits, value, size, 3, border=border),
    )


def signed_root(x: Maker, s: Sizes) -> Call:
    query, key = x(s.batch, s.tokens, s.width), x(s.batch, s.keys, s.width)
    value = x(s.batch, s.keys, s.values)
    return lambda: signed_root_attention(query, key, value, eps=0.1)  # steep where eps is small


def ragged(x: Maker, s: Sizes) -> Call:
    offsets = x.offsets(s.batch, s.keys)
    query = x.query(s.batch, min(s.tokens, 17), s.groups, s.width)
    key, value = (x(int(offsets[-1]), s.groups, width) for width in (s.width, s.values))
    return lambda: ragged_attention(query, key, value, offsets)


def decoded(x: Maker, s: Sizes) -> Call:
    lengths = x.whole(0, s.keys, s.batch, s.groups)
    ends = lengths.flatten().cumsum(0)
    rows, starts = int(ends[-1]) if s.batch else 0, (ends - lengths.flatten()).view(lengths.shape)
    query = x.query(s.batch, 2 * s.groups, min(s.tokens, 17), s.width)
    key, value = x(rows, s.width), x(rows, s.values)
    limits: dict[str, Tensor] = {"keep": x.marks(rows)} if s.mask == "keys" else {}
    if s.causal or s.mask in ("pairs", "heads"):
        limits["key_positions"] = x.whole(0, s.keys, rows)
        limits["query_positions"] = x.whole(0, s.keys, s.batch, query.shape[2])
    if s.mask == "heads":
        limits["spans"] = x.whole(1, s.keys + 1, s.batch, s.groups)
        limits["sinks"] = x.whole(0, 3, s.groups)

    @torch.no_grad()
    def call() -> object:
        return decode_attention(query, key, value, starts, lengths, **limits)

    return call


def labels(x: Maker, s: Sizes) -> Call:
    mask = x.marks(s.batch, s.tokens)
    h = x.behind(mask[..., None], x(s.batch, s.tokens, s.width))
    query, weight, bias = x.query(s.keys, s.width), x(s.keys, s.width), x(s.keys)
    return lambda: label_attention(h, query, weight, bias, mask=mask)


def partial(x: Maker, s: Sizes) -> Call:
    query = x.query(s.batch, 2 * s.groups, s.tokens, s.width)
    key, value = (x(s.batch, 2 * s.groups, s.keys, width) for width in (s.width, s.values))
    mask, bias = x.mask(s), x.single(2 * s.groups, 1, s.keys)
    return lambda: attend_with_lse(query, key, value, mask=mask, bias=bias)


def moments(x: Maker, s: Sizes) -> Call:
    query = x.query(s.batch, 2 * s.groups, s.tokens, s.width)
    key, mask = x(s.batch, s.groups, s.keys, s.width), x.mask(s)

    def call() -> object:
        read = cosine_moments(query, key, mask=mask, causal=s.causal)
        return read.dot, read.row, read.mean, read.counted

    return call


def differential(x: Maker, s: Sizes) -> Call:
    mixed, weight = x(s.batch, 3 * s.groups, s.tokens, s.width), x.single(s.width)
    lam, signal = x.single(1)[0], 2 * s.groups
    return lambda: (
        differential_combine(mixed, lam, weight, signal=signal, eps=1e-2),
        differential_combine(mixed, lam, signal=signal),
    )


def pooled(x: Maker, s: Sizes) -> Call:
    mask, offsets = x.marks(s.batch, s.tokens), x.offsets(s.batch, s.tokens)
    scores = x.behind(mask[..., None], x.query(s.batch, s.tokens, s.width))
    of_heads = x.behind(mask[..., None], x.query(s.batch, s.tokens, 2))
    values = x.behind(mask[..., None], x(s.batch, s.tokens, s.values))
    packed = x.query(int(offsets[-1]), s.width)
    return lambda: (
        softmax_pool(scores, mask=mask),
        softmax_pool(of_heads, values, per="head", mask=mask),
        softmax_pool(packed, offsets=offsets),
    )


def draws(x: Maker, s: Sizes) -> Call:
    mask, scores = x.marks(s.batch, s.tokens), x.query(s.batch, s.tokens, s.width)
    hidden = x.behind(mask[..., None], scores)

    def call() -> object:
        if not x.reference:
            drawn, index = softmax_draw(hidden, seed=3, mask=mask)
            x.notes["index"] = index
            return drawn, (index >= 0) == mask.any(1, keepdim=True)
        index = x.notes["index"].to(x.device)
        shown = torch.ones_like(index, dtype=torch.bool)
        if not s.tokens:
            return hidden.sum(1), shown
        return hidden.gather(1, index.clamp_min(0)[:, None])[:, 0].masked_fill(index < 0, 0), shown

    return call


def gelu(x: Maker, s: Sizes) -> Call:
    # The public function takes PyTorch's operators for so few numbers.
    import_module("headwise.kernels.gelu_linear")
    h, weight, bias = x(s.batch, s.tokens, s.width), x(s.values, s.width), x(s.values)
    return lambda: torch.ops.headwise.gelu_linear(h, weight, bias)


def gates(x: Maker, s: Sizes) -> Call:
    h, weight, bias = x(s.batch * s.tokens, s.width), x(2 * s.values, s.width), x(2 * s.values)
    out_weight, out_bias = x(3, s.values), x(3)
    return lambda: gated_scores(h, weight, bias, out_weight, out_bias)


def star(x: Maker, s: Sizes) -> Call:
    inputs = x(s.batch, s.tokens, s.width), x(s.width, s.width), x(s.width)
    inputs = *inputs, x(s.values, s.width), x(s.values)

    def call() -> object:
        if x.reference and not s.tokens:
            return inputs[0].sum() * inputs[0].new_zeros((s.batch, s.values))
        if x.reference:
            return star_formula.star_core(
                star_formula.scores(*inputs), x.notes["index"].to(x.device)
            )
        core, x.notes["index"] = star_core(*inputs, seed=3)
        return core

    return call


def choice(x: Maker, s: Sizes) -> Call:
    rows, count = s.batch * s.tokens, s.width + 1
    scores, bias, marks = x.single(rows, count), x.single(count), x.marks(rows)
    options = {"normalise": True, "bias": bias, "present_mask": marks}
    return lambda: (
        tuple(expert_gate(scores, min(2, count), **options)),
        tuple(expert_gate(scores, min(3, count), score="sigmoid", scale=2.0)),
    )


def experts(x: Maker, s: Sizes) -> Call:
    rows = s.batch * s.tokens
    where = dispatch(x.choices(rows, 4, 2), 4)
    tokens, weights = x(rows, s.width), x.single(rows, 2)
    up, bias, down = x(4, 2 * s.values, s.width), x(4, 2 * s.values), x(4, s.width, s.values)

    def call() -> object:
        hidden = grouped_linear(tokens, up, bias, where, gather=True)
        out = grouped_linear(hidden, down, None, where, activation="silu", gated=True)
        return expert_combine(out, weights, where)

    return call


def warping(x: Maker, s: Sizes) -> Call:
    cost, tokens = x.steps(s.batch, s.tokens, s.keys), x.steps(s.batch, 2, s.keys)
    rows, columns = x.whole(1, max(1, s.tokens), s.batch), x.whole(1, max(1, s.keys), s.batch)
    cells = min(s.tokens, s.keys) > 0

    @torch.no_grad()
    def call() -> object:
        warped = tuple(time_warp(cost, rows, columns)) if cells else ()
        return *warped, median_filter(tokens, 3, columns if s.keys else None)

    return call


CASES: tuple[Case, ...] = (
    *(stats, fused_stats, maps, gathered, pairs, third_order, windows, signed_root, ragged),
    *(partial, moments, differential, pooled, draws, gelu, gates, star, choice, experts, warping),
    *(labels, decoded),
)


def differentiated(x: Maker, call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """Results of a call, and the gradients of the leaves that a weighted sum of them has."""
    results = [y for y in tree_flatten(call())[0] if isinstance(y, Tensor)]
    smooth = [y for y in results if y.requires_grad]
    if not smooth:
        return results, []
    total = smooth[0].new_zeros((), dtype=torch.float64 if x.reference else torch.float32)
    for y in smooth:
        # Each number weighs something else, exact in any type, in the memory order of the inputs.
        weight = torch.arange(y.numel(), device=y.device).view(y.shape).cos().mul(16).round() / 16
        total = total + (y * x.lay(weight.to(y.dtype))).sum()
    # Kept, since calls are repeated on inputs that have been made once.
    slopes = torch.autograd.grad(total, x.leaves, retain_graph=True, materialize_grads=True)
    return results, list(slopes)
