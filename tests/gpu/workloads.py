"""What is timed: a usual size of each operator, its products, and the best other way that needs
no further package.

Sizes are those of the pipelines, or of a layer of a usual model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.kernels.attention_maps import attention_maps
from headwise.kernels.attention_moments import cosine_moments
from headwise.kernels.attention_moments import naive as moments_formula
from headwise.kernels.attention_stats import attention_stats
from headwise.kernels.differential_combine import differential_combine
from headwise.kernels.differential_combine import naive as differential_formula
from headwise.kernels.dispatch import dispatch
from headwise.kernels.expert_combine import expert_combine
from headwise.kernels.expert_combine import naive as sum_formula
from headwise.kernels.expert_gate import expert_gate
from headwise.kernels.gated_scores import gated_scores
from headwise.kernels.gated_scores import naive as gates_formula
from headwise.kernels.gathered_heads import gathered_heads
from headwise.kernels.grouped_linear import grouped_linear
from headwise.kernels.label_attention import label_attention
from headwise.kernels.label_attention import naive as label_formula
from headwise.kernels.neighbourhood import neighbourhood_attention
from headwise.kernels.pair_attention import naive as pair_formula
from headwise.kernels.pair_attention import pair_attention
from headwise.kernels.partial_softmax import attend_with_lse
from headwise.kernels.ragged_attention import ragged_attention
from headwise.kernels.ragged_decode import decode_attention
from headwise.kernels.signed_root_attention import naive as root_formula
from headwise.kernels.signed_root_attention import signed_root_attention
from headwise.kernels.softmax_pool import naive as pool_formula
from headwise.kernels.softmax_pool import softmax_draw, softmax_pool
from headwise.kernels.star_core import naive as star_formula
from headwise.kernels.star_core import star_core
from headwise.kernels.tensor_attention import naive as third_formula
from headwise.kernels.tensor_attention import tensor_attention
from headwise.kernels.time_warping import cpu as plain_warping
from headwise.kernels.time_warping import median_filter, time_warp

HALF, SINGLE = torch.bfloat16, torch.float32
Call = Callable[[], object]


class Numbers:
    """Tensors of a workload, which it keeps as its inputs; on "meta" they have no values."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.tensors: list[Tensor] = []

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        kind = self.dtype if dtype is None else dtype
        x = torch.randn(shape, device=self.device, dtype=kind, requires_grad=True)
        self.tensors.append(x)
        return x

    def compile(self, function: Callable[..., object]) -> Callable[..., object]:
        """The other way compiled; as it is where there is no card."""
        return torch.compile(function) if self.device.type == "cuda" else function

    def flex(self, query: Tensor, key: Tensor, value: Tensor) -> Call:
        """FlexAttention with its log-sum-exp."""
        from torch.nn.attention.flex_attention import AuxRequest, flex_attention

        run = self.compile(flex_attention)
        if self.device.type != "cuda":  # it has no backward pass there
            query, key, value = query.detach(), key.detach(), value.detach()
        return lambda: tuple(run(query, key, value, return_aux=AuxRequest(lse=True)))


class Prepared(NamedTuple):
    """The operator, and the other way to the same or to less."""

    call: Call
    rival: Call | None = None


@dataclass(frozen=True)
class Workload:
    """names: of the sizes; tiny: sizes for a dry run; products: flops of the forward and of the
    backward pass; rival: what the other way is, "" where there is none.
    """

    operator: str
    names: str
    sizes: tuple[int, ...]
    tiny: tuple[int, ...]
    build: Callable[..., Prepared]
    products: Callable[..., tuple[float, float]] = lambda *sizes: (0.0, 0.0)
    rival: str = ""
    dtype: torch.dtype = HALF

    @property
    def shape(self) -> str:
        """Names and sizes."""
        return " ".join(f"{name} {number}" for name, number in zip(self.names.split(), self.sizes))


def attention_products(scale: float = 1.0) -> Callable[..., tuple[float, float]]:
    """Of B H N M d: two products forward, five backward."""

    def products(b: int, h: int, n: int, m: int, d: int, *rest: int) -> tuple[float, float]:
        return scale * 4.0 * b * h * n * m * d, scale * 10.0 * b * h * n * m * d

    return products


def stats(x: Numbers, b: int, h: int, n: int, m: int, d: int) -> Prepared:
    query, key, value = x(b, h, n, d), x(b, h, m, d), x(b, h, m, d)

    def call() -> object:
        read = attention_stats(query, key, value, want=("lse", "entropy"))
        return read.output, read.lse, read.entropy

    return Prepared(call, x.flex(query, key, value))


