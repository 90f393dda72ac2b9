"""Routers: which experts a token uses, with which weights.

Shapes: B batch, N tokens, T = B N, D width, E experts, K active experts of a token, H heads, d
width of a head.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.dispatch import dispatch
from ...kernels.expert_gate import expert_gate
from ...kernels.precision import outside_autocast
from ..attention.base import attend, spread_mask
from ..checks import check_not_negative, check_number, check_positive
from ..ranks import summed_over_ranks
from ..recomputation import recomputation_flag
from ..wide_buffers import WideBuffers
from .past_biases import PastBiases

Score = Literal["softmax", "sigmoid"]
Noise = Literal["none", "jitter", "gaussian"]
Priority = Literal["order", "score"]
Mixing = Literal["none", "similarity", "attention"]


class Routing(NamedTuple):
    """What a router decided, and what the losses need to know about it."""

    weights: Tensor  # (T, K), 0 where nothing was chosen
    experts: Tensor  # int64 (T, K), E where a token is padding or was dropped
    counts: Tensor  # (K, E): tokens by choice and expert, before any was dropped
    probability: Tensor  # (E,): mean over present tokens; carries the gradient of the losses
    log_sum: Tensor  # (): mean of the squared log-sum-exp of their logits
    entropy: Tensor  # (): mean entropy of their probabilities, in nats, without gradient
    tokens: Tensor  # (): number of present tokens


class Router(WideBuffers):
    """Token-choice router with K of E experts (Shazeer et al., arXiv 1701.06538; Fedus et al.,
    arXiv 2101.03961).

        p = softmax(W x)  [or sigmoid];   the K greatest of p
        weights: these p, or each divided by their sum if normalise

    A softmax after the choice equals normalised weights of a softmax before it, so there is one
    option for both.

    width: D; experts: E; active: K; score: of the logits; normalise: weights of a token sum to 1,
    by default for K > 1; scale: weights are multiplied by it; noise: in training, "jitter"
    multiplies inputs by uniform 1 +- noise_scale (arXiv 2101.03961), "gaussian" adds standard noise
    times softplus of a learned layer to the logits (arXiv 1701.06538); bias_rate: experts are
    chosen by score plus a bias that rises by this for experts with less than the mean load and
    falls for others, at each forward pass in training, by the tokens of all ranks of
    torch.distributed, instead of a loss (arXiv 2408.15664); weights never see it, and a pass that
    activation checkpointing repeats uses the bias of the first one and moves nothing; capacity: an
    expert serves at most max(1, floor(capacity K T / E)) pairs, T without padding, the rest is
    dropped; None: all; priority: all first choices come before second ones, and among these tokens
    in their "order" or by "score" (arXiv 2106.05974); mixing: "similarity", "attention": see
    `mixed`; temperature, causal: of the mixing; the temperature is by default sqrt(D) for
    "similarity", the scale of dot products, and 1 for "attention", which scales its scores itself.

    Logits, scores, weights and the bias are at least float32, also under autocast and in a module
    of 16 bits. The layer has no bias.

    Raises ValueError for options that do not fit, and for one active expert with a normalised
    weight, which is always 1: such a router receives no gradient and never learns.
    """

    wide = ("bias",)

    def __init__(
        self,
        width: int,
        experts: int,
        active: int = 2,
        *,
        score: Score = "softmax",
        normalise: bool | None = None,
        scale: float = 1.0,
        noise: Noise = "none",
        noise_scale: float = 1e-2,
        bias_rate: float = 0.0,
        capacity: float | None = None,
        priority: Priority = "order",
        mixing: Mixing = "none",
        temperature: float | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise ValueError(f"Router: needs 1 <= active <= experts, got {active} of {experts}")
        normalise = active > 1 if normalise is None else normalise
        if normalise and active == 1 and experts > 1:
            raise ValueError(
                "Router: one active expert with a normalised weight of 1 gives the router no "
                "gradient; take normalise=False or two active experts"
            )
        for name, value, known in (
            ("score", score, ("softmax", "sigmoid")),
            ("noise", noise, ("none", "jitter", "gaussian")),
            ("priority", priority, ("order", "score")),
            ("mixing", mixing, ("none", "similarity", "attention")),
        ):
            if value not in known:
                raise ValueError(f"Router: {name} must be one of {known}, got {value!r}")
        if temperature is None:
            temperature = float(width**0.5) if mixing == "similarity" else 1.0
        check_positive("Router", "temperature", temperature)
        if capacity is not None:
            check_positive("Router", "capacity", capacity)
        check_number("Router", "scale", scale)
        check_not_negative("Router", "noise_scale", noise_scale)
        check_not_negative("Router", "bias_rate", bias_rate)
        self.experts, self.active = experts, active
        self.score: Score = score
        self.normalise, self.scale = normalise, scale
        self.noise, self.noise_scale = noise, noise_scale
        self.bias_rate, self.capacity, self.priority = bias_rate, capacity, priority
        self.mixing, self.temperature, self.causal = mixing, temperature, causal
        self.gate = nn.Linear(width, experts, bias=False)
        nn.init.normal_(self.gate.weight, std=0.02)
        self.spread = nn.Linear(width, experts, bias=False) if noise == "gaussian" else None
        self.similarity = None
        if mixing == "similarity":
            # At first W is the identity: a token listens to similar tokens, most of all to itself.
            self.similarity = nn.Linear(width, width, bias=False)
            nn.init.eye_(self.similarity.weight)
        self.register_buffer("bias", torch.zeros(experts))
        self.bias: Tensor
        self.past: PastBiases | None = None

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        attention: tuple[Tensor, Tensor] | None = None,
    ) -> Routing:
        """x: (B, N, D); mask: bool (B, N), True = a token; attention: queries and keys (B, H, N, d)
        of the preceding attention, for mixing="attention". T = B N, row by row.

        Raises ValueError if shapes do not fit.
        """
        self._check(x, mask, attention)
        x = x if mask is None else x.masked_fill(~mask[..., None], 0.0)  # padding may hold anything
        logits = self.logits(x)
        kind: Literal["softmax", "sigmoid", "given"] = self.score
        scores = logits
        if self.mixing != "none":
            p = logits.softmax(-1) if self.score == "softmax" else logits.sigmoid()
            kind, scores = "given", self.mixed(x, p, mask, attention)
        flat = None if mask is None else mask.flatten()
        moves = self.training and self.bias_rate != 0
        bias, again = self._bias_of_pass(logits) if moves else (self.bias, None)
        gate = expert_gate(
            scores.flatten(0, 1),
            self.active,
            score=kind,
            normalise=self.normalise,
            scale=self.scale,
            bias=bias,
            present_mask=flat,
        )
        if again is not None:
            load = summed_over_ranks(gate.counts.sum(0)).to(self.bias.dtype)
            step = self.bias_rate * (load.mean() - load).sign()
            self.bias += step.masked_fill(again, 0.0)
        weights, chosen, log_sum = gate.weights, gate.chosen, gate.log_sum
        if kind == "given":
            squares = logits.flatten(0, 1).logsumexp(1).square()
            log_sum = (squares if flat is None else squares * flat).sum() / gate.tokens.clamp_min(1)
        if self.capacity is not None:
            chosen = self._served(chosen, weights.detach(), gate.tokens)
            weights = weights.masked_fill(chosen == self.experts, 0.0)
        return Routing(
            weights, chosen, gate.counts, gate.probability, log_sum, gate.entropy, gate.tokens
        )

    def _bias_of_pass(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The bias (E,) of this pass in training, and whether the pass is a repetition, bool ()."""
        again, past = recomputation_flag(logits), self.past
        if past is None or not past.fits(logits, self.bias):
            past = PastBiases.empty(logits, self.bias)
        bias, self.past = past.next(logits.detach(), self.bias, again)
        return bias, again

    def logits(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, E), with noise in training."""
        with outside_autocast(x):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.training and self.noise == "jitter":
                x = x * (1 + self.noise_scale * (2 * torch.rand_like(x) - 1))
            logits = F.linear(x, self.gate.weight.to(x.dtype))
            if self.training and self.spread is not None:
                deviation = F.softplus(F.linear(x, self.spread.weight.to(x.dtype)))
                logits = logits + torch.randn_like(logits) * deviation
            return logits

    def mixed(
        self, x: Tensor, p: Tensor, mask: Tensor | None, attention: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Probabilities mixed over tokens: q_i = sum_j S_ij p_j (Graph of Tokens, arXiv
        2505.00792). -> (B, N, E).

        "similarity": S = softmax(x_i^T W x_j / temperature), "attention": S = mean over heads of
        the attention of queries and keys, with scores times 1 / temperature. Both are one attention
        with the probabilities as values, so that S is never held. Readings, where the text is not
        at hand: probabilities are mixed, not logits; gradients pass through S; a token sees itself;
        W starts as the identity, the temperature as sqrt(D). q is a mixture, so it sums to 1, and
        its entropy is at least the mean entropy of what it mixes.
        """
        if self.mixing == "attention":
            assert attention is not None
            query, key = (part.to(p.dtype) for part in attention)
            scale = query.shape[-1] ** -0.5 / self.temperature
        else:
            assert self.similarity is not None
            wide = x.to(p.dtype)
            query = F.linear(wide, self.similarity.weight.to(p.dtype))[:, None]
            key, scale = wide[:, None], 1 / self.temperature
        value = p[:, None].expand(-1, query.shape[1], -1, -1)
        return attend(query, key, value, spread_mask(mask), causal=self.causal, scale=scale).mean(1)

    def _served(self, chosen: Tensor, weights: Tensor, present: Tensor) -> Tensor:
        """Choices, with E in place of those for which an expert has no room."""
        assert self.capacity is not None
        tokens = chosen.shape[0]
        rank = torch.arange(tokens, device=chosen.device)
        if self.priority == "score":
            rank = weights.amax(1).argsort(descending=True, stable=True)
        ordered = chosen[rank].t().reshape(-1, 1)  # all first choices, then all second ones
        plan = dispatch(ordered, self.experts)
        starts = F.pad(plan.offsets, (0, 1))  # of "no expert", too, where the count does not matter
        before = plan.place.flatten() - starts[ordered.flatten()]
        limit = (present * (self.capacity * self.active / self.experts)).floor().clamp_min(1)
        served = torch.where(before < limit, ordered.flatten(), self.experts)
        return torch.empty_like(chosen).index_copy_(0, rank, served.view(self.active, tokens).t())

    def _check(
        self, x: Tensor, mask: Tensor | None, attention: tuple[Tensor, Tensor] | None
    ) -> None:
        if x.ndim != 3 or x.shape[2] != self.gate.in_features:
            raise ValueError(
                f"Router: needs (batch, tokens, {self.gate.in_features}), got {tuple(x.shape)}"
            )
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
            raise ValueError(
                f"Router: mask must be bool {tuple(x.shape[:2])}, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        if (attention is None) == (self.mixing == "attention"):
            raise ValueError(
                f"Router: mixing={self.mixing!r} {'needs' if attention is None else 'takes no'} "
                "attention"
            )

    def extra_repr(self) -> str:
        return (
            f"experts={self.experts}, active={self.active}, score={self.score!r}, "
            f"mixing={self.mixing!r}"
        )
