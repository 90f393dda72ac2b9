"""How plans are made: one entry for each --method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...base.errors import InputError
from ...base.files import clear_aside
from ...models.language.analysis.needle import NeedlePrompt, heads_within, plan_by_needle
from ...models.language.plans.facts import ModelFacts
from ...models.language.plans.plan import Plan
from ...models.language.plans.rules import Budget
from ...models.language.search.flux import FluxRouter
from ...models.language.search.influence import AnsweredPrompt
from ...models.language.search.lychee import LycheeRoles
from ...models.language.search.moa import MoaSearch, grouped_by_length, plan_by_influence
from ...models.language.search.profile_store import ProfileStore
from ..engine.command_line.terminal import Progressbar, say
from ..engine.experiments.jobs import fingerprint_of
from ..engine.options import FREE_ON_RESUME
from .data import PromptPart
from .options import LongContextOptions, Method
from .plan_files import read_any_plan
from .scored_heads import scored_heads
from .spec import LongContextSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .planned import PlannedModel

MOST_SINK = 64  # tokens, where the user names none
PROFILE = "influence.safetensors"
# Options that no measurement depends on.
FREE = FREE_ON_RESUME | {"data", "accept", "accelerator"}


@dataclass(frozen=True)
class Fitting:
    """What a method makes a plan from: the model, the prompts of the training part, the options.

    measured: a folder for what is measured of each prompt, see `Context`.
    """

    model: PlannedModel
    part: PromptPart
    options: LongContextOptions
    spec: LongContextSpec
    measured: Path | None = None

    @property
    def facts(self) -> ModelFacts:
        return self.model.facts

    @property
    def sink(self) -> int:
        """First tokens that every head keeps."""
        return sink_of(self.options, self.spec)

    @property
    def window(self) -> int:
        """Last tokens that a head keeps which is not full."""
        return self.options.window or max(1, self.sink)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that a measurement depends on: the model, the prompts, the options."""
        known = {"model": self.spec.sha256, "prompts": self.part.tokens}
        return fingerprint_of(self.options, known, FREE)

    @property
    def measured_here(self) -> Path | None:
        """The folder of what is measured with this model, these prompts and options, and no other
        ones.
        """
        if self.measured is None:
            return None
        folder = self.measured / self.fingerprint[:16]
        folder.mkdir(exist_ok=True)
        clear_aside(folder)
        return folder

    def note(self) -> dict[str, object]:
        """What the plan was made from, for its reader."""
        return made_from(self.options, self.spec)


@dataclass(frozen=True)
class PlanMethod:
    """words: the plan in a sentence; fit: makes it; learner: what a training changes before, None
    for a method that learns nothing.
    """

    words: str
    fit: Callable[[Fitting], Plan]
    learner: (
        Callable[[PreTrainedModel, LongContextOptions, LongContextSpec], LycheeRoles | FluxRouter]
        | None
    ) = None


def made_from(options: LongContextOptions, spec: LongContextSpec) -> dict[str, object]:
    """What a plan was made from, for its reader."""
    return {
        "method": options.method,
        "prompts": spec.parts.get("train", 0),
        "kinds": spec.input["kinds"],
        "shortest": spec.shortest,
        "longest": spec.longest,
        "seed": options.seed,
    }


