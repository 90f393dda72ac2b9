"""LycheeDecode: heads that choose keys, and heads that read what another head chose (arXiv
2602.04541).

Shapes: B rows, N tokens, T of them from the first answer token on, L layers, H heads, KV key-value
heads, D width of the states.

Only decoding is concerned: the prompt is read in full. For an answer token, a retrieval head reads
all keys and chooses a set of them; a sparse head reads the set of the nearest retrieval head below
it in its column (the same key-value head of a lower layer). All keys stay in the cache.

Departures from the published program:

- It lets every head choose in training, so that a sparse head reads a set that is one layer old; in
  use sets are as old as the last retrieval head. Here a gate above a half refreshes the set in
  training too, and a set means the same in both.
- Its training chooses before later keys are masked, and its recent keys are those of the sequence's
  end, for each query. Here sets are causal, without padding, and recent keys are those before the
  query.
- The first layer with full attention always retrieves; it has no gate and does not count in the
  density. There the published gates get the penalty only.
- Layers that have a window of their own (Gemma) stay as they are.
- a and b stay between 0.05 and 2: a gate that has opened or closed further has no gradient that
  could bring it back. There they lie between 1e-6 and 100.
- Gates are drawn for each row of a batch; the published program takes one row.
- The expectation of a gate is that of the rectified variable (`HardKuma.mean`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....kernels.key_selection import select_keys
from ...wide_buffers import WideBuffers
from ..plans.facts import ModelFacts
from ..plans.plan import Plan
from ..plans.rules import Budget
from ..running.frozen_base import FrozenBase, check_batch, mean_by_row
from ..running.replaced import (
    AttentionOfLayer,
    attend,
    plain_attention,
    positions_of,
    replaced_attention,
)
from .kuma import HardKuma

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measure: TypeAlias = Literal["states", "logits"]
MULTIPLIERS = (1e-12, 20.0)  # smallest and largest
SMOOTHING = 0.9  # of the excess of density
SHAPES = (0.05, 2.0)  # bounds of a and b: a gate's probability of 0 is 0.0003 to 0.986


class LycheeParts(NamedTuple):
    """Tensors without dimensions: loss = difference + penalty; density of the gates."""

    loss: Tensor
    difference: Tensor
    penalty: Tensor
    density: Tensor


class LycheeRoles(WideBuffers, FrozenBase):
    """Learns which key-value heads retrieve, so that the states of a frozen model stay as they are.

    model: a causal language model of transformers, whose weights get no gradients and are not in
    the state of this module. budget: what a set holds. target: share of the gates that may be open.
    measure: what is compared with the dense model on answer tokens: the last hidden "states" (mean
    squared difference) or the "logits" (Kullback-Leibler divergence, nats). ramp: over this share
    of the training the target falls from 1 to `target`. multiplier: of the density, at the start;
    rate: by which it grows.

    Learned are a and b (L, KV), the shape of each head's gate. The multiplier is a buffer that
    grows by exp(rate * excess) in each training step, where excess is a moving average of what the
    density has above the target; so it is not for the optimiser.
    """

    wide = ("multiplier", "excess")
    a: nn.Parameter
    b: nn.Parameter
    multiplier: Tensor
    excess: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        budget: Budget,
        *,
        target: float = 1 / 12,
        measure: Measure = "states",
        ramp: float = 0.5,
        multiplier: float = 2.0,
        rate: float = 0.02,
    ) -> None:
        super().__init__(model)
        if not 0 <= target <= 1 or not 0 <= ramp <= 1:
            raise ValueError(f"target {target} and ramp {ramp} must be between 0 and 1")
        self.budget, self.target, self.measure = budget, target, measure
        self.ramp, self.rate, self.share = ramp, rate, 1.0
        self.facts = ModelFacts.of(model)
        full = [self.facts.planned(layer) for layer in range(self.facts.layers)]
        if full.count(True) < 2:
            raise ValueError(
                "roles of heads need at least two layers that read all tokens; "
                f"this model has {full.count(True)}"
            )
        self.first = full.index(True)
        self.free = tuple(is_full and layer > self.first for layer, is_full in enumerate(full))
        shape = (self.facts.layers, self.facts.kv_heads)
        self.a, self.b = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(shape))
        self.register_buffer("multiplier", torch.tensor(float(multiplier)))
        self.register_buffer("excess", torch.tensor(0.0))

    def begin(self, share: float) -> None:
        """Set what depends on the share of the training that is done, 0 to 1: the target."""
        self.share = share

    def gates(self) -> HardKuma:
        """The distribution of all gates (L, KV)."""
        return HardKuma(self.a, self.b)

    def density(self) -> Tensor:
        """Mean probability that a gate is not 0, over the heads that have one."""
        return (1 - self.gates().zero())[list(self.free)].mean()

    def roles(self, retrieval: int | None = None) -> Tensor:
        """Which heads retrieve, bool (L, KV): those whose expected gate is above a half, or the
        `retrieval` heads with the highest ones; the first full layer always, layers with a window
        never, and neither counts.
        """
        with torch.no_grad():
            mean = self.gates().mean()
            mean[[not free for free in self.free]] = -1
            chosen = mean > 0.5
            if retrieval is not None:
                order = mean.flatten().argsort(descending=True, stable=True)
                chosen = torch.zeros_like(mean, dtype=torch.bool)
                chosen.view(-1)[order[:retrieval]] = True
                chosen &= mean >= 0
            chosen[self.first] = True
            return chosen

    def plan(
        self, retrieval: int | None = None, *, fitted_on: dict[str, object] | None = None
    ) -> Plan:
        """The roles as a plan; `retrieval` as in `roles`. All keys are kept, so it saves time and
        no memory.
        """
        inherits = ~self.roles(retrieval)
        inherits[[not free for free in self.free]] = False
        return Plan.of_tables(
            self.facts,
            method="lychee",
            sink=0,
            alpha=math.inf,
            inherits=inherits,
            budget=self.budget,
            fitted_on=fitted_on,
        )

    def forward(
        self, ids: Tensor, mask: Tensor, answer: Tensor, *, noise: Tensor | None = None
    ) -> LycheeParts:
        """The loss of a batch.

        ids: int64 (B, N); mask: bool (B, N), True = a token, padding on either side; answer: bool
        (B, N), tokens that are decoded: at least one a row. noise: uniform in [0, 1), (B, L, KV) or
        (L, KV); by default drawn from torch's generator in training. In evaluation gates are the
        roles and nothing is drawn.

        The difference is a mean over the answer tokens of a row, then over rows. Only they are run
        with gradients, on the keys of the prompt, and the maps of one layer are in memory at a
        time.
        """
        check_batch(ids, mask, answer)
        if self.training:
            with torch.no_grad():  # the step of the optimiser, projected
                for weight in (self.a, self.b):
                    weight.clamp_(*SHAPES)
        start = int(answer.any(0).nonzero()[0])
        tail = _Tail(self, ids, mask, start)
        states = self.measure == "states"
        with torch.no_grad():
            dense = tail.run(plain_attention, states=states)
        mixing = _Mixing(self, self._draw(ids, noise), mask, answer[:, start:])
        mixed = tail.run(mixing, states=states)
        difference = self._difference(mixed, dense, answer[:, start:])
        penalty, density = self._penalty()
        return LycheeParts(difference + penalty, difference, penalty, density)

    def loss(
        self, ids: Tensor, mask: Tensor, answer: Tensor, *, noise: Tensor | None = None
    ) -> Tensor:
        """`forward`'s sum of difference and penalty."""
        return self(ids, mask, answer, noise=noise).loss

    @torch.no_grad()
    def logits(
        self, ids: Tensor, mask: Tensor, answer: Tensor, tables: Sequence[Tensor]
    ) -> list[Tensor]:
        """What answer tokens are followed by, under other tables of roles, bool (L, KV).

        ids, mask, answer as in `forward`. Returns for each table the logits (B, T, V) of the tokens
        from the last one before any answer on. The prompt is read once for all tables.
        """
        check_batch(ids, mask, answer)
        start = int(answer.any(0).nonzero()[0]) - 1
        tail, answer = _Tail(self, ids, mask, start), answer[:, start:]
        shape = (len(ids), *self.a.shape)
        gates = [table.to(self.a.dtype).expand(shape) for table in tables]
        return [tail.run(_Mixing(self, gate, mask, answer), states=False) for gate in gates]

    def _draw(self, ids: Tensor, noise: Tensor | None) -> Tensor:
        """Gates (B, L, KV)."""
        shape = (len(ids), *self.a.shape)
        if not self.training and noise is None:
            return self.roles().to(self.a.dtype).expand(shape)
        if noise is None:
            noise = torch.rand(shape, device=self.a.device)
        return self.gates().sample(noise).expand(shape)

    def _difference(self, mixed: Tensor, dense: Tensor, answer: Tensor) -> Tensor:
        if self.measure == "states":
            by_token = (mixed.float() - dense.float()).square().mean(-1)
        else:
            log_p, log_q = dense.float().log_softmax(-1), mixed.float().log_softmax(-1)
            by_token = (log_p.exp() * (log_p - log_q)).sum(-1)
        return mean_by_row(by_token, answer)

    def _penalty(self) -> tuple[Tensor, Tensor]:
        density = self.density()
        above = (density - ramped_target(self.target, self.share, self.ramp)).relu()
        if not self.training:
            return self.multiplier * above, density
        with torch.no_grad():
            self.excess.lerp_(above.to(self.excess.dtype), 1 - SMOOTHING)
            self.multiplier.mul_((self.rate * self.excess).exp()).clamp_(*MULTIPLIERS)
        # The value is the moving average's, the gradient that of this step.
        excess = above + (self.excess.clone() - above).detach()
        return self.multiplier.clone() * excess, density


