"""The verb heads: which heads of a language model fetch what a prompt asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from torch import nn

from ....base.account import opened
from ....base.errors import InputError
from ....base.files import clear_below, write_aside
from ....models.language.analysis.needle import (
    NeedlePrompt,
    NeedleScores,
    answer_losses,
    head_plan,
    heads_within,
    plan_by_needle,
    planned_ranking,
)
from ....models.language.plans.plan import Plan
from ....models.language.running.attach import attach
from ...engine.accounts import publish
from ...engine.command_line import machine
from ...engine.command_line.terminal import say
from ...engine.experiments.jobs import claimed, fingerprint_of, run_jobs
from ...engine.inference.output import refuse_input_as_output
from ...engine.opened_models import model_of, open_base
from ...engine.pipeline import Review
from ...engine.runs.loaded import pick_device
from ...engine.runs.report import write_page
from ..scored_heads import scored_heads
from .heads_tables import Cut, HeadSet, Shape, best_table, headline, pictures, tables
from .options_attention import HeadsOptions, check_attention
from .prompts_to_score import prompts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ....models.language.opening import OpenedLanguageModel
    from ...engine.pipeline import AnyPipeline

INSIDE, PLAN, PAGE, ACCOUNT = "measured", "plan.json", "report.html", "account.json"
FREE = ("data", "output", "accept", "accelerator")  # options that no result depends on
MOST_SINK = 64
Head = tuple[int, int]  # layer, head of keys


@dataclass(frozen=True)
class ScoredHeads:
    """What `heads` wrote. plan: of the best heads; ranking: heads of keys as (layer, head), the
    best first; sets: what keeping and cutting them gives on other prompts, empty without any.
    """

    output: Path
    plan: Plan
    ranking: Sequence[Head]
    sets: Sequence[HeadSet]
    sentence: str

    def table(self) -> pl.DataFrame:
        """A row for each head of keys."""
        return pl.read_parquet(self.output / "heads.parquet", glob=False)


def heads(pipeline: AnyPipeline, options: HeadsOptions) -> ScoredHeads:
    """Score all heads, cut some of them, and write tables, pictures, plan.json and report.html into
    --output.

    Raises `InputError` for a model or prompts that cannot be used.
    """
    check_attention(options)
    output = Path(options.output)
    if options.data is not None:
        refuse_input_as_output(output, [options.data])
    with opened(options.accept) as account:
        model = open_base(model_of(options.model))
        scored, checked = prompts_of(options, model)
        publish(account)
        with claimed(output, INSIDE) as home:
            clear_below(output)
            job = _HeadsJob(options, model, scored, checked, home)
            found = job.run()
            _write(pipeline, options, model, found, job)
            publish(account, output / ACCOUNT, shown=False)
    say(found.sentence)
    say(f"report {output / PAGE}; the plan of these heads {output / PLAN}")
    return found


class _HeadsJob:
    """Scores and cuts heads; what is in `home` already is not done again."""

    def __init__(
        self,
        options: HeadsOptions,
        opened_model: OpenedLanguageModel,
        scored: Sequence[NeedlePrompt],
        checked: Sequence[NeedlePrompt],
        home: Path,
    ) -> None:
        self.options, self.home = options, home
        self.model: PreTrainedModel = opened_model.model
        nn.Module.to(self.model, pick_device(options.accelerator))
        self.facts = opened_model.facts
        self.scored, self.checked = scored, checked
        lengths = [len(prompt.ids) for prompt in (*scored, *checked)]
        self.shortest, self.longest = min(lengths), max(lengths)
        default = min(MOST_SINK, max(1, self.shortest // 8))
        self.sink = default if options.sink is None else options.sink
        self.window = max(1, self.sink) if options.window is None else options.window
        ids = repr([(prompt.ids, prompt.answer, prompt.needle) for prompt in (*scored, *checked)])
        known = {
            "weights": opened_model.sha256,
            "prompts": hashlib.sha256(ids.encode()).hexdigest(),
            "scored": len(scored),
        }
        self.fingerprint = fingerprint_of(options, known, FREE)
        self.scores = NeedleScores.of(self.facts)
        self.cuts: list[Cut] = []

    def run(self) -> ScoredHeads:
        self.scores = scored_heads(
            self.model,
            self.scored,
            home=self.home,
            fingerprint=self.fingerprint,
            title="score heads",
            size=self.options.batch_size,
        )
        ranking = planned_ranking(self.scores, self.facts)
        try:
            count = heads_within(
                self.options.share,
                self.facts,
                sink=self.sink,
                window=self.window,
                length=self.longest,
            )
        except ValueError as error:
            raise InputError(f"--share: {error}; give a smaller --sink and --window") from None
        made_from = {
            "prompts": len(self.scored),
            "shortest": self.shortest,
            "longest": self.longest,
            "agreement_of_halves": self.scores.agreement(max(1, count)),
        }
        plan = plan_by_needle(
            self.scores,
            self.facts,
            heads=count,
            sink=self.sink,
            window=self.window,
            fitted_on=made_from,
        )
        sets = self._sets(ranking, count) if self.checked else []
        table = self.scores.table()
        shape = Shape(
            len(ranking), self.sink, self.window, self.longest, len(self.scored),
            self.scores.agreement(count) if count else float("nan"),
        )  # fmt: skip
        sentence = headline(shape, [float(table[head]) for head in ranking[:count]], sets)
        return ScoredHeads(Path(self.options.output), plan, ranking, sets, sentence)

    def _sets(self, ranking: Sequence[Head], count: int) -> list[HeadSet]:
        """What some sets of full heads give on the other prompts, and what single cuts cost."""
        generator = np.random.default_rng(self.options.seed)
        best, others = list(ranking[:count]), list(ranking[count:])
        drawn = [others[k] for k in generator.permutation(len(others))]
        full: dict[str, list[Head]] = {
            "all": list(ranking),
            "the best": best,
            "all but the best": others,
            "as many others, at random": drawn[:count],
            "none": [],
        }
        singles = {
            (layer, head): number < self.options.cut
            for number, (layer, head) in enumerate(
                [*ranking[: self.options.cut], *drawn[: self.options.cut]]
            )
        }
        jobs = {f"set-{number}": full_heads for number, full_heads in enumerate(full.values())}
        for single in singles:
            jobs["cut-{}-{}".format(*single)] = [head for head in ranking if head != single]
        records = run_jobs(
            jobs,
            self._losses,
            self.home,
            self.fingerprint,
            title="cut heads",
            unit="cut",
            called="cuts",
        )
        uncut = np.array(records["set-0"]["losses"])
        for (layer, head), is_best in singles.items():
            losses = np.array(records[f"cut-{layer}-{head}"]["losses"])
            self.cuts.append(Cut(layer, head, is_best, losses - uncut))
        return [
            HeadSet(
                name,
                len(full_heads),
                head_plan(self.facts, full_heads, self.sink, self.window).kept(self.longest),
                np.array(records[f"set-{number}"]["right"], dtype=bool),
                np.array(records[f"set-{number}"]["losses"]),
            )
            for number, (name, full_heads) in enumerate(full.items())
        ]

    def _losses(self, full: Iterable[Head]) -> Mapping[str, object]:
        losses, right = list[float](), list[bool]()
        with attach(self.model, head_plan(self.facts, full, self.sink, self.window)):
            for start in range(0, len(self.checked), self.options.batch_size):
                batch = self.checked[start : start + self.options.batch_size]
                loss, is_right = answer_losses(self.model, batch)
                losses += loss.tolist()
                right += is_right.tolist()
        return {"losses": losses, "right": right}


def _write(
    pipeline: AnyPipeline,
    options: HeadsOptions,
    model: OpenedLanguageModel,
    found: ScoredHeads,
    job: _HeadsJob,
) -> None:
    """Tables, pictures, plan and page."""
    output = found.output
    count = sum(rule.full for layer in range(job.facts.layers) if job.facts.planned(layer)
                for rule in found.plan.rules(layer))  # fmt: skip
    written = tables(job.scores, job.facts, found.ranking, count, found.sets, job.cuts)
    for name, table in written.items():
        write_aside(output / f"{name}.parquet", table.write_parquet)
        write_aside(output / f"{name}.csv", table.write_csv)
    found.plan.write(output / PLAN)
    shown = {"What keeping and cutting gives": written["sets"]} if found.sets else {}
    shown["The best heads of keys"] = best_table(written["heads"])
    write_page(
        output / PAGE,
        output / "figures",
        pipeline,
        Review({}, found.sentence, pictures(job.scores, found.ranking, count, job.cuts), shown),
        data=options.data or "prompts generated over Python's documentation",
        run=model.name,
        options=asdict(options),
        facts=machine.environment(pipeline.task.name, options.seed, options.accelerator, 1),
    )
