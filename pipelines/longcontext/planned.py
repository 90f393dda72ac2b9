"""A language model with a plan, as a module whose state is the plan alone.

Shapes: B prompts, N tokens, V of the vocabulary, L layers, K heads of keys and values.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ...models.language.plans.facts import ModelFacts
from ...models.language.plans.plan import Plan
from ...models.language.plans.rules import Budget
from ...models.language.running.attach import attach
from ...models.language.running.frozen_base import FrozenBase
from ...models.language.running.replaced import attend, positions_of, replaced_attention
from ...models.language.search.flux import FluxRouter
from ...models.language.search.lychee import LycheeRoles

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PlannedModel(FrozenBase):
    """A frozen language model that attends to what a plan keeps.

    model: is no part of the state. learner: what a training changes, if the method learns; a plan
    with a router takes its weights from there. beside: the model with the plan that was made, for
    windows that stand beside it.

    Until `take` is called the plan is that of the full model.
    """

    sink: Tensor
    alpha: Tensor
    beta: Tensor
    full: Tensor
    inherits: Tensor
    routed: Tensor
    budget: Tensor
    checked_to: Tensor
    learner: LycheeRoles | FluxRouter | None

    def __init__(
        self,
        model: PreTrainedModel,
        learner: LycheeRoles | FluxRouter | None = None,
        beside: PlannedModel | None = None,
    ) -> None:
        super().__init__(model)
        self.facts = ModelFacts.of(model)
        shape = (self.facts.layers, self.facts.kv_heads)
        zeros = torch.zeros(shape, dtype=torch.int64)
        # Whole numbers in place of bool and infinity, so that any other value is another plan.
        for name, value in {
            "sink": zeros,
            "alpha": zeros.double(),
            "beta": zeros.double(),
            "full": zeros + 1,
            "inherits": zeros,
            "routed": zeros[:, 0],
            "budget": torch.zeros(3, dtype=torch.int64),
            "checked_to": torch.zeros((), dtype=torch.int64),
        }.items():
            self.register_buffer(name, value.clone())
        self.learner = learner
        self.method = "full"
        self.fitted_on: dict[str, object] = {}
        # Past nn.Module: the other model is stored by itself.
        object.__setattr__(self, "beside", beside)
        self._plan: Plan | None = None
        self.register_load_state_dict_post_hook(_forget_plan)

    @property
    def domain(self) -> PlannedModel:
        """The model with the plan that was made: this one, or the one that windows stand beside."""
        return cast("PlannedModel | None", self.__dict__["beside"]) or self

    @torch.no_grad()
    def take(self, plan: Plan) -> None:
        """Attend as a plan says from now on. Raises ValueError for a plan of another model."""
        plan.check(self.base)
        alpha = torch.tensor(plan.alpha, dtype=torch.float64)
        self.full.copy_(alpha.isinf())
        self.alpha.copy_(torch.where(alpha.isinf(), 0.0, alpha))
        for name in ("sink", "beta", "inherits", "routed"):
            table: Tensor = getattr(self, name)
            table.copy_(torch.tensor(getattr(plan, name)))
        budget = plan.budget
        numbers = (0, 0, 0) if budget is None else (budget.keys, budget.sink, budget.recent)
        self.budget.copy_(torch.tensor(numbers))
        self.checked_to.fill_(plan.checked_to)
        self.method, self.fitted_on = plan.method, dict(plan.fitted_on)
        self._plan = None

    @property
    def plan(self) -> Plan:
        """What the model attends to. Raises ValueError for tables that contradict each other."""
        if self._plan is None:
            self._plan = self._read_plan()
        return self._plan

    def _read_plan(self) -> Plan:
        alpha = torch.where(self.full > 0, math.inf, self.alpha)
        keys, sink, recent = self.budget.tolist()
        routed = [bool(value) for value in self.routed.tolist()]
        learner = self.domain.learner
        router = learner.tensors() if any(routed) and isinstance(learner, FluxRouter) else None
        return Plan.of_tables(
            self.facts,
            method=self.method,
            sink=self.sink.cpu(),
            alpha=alpha.cpu(),
            beta=self.beta.cpu(),
            inherits=(self.inherits > 0).cpu(),
            budget=Budget(keys, sink, recent) if keys else None,
            routed=routed,
            router=router,
            fitted_on=self.fitted_on,
            checked_to=int(self.checked_to),
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids int64 (B, N), mask bool (B, N), True = a token -> logits (B, N, V)."""
        plan = self.plan
        if torch.compiler.is_exporting():
            positions = positions_of(mask)
            work = replaced_attention(self.base, partial(_masked, plan, positions))
        else:
            work = attach(self.base, plan)
        with work:
            out = self.base(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        return out.logits


def _forget_plan(model: nn.Module, _: object) -> None:
    """Tables that were loaded are another plan."""
    planned(model)._plan = None


def _masked(
    plan: Plan,
    positions: Tensor,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    scale: float,
) -> Tensor:
    """The attention of a layer under the masks of its rules, as a graph can hold it: all keys are
    computed. See `AttentionOfLayer`.
    """
    if plan.facts.planned(layer):
        rules = [rule.allowed(positions, positions) for rule in plan.rules(layer)]
        allowed = allowed & torch.stack(rules, 1)
    return attend(query, key, value, allowed, scale)


def planned(model: nn.Module) -> PlannedModel:
    """A module that is known to be a model with a plan."""
    assert isinstance(model, PlannedModel)
    return model
