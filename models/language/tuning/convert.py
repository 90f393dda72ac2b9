"""A trained language model of Hugging Face with modules of the core in place of its own.

What surrounds attention is exchanged, not attention itself: the layer of queries may grow, and what
the heads give is weighed before the last layer. So caches, masks, positions and any implementation
of attention go on to work as before.

Shapes: B texts, N tokens, D width, H heads of queries, K of keys and values, G = H / K, d width of
a head, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from ....kernels.differential_combine import differential_combine
from ...attention.base import leave_loss
from ...attention.differential import noise_weight
from ...attention.moh import HeadRouting
from ...moe.layer import MoE
from ...moe.upcycle import copies
from .anatomy import decoder_layers
from .present import PresentTokens

Conversion: TypeAlias = Literal["none", "moh", "grouped-differential", "bam", "upcycle"]
Option: TypeAlias = "int | float | str"
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu"}
ValueT = TypeVar("ValueT", int, float, str)


class HeadGates(HeadRouting):
    """Which heads each token has on: the routers of mixture-of-head attention (arXiv 2410.11842).

    used: (H,) float64, to which the tokens that had each head on are added; None: not counted.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        present: PresentTokens,
        *,
        shared: int | None = None,
        active: int | None = None,
        router: Literal["linear", "query-norm"] = "query-norm",
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        self.add_routers(width, heads, shared=shared, active=active, router=router, balance=balance)
        for layer in (self.route, self.share, self.between):
            if layer is not None:  # all gates 1 at the start, as of `MixtureOfHeads.from_softmax`
                nn.init.zeros_(layer.weight)
        self.present, self.heads = present, heads
        self.auxiliary: Tensor | None = None
        self.loss_without_gradients = False
        self.used: Tensor | None = None
        self.latest: Tensor | None = None

    def forward(self, x: Tensor, query: Tensor) -> None:
        """Decide for x (B, N, D) with queries (B, N, H d); `gated` takes the gates."""
        by_head = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        gate, on, p = self.gates(x, by_head)
        mask, loss = self.present.mask_of(x), None
        if self.training and self.balance and p is not None:
            loss = self.balance * self.imbalance(p, on[:, self.shared :], mask)
        leave_loss(self, loss)
        if self.used is not None:
            counted = on if mask is None else on & mask[:, None]
            self.used = self.used + counted.sum((0, 2)).double().cpu()
        self.latest = gate

    def gated(self, mixed: Tensor) -> Tensor:
        """What the heads gave, (B, N, H d), times the gates of the last `forward`."""
        assert self.latest is not None
        gate, self.latest = self.latest, None
        by_head = mixed.unflatten(-1, (self.heads, -1))
        return (by_head * gate.transpose(1, 2)[..., None].to(mixed.dtype)).flatten(-2)


class RoutedQueries(nn.Module):
    """The layer of queries, and the decision which heads are on."""

    def __init__(self, linear: nn.Linear, routing: HeadGates) -> None:
        super().__init__()
        self.linear, self.routing = linear, routing

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, H d)."""
        query = self.linear(x)
        self.routing(x, query)
        return query


class RoutedOutput(nn.Module):
    """The last layer of attention behind the gates of its heads; the queries hold `routing`."""

    def __init__(self, linear: nn.Linear, routing: HeadGates) -> None:
        super().__init__()
        self.linear = linear
        self._routing = [routing]  # a list, as its weights belong to the queries

    def forward(self, mixed: Tensor) -> Tensor:
        """(B, N, H d) -> (B, N, D)."""
        return self.linear(self._routing[0].gated(mixed))


class DifferentialOutput(nn.Module):
    """The last layer of grouped differential attention (arXiv 2510.06949) without its norm: signal
    heads minus lambda times the noise head of their group.

    lambda = exp(q1.k1) - exp(q2.k2) with q1 = q2 = 0 at first, so that it starts at 0 and has a
    gradient.
    """

    replaces_linears = True

    def __init__(self, linear: nn.Linear, groups: int, head_width: int) -> None:
        super().__init__()
        self.linear, self.groups, self.head_width = linear, groups, head_width
        vectors = torch.zeros(4, head_width)
        vectors[1::2] = 0.1
        self.vectors = nn.Parameter(vectors.to(linear.weight))

    def noise_weight(self) -> Tensor:
        """lambda, ()."""
        return noise_weight(self.vectors, 0.0)

    def forward(self, mixed: Tensor) -> Tensor:
        """mixed: (B, N, K (G + 1) d), the noise head last in each group -> (B, N, D)."""
        by_group = mixed.unflatten(-1, (self.groups, -1, self.head_width))
        signal = by_group[..., :-1, :].flatten(2, 3)
        heads = torch.cat([signal, by_group[..., -1, :]], 2).transpose(1, 2)
        joined = differential_combine(
            heads, self.noise_weight().to(mixed.dtype), signal=signal.shape[2]
        )
        return self.linear(joined)


class ExpertQueries(nn.Module):
    """Queries of several attentions and the weight that a token gives each of them."""

    replaces_linears = True

    def __init__(self, linear: nn.Linear, width: int, experts: int) -> None:
        super().__init__()
        self.linear = linear
        self.gate = nn.Linear(width, experts, bias=False).to(linear.weight)
        self.latest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, K E G d)."""
        self.latest = self.gate(x).softmax(-1)
        return self.linear(x)