def maps(x: Numbers, b: int, h: int, n: int, m: int, d: int) -> Prepared:
    query, key, value = x(b, h, n, d), x(b, h, m, d), x(b, h, m, d)
    rows = x.compile(lambda: (query @ key.mT * d**-0.5).softmax(-1, dtype=SINGLE))
    with_maps = torch.no_grad()(lambda: tuple(attention_maps(query, key, value)))
    attend = partial(F.scaled_dot_product_attention, query, key, value)
    return Prepared(with_maps, torch.no_grad()(lambda: (attend(), rows())))


def lse(x: Numbers, b: int, h: int, n: int, m: int, d: int) -> Prepared:
    query, key, value = x(b, h, n, d), x(b, h, m, d), x(b, h, m, d)
    return Prepared(lambda: attend_with_lse(query, key, value), x.flex(query, key, value))


def moments(x: Numbers, b: int, h: int, n: int, m: int, d: int) -> Prepared:
    query, key = x(b, h, n, d), x(b, h, m, d)
    queries = torch.ones(b, n, dtype=torch.bool, device=x.device)
    formula = x.compile(moments_formula.cosine_moments)

    def call() -> object:
        read = cosine_moments(query, key)
        return read.dot, read.row, read.mean

    return Prepared(call, lambda: formula(query, key, None, queries, 2.0, d**-0.5))


def gathered(x: Numbers, b: int, h: int, n: int, m: int, d: int, percent: int) -> Prepared:
    query, key, value = x(b, h, n, d), x(b, h, m, d), x(b, h, m, d)
    gate = x(b, h, n, dtype=SINGLE)
    on = torch.rand(b, h, n, device=x.device) < percent / 100
    used = gate.sigmoid() * on

    def dense() -> Tensor:
        return F.scaled_dot_product_attention(query, key, value) * used[..., None].to(query.dtype)

    return Prepared(lambda: gathered_heads(query, key, value, used), dense)


def pairs(x: Numbers, b: int, h: int, n: int, m: int, d: int) -> Prepared:
    query, key, value = x(b, h, n, d), x(b, h, m, d), x(b, h, m, d)
    partner = torch.arange(b, device=x.device).flip(0)
    joined = pair_formula.pair_attention
    return Prepared(
        lambda: pair_attention(query, key, value, partner),
        lambda: joined(query, key, value, partner, d**-0.5)[0],
    )


def ragged(x: Numbers, b: int, h: int, q: int, t: int, d: int) -> Prepared:
    query, key, value = x(b, q, h, d), x(b * t, h, d), x(b * t, h, d)
    offsets = torch.arange(b + 1, device=x.device) * t

    def padded() -> Tensor:
        straight = (y.view(b, t, h, d).transpose(1, 2) for y in (key, value))
        return F.scaled_dot_product_attention(query.transpose(1, 2), *straight).transpose(1, 2)

    return Prepared(lambda: ragged_attention(query, key, value, offsets), padded)


def decoded(x: Numbers, b: int, k: int, g: int, t: int, d: int, full: int, span: int) -> Prepared:
    """A new token; `full` heads of keys hold T keys, the others `span`. Heads of one rule lie side
    by side, and the other way attends to them as to one cache.
    """
    query, rows = x(b, k * g, 1, d), b * (full * t + (k - full) * span)
    key, value = x(rows, d), x(rows, d)
    lengths = torch.tensor([t] * full + [span] * (k - full), device=x.device).expand(b, k)
    sample = torch.arange(b, device=x.device)[:, None]
    head = torch.arange(k, device=x.device)
    windows = b * full * t + (sample * (k - full) + head - full) * span
    starts = torch.where(head < full, (sample * full + head) * t, windows)

    def by_rule() -> object:
        parts = []
        for first, last, held, begin in ((0, full, t, 0), (full, k, span, b * full * t)):
            size = b * (last - first) * held
            some = (y[begin : begin + size].view(b, last - first, held, d) for y in (key, value))
            asked = query[:, first * g : last * g]
            parts.append(F.scaled_dot_product_attention(asked, *some, enable_gqa=True))
        return torch.cat(parts, 1)

    run = torch.no_grad()(lambda: decode_attention(query, key, value, starts, lengths))
    return Prepared(run, torch.no_grad()(by_rule))


