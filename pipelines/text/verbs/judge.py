"""The verb judge: biases of judges that compare two answers, from a table of their judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError, reason
from ....base.files import clear_aside, write_json, write_text
from ....data.columns import parse_columns
from ....data.texts.judgements import FIELDS, read_judgements
from ...engine.accounts import publish
from ...engine.command_line import machine
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference.output import refuse_input_as_output
from ...engine.pipeline import Review
from ...engine.runs.report import markdown, write_page
from ...engine.runs.run_directory import ACCOUNT
from ...metrics import judging
from ...metrics.judging import Agreement, Estimate, JudgedPairs
from .judge_words import judges_figure, verdict
from .options_judge import JudgeOptions, check_judge

if TYPE_CHECKING:
    from ..pipeline import TextPipeline

REPORT, PAGE, FACTS = "report.html", "report.md", "judges.json"
NO_FIGURE = "–"
CAPTION = "Judges: figures with 95 % intervals, by a bootstrap over pairs"


@dataclass(frozen=True)
class JudgeFindings:
    """What is known of one judge.

    judgements, pairs: how many. complete: pairs judged in both orders, which position bias,
    consistency and contradictions are of. slope: of the preference on ln(length ratio), of all
    judgements; equal_slope: of those of equal content. padding: gain of repeated sentences.
    agreement: with people, of single judgements; averaged: of both orders together.
    """

    judge: str
    judgements: int
    pairs: int
    complete: int
    ties: float
    position_bias: Estimate
    consistency: Estimate
    contradictions: Mapping[str, float]
    slope: Estimate
    equal_slope: Estimate
    padding: Estimate
    agreement: Agreement
    averaged: Agreement


@dataclass(frozen=True)
class Judges:
    """Outcome of the verb. failed: rows that were not understood."""

    findings: Sequence[JudgeFindings]
    table: pl.DataFrame
    verdicts: Sequence[str]
    failed: int
    output: Path | None


def judge(pipeline: TextPipeline, options: JudgeOptions) -> Judges:
    """Measure all judges of a table; writes into --output, if there is one.

    Raises `InputError` for a table that cannot be used. Rows that are not understood are named,
    counted and left out.
    """
    check_judge(options)
    output = None if options.output is None else Path(options.output)
    if output is not None:
        _check_output(output, options)
    with opened() as account:
        judgements = read_judgements(options.data, parse_columns(options.columns, FIELDS))
        judges = judgements.rows.partition_by("judge", maintain_order=True, as_dict=True)
        findings = []
        with Progressbar(total=len(judges), unit="judge", desc="judge") as bar:
            for (name, *_), rows in judges.items():
                findings.append(judge_findings(str(name), judged_pairs(rows), options))
                bar.update()
        table = findings_table(findings)
        verdicts = [verdict(judge_facts) for judge_facts in findings]
        publish(account)
        for line in markdown(with_figures(table)).splitlines():
            say(line)
        for line in verdicts:
            say(line)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            clear_aside(output)
            publish(account, output / ACCOUNT, shown=False)
            _write(pipeline, options, output, findings, table, verdicts)
    return Judges(findings, table, verdicts, len(judgements.refused), output)


def _check_output(output: Path, options: JudgeOptions) -> None:
    refuse_input_as_output(output, [options.data])
    if output.is_file():
        raise InputError(f"{output}: is a file; --output names a folder")
    try:
        filled = output.is_dir() and any(output.iterdir())
    except OSError as error:
        raise InputError(f"{output}: cannot be listed ({reason(error)})") from None
    if filled and not options.overwrite:
        raise InputError(f"{output}: is not empty; choose another --output, or --overwrite")


def judged_pairs(rows: pl.DataFrame) -> JudgedPairs:
    """The judgements of one judge, as arrays."""
    return JudgedPairs(
        pair=rows["pair"].to_numpy(),
        swapped=rows["swapped"].to_numpy(),
        preference=rows["preference"].to_numpy(),
        log_ratio=rows["log_ratio"].fill_null(np.nan).to_numpy(),
        human=rows["human"].fill_null(np.nan).to_numpy(),
        equal_content=rows["equal_content"].to_numpy(),
        padded=rows["padded"].to_numpy().astype(np.int64),
    )


def judge_findings(name: str, judged: JudgedPairs, options: JudgeOptions) -> JudgeFindings:
    """Measure one judge, and note what could not be used."""
    judged = _within_budget(name, judged, options)
    judged, conflicts = judging.without_conflicts(judged)
    if conflicts:
        what = f"pairs of {name} whose human column names both answers the better"
        cure = "it must follow the order of its row; not used for the agreement"
        note("left out", f"{what} ({cure})", count=conflicts)
    orders = judging.orders_of(judged)
    pairs = len(np.unique(judged.pair))
    if len(orders.plain) < pairs:
        what = f"pairs of {name} in one order only, not used for position bias and consistency"
        note("left out", what, count=pairs - len(orders.plain))
    draws, seed = options.draws, options.seed
    return JudgeFindings(
        judge=name,
        judgements=len(judged.pair),
        pairs=pairs,
        complete=len(orders.plain),
        ties=float((judged.preference == 0).mean()),
        position_bias=judging.position_bias(orders, draws=draws, seed=seed),
        consistency=judging.consistency(orders, draws=draws, seed=seed),
        contradictions=judging.contradictions(orders),
        slope=judging.length_slope(judged, draws=draws, seed=seed)[0],
        equal_slope=judging.length_slope(
            judged.where(judged.equal_content), draws=draws, seed=seed
        )[0],
        padding=judging.padding_gain(judged, draws=draws, seed=seed),
        agreement=judging.human_agreement(judged, draws=draws, seed=seed),
        averaged=judging.averaged_agreement(judged, draws=draws, seed=seed),
    )


def _within_budget(name: str, judged: JudgedPairs, options: JudgeOptions) -> JudgedPairs:
    """As many pairs, with all their judgements, as --budget allows; drawn by --seed."""
    if options.budget is None or len(judged.pair) <= options.budget:
        return judged
    pairs, member, sizes = np.unique(judged.pair, return_inverse=True, return_counts=True)
    order = np.random.default_rng(options.seed).permutation(len(pairs))
    fitting = order[np.cumsum(sizes[order]) <= options.budget]
    used = judged.where(np.isin(member, fitting))
    if not len(used.pair):
        raise InputError(f"--budget {options.budget}: a pair of {name} has more judgements")
    note(
        "left out", f"judgements of {name} beyond --budget", count=len(judged.pair) - len(used.pair)
    )
    return used


def findings_table(findings: Sequence[JudgeFindings]) -> pl.DataFrame:
    """A row for each judge; figures as "value (low to high)", "–" where there is none."""
    rows = [
        {
            "judge": facts.judge,
            "judgements": facts.judgements,
            "pairs": facts.pairs,
            "both orders": facts.complete,
            "ties": facts.ties,
            "position bias": shown_estimate(facts.position_bias),
            "consistency": shown_estimate(facts.consistency),
            "length slope": shown_estimate(facts.slope),
            "at equal content": shown_estimate(facts.equal_slope),
            "gain of padding": shown_estimate(facts.padding),
            "agrees with people": shown_estimate(facts.agreement.share),
            "both orders averaged": shown_estimate(facts.averaged.share),
        }
        for facts in findings
    ]
    return pl.DataFrame(rows)


def with_figures(table: pl.DataFrame) -> pl.DataFrame:
    """The table without the figures that no judge has."""
    return table.select(name for name in table.columns if set(table[name]) != {NO_FIGURE})


def shown_estimate(estimate: Estimate) -> str:
    """A figure with its interval, for a table."""
    if not np.isfinite(estimate.value):
        return NO_FIGURE
    if not np.isfinite(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def findings_json(facts: JudgeFindings) -> dict[str, object]:
    """The findings with estimates as objects."""

    def plain(value: object) -> object:
        if isinstance(value, Estimate):
            return value._asdict()
        if isinstance(value, Agreement):
            return {**value.share._asdict(), "kappa": value.kappa}
        return dict(value) if isinstance(value, Mapping) else value

    return {name: plain(value) for name, value in vars(facts).items()}


def _write(
    pipeline: TextPipeline,
    options: JudgeOptions,
    output: Path,
    findings: Sequence[JudgeFindings],
    table: pl.DataFrame,
    verdicts: Sequence[str],
) -> None:
    """Write the report as HTML and Markdown, the picture, and all figures as JSON."""
    facts = [
        {**findings_json(judge_facts), "verdict": sentence}
        for judge_facts, sentence in zip(findings, verdicts, strict=True)
    ]
    headline = " ".join(verdicts)
    write_page(
        output / REPORT,
        output / "figures",
        pipeline,
        Review({}, headline, [judges_figure(findings)], {CAPTION: table}),
        data=options.data,
        run=output.name,
        options=asdict(options),
        facts=machine.environment(pipeline.task.name, options.seed, "cpu", 1),
    )
    lines = "".join(f"- {sentence}\n" for sentence in verdicts)
    picture = "![Judges](figures/judges.png)"
    page = f"# Judges\n\n{lines}\n{picture}\n\n{CAPTION}\n\n{markdown(table)}"
    write_text(output / PAGE, page)
    write_json(output / FACTS, {"judges": facts})
    say(f"report {output / REPORT}")