def sink_of(options: LongContextOptions, spec: LongContextSpec) -> int:
    """--sink, or an eighth of the shortest prompt."""
    if options.sink is not None:
        return options.sink
    return min(MOST_SINK, max(1, spec.shortest // 8))


def _full(fitting: Fitting) -> Plan:
    return Plan.full(fitting.facts)


def _uniform(fitting: Fitting) -> Plan:
    """The window that --share leaves at the longest prompt."""
    options, longest, sink = fitting.options, fitting.spec.longest, fitting.sink
    window = options.window or int(options.share * longest) - sink
    if window < 1:
        raise InputError(
            f"--share {options.share:g}: is less than the sink of {sink} of {longest} tokens; give "
            "a smaller --sink or a larger --share"
        )
    return Plan.uniform(fitting.facts, sink=sink, window=window)


def _read(fitting: Fitting) -> Plan:
    """The plan of --plan."""
    assert fitting.options.plan is not None
    return read_any_plan(fitting.options.plan, fitting.facts)


def _needle(fitting: Fitting) -> Plan:
    """The heads that attend most to what is asked for stay full, as many as --share lets."""
    prompts = []
    for tokens in fitting.part.tokens:
        try:
            prompts.append(NeedlePrompt.of(tokens.prompt, tokens.answer))
        except ValueError:
            continue  # the answer is not written in the prompt
    if not prompts:
        raise InputError(
            "--method needle: needs prompts whose answer stands in them, word for word; the "
            "training part has none (give texts, over which such prompts are generated)"
        )
    keep = {"sink": fitting.sink, "window": fitting.window}
    try:  # before the work
        count = heads_within(
            fitting.options.share, fitting.facts, **keep, length=fitting.spec.longest
        )
    except ValueError as error:
        raise InputError(
            f"--share: {error}; give a smaller --sink and --window, or longer prompts"
        ) from None
    scores = scored_heads(
        fitting.model.base,
        prompts,
        home=fitting.measured_here,
        fingerprint=fitting.fingerprint,
        title="needle",
    )
    facts = {
        **fitting.note(),
        "prompts": len(prompts),
        "agreement_of_halves": scores.agreement(max(1, fitting.facts.layers // 2)),
    }
    return plan_by_needle(scores, fitting.facts, heads=count, **keep, fitted_on=facts)


def _lychee_learner(
    model: PreTrainedModel, options: LongContextOptions, spec: LongContextSpec
) -> LycheeRoles:
    sink = sink_of(options, spec)
    recent = options.window or sink
    keys = max(int(options.share * spec.longest), sink + recent)
    return LycheeRoles(model, Budget(keys, sink, recent))


def _flux_learner(
    model: PreTrainedModel, options: LongContextOptions, spec: LongContextSpec
) -> FluxRouter:
    sink = sink_of(options, spec)
    return FluxRouter(model, sink=sink, window=options.window or max(1, sink))


def _learned(fitting: Fitting) -> Plan:
    """What the training has taught."""
    learner = fitting.model.learner
    assert learner is not None
    return learner.plan(fitted_on=fitting.note())


def _moa(fitting: Fitting) -> Plan:
    """Windows that grow with the text, by the influence of keys on the loss of the answers."""
    prompts = [AnsweredPrompt.of(t.prompt, t.answer) for t in fitting.part.tokens if t.answer]
    if not prompts:
        raise InputError("--method moa: needs prompts with answers; the training part has none")
    by_length = grouped_by_length(prompts)
    search = MoaSearch(
        lengths=tuple(by_length),
        keep=fitting.options.share,
        sink=fitting.sink,
        # Lengths are rounded up to blocks; the share must hold at the longest prompt itself.
        bounded=(fitting.spec.longest,),
    )
    store, folder = None, fitting.measured_here
    if folder is not None:
        settings = {"block": search.block, "rows": search.rows, "signed": search.signed}
        store = ProfileStore.resume(folder / PROFILE, fitting.facts, **settings)
        if done := sum(store.prompts.values()):
            say(f"{done} of {len(prompts)} prompts were done before")
    with Progressbar(total=len(prompts), unit="prompt", desc="influence") as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return plan_by_influence(fitting.model.base, by_length, search, progress, store)


METHODS: Mapping[Method, PlanMethod] = {
    "needle": PlanMethod("heads that fetch (needle)", _needle),
    "moa": PlanMethod("windows by influence (moa)", _moa),
    "lychee": PlanMethod("learned roles of heads (lychee)", _learned, _lychee_learner),
    "flux": PlanMethod("a learned router (flux)", _learned, _flux_learner),
    "uniform": PlanMethod("uniform windows", _uniform),
    "full": PlanMethod("the entire cache", _full),
    "plan": PlanMethod("the plan of --plan", _read),
}
"""By --method, how a plan is made."""


def fit_plan(fitting: Fitting) -> Plan:
    """The plan of the method, checked to the longest prompt that it was made from. Raises
    InputError for what cannot be made.
    """
    try:
        with torch.enable_grad():  # influence is a gradient
            plan = METHODS[fitting.options.method].fit(fitting)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"--method {fitting.options.method}: {error}") from None
    return replace(plan, checked_to=max(plan.checked_to, fitting.spec.longest))
