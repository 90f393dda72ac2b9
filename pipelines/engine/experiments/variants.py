"""Variants of a model by seeds: trained in memory, scored on the test part, a table at the end;
resumable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from ....base.errors import InputError
from ....base.files import write_aside, write_json, write_text
from ..command_line.terminal import Progressbar, say
from ..options import FREE_ON_RESUME
from ..pipeline import AnyPipeline, Splits
from ..runs.loaded import pick_device
from ..runs.run_directory import read_facts
from ..training.quick import fit
from .trainings import check_plain, claimed, fingerprint_of, stands, t_interval

Scores = Mapping[str, Mapping[str, float]]
# What may differ between two calls that fill one folder.
FREE = FREE_ON_RESUME | {"output", "models", "seeds", "seed", "accelerator", "data", "preset"}


@dataclass(frozen=True)
class Plan:
    """What is compared. The first score of a row is what variants are compared by; larger is
    better.
    """

    variants: Mapping[str, Mapping[str, Any]]
    """The options of each."""
    baseline: str
    """The variant that others are held against."""
    score: Callable[[str, Any, Splits, Any, torch.device], Scores]
    """(variant, trained model, parts, options, device) -> scores on the test part by row name, the
    variant's first.
    """
    untrained: Callable[[Splits, Any], Scores]
    """(parts, options) -> rows that need no training, such as floors."""
    title: str
    """"{title} on DATA" heads the table."""
    unit: str = "pictures"
    free: Collection[str] = ()
    """Further options that may differ between two calls that fill one folder."""


@dataclass(frozen=True)
class Job:
    """One training."""

    variant: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.variant}-seed{self.seed}.json"


Found = Mapping[Job, Mapping[str, Any]]


def compare_variants(pipeline: AnyPipeline, options: Any, plan: Plan) -> pl.DataFrame:
    """Train every variant of `options.models` with `options.seeds` seeds; writes trainings/,
    comparison.csv, .md and .png into `options.output`.

    The data is parted once, by --seed. A training is the same as `train` on these parts, in 32 bits
    on one device, and its JSON file is not made again; without a validation part its last weights
    are scored. Returns the table: mean, deviation over seeds, and the difference to the baseline
    with the 95 % t interval of pairs of equal seeds."""
    check_plain(options)
    output = Path(options.output)
    jobs = [
        Job(variant, options.seed + k) for k in range(options.seeds) for variant in options.models
    ]
    with claimed(output):
        if options.data is None:
            options = replace(options, data=str(pipeline.write_sample(output / "sample")))
        splits = pipeline.open_data(options)
        fingerprint = fingerprint_of(options, splits.spec, FREE | set(plan.free))
        left = [job for job in jobs if not stands(output / "trainings" / job.file, fingerprint)]
        if len(left) < len(jobs):
            say(f"{len(jobs) - len(left)} of {len(jobs)} trainings were done before")
        device = pick_device(options.accelerator)
        with Progressbar(total=len(left), unit="training", desc="compare") as bar:
            for job in left:
                done = _do(pipeline, job, options, plan, splits, device)
                stored = {
                    "model": job.variant,
                    "seed": job.seed,
                    "fingerprint": fingerprint,
                    **done,
                }
                write_json(output / "trainings" / job.file, stored)
                said = "  ".join(
                    f"{who} {next(iter(one.values())):.4f}" for who, one in done["scores"].items()
                )
                say(
                    f"{job.variant} seed {job.seed}: {said}  ({done['epochs']} epochs, {done['seconds']:.0f} s)"
                )
                bar.update()
        found: Found = {job: read_facts(output / "trainings" / job.file) for job in jobs}
        table = summarise(found, plan.untrained(splits, options), plan.baseline)
        write_text(output / "comparison.csv", table.write_csv())
        write_text(output / "comparison.md", _markdown(table, options, plan, len(splits.test)))
        figure = picture(table)
        write_aside(
            output / "comparison.png", lambda path: figure.savefig(path, format="png", dpi=110)
        )
    for line in _rows(table):
        say("  ".join(cell.ljust(24) for cell in line).rstrip())
    say(f"table {output / 'comparison.md'}")
    return table


def _do(
    pipeline: AnyPipeline, job: Job, options: Any, plan: Plan, splits: Splits, device: torch.device
) -> dict[str, Any]:
    """One training and its scores on the test part."""
    own = replace(options, seed=job.seed, **plan.variants[job.variant])
    started = time.monotonic()
    validation = splits.validation if len(splits.validation) else None
    try:
        model, facts = fit(pipeline, own, splits.train, splits.spec, device, validation=validation)
    except InputError as error:
        raise InputError(f"seed {own.seed}: {error}") from None
    seconds = time.monotonic() - started
    found = plan.score(job.variant, model, splits, own, device)
    weights = sum(weight.numel() for weight in model.parameters())
    return {"scores": found, **facts, "weights": weights, "seconds": seconds}


def summarise(found: Found, untrained: Scores, baseline: str) -> pl.DataFrame:
    """A row for each variant: mean and deviation (of a sample) over seeds, and the difference to
    the baseline.
    """
    names = list(dict.fromkeys(name for facts in found.values() for name in facts["scores"]))
    seeds = sorted({job.seed for job in found})
    measured = list(next(iter(next(iter(found.values()))["scores"].values())))
    values = {
        name: {
            score: np.array(
                [
                    next(
                        f["scores"][name][score]
                        for job, f in found.items()
                        if job.seed == seed and name in f["scores"]
                    )
                    for seed in seeds
                ],
                float,
            )
            for score in measured
        }
        for name in names
    }
    key = next(iter(measured))
    rows: list[dict[str, Any]] = []
    for name in names:
        row: dict[str, Any] = {"model": name, "seeds": len(seeds)}
        for score, each in values[name].items():
            row |= {
                score: each.mean(),
                f"{score}_sd": each.std(ddof=1) if len(each) > 1 else math.nan,
            }
        low = high = shift = math.nan
        if baseline in values and name != baseline:
            gaps = values[name][key] - values[baseline][key]
            shift, (low, high) = float(gaps.mean()), t_interval(gaps)
        own = [facts for facts in found.values() if name in facts["scores"]]
        rows.append(
            row
            | {
                "shift": shift,
                "low": low,
                "high": high,
                "weights": own[0]["weights"],
                "seconds": float(np.mean([facts["seconds"] for facts in own])),
            }
        )
    for name, scored in untrained.items():
        if set(scored) & set(measured):
            rows.append(
                {
                    "model": name,
                    "seeds": 0,
                    **{score: scored[score] for score in measured if score in scored},
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _rows(table: pl.DataFrame) -> list[list[str]]:
    """Cells of each row: model, scores, difference."""
    measured = [name[:-3] for name in table.columns if name.endswith("_sd")]
    lines = []
    for row in table.iter_rows(named=True):
        cells = [row["model"]]
        for score in measured:
            spread = row[f"{score}_sd"]
            value = "" if row[score] is None else f"{row[score]:.4f}"
            cells.append(
                value + (f" ± {spread:.4f}" if spread is not None and spread == spread else "")
            )
        shift = row["shift"]
        between = "" if shift is None or shift != shift else f"{shift:+.4f}"
        if between and row["low"] == row["low"]:
            between += f" ({row['low']:+.4f} to {row['high']:+.4f})"
        lines.append([*cells, between])
    return lines


def _markdown(table: pl.DataFrame, options: Any, plan: Plan, tested: int) -> str:
    measured = [name[:-3] for name in table.columns if name.endswith("_sd")]
    seeds = (
        f"{options.seed} to {options.seed + options.seeds - 1}"
        if options.seeds > 1
        else str(options.seed)
    )
    lines = [
        f"# {plan.title} on {Path(str(options.data)).name}",
        "",
        f"Scores on the test part ({tested} {plan.unit}): mean ± deviation over the seeds {seeds}; difference to "
        f"{plan.baseline} in {measured[0]} with the 95 % t interval of pairs of equal seeds.",
        "",
        f"| model | {' | '.join(measured)} | difference | weights | seconds |",
        f"|{'---|' * (4 + len(measured))}",
    ]
    for row, cells in zip(table.iter_rows(named=True), _rows(table)):
        cost = [f"{row['weights']:,}", f"{row['seconds']:.0f}"] if row["seeds"] else ["", ""]
        lines.append(f"| {' | '.join([*cells, *cost])} |")
    return "\n".join(lines) + "\n"


def picture(table: pl.DataFrame) -> Figure:
    """The first score of every variant with the deviation over seeds."""
    key = next(name[:-3] for name in table.columns if name.endswith("_sd"))
    own = table.filter(pl.col("seeds") > 0)
    drawn = Figure(figsize=(6, 0.4 * len(own) + 1.3), layout="constrained")
    axis = drawn.subplots()
    place = np.arange(len(own))[::-1]
    axis.errorbar(
        own[key], place, xerr=np.nan_to_num(own[f"{key}_sd"].to_numpy()), fmt="o", capsize=3
    )
    axis.set(xlabel=f"{key} (bars: deviation over seeds)", yticks=place)
    axis.set_yticklabels(own["model"].to_list(), fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    return drawn