def decoded_products(
    b: int, k: int, g: int, t: int, d: int, full: int, span: int
) -> tuple[float, float]:
    return 4.0 * b * g * d * (full * t + (k - full) * span), 0.0


def labels(x: Numbers, b: int, n: int, c: int, d: int) -> Prepared:
    h, query, weight = x(b, n, d), x(c, d), x(c, d)
    formula = x.compile(label_formula.label_attention)
    return Prepared(
        lambda: label_attention(h, query, weight),
        lambda: formula(h, query, weight, None, d**-0.5)[0],
    )


def third(x: Numbers, b: int, h: int, n: int, d: int) -> Prepared:
    parts = [x(b, h, n, d) for _ in range(5)]
    formula = x.compile(third_formula.tensor_attention)
    return Prepared(lambda: tensor_attention(*parts), lambda: formula(*parts, None, None, 1 / d)[0])


def windows(x: Numbers, b: int, h: int, side: int, w: int, e: int) -> Prepared:
    logits, value = x(b, h, side * side, w * w), x(b, h, side * side, e)

    def unfolded() -> Tensor:
        grid = F.pad(value.view(b, h, side, side, e), (0, 0, *[w // 2] * 4))
        near = grid.unfold(2, w, 1).unfold(3, w, 1)  # (B, H, Y, X, e, w, w)
        weights = logits.softmax(-1).view(b, h, side, side, 1, w, w)  # the border is not hidden
        return (weights * near).sum((-1, -2)).view(value.shape)

    run = x.compile(unfolded)
    return Prepared(lambda: neighbourhood_attention(logits, value, (side, side), w), run)


def root(x: Numbers, b: int, n: int, c: int, e: int) -> Prepared:
    query, key, value = x(b, n, c), x(b, n, c), x(b, n, e)
    formula = x.compile(root_formula.signed_root_attention)
    return Prepared(
        lambda: signed_root_attention(query, key, value), lambda: formula(query, key, value, 1e-4)
    )


def differential(x: Numbers, b: int, n: int, s: int, r: int, w: int) -> Prepared:
    # As attention writes its output: tokens before heads.
    mixed = x(b, n, s + r, w).transpose(1, 2)
    lam, weight = x(1, dtype=SINGLE)[0], x(w, dtype=SINGLE)
    formula = x.compile(differential_formula.differential_combine)
    return Prepared(
        lambda: differential_combine(mixed, lam, weight, signal=s),
        lambda: formula(mixed.transpose(1, 2).flatten(0, 1), lam, weight, s, 1e-5, 1.0)[0],
    )


def pool(x: Numbers, b: int, n: int, d: int) -> Prepared:
    scores = x(b, n, d)
    formula = x.compile(lambda scores: (scores.softmax(1) * scores).sum(1))
    return Prepared(lambda: softmax_pool(scores), lambda: formula(scores))


def pool_heads(x: Numbers, m: int, d: int, k: int) -> Prepared:
    scores, values = x(m, k), x(m, d)
    offsets = torch.tensor([0, m], device=x.device)
    formula = x.compile(pool_formula.softmax_pool)
    return Prepared(
        lambda: softmax_pool(scores, values, per="head", offsets=offsets),
        lambda: formula(scores[None], values[None], None, None, True)[0],
    )


def draw(x: Numbers, b: int, n: int, d: int) -> Prepared:
    scores = x(b, n, d)

    def noisy() -> Tensor:
        return (scores - torch.empty_like(scores).exponential_().log()).argmax(1)

    run = x.compile(noisy)
    return Prepared(torch.no_grad()(lambda: softmax_draw(scores, seed=1)), torch.no_grad()(run))


def star(x: Numbers, b: int, n: int, d: int, c: int) -> Prepared:
    inputs = x(b, n, d), x(d, d), x(d), x(c, d), x(c)

    def plain() -> Tensor:
        z = star_formula.scores(*inputs)
        noise = torch.empty_like(z).exponential_().log()
        return star_formula.star_core(z, (z.detach() - noise).argmax(1))

    return Prepared(lambda: star_core(*inputs, seed=1)[0], x.compile(plain))


def gelu(x: Numbers, r: int, k: int, o: int) -> Prepared:
    from headwise.kernels.gelu_linear import gelu_linear

    h, weight, bias = x(r, k), x(o, k), x(o)
    plain = x.compile(lambda h, weight, bias: F.linear(F.gelu(h), weight, bias))
    return Prepared(lambda: gelu_linear(h, weight, bias), lambda: plain(h, weight, bias))


def gates(x: Numbers, m: int, h: int, a: int, k: int) -> Prepared:
    inputs = x(m, h), x(2 * a, h), x(2 * a), x(k, a), x(k)
    formula = x.compile(gates_formula.gated_scores)
    return Prepared(lambda: gated_scores(*inputs), lambda: formula(*inputs))


def choice(x: Numbers, t: int, e: int, k: int) -> Prepared:
    scores = x(t, e)

    def chain() -> object:
        p = scores.softmax(-1)
        top, chosen = p.topk(k, -1)
        counts = F.one_hot(chosen, e).sum(0)
        log_sum = scores.logsumexp(-1).square().mean()
        spread = -(p * p.clamp_min(1e-30).log()).sum(-1).mean()
        return top / top.sum(-1, keepdim=True), chosen, counts, p.mean(0), log_sum, spread

    return Prepared(lambda: tuple(expert_gate(scores, k, normalise=True)), x.compile(chain))


def chosen_of(x: Numbers, t: int, k: int, e: int) -> Tensor:
    """Each expert has as many tokens as the others."""
    place = torch.arange(t * k, device=x.device).view(t, k)
    return (place * 7 % e + torch.arange(k, device=x.device)) % e


def linears(x: Numbers, t: int, k: int, d: int, f: int, e: int) -> Prepared:
    where = dispatch(chosen_of(x, t, k, e), e)
    tokens, weight = x(t, d), x(e, f, d)
    return Prepared(
        lambda: grouped_linear(tokens, weight, None, where, gather=True),
        lambda: F.grouped_mm(tokens[where.tokens], weight.transpose(1, 2), offs=where.offsets[1:]),
    )


def sums(x: Numbers, t: int, k: int, d: int) -> Prepared:
    where = dispatch(chosen_of(x, t, k, 8), 8)
    y, weights = x(t * k, d), x(t, k, dtype=SINGLE)
    formula = x.compile(sum_formula.expert_combine)
    return Prepared(
        lambda: expert_combine(y, weights, where), lambda: formula(y, weights, where.place)
    )


def warp(x: Numbers, b: int, n: int, m: int) -> Prepared:
    cost = x(b, n, m)
    sizes = [torch.full((b,), most, device=x.device) for most in (n, m)]
    plain = torch.no_grad()(lambda: plain_warping.torch_time_warp(cost, *sizes))
    return Prepared(torch.no_grad()(lambda: tuple(time_warp(cost))), plain)


def median(x: Numbers, b: int, n: int, m: int, w: int) -> Prepared:
    tokens = x(b, n, m)

    def plain() -> Tensor:
        padded = F.pad(tokens, (w // 2, w // 2), mode="reflect")
        return padded.unfold(-1, w, 1).median(-1).values

    run = x.compile(plain)
    return Prepared(torch.no_grad()(lambda: median_filter(tokens, w)), torch.no_grad()(run))


def _linear(*pairs: Sequence[int]) -> float:
    """Flops of products (rows, inputs, outputs)."""
    return float(sum(2 * rows * inputs * outputs for rows, inputs, outputs in pairs))


FLEX, COMPILED = "FlexAttention, output and log-sum-exp alone", "torch.compile of the formula"
HEADS = (8, 16, 2048, 2048, 64)
WORKLOADS = (
    Workload("attention_stats", "B H N M d", HEADS, (1, 2, 5, 6, 16), stats,
             attention_products(), FLEX),
    Workload("attention_maps", "B H N M d", (8, 6, 448, 1500, 64), (1, 2, 5, 6, 16), maps,
             attention_products(), "SDPA, and softmax of the scores compiled"),
    Workload("attend_with_lse", "B H N M d", (8, 8, 1024, 1024, 64), (1, 2, 5, 6, 16), lse,
             attention_products(), FLEX),
    Workload("cosine_moments", "B H N M d", (8, 8, 1024, 1024, 64), (1, 2, 5, 6, 16), moments,
             lambda *s: tuple(x / 2 for x in attention_products()(*s)), COMPILED),
    Workload("gathered_heads", "B H N M d %", (*HEADS, 75), (1, 2, 5, 6, 16, 75), gathered,
             attention_products(0.75), "SDPA times the gate"),
    Workload("gathered_heads", "B H N M d %", (*HEADS, 30), (1, 2, 5, 6, 16, 30), gathered,
             attention_products(0.3), "SDPA times the gate"),
    Workload("pair_attention", "B H N M d", (64, 12, 197, 197, 64), (2, 2, 5, 6, 16), pairs,
             attention_products(2.0), "keys joined, SDPA"),
    Workload("ragged_attention", "B H Q T d", (1, 8, 5, 100_000, 64), (1, 2, 3, 20, 16), ragged,
             attention_products(), "SDPA of one sample"),
    Workload("decode_attention", "B K G T d full span", (8, 8, 4, 32_768, 128, 3, 320),
             (1, 3, 2, 20, 16, 1, 4), decoded, decoded_products,
             "SDPA by groups of heads of a rule"),
    Workload("label_attention", "B N L d", (32, 512, 1000, 128), (2, 5, 3, 16), labels,
             lambda b, n, c, d: (_linear((b * n, d, 2 * c)), 3 * _linear((b * n, d, 2 * c))),
             COMPILED),
    Workload("tensor_attention", "B H N d", (8, 4, 128, 64), (1, 1, 4, 16), third,
             lambda b, h, n, d: (4.0 * b * h * n**3 * d, 14.0 * b * h * n**3 * d), COMPILED),
    Workload("neighbourhood_attention", "B H side w e", (8, 4, 56, 7, 32), (1, 1, 3, 3, 4), windows,
             lambda b, h, side, w, e: (2.0 * b * h * side**2 * w**2 * e,
                                       4.0 * b * h * side**2 * w**2 * e),
             "values unfolded, compiled"),
    Workload("signed_root_attention", "B N C E", (8, 1024, 512, 512), (1, 20, 16, 16), root,
             lambda b, n, c, e: (2.0 * b * n**2 * (c + e), 2.0 * b * n**2 * (3 * c + 2 * e)),
             COMPILED),
    Workload("differential_combine", "B N S R W", (8, 2048, 8, 4, 128), (1, 4, 2, 1, 16),
             differential, rival=COMPILED),
    Workload("softmax_pool", "B N D", (32, 862, 512), (1, 9, 8), pool, rival=COMPILED,
             dtype=SINGLE),
    Workload("softmax_pool", "M D K", (100_000, 512, 5), (20, 16, 2), pool_heads,
             lambda m, d, k: (2.0 * m * d * k, 4.0 * m * d * k), COMPILED),
    Workload("softmax_draw", "B N D", (32, 862, 512), (1, 9, 8), draw,
             rival="scores plus Gumbel noise, compiled", dtype=SINGLE),
    Workload("star_core", "B N D C", (32, 862, 512, 512), (1, 40, 8, 8), star,
             lambda b, n, d, c: (_linear((b * n, d, d), (b * n, d, c)),
                                 _linear((b * min(n, c), d, d), (b * min(n, c), d, d))),
             "the plain form compiled"),
    Workload("gelu_linear", "R K O", (65_536, 2048, 512), (600, 1000, 4), gelu,
             lambda r, k, o: (_linear((r, k, o)), 2 * _linear((r, k, o))), COMPILED),
    Workload("gated_scores", "M H A K", (100_000, 256, 128, 5), (20, 16, 16, 2), gates,
             lambda m, h, a, k: (_linear((m, h, 2 * a), (m, a, k)),
                                 _linear((3 * m, h, 2 * a), (2 * m, a, k))), COMPILED),
    Workload("expert_gate", "T E K", (65_536, 64, 2), (20, 4, 2), choice,
             rival="topk, softmax, one_hot, compiled", dtype=SINGLE),
    Workload("expert_gate", "T E K", (65_536, 256, 8), (20, 8, 3), choice,
             rival="topk, softmax, one_hot, compiled", dtype=SINGLE),
    Workload("grouped_linear", "T K D F E", (16_384, 2, 1024, 4096, 8), (20, 2, 16, 16, 3), linears,
             lambda t, k, d, f, e: (_linear((t * k, d, f)), 2 * _linear((t * k, d, f))),
             "index_select, F.grouped_mm"),
    Workload("expert_combine", "T K D", (16_384, 2, 1024), (20, 2, 16), sums, rival=COMPILED),
    Workload("time_warp", "B N M", (32, 448, 1500), (2, 5, 9), warp,
             rival="an antidiagonal a call", dtype=SINGLE),
    Workload("median_filter", "B N M w", (32, 448, 1500, 7), (2, 3, 20, 3), median,
             rival="unfold and median, compiled", dtype=SINGLE),
)  # fmt: skip
