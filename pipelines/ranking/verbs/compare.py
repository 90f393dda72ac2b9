"""Several models and seeds on one log: trained in memory, scored on its test part, a table at the
end; resumable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from ....base.errors import InputError
from ....base.files import write_aside, write_json, write_text
from ...engine.command_line.terminal import Progressbar, say
from ...engine.experiments.trainings import check_plain, claimed, fingerprint_of, stands, t_interval
from ...engine.options import FREE_ON_RESUME
from ...engine.pipeline import AnyPipeline, Splits
from ...engine.runs.loaded import pick_device
from ...engine.runs.run_directory import read_facts
from ...engine.training.quick import fit
from ...metrics.ranking import ranking_scores
from ..baselines import rate_scores
from ..options import ABLATIONS, CompareOptions
from ..scoring import probabilities

COUNTED = "users and items counted"
SCORES = ("auc", "gauc", "log_loss")
# What may differ between two calls that fill one folder.
FREE = FREE_ON_RESUME | {
    "output",
    "models",
    "seeds",
    "seed",
    "model",
    "accelerator",
    "data",
    "preset",
}


@dataclass(frozen=True)
class Job:
    """One training."""

    model: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.model.replace(':', '-')}-seed{self.seed}.json"

    def options(self, options: CompareOptions) -> CompareOptions:
        """The options that it is trained with."""
        model, _, part = self.model.partition(":")
        off: dict[str, Any] = {ABLATIONS[part]: False} if part else {}
        return replace(options, model=model, seed=self.seed, **off)


Found = Mapping[Job, Mapping[str, Any]]


def compare(pipeline: AnyPipeline, options: CompareOptions) -> pl.DataFrame:
    """Train every model with every seed; writes trainings/, comparison.csv, .md and .png into
    --output.

    The log is opened once. A training is the same as `train` with its model and seed, in 32 bits on
    one device, and its JSON file is not made again. Returns the table: mean and deviation over
    seeds, a row for each model and task."""
    check_plain(options)
    output = Path(options.output)
    jobs = [Job(model, options.seed + k) for model in options.models for k in range(options.seeds)]
    with claimed(output):
        if options.data is None:
            options = replace(options, data=str(pipeline.write_sample(output / "sample")))
        splits = pipeline.open_data(options)
        fingerprint = fingerprint_of(options, splits.spec, FREE)
        left = [job for job in jobs if not stands(output / "trainings" / job.file, fingerprint)]
        if len(left) < len(jobs):
            say(f"{len(jobs) - len(left)} of {len(jobs)} trainings were done before")
        device = pick_device(options.accelerator)
        with Progressbar(total=len(left), unit="training", desc="compare") as bar:
            for job in left:
                done = _do(pipeline, job.options(options), splits, device)
                stored = {"model": job.model, "seed": job.seed, "fingerprint": fingerprint, **done}
                write_json(output / "trainings" / job.file, stored)
                shown = "  ".join(
                    f"{name} AUC {one['auc']:.4f}" for name, one in done["scores"].items()
                )
                say(
                    f"{job.model} seed {job.seed}: {shown}  ({done['epochs']} epochs, {done['seconds']:.0f} s)"
                )
                bar.update()
        base = baseline(splits)
        found: Found = {job: read_facts(output / "trainings" / job.file) for job in jobs}
        table = summarise(found, base, splits.spec.tasks)
        shifts = differences(found, splits.spec.tasks)
        text = _markdown(table, shifts, options, len(splits.test))
        write_text(output / "comparison.csv", table.write_csv())
        write_text(output / "comparison.md", text)
        figure = picture(table)
        write_aside(
            output / "comparison.png", lambda path: figure.savefig(path, format="png", dpi=110)
        )
    for row in table.iter_rows(named=True):
        said = "  ".join(f"{name} {_both(row, name)}" for name in SCORES)
        say(f"{row['model']:<24} {row['task']:<12} {said}")
    for row in shifts.iter_rows(named=True):
        say(f"{row['model']} less infnet, {row['task']}: {_interval(row)} AUC")
    say(f"table {output / 'comparison.md'}")
    return table


def _do(
    pipeline: AnyPipeline, options: CompareOptions, splits: Splits, device: torch.device
) -> dict[str, Any]:
    """One training and its scores on the test part."""
    started = time.monotonic()
    try:
        model, facts = fit(
            pipeline, options, splits.train, splits.spec, device, validation=splits.validation
        )
    except InputError as error:
        raise InputError(f"{options.model}, seed {options.seed}: {error}") from None
    probability = np.concatenate(list(probabilities(model, splits.test, device)))
    weights = sum(weight.numel() for weight in model.parameters())
    return {
        "scores": scores(splits, probability),
        **facts,
        "weights": weights,
        "seconds": time.monotonic() - started,
    }


def scores(splits: Splits, probability: np.ndarray) -> dict[str, dict[str, float]]:
    """AUC, AUC within users and log-loss of each task. probability: (N, S) of the rows of the test
    part.
    """
    rows, which = splits.test.rows, splits.test.which
    found = {}
    for place, name in enumerate(splits.spec.tasks):
        label, user = rows.labels[which, place], rows.user[which]
        counts = label >= 0
        if not counts.any():
            found[name] = dict.fromkeys(SCORES, math.nan)
            continue
        every = ranking_scores(label[counts], probability[counts, place], user[counts])
        found[name] = {score: every[score] for score in SCORES}
    return found


def baseline(splits: Splits) -> dict[str, dict[str, float]]:
    """The scores of counting users and items in the training part."""
    test = splits.test
    user, item = test.rows.user[test.which], test.rows.item[test.which]
    each = [rate_scores(test.encoder, user, item, place) for place in range(len(splits.spec.tasks))]
    return scores(splits, np.stack(each, 1))


def _values(found: Found, model: str, task: str, score: str) -> np.ndarray:
    """One value a seed, in the order of the seeds."""
    own = (facts["scores"][task][score] for job, facts in found.items() if job.model == model)
    return np.array([math.nan if value is None else value for value in own], float)


def summarise(found: Found, base: dict[str, dict[str, float]], tasks: list[str]) -> pl.DataFrame:
    """A row for each model and task: means over seeds, and deviations (of a sample; NaN with one
    seed).
    """
    rows: list[dict[str, Any]] = []
    for model in dict.fromkeys(job.model for job in found):
        own = [facts for job, facts in found.items() if job.model == model]
        for task in tasks:
            row: dict[str, Any] = {"model": model, "task": task}
            for score in SCORES:
                values = _values(found, model, task, score)
                row |= {
                    score: values.mean(),
                    f"{score}_sd": values.std(ddof=1) if len(values) > 1 else math.nan,
                }
            rows.append(
                row
                | {
                    "seeds": len(own),
                    "weights": own[0]["weights"],
                    "seconds": float(np.mean([facts["seconds"] for facts in own])),
                }
            )
    for task in tasks:
        row = {"model": COUNTED, "task": task}
        for score in SCORES:
            row |= {score: base[task][score], f"{score}_sd": math.nan}
        rows.append(row | {"seeds": 0, "weights": 0, "seconds": 0.0})
    return pl.DataFrame(rows, infer_schema_length=None)


def differences(found: Found, tasks: list[str]) -> pl.DataFrame:
    """AUC of each ablation less that of infnet: mean over seeds, and a 95 % t interval of the pairs
    of equal seeds.
    """
    rows = []
    for model in dict.fromkeys(job.model for job in found):
        if ":" not in model or not any(job.model == "infnet" for job in found):
            continue
        for task in tasks:
            shift = _values(found, model, task, "auc") - _values(found, "infnet", task, "auc")
            low, high = t_interval(shift)
            rows.append(
                {
                    "model": model,
                    "task": task,
                    "shift": float(shift.mean()),
                    "low": low,
                    "high": high,
                }
            )
    kinds = {
        "model": pl.String,
        "task": pl.String,
        "shift": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
    return pl.DataFrame(rows, schema=kinds)


def _both(row: dict[str, Any], score: str) -> str:
    return f"{row[score]:.4f}" + (
        f" ± {row[f'{score}_sd']:.4f}" if math.isfinite(row[f"{score}_sd"]) else ""
    )


def _interval(row: dict[str, Any]) -> str:
    between = f" ({row['low']:+.4f} to {row['high']:+.4f})" if math.isfinite(row["low"]) else ""
    return f"{row['shift']:+.4f}{between}"


def _markdown(table: pl.DataFrame, shifts: pl.DataFrame, options: CompareOptions, rows: int) -> str:
    seeds = (
        f"{options.seed} to {options.seed + options.seeds - 1}"
        if options.seeds > 1
        else str(options.seed)
    )
    lines = [
        f"# Click models on {Path(str(options.data)).name}",
        "",
        f"Scores on the test part ({rows:,} rows): mean ± deviation over the seeds {seeds}.",
        "",
        "| model | task | AUC | gAUC | log-loss | weights | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.iter_rows(named=True):
        cells = [row["model"], row["task"], *(_both(row, name) for name in SCORES)]
        cells += [f"{row['weights']:,}", f"{row['seconds']:.1f}"] if row["seeds"] else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    if len(shifts):
        lines += [
            "",
            "Ablations less infnet, AUC, pairs of equal seeds (95 % t interval of the mean):",
            "",
            "| model | task | difference |",
            "|---|---|---|",
        ]
        lines += [
            f"| {row['model']} | {row['task']} | {_interval(row)} |"
            for row in shifts.iter_rows(named=True)
        ]
    return "\n".join(lines) + "\n"


def picture(table: pl.DataFrame) -> Figure:
    """AUC of every model with the deviation over seeds, one panel a task; the line is what counting
    gives.
    """
    models = [name for name in table["model"].unique(maintain_order=True) if name != COUNTED]
    tasks = table["task"].unique(maintain_order=True).to_list()
    drawn = Figure(figsize=(3 + 3 * len(tasks), 0.4 * len(models) + 1.4), layout="constrained")
    place = np.arange(len(models))[::-1]
    for axis, task in zip(drawn.subplots(1, len(tasks), sharey=True, squeeze=False)[0], tasks):
        own = table.filter((pl.col("task") == task) & (pl.col("model") != COUNTED))
        axis.errorbar(
            own["auc"], place, xerr=np.nan_to_num(own["auc_sd"].to_numpy()), fmt="o", capsize=3
        )
        counted = table.filter((pl.col("task") == task) & (pl.col("model") == COUNTED))["auc"][0]
        if math.isfinite(counted):
            axis.axvline(counted, color="0.6", linestyle="--", linewidth=1)
        axis.set(xlabel=f"{task}: AUC (dashed: counted)", yticks=place)
        axis.set_yticklabels(models, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    return drawn
