"""Flux Attention: a router that chooses for each prompt and layer between full attention and first
and last tokens only (arXiv 2604.07394).

Shapes: B rows, N tokens, L layers, H heads, d width of a head, K kinds of prompts.

A router looks at the queries of its layer before positions are applied, mean over the first and the
last 150 tokens of the prompt and over heads; a small network gives two logits (sparse, full). Where
it says sparse, the layer reads the first `sink` tokens and a window, in the prompt and in the
answer.

Departures from the published program:

- Only routers are trained. Its script trains the projections of queries, keys and values too.
- A token in both pools of a short prompt (under 300 tokens) counts once; there it counts twice.
- Decisions are for each row of a batch, and padding on either side changes none.
- The constraint is one-sided: to be sparser than asked costs nothing. Its multipliers grow by plain
  steps of ascent, stay between 0 and a bound, and shrink again where a kind is sparser than asked;
  there they are parameters of an optimiser that ascends, without bounds.
- The pool is the prompt only: an answer that training sees is not there when it is decoded.
- Layers that have a window of their own (Gemma) have no router.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...recomputation import is_recomputation
from ...wide_buffers import WideBuffers
from ..plans.facts import ModelFacts
from ..plans.plan import Plan
from ..plans.rules import Rule
from ..running.frozen_base import FrozenBase, check_batch, mean_by_row, prompt_of
from ..running.implementation import layer_of
from ..running.replaced import attend, positions_of, replaced_attention
from ..running.supported import attention_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POOLED = 150  # tokens at either end of a prompt
START = 4.5  # logit of full attention, so that a router begins with it
LINEARS = (0, 2, 3, 5, 7)  # places of the linear layers in a router
ACTIVATED = (0, 3, 5)  # of these, the ones with an activation behind them
MOST = 20.0  # of a multiplier


class FluxParts(NamedTuple):
    """Tensors without dimensions: loss = language + penalty; sparsity: share of sparse layers."""

    loss: Tensor
    language: Tensor
    penalty: Tensor
    sparsity: Tensor


def pooled_tokens(present: Tensor, count: int = POOLED) -> Tensor:
    """The first and the last `count` tokens of each row, bool (B, N); present: bool (B, N), True =
    a token of the prompt. In a short row the ends overlap, and all its tokens are pooled once.
    """
    rank = present.long().cumsum(1)
    return present & ((rank <= count) | (rank > rank[:, -1:] - count))


def queries_before_rope(attention: nn.Module, projected: Tensor) -> Tensor:
    """Queries (B, N, H, d) without positions, from the output (B, N, H d) of the module's q_proj:
    with the norm that some models (Qwen3, Gemma3) apply to them.
    """
    width = attention.head_dim
    assert isinstance(width, int)
    queries = projected.unflatten(-1, (-1, width))
    norm = getattr(attention, "q_norm", None)
    if norm is None:
        return queries
    if norm.weight.numel() == width:
        return norm(queries)
    return norm(projected).view_as(queries)  # over all heads together (OLMo)


def route(tensors: Mapping[str, Tensor], layer: int, queries: Tensor, present: Tensor) -> Tensor:
    """Logits (B, 2) of a layer: sparse, full.

    tensors: of all routers, "layer.place.weight" and "layer.place.bias"; queries: (B, N, H, d)
    before positions are applied; present: bool (B, N), True = a token of the prompt.
    """
    pooled = pooled_tokens(present).to(queries.dtype)[..., None, None]
    x = (queries * pooled).sum(1) / pooled.sum(1).clamp_min(1)
    x = x.mean(1)
    for place in LINEARS:
        weight, bias = (tensors[f"{layer}.{place}.{name}"] for name in ("weight", "bias"))
        x = F.linear(x.to(weight.dtype), weight, bias)
        x = F.silu(x) if place in ACTIVATED else x
    return x


def decide(tensors: Mapping[str, Tensor], layer: int, queries: Tensor, present: Tensor) -> Tensor:
    """Whether a layer is full, bool (B,), for the prompts of a batch; see `route`.

    It is asked once, when the prompt has been read; the answer keeps to it.
    """
    logits = route(tensors, layer, queries, present)
    return logits[:, 1] >= logits[:, 0]


def temperature(share: float, *, first: float = 1.5, last: float = 1.0, ramp: float = 0.6) -> float:
    """Of the choice at a share of the training: from `first` to `last` along a cosine, reached at
    `ramp`.
    """
    done = min(1.0, share / ramp) if ramp else 1.0
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def straight_through(logits: Tensor, noise: Tensor, tau: float) -> Tensor:
    """1 for full and 0 for sparse (B,), with the gradient of the soft choice.

    logits, noise: (B, 2); noise is uniform in [0, 1) and becomes Gumbel's.
    """
    noise = noise.clamp(1e-8, 1 - 1e-7)
    soft = ((logits - (-noise.log()).log()) / tau).softmax(-1)[:, 1]
    hard = (soft >= 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())


class FluxRouter(WideBuffers, FrozenBase):
    """Learns for which prompts which layers of a frozen model may read few tokens.

    model: a causal language model of transformers, whose weights get no gradients and are not in
    the state of this module. sink, window: tokens that a sparse layer reads. targets: by kind of
    prompt, the share of layers that should be sparse. rate: of the steps of the multipliers,
    buffers (K, 2) for the linear and the squared part of the constraint. recompute: layers are
    computed again in the backward pass, so that it holds one layer at a time.
    """

    wide = ("multipliers",)
    multipliers: Tensor
    targets: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        sink: int,
        window: int,
        targets: Sequence[float] = (0.45,),
        rate: float = 1e-2,
        recompute: bool = True,
    ) -> None:
        super().__init__(model)
        if not targets or not all(0 <= target <= 1 for target in targets):
            raise ValueError(f"targets must be shares between 0 and 1, got {list(targets)}")
        if sink < 0 or window < 1:
            raise ValueError(f"a sparse layer needs a window of a token or more, got {window}")
        self.facts, self.rule = ModelFacts.of(model), Rule(sink, window, 0.0)
        self.rate, self.recompute, self.share = rate, recompute, 1.0
        self.free = tuple(self.facts.planned(layer) for layer in range(self.facts.layers))
        if not any(self.free):
            raise ValueError("no layer of this model reads all tokens: there is nothing to route")
        if not all(hasattr(module, "q_proj") for module in attention_layers(model)):
            raise ValueError(
                f"{type(model).__name__}: has no q_proj of its own, whose output a router reads"
            )
        self.routers = nn.ModuleDict(
            {str(i): router(self.facts.head_width) for i, free in enumerate(self.free) if free}
        )
        self.register_buffer("targets", torch.tensor([float(t) for t in targets]))
        self.register_buffer("multipliers", 0.25 * torch.ones(len(targets), 2))

    def begin(self, share: float) -> None:
        """Set what depends on the share of the training that is done, 0 to 1: the temperature."""
        self.share = share

    def tensors(self) -> dict[str, Tensor]:
        """The weights of all routers, as `decide` takes them."""
        return {name: tensor.detach() for name, tensor in self.routers.state_dict().items()}

    def plan(self, *, fitted_on: dict[str, object] | None = None) -> Plan:
        """The routers as a plan: a routed layer that is not full has the sink and the window."""
        return Plan.of_tables(
            self.facts,
            method="flux",
            sink=self.rule.sink,
            alpha=self.rule.alpha,
            routed=self.free,
            router={name: tensor.cpu().clone() for name, tensor in self.tensors().items()},
            fitted_on=fitted_on,
        )

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        answer: Tensor,
        *,
        kind: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> FluxParts:
        """The loss of a batch: cross entropy of the answers, and the constraint.

        ids: int64 (B, N); mask: bool (B, N), True = a token, padding on either side; answer: bool
        (B, N), tokens to predict: at least one a row; kind: int64 (B,), index of the target of each
        row's prompt, by default 0. noise: uniform in [0, 1), (B, L, 2); by default drawn from
        torch's generator in training. In evaluation nothing is drawn and `decide` decides.
        """
        check_batch(ids, mask, answer)
        kind = torch.zeros_like(ids[:, 0]) if kind is None else kind
        if self.training and noise is None:
            noise = torch.rand(len(ids), len(self.free), 2, device=ids.device)
        routing = _Routing(self, mask, prompt_of(mask, answer), noise)
        # Only columns before an answer of some row: logits are many numbers.
        before = answer[:, 1:].any(0).nonzero()[:, 0]
        logits = self._run(ids, mask, routing, before)
        after = before + 1
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), ids[:, after].flatten(), reduction="none"
        )
        language = mean_by_row(losses.view(len(ids), -1), answer[:, after])
        sparsity = 1 - torch.stack([routing.full[layer] for layer in sorted(routing.full)], 1).mean(
            1
        )
        penalty = self._penalty(sparsity, kind)
        return FluxParts(language + penalty, language, penalty, sparsity.mean())

    def loss(
        self,
        ids: Tensor,
        mask: Tensor,
        answer: Tensor,
        *,
        kind: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """`forward`'s sum of cross entropy and penalty."""
        return self(ids, mask, answer, kind=kind, noise=noise).loss

    @torch.no_grad()
    def decisions(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Which layers are full for prompts (B, N), bool (B, L); layers without a router are."""
        routing = _Routing(self, mask, mask, None)
        self._run(ids, mask, routing, ids.new_zeros(1))
        full = torch.ones(len(ids), len(self.free), dtype=torch.bool, device=ids.device)
        for layer, chosen in routing.full.items():
            full[:, layer] = chosen > 0.5
        return full

    def _run(self, ids: Tensor, mask: Tensor, routing: _Routing, columns: Tensor) -> Tensor:
        """Logits (B, columns, vocabulary) of some columns."""
        recompute = self.recompute and torch.is_grad_enabled()
        with routing.active(), routing.recomputed() if recompute else nullcontext():
            return self.base(
                input_ids=ids,
                attention_mask=mask.long(),
                position_ids=positions_of(mask),
                use_cache=False,
                logits_to_keep=columns,
            ).logits

    def _penalty(self, sparsity: Tensor, kind: Tensor) -> Tensor:
        short = self.targets[kind] - sparsity  # (B,)
        above = short.relu()
        linear, squared = self.multipliers[kind].clone().unbind(1)
        if self.training:
            with torch.no_grad():
                signed = torch.stack([short, short * short.abs()], 1)
                steps = torch.zeros_like(self.multipliers)
                steps.index_add_(0, kind, signed.to(steps.dtype))
                count = torch.bincount(kind, minlength=len(steps)).clamp_min(1)[:, None]
                self.multipliers.add_(self.rate * steps / count).clamp_(0, MOST)
        return (linear * above + squared * above.square()).mean()


def router(width: int) -> nn.Sequential:
    """The router of a layer, for queries of this width: says full, whatever it sees, until it is
    trained.
    """
    network = nn.Sequential(
        nn.Linear(width, 8 * width),
        nn.SiLU(),
        nn.Linear(8 * width, 2 * width),
        nn.Linear(2 * width, 4 * width),
        nn.SiLU(),
        nn.Linear(4 * width, width),
        nn.SiLU(),
        nn.Linear(width, 2),
    )
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.0, START]))
    return network


@dataclass
class _Routing:
    """The attention of all layers in one pass of a batch.

    mask, prompt: bool (B, N), tokens, and those of the prompt; noise: (B, L, 2), or None: `decide`
    decides. full: by layer, the choices (B,), 1 for full.
    """

    owner: FluxRouter
    mask: Tensor
    prompt: Tensor
    noise: Tensor | None
    full: dict[int, Tensor] = field(default_factory=dict)
    queries: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positions = positions_of(self.mask)
        # What a sparse layer reads, without regard to padding, which the layer's mask knows.
        self.streaming = self.owner.rule.allowed(positions, positions)[:, None]

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
    ) -> Tensor:
        """See `AttentionOfLayer`."""
        if not self.owner.free[layer]:
            return attend(query, key, value, allowed, scale)
        full = self._choice(layer)
        if not is_recomputation():
            self.full[layer] = full
        sparse = partial(attend, query, key, value, allowed & self.streaming, scale)
        dense = partial(attend, query, key, value, allowed, scale)
        if not full.requires_grad and bool((full == full[0]).all()):
            return dense() if bool(full[0]) else sparse()
        # lerp is exact at both ends. Under autocast attention is of another type than queries.
        few, all_keys = sparse(), dense()
        return torch.lerp(few, all_keys, full.to(few.dtype)[:, None, None, None])

    def _choice(self, layer: int) -> Tensor:
        owner, queries = self.owner, self.queries.pop(layer)
        if self.noise is None:
            return decide(owner.tensors(), layer, queries, self.prompt).float()
        weights = dict(owner.routers.named_parameters())
        logits = route(weights, layer, queries, self.prompt)
        return straight_through(logits, self.noise[:, layer], temperature(owner.share))

    @contextmanager
    def active(self) -> Iterator[None]:
        """A block in which the model's attention is this one."""
        base, hooks = self.owner.base, []
        try:
            for module in attention_layers(base):
                projection = module.q_proj
                assert isinstance(projection, nn.Module)
                hooks.append(projection.register_forward_hook(partial(self._watch, module)))
            with replaced_attention(base, self):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _watch(self, attention: nn.Module, _: nn.Module, __: object, projected: Tensor) -> None:
        layer = layer_of(attention)
        if layer not in self.queries:  # a layer that is recomputed has this hook twice at first
            self.queries[layer] = queries_before_rope(attention, projected)

    @contextmanager
    def recomputed(self) -> Iterator[None]:
        """A block in which layers keep their inputs only, for the backward pass to run them again:
        after the block, so that each brings this attention with it.
        """
        layers = _layers(self.owner.base)
        try:
            for layer in layers:
                layer.forward = partial(self._checkpointed, layer.forward)
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _checkpointed(
        self, forward: Callable[..., Tensor], *inputs: Tensor, **options: object
    ) -> Tensor:
        def run(*inputs: Tensor) -> Tensor:
            with self.active():
                return forward(*inputs, **options)

        result = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(result, Tensor)
        return result


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that hold an attention module each."""
    modules = set(attention_layers(model))
    names = [name for name, part in model.named_modules() if part in modules]
    return [model.get_submodule(name.rpartition(".")[0]) for name in names]
