"""The verb `compare` with --vary: settings of the options of training, each with several seeds, on
the same rows, beside the rungs of the ladder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import polars as pl

from ....base.account import Account, opened
from ....base.errors import InputError
from ....base.files import write_text
from ...figures.settings import SettingPoint, settings_figure
from ...figures.style import save_png
from ..accounts import publish
from ..command_line.terminal import say
from ..compare_options import ComparisonOptions, Setting, reference_of, settings_of
from ..options import FREE_ON_RESUME, TrainOptions
from ..pipeline import AnyPipeline
from ..runs.paths import as_typed, homes_of, with_absolute_paths
from ..runs.run_directory import ACCOUNT, Facts, dump_options
from ..search_space import parse_settings, reopening
from ..tune_options import training_options
from .differences import Compared, Row, compare_trainings
from .findings import (
    best_words,
    comparison_table,
    explanation,
    findings_of,
    header,
    training_table,
    written_rows,
)
from .jobs import Record, check_plain, claimed, fingerprint_of, run_jobs
from .seeded import MODEL, Seeded, SeededJob, SeededTrainings, scored_rows
from .table import table_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What may differ between two calls that fill one folder. Not the seed: the parts follow from it.
_FREE = FREE_ON_RESUME | {"accelerator", "data", "preset"}


@dataclass(frozen=True)
class ComparedSettings:
    """A comparison. options: those of the setting with the best validation score; table: a row for
    each setting and rung; trainings: one for each seed of them; findings: each setting beside the
    reference, in words; config: the file that trains the best.
    """

    options: TrainOptions
    table: pl.DataFrame
    trainings: pl.DataFrame
    findings: Sequence[str]
    config: Path


def compare_settings(pipeline: AnyPipeline, options: ComparisonOptions) -> ComparedSettings:
    """Train every setting with every seed; writes comparison.csv, .md and .png, trainings.csv,
    best.yaml, account.json and trainings/ (a file for each training).

    options: an instance of the class that `comparison_options` gives. The data is split once, by
    --seed; a training is the same as `train` on these parts, in 32 bits on one device. Raises
    InputError where the data has no validation part, and for settings with other rows.
    """
    plain = training_options(options, pipeline.task.options)
    check_plain(plain, "compare")
    absolute = with_absolute_paths(plain)
    try:
        with claimed(Path(options.output)) as home:
            return _compare(pipeline, absolute, options, home)
    except InputError as error:
        raise as_typed(error, plain, absolute) from error


def _compare(
    pipeline: AnyPipeline, given: TrainOptions, options: ComparisonOptions, home: Path
) -> ComparedSettings:
    output, task = Path(options.output), pipeline.task
    settings = settings_of(options.vary, task.options)
    varied = list(parse_settings(options.vary, task.options))
    seeds = [given.seed + k for k in range(options.seeds)]
    located = given
    if given.data is None:
        (output / "sample").mkdir(exist_ok=True)
        sample = pipeline.write_sample_for(given, output / "sample")
        located = replace(given, data=str(sample.resolve()))
    trainings = SeededTrainings(task, located, varied)
    account, trainings, fingerprint = _open(pipeline, trainings, given, settings)
    # All settings with one seed first, so that what is there early can be compared; setting by
    # setting where each reads the data anew.
    jobs = [SeededJob(setting, seed) for seed in seeds for setting in settings]
    if reopening(varied, task.options):
        jobs.sort(key=lambda job: settings.index(job.setting))
    records = run_jobs(
        {job.name: job for job in jobs},
        trainings if options.processes == 1 else replace(trainings, parts={}),
        home,
        fingerprint,
        title="compare",
        processes=options.processes,
        line=_line,
    )
    for record in records.values():
        account.merge(_new_entries(account, record))
    publish(account, output / ACCOUNT, shown=False)
    done = {
        setting.name: [Seeded.of(records[SeededJob(setting, seed).name]) for seed in seeds]
        for setting in settings
    }
    reference = reference_of(options.against, settings, task.options)
    compared = compare_trainings(done, seeds, reference.name)
    best = next(setting for setting in settings if setting.name == compared.best.setting)
    chosen = replace(best.of(given), run=None, resume=False)
    return _write(compared, training_table(done, seeds), chosen, varied, output, task.name)


def _open(
    pipeline: AnyPipeline,
    trainings: SeededTrainings[TrainOptions],
    given: TrainOptions,
    settings: Sequence[Setting],
) -> tuple[Account, SeededTrainings[TrainOptions], str]:
    """Read the data as the first setting does: the account of it, what trains, and the fingerprint
    of all that the trainings share.
    """
    with opened(given.accept, homes_of(trainings.options)) as account:
        splits = trainings.opened(pipeline, settings[0])
        if not len(splits.validation):
            raise InputError("compare: the data has no validation part, which settings go by")
        publish(account)
        trainings.check_models(pipeline, settings)
    rows = scored_rows(splits)
    # Values of the options that are varied stand in the names of the jobs.
    free = {*_FREE, *trainings.varied}
    facts = {"rows": rows, "spec": splits.spec.to_json()}
    return account, replace(trainings, rows=rows), fingerprint_of(given, facts, free)


def _new_entries(account: Account, record: Facts) -> list[dict[str, object]]:
    """What a training noted and the account does not hold yet: all of them read the same data."""
    known = {(entry.topic, entry.what) for entry in account.entries()}
    entries = cast(list[dict[str, object]], record["account"])
    return [entry for entry in entries if (entry["topic"], entry["what"]) not in known]


def _line(job: SeededJob, record: Record) -> str:
    """A training that has just been done, on one line."""
    done = Seeded.of(record)
    metric, test = done.test.metric, done.test.score
    shown = f"{metric} {done.validation[MODEL]:.4f} validation, {test[MODEL]:.4f} test"
    epochs, seconds = done.facts["epochs"], done.facts["seconds"]
    return f"{job.setting.name}, seed {job.seed}: {shown}  ({epochs:.0f} epochs, {seconds:.0f} s)"


def _write(
    compared: Compared,
    trainings: pl.DataFrame,
    chosen: TrainOptions,
    varied: Sequence[str],
    output: Path,
    task: str,
) -> ComparedSettings:
    """Write the tables, the page, the picture and the best options."""
    table, config = comparison_table(compared), output / "best.yaml"
    findings = findings_of(compared)
    write_text(output / "comparison.csv", table.write_csv())
    write_text(output / "trainings.csv", trainings.write_csv())
    write_text(config, dump_options(chosen))
    cells, names = written_rows(compared), header(compared)
    best = best_words(compared)
    lines = [
        f"# Comparison of settings of {task}",
        "",
        f"{best[0].upper()}{best[1:]}.",
        "",
        *(f"- {text}." for text in findings),
        "",
        explanation(compared, varied),
        "",
        *table_lines(names, cells),
        "",
        f"`headwise {task} train {config}` trains the best.",
    ]
    write_text(output / "comparison.md", "\n".join(lines) + "\n")
    save_png(_figure(compared), output / "comparison.png")
    narrow = [row[:5] for row in (names, *cells)]  # the page has all columns
    widths = [max(map(len, column)) for column in zip(*narrow)]
    for row in narrow:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for text in (best, *findings):
        say(text)
    say(f"table {output / 'comparison.md'}")
    say(f"train the best: headwise {task} train {config}")
    return ComparedSettings(chosen, table, trainings, findings, config)


def _figure(compared: Compared) -> Figure:
    points = [_point(row, compared) for row in compared.rows]
    over = f"{compared.blocks} blocks of rows" if compared.over_blocks else "seeds"
    return settings_figure(compared.metric, points, compared.reference.name, over)


def _point(row: Row, compared: Compared) -> SettingPoint:
    kind = "rung" if row.rung != MODEL else "best" if row is compared.best else "setting"
    return SettingPoint(
        row.name,
        kind,
        row.test.tolist(),
        float(row.test.mean()),
        row.interval,
        row.by_seed.tolist(),
        row.gain,
        row.gain_interval if compared.over_blocks else row.seed_interval,
        row.reference,
    )
