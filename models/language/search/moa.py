"""MoA: a window for each head that grows with the text, chosen by an integer program from the
influence of keys (arXiv 2406.14909).

Shapes: h heads of keys of the layers that a plan may cut, r rules.

A rule keeps the first `sink` tokens and a window of alpha + beta n tokens at n tokens. Its loss for
a head is the influence of the pairs of query and key that it drops. One rule a head is chosen, so
that the sum of the losses is least and no more than a share `keep` of the cache is held at any of
the lengths. With several lengths, the loss of one is minimised under bounds on those of the others
(epsilon-constraint), the choices that no other beats at all lengths remain (the Pareto front), and
of these the one is taken whose true loss is least at a length that was not profiled.

Departures from the published code: scipy's solver (HiGHS) in place of Gurobi; a rule is of a head
of keys, so that memory is freed with grouped queries; no limit of two rules a layer, which only its
kernel asks for; no least density, since dropping more than necessary gains nothing; steps of alpha
are a sixteenth of the longest length in place of 1,024 tokens; a query in mid-text has the window
of the text up to it, as it has while the text is generated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..plans.facts import ModelFacts
from ..plans.plan import Plan
from ..plans.rules import FULL, Rule
from ..running.attach import attach
from .influence import AnsweredPrompt, Rows, answer_losses, check_prompts, influence_blocks
from .profile_store import ProfileStore
from .rule_choice import pareto_choices, total

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[str, int, int], None]  # what is done, how many, of how many
Prompts = Mapping[int, Sequence[AnsweredPrompt]]  # by length in tokens


@dataclass(frozen=True)
class MoaSearch:
    """What a search looks for.

    lengths: in tokens, those that are profiled, multiples of `block`. keep: the share of the
    model's own cache that may be held at each of the lengths. validation_length: an unseen length
    by which the plans of the front are compared (None: the plan whose worst length is nearest to
    its best); bounded: further lengths at which `keep` holds. block, rows, signed: of the profile
    (`influence_blocks`). sink: first tokens that each head keeps. steps: alpha goes by the longest
    length over this; slopes: betas from 0 to 1. objectives: lengths whose losses are minimised
    (none: all that are profiled); points: bounds on each loss but one. batch: prompts at once. gap:
    how far, relatively, a choice may be from the best. Raises ValueError, in a line, for what
    cannot be.
    """

    lengths: tuple[int, ...] = (512, 1024)
    keep: float = 0.5
    validation_length: int | None = None
    bounded: tuple[int, ...] = ()
    block: int = 16
    rows: Rows = "answer"
    signed: bool = False
    sink: int = 64
    steps: int = 16
    slopes: int = 9
    objectives: tuple[int, ...] = ()
    points: int = 5
    batch: int = 1
    gap: float = 1e-4

    def __post_init__(self) -> None:
        if not self.lengths or len(set(self.lengths)) != len(self.lengths):
            raise ValueError(f"lengths {self.lengths}: needs at least one, and none twice")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep {self.keep}: must be a share above 0, 1 at most")
        for name in ("block", "steps", "points", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if self.sink < 0 or self.slopes < 2 or self.gap < 0:
            raise ValueError("a search needs sink and gap of at least 0, and 2 slopes")
        if min(self.all_lengths) < 2:
            raise ValueError(f"{min(self.all_lengths)} tokens: a length must be at least 2")
        for length in self.lengths:
            if length % self.block:
                raise ValueError(f"length {length}: must be a multiple of the block, {self.block}")
        if self.validation_length in self.lengths:
            raise ValueError(f"validation_length {self.validation_length}: must not be profiled")
        if unknown := set(self.objectives) - set(self.lengths):
            raise ValueError(f"objectives: {min(unknown)} is not among the lengths {self.lengths}")

    @property
    def all_lengths(self) -> tuple[int, ...]:
        """Lengths at which `keep` holds, from the shortest."""
        unseen = () if self.validation_length is None else (self.validation_length,)
        return tuple(sorted({*self.lengths, *self.bounded, *unseen}))


class Candidate(NamedTuple):
    """A plan with the loss that its profile expects at each of the objectives."""

    plan: Plan
    losses: dict[int, float]


def plan_by_influence(
    model: PreTrainedModel,
    prompts: Prompts,
    search: MoaSearch,
    progress: Progress | None = None,
    store: ProfileStore | None = None,
) -> Plan:
    """Profile a model on prompts with answers, search, validate: the plan.

    prompts: by length, for each length of the search and for its validation length; a prompt may be
    shorter than its length. progress: called after each batch and each plan that is validated.
    store: sums to go on with, saved after each batch (`ProfileStore.resume`); the plan is the same,
    to the bit, as without a break. Raises ValueError, in a line, for prompts that cannot be used
    and a `keep` that no choice can meet.
    """
    wanted_lengths = {*search.lengths, search.validation_length} - {None}
    if missing := sorted(length for length in wanted_lengths if not prompts.get(length)):
        raise ValueError(f"no prompts of {missing[0]} tokens, which the search asks for")
    for length in wanted_lengths:
        check_prompts(prompts[length], length)
    facts = ModelFacts.of(model)
    rules, budgets = elastic_rules(search), token_budgets(facts, search)
    refuse_infeasible(facts, search, rules, budgets)  # before the work
    if store is None:
        store = ProfileStore(facts, block=search.block, rows=search.rows, signed=search.signed)
    profile_prompts(model, prompts, search, store, progress)
    front = front_of_plans(store, search)
    measured: list[float] = []
    if search.validation_length is not None:
        unseen = prompts[search.validation_length]
        for place, candidate in enumerate(front):
            measured.append(loss_under_plan(model, candidate.plan, unseen, search.batch))
            if progress is not None:
                progress("plans validated", place + 1, len(front))
    return _chosen(front, measured, search)


def profile_prompts(
    model: PreTrainedModel,
    prompts: Prompts,
    search: MoaSearch,
    store: ProfileStore,
    progress: Progress | None = None,
) -> None:
    """Add the prompts that `store` does not have yet to its sums, and save it after each batch."""
    waiting = {length: store.remaining(length, prompts[length]) for length in search.lengths}
    total = sum(len(prompts[length]) for length in search.lengths)
    done = total - sum(map(len, waiting.values()))
    for length, rest in waiting.items():
        for start in range(0, len(rest), search.batch):
            batch = rest[start : start + search.batch]
            sums = influence_blocks(
                model, batch, length, block=search.block, rows=search.rows, signed=search.signed
            )
            store.add(length, batch, sums)
            store.save()
            done += len(batch)
            if progress is not None:
                progress("prompts profiled", done, total)


def loss_under_plan(
    model: PreTrainedModel, plan: Plan, prompts: Sequence[AnsweredPrompt], batch: int = 1
) -> float:
    """Mean loss of the answers under a plan, in nats a token."""
    with attach(model, plan):
        parts = [
            answer_losses(model, prompts[start : start + batch])
            for start in range(0, len(prompts), batch)
        ]
    return float(torch.cat(parts).double().mean())


def elastic_rules(search: MoaSearch) -> list[Rule]:
    """The rules of a search.

    alpha goes from minus the shortest to plus the longest profiled length, beta from 0 to 1. A rule
    is left out if its window is shorter than a token at the shortest of all lengths, or longer than
    the text at the longest. Of rules that hold as much at all lengths the one nearest to a fixed
    share of the text is taken; of those that hold all of it, a full head.
    """
    lengths = search.all_lengths
    step = max(search.lengths) / search.steps
    lowest = -math.floor(min(search.lengths) / step)
    by_size: dict[tuple[int, ...], Rule] = {lengths: FULL}
    alphas = sorted((step * k for k in range(lowest, search.steps + 1)), key=abs)
    for alpha, beta in itertools.product(alphas, np.linspace(0, 1, search.slopes).tolist()):
        if alpha + beta * lengths[0] < 1 or alpha + beta * lengths[-1] > lengths[-1]:
            continue
        rule = Rule(search.sink, alpha, beta)
        by_size.setdefault(tuple(map(rule.keeps, lengths)), rule)
    return list(by_size.values())


def rule_losses(blocks: Tensor, rules: Sequence[Rule], length: int) -> np.ndarray:
    """Influence of the pairs that each rule drops: blocks float64 (h, m, m) -> (h, r).

    A block of which a rule drops a share of the pairs counts by this share.
    """
    block = length // blocks.shape[-1]
    losses = np.zeros((len(blocks), len(rules)))
    for row in blocks.any(0).any(1).nonzero()[:, 0].tolist():
        queries = torch.arange(row * block, (row + 1) * block)
        keys = torch.arange((row + 1) * block)
        past = (keys <= queries[:, None]).double()
        pairs = past.unflatten(1, (-1, block)).sum((0, 2))
        sums = blocks[:, row, : row + 1].numpy()
        for column, rule in enumerate(rules):
            held = rule.allowed(queries, keys).double()
            dropped = pairs - held.unflatten(1, (-1, block)).sum((0, 2))
            losses[:, column] += sums @ (dropped / pairs).numpy()
    return losses


def token_budgets(facts: ModelFacts, search: MoaSearch) -> np.ndarray:
    """Tokens that the heads of planned layers may hold together at each of all lengths: (c,).

    What layers with a window of their own hold is taken off: `keep` is of the model's own cache.
    """
    budgets = []
    for length in search.all_lengths:
        full_keys = [min(window or length, length) * facts.kv_heads for window in facts.windows]
        fixed = sum(full_keys[layer] for layer in range(facts.layers) if not facts.planned(layer))
        budgets.append(math.floor(search.keep * sum(full_keys) + 1e-6) - fixed)
    return np.array(budgets, np.float64)


def refuse_infeasible(
    facts: ModelFacts, search: MoaSearch, rules: Sequence[Rule], budgets: np.ndarray
) -> None:
    """Raise ValueError, in a line, where even the smallest rules pass a budget."""
    heads = facts.kv_heads * sum(map(facts.planned, range(facts.layers)))
    if not heads:
        raise ValueError("the model has no layer of full attention: there is nothing to cut")
    for length, budget in zip(search.all_lengths, budgets.tolist(), strict=True):
        least = min(rule.keeps(length) for rule in rules)
        if heads * least > budget:
            windows = "" if all(map(facts.planned, range(facts.layers))) else (
                ", beside layers with a window of their own, which are not cut"
            )  # fmt: skip
            raise ValueError(
                f"keep {search.keep}: cannot be met at {length} tokens, where the smallest rule "
                f"holds {least} (sink {search.sink}){windows}; raise keep or lower the sink"
            )


def front_of_plans(store: ProfileStore, search: MoaSearch) -> list[Candidate]:
    """Plans of the Pareto front, from the least loss at the shortest objective.

    Raises ValueError, in a line, for a `keep` that no choice can meet.
    """
    facts, rules = store.facts, elastic_rules(search)
    budgets = token_budgets(facts, search)
    refuse_infeasible(facts, search, rules, budgets)
    planned = [layer for layer in range(facts.layers) if facts.planned(layer)]
    losses = {
        length: rule_losses(store.mean(length)[planned].flatten(0, 1), rules, length)
        for length in search.objectives or search.lengths
    }
    sizes = np.array([[rule.keeps(n) for rule in rules] for n in search.all_lengths], np.float64)
    choices = pareto_choices(losses, sizes, budgets, points=search.points, gap=search.gap)
    if not choices:
        raise ValueError(
            f"keep {search.keep}: no choice of rules meets it at all of {search.all_lengths} "
            "tokens; raise keep or lower the sink"
        )
    return [
        Candidate(
            _plan(store, search, [rules[place] for place in choice]),
            {length: total(losses[length], choice) for length in sorted(losses)},
        )
        for choice in choices
    ]


def _plan(store: ProfileStore, search: MoaSearch, chosen: Sequence[Rule]) -> Plan:
    """The plan in which heads of planned layers, in their order, have these rules."""
    facts, rules = store.facts, iter(chosen)
    table = [
        [next(rules) if facts.planned(layer) else FULL for _ in range(facts.kv_heads)]
        for layer in range(facts.layers)
    ]
    return Plan.of_tables(
        facts,
        method="moa",
        sink=[[rule.sink for rule in row] for row in table],
        alpha=[[rule.alpha for rule in row] for row in table],
        beta=[[rule.beta for rule in row] for row in table],
        fitted_on={
            "prompts": {str(length): store.prompts[length] for length in search.lengths},
            "rows": store.rows,
            "signed": store.signed,
            "block": store.block,
            "keep": search.keep,
            "lengths": list(search.all_lengths),
        },
    )


def _chosen(front: Sequence[Candidate], measured: Sequence[float], search: MoaSearch) -> Plan:
    """The plan of a front: by its measured loss, or else by its expected ones."""
    if measured:
        place = int(np.argmin(measured))
    else:
        # Each loss relative to the least of the front; the plan whose largest excess is smallest.
        expected = np.array([list(candidate.losses.values()) for candidate in front])
        least, most = expected.min(0), expected.max(0)
        excess = (expected - least) / np.where(most > least, most - least, 1)
        place = int(excess.max(1).argmin())
    entries = [
        {"expected": {str(n): loss for n, loss in candidate.losses.items()}}
        | ({"measured": measured[number]} if measured else {})
        for number, candidate in enumerate(front)
    ]
    plan = front[place].plan
    facts = {"front": entries, "chosen": place, "validation_length": search.validation_length}
    return replace(
        plan, fitted_on={**plan.fitted_on, **facts}, checked_to=search.validation_length or 0
    )


def grouped_by_length(
    prompts: Sequence[AnsweredPrompt], block: int = 16, groups: int = 2
) -> dict[int, list[AnsweredPrompt]]:
    """Prompts of any lengths by length, as a search needs them: at most `groups` of equal size,
    each under the length of its longest prompt, rounded up to blocks. Groups whose lengths differ
    by less than half are one, since they would say nothing of how windows should grow.
    """
    check_prompts(prompts)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].tokens))
    grouped: dict[int, list[AnsweredPrompt]] = {}
    for part in np.array_split(order, min(groups, len(order))):
        longest = -(-len(prompts[part[-1]].tokens) // block) * block
        alike = [length for length in grouped if longest < 1.5 * length]
        earlier = [prompt for length in alike for prompt in grouped.pop(length)]
        grouped[longest] = [*earlier, *(prompts[place] for place in part)]
    return grouped
