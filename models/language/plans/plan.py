"""A plan of attention: which earlier tokens each head of a causal language model may attend to.

A head of keys and values is full, or holds the first `sink` tokens and a window of the last ones
(StreamingLLM, arXiv 2309.17453) that may grow with the text (MoA, arXiv 2406.14909), or takes the
set of keys over that a head below has chosen (LycheeDecode, arXiv 2602.04541); a layer may choose
between full and cut by prompt (Flux Attention, arXiv 2604.07394).

Shapes: L layers, KV heads of keys and values, Q queries, K keys, n tokens of a text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from .facts import ModelFacts
from .rules import MOST_TOKENS, Budget, Rule

T = TypeVar("T", int, float, bool)
Table: TypeAlias = tuple[tuple[T, ...], ...]
Rows: TypeAlias = T | Sequence[Sequence[T]] | Tensor  # a number for all heads, or a table (L, KV)


@dataclass(frozen=True)
class Plan:
    """What each head of keys and values of a model attends to. Tables are (L, KV).

    sink: first tokens that a head never forgets. alpha, beta: its window at a length of n tokens is
    clip(round(alpha + beta n), 1, n); alpha infinite: the head is full. beta is in [0, 1], so that
    no forgotten key comes back. inherits: while text is generated, the head attends to the set that
    the nearest retrieval head (full, inheriting nothing) below in its column has chosen; budget:
    how many keys such a set holds. routed: by layer, whether a router chooses for each prompt
    between full heads and the rules of the table; router: its weights. method: how the plan was
    made; fitted_on: from what, for the reader; checked_to: the longest text in tokens that it was
    checked at.

    Layers of the model that have a window of their own are not planned: their entries are full.
    Raises ValueError, in one line, where the tables contradict the model or each other.
    """

    facts: ModelFacts
    method: str
    sink: Table[int]
    alpha: Table[float]
    beta: Table[float]
    inherits: Table[bool]
    budget: Budget | None = None
    routed: tuple[bool, ...] = ()
    router: dict[str, Tensor] | None = field(default=None, compare=False, repr=False)
    fitted_on: dict[str, object] = field(default_factory=dict, compare=False)
    checked_to: int = 0

    def __post_init__(self) -> None:
        if not self.routed:
            object.__setattr__(self, "routed", (False,) * self.facts.layers)
        self._check_shapes()
        for layer, head in self._heads():
            self._check_rule(layer, head)
        if self.inheriting and self.budget is None:
            raise ValueError("heads that inherit keys need a budget: how many keys a set holds")
        if any(self.routed) != bool(self.router):
            raise ValueError("a plan has weights of a router exactly where it has routed layers")

    def _check_shapes(self) -> None:
        shape = (self.facts.layers, self.facts.kv_heads)
        for name in ("sink", "alpha", "beta", "inherits"):
            table: Table[float] = getattr(self, name)
            if len(table) != shape[0] or any(len(row) != shape[1] for row in table):
                widths = sorted({len(row) for row in table})
                raise ValueError(
                    f"{name} must have {shape[0]} layers of {shape[1]} heads,"
                    f" not {len(table)} of {', '.join(map(str, widths)) or 'none'}"
                )
        if len(self.routed) != shape[0]:
            raise ValueError(f"routed must name {shape[0]} layers, not {len(self.routed)}")
        if not 0 <= self.checked_to <= MOST_TOKENS:
            raise ValueError(f"checked_to must be a number of tokens, not {self.checked_to}")

    def _check_rule(self, layer: int, head: int) -> None:
        where = f"layer {layer}, head {head}"
        rule, inherits = self.rule(layer, head), self.inherits[layer][head]
        if not 0 <= rule.sink <= MOST_TOKENS:
            raise ValueError(f"{where}: a sink of {rule.sink} tokens is not possible")
        if math.isnan(rule.alpha) or rule.alpha < -MOST_TOKENS or not 0 <= rule.beta <= 1:
            raise ValueError(
                f"{where}: a window of {rule.alpha} + {rule.beta} n is not possible; the second"
                " number lies between 0 and 1"
            )
        if rule.alpha + rule.beta * self.facts.positions < 0:
            raise ValueError(
                f"{where}: a window of {rule.alpha} + {rule.beta} n is below zero at every length"
            )
        if not rule.full and rule.alpha > MOST_TOKENS:
            raise ValueError(f"{where}: a window of {rule.alpha} tokens; write a full head instead")
        if not self.facts.planned(layer) and (not rule.full or inherits or self.routed[layer]):
            raise ValueError(f"{where}: the model itself has a window there; leave the head full")
        if inherits and (not rule.full or self.routed[layer]):
            raise ValueError(f"{where}: a head that inherits keys needs its cache; make it full")
        if inherits and self.source(layer, head) is None:
            raise ValueError(f"{where}: no retrieval head below to inherit keys from")

    def _heads(self) -> Iterator[tuple[int, int]]:
        for layer in range(self.facts.layers):
            for head in range(self.facts.kv_heads):
                yield layer, head

    # How plans are made.

    @classmethod
    def of_tables(
        cls,
        facts: ModelFacts,
        *,
        method: str,
        sink: Rows[int],
        alpha: Rows[float],
        beta: Rows[float] = 0.0,
        inherits: Rows[bool] = False,
        budget: Budget | None = None,
        routed: Sequence[bool] = (),
        router: dict[str, Tensor] | None = None,
        fitted_on: dict[str, object] | None = None,
        checked_to: int = 0,
    ) -> Plan:
        """A plan from tables (L, KV) or single numbers; entries of layers that the model itself
        gives a window are ignored. Full heads have no sink: it is set to 0.
        """
        sinks, alphas = _filled(facts, sink), _filled(facts, alpha)
        betas, inherited = _filled(facts, beta), _filled(facts, inherits)
        for layer in range(facts.layers):
            for head in range(facts.kv_heads):
                if not facts.planned(layer):
                    alphas[layer][head], inherited[layer][head] = math.inf, False
                if alphas[layer][head] == math.inf:
                    sinks[layer][head], betas[layer][head] = 0, 0.0
        return cls(
            facts=facts,
            method=method,
            sink=_table(sinks, int),
            alpha=_table(alphas, float),
            beta=_table(betas, float),
            inherits=_table(inherited, bool),
            budget=budget,
            routed=tuple(
                bool(is_routed) and facts.planned(layer) for layer, is_routed in enumerate(routed)
            ),
            router=router,
            fitted_on=dict(fitted_on or {}),
            checked_to=checked_to,
        )

    @classmethod
    def full(cls, facts: ModelFacts) -> Plan:
        """The model as it is."""
        return cls.of_tables(facts, method="full", sink=0, alpha=math.inf)

    @classmethod
    def uniform(cls, facts: ModelFacts, *, sink: int, window: int) -> Plan:
        """The same sink and window for all heads, as StreamingLLM has."""
        return cls.of_tables(facts, method="uniform", sink=sink, alpha=window)

    @classmethod
    def of_heads(
        cls,
        facts: ModelFacts,
        full: Sequence[Sequence[bool]] | Tensor,
        *,
        sink: int,
        window: int,
        method: str = "heads",
        fitted_on: dict[str, object] | None = None,
    ) -> Plan:
        """Some heads full (bool table (L, KV)), all others with the same sink and window."""
        alpha = [[math.inf if is_full else float(window) for is_full in row] for row in full]
        return cls.of_tables(facts, method=method, sink=sink, alpha=alpha, fitted_on=fitted_on)

    def shuffled(self, seed: int) -> Plan:
        """The same rules on other heads: a control that costs the same.

        Rules change places among all heads of the planned layers. Where heads inherit keys, those
        of the first planned layer keep theirs, since the others need them. Raises ValueError for a
        plan with a router, whose weights belong to layers.
        """
        if any(self.routed):
            raise ValueError("a plan with a router cannot be shuffled: its weights are by layer")
        planned = [layer for layer in range(self.facts.layers) if self.facts.planned(layer)]
        if self.inheriting:
            if any(not self.retrieval(planned[0], head) for head in range(self.facts.kv_heads)):
                raise ValueError("cannot be shuffled: not all heads of the first layer are full")
            planned = planned[1:]
        places = [(layer, head) for layer, head in self._heads() if layer in planned]
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(places), generator=generator).tolist()
        origin = {place: places[index] for place, index in zip(places, order)}

        def moved(table: Table[T]) -> Table[T]:
            rows = [list(row) for row in table]
            for (layer, head), (source_layer, source_head) in origin.items():
                rows[layer][head] = table[source_layer][source_head]
            return tuple(tuple(row) for row in rows)

        return replace(
            self,
            method=f"{self.method} shuffled",
            sink=moved(self.sink),
            alpha=moved(self.alpha),
            beta=moved(self.beta),
            inherits=moved(self.inherits),
            fitted_on={**self.fitted_on, "shuffled_with_seed": seed},
        )

    # What a plan says.

    @property
    def inheriting(self) -> bool:
        """Whether any head takes keys over from a head below."""
        return any(any(row) for row in self.inherits)

    def rule(self, layer: int, head: int) -> Rule:
        """What a head of keys and values holds; in a routed layer, where the router says so."""
        return Rule(self.sink[layer][head], self.alpha[layer][head], self.beta[layer][head])

    def rules(self, layer: int) -> tuple[Rule, ...]:
        """The rules of all heads of a layer."""
        return tuple(self.rule(layer, head) for head in range(self.facts.kv_heads))

    def retrieval(self, layer: int, head: int) -> bool:
        """Whether a head attends to all keys always, so that others may inherit its choice."""
        return (
            self.facts.planned(layer)
            and not self.routed[layer]
            and not self.inherits[layer][head]
            and self.rule(layer, head).full
        )

    def source(self, layer: int, head: int) -> int | None:
        """The layer of the nearest retrieval head below in the same column; None where none is."""
        below = (lower for lower in range(layer - 1, -1, -1) if self.retrieval(lower, head))
        return next(below, None)

    def spans(self, length: int) -> Tensor:
        """Windows in tokens at a length: int64 (L, KV); the model's own where it has some."""
        windows = self.facts.windows
        rows = [
            [min(windows[layer] or length, rule.window(length)) for rule in self.rules(layer)]
            for layer in range(self.facts.layers)
        ]
        return torch.tensor(rows, dtype=torch.long)

    def kept(self, length: int, *, sparse_prompts: float = 0.0) -> float:
        """The share of the bytes of the model's own cache that is held at a length in tokens.

        sparse_prompts: the share of prompts for which a router chooses the cut form. Raises
        ValueError for a length below 1.
        """
        if length < 1:
            raise ValueError(f"kept: a text has one token or more, got {length}")
        held = total = 0.0
        for layer in range(self.facts.layers):
            all_tokens = min(self.facts.windows[layer] or length, length)
            sparse = sparse_prompts if self.routed[layer] else 1.0
            for rule in self.rules(layer):
                cut = min(all_tokens, rule.keeps(length))
                held += sparse * cut + (1 - sparse) * all_tokens
                total += all_tokens
        return held / total

    def allowed(self, layer: int, queries: Tensor, keys: Tensor) -> Tensor:
        """Which keys each head may attend to, from positions: bool (KV, Q, K).

        queries, keys: int64 (Q,) and (K,), positions in the text counted from 0. For a routed
        layer, as where its router chooses to cut. What an inheriting head attends to is not known
        from positions: all past keys are allowed.
        """
        heads = [rule.allowed(queries, keys) for rule in self.rules(layer)]
        if (window := self.facts.windows[layer]) is not None:
            recent = keys[None, :] > queries[:, None] - window
            heads = [head & recent for head in heads]
        return torch.stack(heads)

    def digest(self) -> str:
        """SHA-256 of what the plan does: model, tables, weights of the router."""
        known = (self.facts.sha256, self.sink, self.alpha, self.beta, self.inherits)
        budget = None if self.budget is None else (*vars(self.budget).values(),)
        sha = hashlib.sha256(json.dumps([*known, budget, self.routed]).encode())
        for name in sorted(self.router or {}):
            tensor = (self.router or {})[name]
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
        return sha.hexdigest()

    def check(self, model: nn.Module) -> None:
        """Raise ValueError, in one line, where the plan was made for another model."""
        facts = ModelFacts.of(model)
        if facts != self.facts:
            mine, other = vars(self.facts), vars(facts)
            name = next(name for name in mine if mine[name] != other[name])
            raise ValueError(
                f"the plan is for another model: {name} {mine[name]}, this model has {other[name]}"
            )

    # Files.

    def write(self, path: str | Path) -> None:
        """Write the plan as one JSON file, with the weights of a router, if any, beside it."""
        from .plan_file import write_plan

        write_plan(self, Path(path))

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a plan; ValueError in one line for what is none."""
        from .plan_file import read_plan

        return read_plan(Path(path))


def _filled(facts: ModelFacts, table: Rows[T]) -> list[list[T]]:
    """A table (L, KV) of which all entries are a number, or a copy of a table."""
    if isinstance(table, int | float):
        return [[table] * facts.kv_heads for _ in range(facts.layers)]
    rows = table.tolist() if isinstance(table, Tensor) else [list(row) for row in table]
    if len(rows) != facts.layers or any(len(row) != facts.kv_heads for row in rows):
        raise ValueError(f"a table must have {facts.layers} layers of {facts.kv_heads} heads")
    return rows


def _table(rows: list[list[T]], kind: type[T]) -> Table[T]:
    return tuple(tuple(kind(value) for value in row) for row in rows)