class ExpertOutput(nn.Module):
    """The last layer of attention experts that share keys and values (Branch-Attend-Mix, arXiv
    2408.08274): out = sum_e g_e W_e heads_e.
    """

    replaces_linears = True

    def __init__(self, linear: nn.Linear, queries: ExpertQueries, groups: int, width: int) -> None:
        super().__init__()
        self.linear, self.groups, self.head_width = linear, groups, width
        self._queries = [queries]

    def forward(self, mixed: Tensor) -> Tensor:
        """mixed: (B, N, K E G d) -> (B, N, D)."""
        queries = self._queries[0]
        assert queries.latest is not None
        gate, queries.latest = queries.latest, None
        experts = gate.shape[-1]
        heads = mixed.unflatten(-1, (self.groups, experts, -1, self.head_width))
        gated = heads * gate[:, :, None, :, None, None].to(mixed.dtype)
        return self.linear(gated.transpose(2, 3).flatten(2))


class UpcycledFeedForward(nn.Module):
    """Copies of a feed-forward network of which each token takes some (sparse upcycling, arXiv
    2212.05055).
    """

    replaces_linears = True

    def __init__(self, experts: MoE, present: PresentTokens) -> None:
        super().__init__()
        self.experts, self.present = experts, present

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.experts(x, mask=self.present.mask_of(x))


def convert(
    model: nn.Module,
    conversion: Conversion,
    layers: Sequence[int],
    present: PresentTokens,
    options: Mapping[str, Option],
) -> list[nn.Parameter]:
    """Turn parts of some layers into modules of the core, in place; returns the weights that are
    new, which a tuning has to train.

    Grouped differential attention, attention experts and upcycled networks are the same function
    until they are trained (but for `spread`); a mixture of heads is so only with all heads on.

    Raises ValueError for layers that do not have these parts, and for options that do not fit.
    """
    fresh: list[nn.Parameter] = []
    for number in layers:
        layer = decoder_layers(model)[number]
        if conversion == "upcycle":
            fresh += _upcycle(layer, present, options)
        elif conversion != "none":
            attention = _attention_of(layer)
            if conversion == "moh":
                fresh += _to_moh(attention, present, options)
            elif conversion == "bam":
                fresh += _to_experts(attention, options)
            else:
                fresh += _to_differential(attention, options)
    for weight in fresh:
        weight.requires_grad_(True)
    model.train(model.training)  # what is new, too
    return fresh


class _Attention(NamedTuple):
    """An attention of transformers: the module, its layer of queries and its last one, K and d."""

    module: nn.Module
    query: nn.Linear
    out: nn.Linear
    groups: int
    head_width: int

    @property
    def per_group(self) -> int:
        """G, heads of queries that share keys."""
        return self.query.out_features // self.head_width // self.groups

    def take(self, query: nn.Module, out: nn.Module, per_group: int) -> None:
        """Put other layers in their place, with that many heads to each head of keys."""
        parts = {"q_proj": query, "o_proj": out, "num_key_value_groups": per_group}
        for name, part in parts.items():
            setattr(self.module, name, part)