def ramped_target(target: float, share: float, ramp: float) -> float:
    """The target at a share of the training: in a line from 1 to `target`, reached at `ramp`."""
    done = 1.0 if ramp == 0 else min(1.0, share / ramp)
    return 1 - done * (1 - target)


@dataclass
class _Mixing:
    """The attention of all layers while answer tokens are decoded with gates.

    gates: (B, L, KV); mask: bool (B, N), True = a token; answer: bool (B, T). Layers come in order,
    and each hands its sets on.
    """

    owner: LycheeRoles
    gates: Tensor
    mask: Tensor
    answer: Tensor
    sets: Tensor | None = field(default=None)

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
    ) -> Tensor:
        """See `AttentionOfLayer`."""
        owner = self.owner
        if not owner.free[layer] and layer != owner.first:
            return attend(query, key, value, allowed, scale)
        below, fresh = self.sets, self.choose(query, key)
        if below is None:
            self.sets = fresh
            return attend(query, key, value, allowed, scale)
        gates = self.gates[:, layer]
        self.sets = torch.where((gates > 0.5)[..., None, None], fresh, below)
        return _checkpointed(query, key, value, allowed, below, gates, self.answer, scale)

    def choose(self, query: Tensor, key: Tensor) -> Tensor:
        """The set of every head and token, bool (B, KV, T, N): what decoding chooses, see
        `select_keys`.
        """
        budget, (rows, keys) = self.owner.budget, self.mask.shape
        last = torch.arange(keys - query.shape[2], keys, device=key.device).expand(rows, -1)
        chosen, valid = select_keys(
            query.detach(),
            key.detach(),
            budget.keys,
            sink=budget.sink,
            recent=budget.recent,
            mask=self.mask,
            last=last,
        )
        sets = valid.new_zeros(*chosen.shape[:3], keys)
        return sets.scatter_(-1, chosen, valid)


