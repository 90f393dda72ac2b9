"""Plans that stand beside another: windows of the same size for all heads, and the same rules on
other heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ...models.language.plans.plan import Plan

FULL, UNIFORM, PLAN, SHUFFLED = "full", "uniform", "plan", "shuffled"
ATTEMPTS = 8
WORDS: Mapping[str, str] = {
    FULL: "the entire cache",
    UNIFORM: "the same window for all heads, as large as the plan",
    PLAN: "the plan",
    SHUFFLED: "the rules of the plan on other heads",
}


def size_of(plan: Plan, length: int) -> float:
    """Mean share of a text's keys that a planned head reads, 0 to 1: what it holds or, for a head
    that takes the set of another, what that set holds. Heads that a router may cut count as cut.
    """
    shares = []
    for layer in range(plan.facts.layers):
        if not plan.facts.planned(layer):
            continue
        for head, rule in enumerate(plan.rules(layer)):
            keys = rule.keeps(length)
            if plan.inherits[layer][head] and plan.budget is not None:
                keys = min(keys, plan.budget.keys)
            shares.append(keys / length)
    return sum(shares) / max(1, len(shares))


def uniform_like(plan: Plan, length: int) -> Plan:
    """The same sink and window for all heads, which together read as many keys as those of the plan
    at each length up to `length`, but for rounding: the window grows as the plan does.
    """
    short = max(1, length // 2)
    large, small = (size_of(plan, size) * size for size in (length, short))
    growth = min(1.0, max(0.0, (large - small) / max(1, length - short)))
    sinks = [rule.sink for layer in range(plan.facts.layers) for rule in plan.rules(layer)
             if not rule.full]  # fmt: skip
    sink = max(sinks, default=plan.budget.sink if plan.budget is not None else 0)
    sink = min(sink, int(large / 2))
    constant = large - growth * length - sink
    alpha = math.inf if large >= length else constant
    uniform = Plan.of_tables(
        plan.facts, method="uniform", sink=sink, alpha=alpha, beta=growth, fitted_on=plan.fitted_on
    )
    return replace(uniform, checked_to=plan.checked_to)


def compared_plans(plan: Plan, length: int, seed: int) -> dict[str, Plan]:
    """The plan and what it is compared with, by name; without a shuffled one where that is the same
    or cannot be.
    """
    plans = {FULL: Plan.full(plan.facts), UNIFORM: uniform_like(plan, length), PLAN: plan}
    if not any(plan.routed):
        # With few heads an order may leave all rules where they are.
        for attempt in range(ATTEMPTS):
            try:
                shuffled = plan.shuffled(seed + attempt)
            except ValueError:  # roles that must not move
                return plans
            if shuffled.digest() != plan.digest():
                return {**plans, SHUFFLED: shuffled}
    return plans
