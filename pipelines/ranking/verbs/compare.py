"""Several models and seeds on one log: trained in memory, scored on its test part, a table at the
end; resumable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ....base.account import opened
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.experiments.compare import Plan, Trained, trained_variants
from ...engine.experiments.jobs import Job
from ...engine.experiments.table import (
    Scores,
    Training,
    costs,
    draw_values,
    means_and_deviations,
    paired_difference,
    seeds_text,
    table_lines,
    values_of,
    with_deviation,
    with_interval,
    write_comparison,
)
from ...engine.pipeline import Splits
from ...engine.runs.run_directory import ACCOUNT
from ...figures.style import GREY, styled_figure
from ...metrics.ranking import ranking_scores
from ..baselines import rate_scores
from ..data import RankingSpec
from ..options import ABLATIONS, CompareOptions
from ..pipeline import RankingPipeline
from ..scoring import probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTED = "users and items counted"
SCORES = ("auc", "gauc", "log_loss")
Trainings = Mapping[Job, Training]


def compare(pipeline: RankingPipeline, options: CompareOptions) -> pl.DataFrame:
    """Train every model with every seed; writes trainings/, comparison.csv, .md and .png into
    --output.

    Returns the table: mean and deviation over seeds, a row for each model and task."""
    plan = Plan(
        output=options.output,
        seeds=options.seeds,
        variants={name: _changes(name) for name in options.models},
        score=_score,
        label="AUC ",
        free={"model"},
    )
    with opened(options.accept) as account, trained_variants(pipeline, options, plan) as compared:
        publish(account, Path(options.output) / ACCOUNT)
        splits = compared.splits
        table = summarise(compared.trainings, baseline(splits), splits.spec.tasks)
        shifts = differences(compared.trainings, splits.spec.tasks)
        text = _markdown(table, shifts, compared.options, len(splits.test))
        write_comparison(Path(options.output), table, text, picture(table))
        for row in table.iter_rows(named=True):
            cells = "  ".join(f"{name} {_spread(row, name)}" for name in SCORES)
            say(f"{row['model']:<24} {row['task']:<12} {cells}")
        for row in shifts.iter_rows(named=True):
            say(f"{row['model']} less infnet, {row['task']}: {_shift(row)} AUC")
    return table


def _changes(name: str) -> dict[str, object]:
    """The options of a model, which may be named with the part that it lacks."""
    model, _, part = name.partition(":")
    return {"model": model, **({ABLATIONS[part]: False} if part else {})}


def _score(trained: Trained[CompareOptions, RankingSpec]) -> Scores:
    parts = probabilities(trained.model, trained.splits.test, trained.device)
    return scores(trained.splits, np.concatenate(list(parts)))


def scores(splits: Splits[RankingSpec], probability: np.ndarray) -> dict[str, dict[str, float]]:
    """AUC, AUC within users and log-loss of each task. probability: (N, S) of the rows of the test
    part.
    """
    rows, which = splits.test.rows, splits.test.which
    by_task = {}
    for place, name in enumerate(splits.spec.tasks):
        label, user = rows.labels[which, place], rows.user[which]
        counts = label >= 0
        if not counts.any():
            by_task[name] = dict.fromkeys(SCORES, math.nan)
            continue
        scored = ranking_scores(label[counts], probability[counts, place], user[counts])
        by_task[name] = {score: scored[score] for score in SCORES}
    return by_task


def baseline(splits: Splits[RankingSpec]) -> dict[str, dict[str, float]]:
    """The scores of counting users and items in the training part."""
    test = splits.test
    user, item = test.rows.user[test.which], test.rows.item[test.which]
    columns = [
        rate_scores(test.encoder, user, item, place) for place in range(len(splits.spec.tasks))
    ]
    return scores(splits, np.stack(columns, 1))


def _by_model(trainings: Trainings) -> dict[str, list[Training]]:
    """The trainings of each model, in the order of their seeds."""
    models = dict.fromkeys(job.variant for job in trainings)
    return {
        model: [training for job, training in trainings.items() if job.variant == model]
        for model in models
    }


def summarise(trainings: Trainings, base: Scores, tasks: Sequence[str]) -> pl.DataFrame:
    """A row for each model and task: means over seeds, and deviations (of a sample; NaN with one
    seed).
    """
    rows: list[dict[str, object]] = [
        {
            "model": model,
            "task": task,
            **means_and_deviations(by_seed, task, SCORES),
            "seeds": len(by_seed),
            **costs(by_seed),
        }
        for model, by_seed in _by_model(trainings).items()
        for task in tasks
    ]
    for task in tasks:
        row: dict[str, object] = {"model": COUNTED, "task": task}
        for score in SCORES:
            row |= {score: base[task][score], f"{score}_sd": math.nan}
        rows.append(row | {"seeds": 0, "weights": 0, "seconds": 0.0})
    return pl.DataFrame(rows, infer_schema_length=None)


def differences(trainings: Trainings, tasks: Sequence[str]) -> pl.DataFrame:
    """AUC of each ablation less that of infnet: mean over seeds, and a 95 % t interval of the pairs
    of equal seeds.
    """
    by_model = _by_model(trainings)
    rows = [
        {
            "model": model,
            "task": task,
            **paired_difference(
                values_of(by_seed, task, "auc"), values_of(by_model["infnet"], task, "auc")
            ),
        }
        for model, by_seed in by_model.items()
        if ":" in model and "infnet" in by_model
        for task in tasks
    ]
    names = {"model": pl.String, "task": pl.String}
    return pl.DataFrame(rows, schema=names | dict.fromkeys(("shift", "low", "high"), pl.Float64))


def _spread(row: Mapping[str, float], score: str) -> str:
    return with_deviation(row[score], row[f"{score}_sd"])


def _shift(row: Mapping[str, float]) -> str:
    return with_interval(row["shift"], row["low"], row["high"])


def _markdown(table: pl.DataFrame, shifts: pl.DataFrame, options: CompareOptions, rows: int) -> str:
    cells = [
        [row["model"], row["task"], *(_spread(row, name) for name in SCORES)]
        + ([f"{row['weights']:,}", f"{row['seconds']:.1f}"] if row["seeds"] else ["", ""])
        for row in table.iter_rows(named=True)
    ]
    lines = [
        f"# Click models on {Path(str(options.data)).name}",
        "",
        f"Scores on the test part ({rows:,} rows): mean ± deviation over the seeds "
        f"{seeds_text(options.seed, options.seeds)}.",
        "",
        *table_lines(["model", "task", "AUC", "gAUC", "log-loss", "weights", "seconds"], cells),
    ]
    if len(shifts):
        pairs = [[row["model"], row["task"], _shift(row)] for row in shifts.iter_rows(named=True)]
        lines += [
            "",
            "Ablations less infnet, AUC, pairs of equal seeds (95 % t interval of the mean):",
            "",
            *table_lines(["model", "task", "difference"], pairs),
        ]
    return "\n".join(lines) + "\n"


def picture(table: pl.DataFrame) -> Figure:
    """AUC of every model with the deviation over seeds, one panel per task; the line is what
    counting gives.
    """
    models = [name for name in table["model"].unique(maintain_order=True) if name != COUNTED]
    tasks = table["task"].unique(maintain_order=True).to_list()
    with styled_figure(3 + 3 * len(tasks), 0.4 * len(models) + 1.4) as figure:
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axis, task in zip(panels, tasks, strict=True):
            of_task = table.filter(pl.col("task") == task)
            trained = of_task.filter(pl.col("model") != COUNTED)
            draw_values(axis, models, trained["auc"], trained["auc_sd"])
            counted = of_task.filter(pl.col("model") == COUNTED)["auc"][0]
            if math.isfinite(counted):
                axis.axvline(counted, color=GREY, linestyle="--", linewidth=1)
            axis.set_xlabel(f"{task}: AUC (dashed: counted)")
    return figure