def _mixed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    sets: Tensor,
    gates: Tensor,
    answer: Tensor,
    scale: float,
) -> Tensor:
    """gate * attention to all + (1 - gate) * attention to the set, on answer tokens."""
    full = attend(query, key, value, allowed, scale)
    sparse = attend(query, key, value, sets, scale)
    gates = gates.to(full.dtype).repeat_interleave(query.shape[1] // key.shape[1], 1)
    # lerp is exact at both ends, and where both agree.
    mixed = torch.lerp(sparse, full, gates[..., None, None])
    return torch.where(answer[:, None, :, None], mixed, full)


def _checkpointed(*inputs: Tensor | float) -> Tensor:
    """`_mixed`, which the backward pass computes again instead of keeping its maps."""
    result = checkpoint(_mixed, *inputs, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, Tensor)
    return result


class _Tail:
    """The tokens from the first answer on, which can be run several times after the same prompt."""

    def __init__(self, owner: LycheeRoles, ids: Tensor, mask: Tensor, start: int) -> None:
        self.owner, self.ids, self.mask, self.start = owner, ids, mask, start
        self.positions = positions_of(mask)
        self.prompt: list[tuple[Tensor, Tensor]] = []
        if start:
            from transformers import DynamicCache

            cache = DynamicCache()
            with torch.no_grad(), replaced_attention(owner.base, plain_attention):
                owner.base.base_model(
                    input_ids=ids[:, :start],
                    attention_mask=mask[:, :start].long(),
                    position_ids=self.positions[:, :start],
                    cache=cache,
                    use_cache=True,
                )
            self.prompt = [(layer.keys, layer.values) for layer in cache.layers]  # pyright: ignore

    def run(self, attention: AttentionOfLayer, *, states: bool) -> Tensor:
        """Last hidden states (B, T, D) of the tokens, or their logits."""
        from transformers import DynamicCache

        # A cache without a configuration keeps all keys, in layers with a window as well: the mask
        # says which of them count.
        cache, base = DynamicCache(), self.owner.base
        for layer, (key, value) in enumerate(self.prompt):
            cache.update(key, value, layer)
        with replaced_attention(base, attention):
            out = (base.base_model if states else base)(
                input_ids=self.ids[:, self.start :],
                attention_mask=self.mask.long(),
                position_ids=self.positions[:, self.start :],
                cache=cache,
                use_cache=True,
            )
        return out.last_hidden_state if states else out.logits