def _attention_of(layer: nn.Module) -> _Attention:
    module = getattr(layer, "self_attn", None)
    query, out = getattr(module, "q_proj", None), getattr(module, "o_proj", None)
    size, per_group = (getattr(module, n, None) for n in ("head_dim", "num_key_value_groups"))
    fits = isinstance(query, nn.Linear) and isinstance(out, nn.Linear)
    if module is None or not fits or not isinstance(size, int) or not isinstance(per_group, int):
        kind = type(layer if module is None else module).__name__
        raise ValueError(f"{kind}: is no attention with q_proj and o_proj, so it is not converted")
    assert isinstance(query, nn.Linear)
    assert isinstance(out, nn.Linear)
    return _Attention(module, query, out, query.out_features // size // per_group, size)


def _option(options: Mapping[str, Option], name: str, default: ValueT) -> ValueT:
    return type(default)(options.get(name, default))


def _to_moh(
    attention: _Attention, present: PresentTokens, options: Mapping[str, Option]
) -> list[nn.Parameter]:
    query, heads = attention.query, attention.groups * attention.per_group
    routing = HeadGates(query.in_features, heads, present, **options).to(query.weight)  # type: ignore[arg-type]
    attention.take(
        RoutedQueries(query, routing), RoutedOutput(attention.out, routing), attention.per_group
    )
    return list(routing.parameters())


@torch.no_grad()
def _grown(
    linear: nn.Linear, groups: int, size: int, times: int, *, spread: float, noise: bool
) -> nn.Linear:
    """The layer of queries with the heads of each group `times` over, and with a noise head behind
    them that is their mean.
    """
    parts = [linear.weight] + ([] if linear.bias is None else [linear.bias])
    grown = []
    for part in parts:
        heads = part.unflatten(0, (groups, -1, size))  # (K, G, d, ...)
        copied = [heads]
        for _ in range(times - 1):
            disturbed = spread * part.std() * torch.randn_like(heads) if spread else 0
            copied.append(heads + disturbed)
        if noise:
            copied.append(heads.mean(1, keepdim=True))
        grown.append(torch.cat(copied, 1).flatten(0, 2))
    layer = nn.Linear(linear.in_features, len(grown[0]), bias=linear.bias is not None)
    layer.to(linear.weight)
    layer.weight.copy_(grown[0])
    if linear.bias is not None:
        layer.bias.copy_(grown[1])
    return layer


@torch.no_grad()
def _wider(linear: nn.Linear, weight: Tensor) -> nn.Linear:
    """A layer with other weights (D, ...), and the bias of the old one."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=linear.bias is not None)
    layer.to(linear.weight)
    layer.weight.copy_(weight)
    if linear.bias is not None:
        layer.bias.copy_(linear.bias)
    return layer


def _to_differential(attention: _Attention, options: Mapping[str, Option]) -> list[nn.Parameter]:
    factor, spread = _option(options, "factor", 2), _option(options, "spread", 0.02)
    if factor < 1:
        raise ValueError(f"grouped-differential: factor must be at least 1, got {factor}")
    _, query, out, groups, size = attention
    grown = _grown(query, groups, size, factor, spread=spread, noise=True)
    # Group growth: copies of a signal head share its columns of the last layer.
    columns = out.weight.detach().unflatten(1, (groups, 1, -1)) / factor
    wider = _wider(out, columns.repeat(1, 1, factor, 1).flatten(1))
    combined = DifferentialOutput(wider, groups, size)
    attention.take(_Replaced(grown), combined, attention.per_group * factor + 1)
    return [*grown.parameters(), *combined.parameters()]


def _to_experts(attention: _Attention, options: Mapping[str, Option]) -> list[nn.Parameter]:
    experts, spread = _option(options, "experts", 2), _option(options, "spread", 0.0)
    if experts < 2:
        raise ValueError(f"bam: needs 2 experts or more, got {experts}")
    _, query, out, groups, size = attention
    grown = _grown(query, groups, size, experts, spread=spread, noise=False)
    queries = ExpertQueries(grown, query.in_features, experts)
    wider = _wider(out, out.weight.detach().repeat(1, experts))
    output = ExpertOutput(wider, queries, groups, size)
    attention.take(queries, output, attention.per_group * experts)
    return [*queries.parameters(), *output.parameters()]


class _Replaced(nn.Module):
    """A grown layer of queries, all of which is trained."""

    replaces_linears = True

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def _upcycle(
    layer: nn.Module, present: PresentTokens, options: Mapping[str, Option]
) -> list[nn.Parameter]:
    network = getattr(layer, "mlp", None)
    parts = ("gate_proj", "up_proj", "down_proj", "config")
    if network is None or any(not hasattr(network, part) for part in parts):
        kind = type(network if network is not None else layer).__name__
        raise ValueError(f"{kind}: is no network of gate, up and down, so it is not upcycled")
    name = getattr(network.config, "hidden_act", None)
    if name not in _ACTIVATIONS:
        raise ValueError(f"upcycle: experts have no activation {name!r}")
    active, spread = _option(options, "active", 2), _option(options, "spread", 0.0)
    if active < 2:
        raise ValueError("upcycle: 2 active experts or more keep the function, got 1")
    gate, up, down = network.gate_proj, network.up_proj, network.down_proj
    tensors = (gate.weight, gate.bias, up.weight, up.bias, down.weight, down.bias)
    experts = copies(
        tensors,
        experts=_option(options, "experts", 4),
        active=active,
        balance=_option(options, "balance", 0.01),
        activation=_ACTIVATIONS[name],
    )
    if spread:
        with torch.no_grad():
            for weight in (experts.experts.up, experts.experts.down):
                weight[1:] += spread * weight.std() * torch.randn_like(weight[1:])
    layer.mlp = UpcycledFeedForward(experts, present)
    return list(experts.parameters())
