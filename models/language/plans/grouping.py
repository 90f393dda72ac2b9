"""Heads of a layer that attend by the same rule are held and computed together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import torch
from torch import Tensor

from .plan import Plan
from .rules import FULL, Rule


class Role(Enum):
    """What a group of heads does while text is generated."""

    HOLDS = "attends to all that its rule lets it hold"
    CHOOSES = "attends to all keys, and chooses those that heads above inherit"
    INHERITS = "attends to the keys that a head below has chosen"


@dataclass(frozen=True)
class Group:
    """Heads of keys and values with one rule and role."""

    heads: tuple[int, ...]
    rule: Rule
    role: Role = Role.HOLDS


# Groups with the rows of a batch that they serve, int64 (R,), None for all.
Shares: TypeAlias = list[tuple[Group, Tensor | None]]


@dataclass(frozen=True)
class LayerPlan:
    """What a plan says of one layer. routed: the groups are for prompts that a router sends there;
    for the others all heads are full.
    """

    layer: int
    all_heads: Group
    groups: tuple[Group, ...]
    routed: bool

    @classmethod
    def of(cls, plan: Plan, layer: int) -> LayerPlan:
        """The groups of a layer, those with the first heads first."""
        chosen = {
            (plan.source(upper, head), head)
            for upper in range(layer + 1, plan.facts.layers)
            for head in range(plan.facts.kv_heads)
            if plan.inherits[upper][head]
        }
        members: dict[tuple[Rule, Role], list[int]] = {}
        for head, rule in enumerate(plan.rules(layer)):
            role = Role.INHERITS if plan.inherits[layer][head] else Role.HOLDS
            if (layer, head) in chosen:
                role = Role.CHOOSES
            members.setdefault((FULL if rule.full else rule, role), []).append(head)
        groups = tuple(Group(tuple(heads), *key) for key, heads in members.items())
        everything = Group(tuple(range(plan.facts.kv_heads)), FULL)
        return cls(layer, everything, groups, plan.routed[layer])

    @property
    def plain(self) -> bool:
        """Whether the layer does what it does in the model itself."""
        return self.groups == (self.all_heads,) and not self.routed

    @property
    def selects(self) -> bool:
        """Whether heads choose or inherit keys."""
        return any(group.role is not Role.HOLDS for group in self.groups)

    def sharing(self, full: Tensor | None) -> Shares:
        """Groups with the rows of the batch that they serve.

        full: bool (B,), the rows for which a router keeps all heads full; None for no router.
        """
        if full is None:
            return [(group, None) for group in self.groups]
        if bool(full.all()):
            return [(self.all_heads, None)]
        if not bool(full.any()):
            return [(group, None) for group in self.groups]
        cut = torch.nonzero(~full).flatten()
        shared: Shares = [(group, cut) for group in self.groups]
        return [(self.all_heads, torch.nonzero(full).flatten()), *shared]
