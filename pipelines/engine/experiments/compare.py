"""The verb `compare`: variants of a model, each with several seeds, scored on the test part."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import polars as pl
import torch
from torch import nn

from ....base.errors import InputError
from ..command_line.terminal import say
from ..options import FREE_ON_RESUME
from ..pipeline import AnyPipeline, OptionsT, SpecT, Splits
from ..runs.loaded import pick_device
from ..training.quick import fit
from .jobs import Job, Record, check_plain, claimed, fingerprint_of, run_jobs
from .table import (
    Scores,
    Training,
    aligned,
    comparison_figure,
    comparison_markdown,
    seeds_text,
    summarise,
    write_comparison,
)

# What may differ between two calls that fill one folder.
FREE = FREE_ON_RESUME | {"output", "models", "seeds", "seed", "accelerator", "data", "preset"}


@dataclass(frozen=True)
class Trained(Generic[OptionsT, SpecT]):
    """A trained variant, and what its scoring may need."""

    variant: str
    model: nn.Module
    splits: Splits[SpecT]
    options: OptionsT
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[OptionsT, SpecT]):
    """What is compared, and where the trainings are stored."""

    output: str
    seeds: int
    variants: Mapping[str, Mapping[str, object]]
    """The options of each variant that differ from the others'."""
    score: Callable[[Trained[OptionsT, SpecT]], Scores]
    """Scores on the test part by row of the table. Larger is better for the first score of a row,
    by which variants are compared."""
    label: str = ""
    """What the terminal calls the first score."""
    free: Collection[str] = ()
    """Further options that may differ between two calls that fill one folder."""


@dataclass(frozen=True)
class Comparison(Generic[OptionsT, SpecT]):
    """All trainings of a comparison."""

    trainings: Mapping[Job, Training]
    splits: Splits[SpecT]
    options: OptionsT


@contextmanager
def trained_variants(
    pipeline: AnyPipeline, options: OptionsT, plan: Plan[OptionsT, SpecT]
) -> Iterator[Comparison[OptionsT, SpecT]]:
    """Train what is not in the folder yet, and hold the folder while its tables are written.

    The data is split once, by --seed. A training is the same as `train` on these parts, in 32 bits
    on one device; without a validation part its last weights are scored."""
    check_plain(options)
    output = Path(plan.output)
    jobs = [Job(variant, options.seed + k) for k in range(plan.seeds) for variant in plan.variants]
    with claimed(output) as home:
        if options.data is None:
            sample = pipeline.write_sample_for(options, output / "sample")
            options = replace(options, data=str(sample))
        splits = pipeline.open_data(options)
        fingerprint = fingerprint_of(options, splits.spec.to_json(), FREE | set(plan.free))
        device = pick_device(options.accelerator)

        def work(job: Job) -> Record:
            return _train(pipeline, job, options, plan, splits, device)

        def line(job: Job, record: Record) -> str:
            return _line(job, Training.of(record), plan.label)

        records = run_jobs(
            {job.name: job for job in jobs}, work, home, fingerprint, title="compare", line=line
        )
        trainings = {job: Training.of(records[job.name]) for job in jobs}
        yield Comparison(trainings, splits, options)
    say(f"table {output / 'comparison.md'}")


def _train(
    pipeline: AnyPipeline,
    job: Job,
    options: OptionsT,
    plan: Plan[OptionsT, SpecT],
    splits: Splits[SpecT],
    device: torch.device,
) -> Record:
    """One training and its scores on the test part."""
    changed = replace(options, seed=job.seed, **plan.variants[job.variant])
    started = time.monotonic()
    validation = splits.validation if len(splits.validation) else None
    try:
        model, facts = fit(
            pipeline, changed, splits.train, splits.spec, device, validation=validation
        )
    except InputError as error:
        raise InputError(f"{job.variant}, seed {job.seed}: {error}") from None
    seconds = time.monotonic() - started
    return {
        "model": job.variant,
        "seed": job.seed,
        "scores": plan.score(Trained(job.variant, model, splits, changed, device)),
        **facts,
        "weights": sum(weight.numel() for weight in model.parameters()),
        "seconds": seconds,
    }


def _line(job: Job, training: Training, label: str) -> str:
    shown = "  ".join(
        f"{row} {label}{next(iter(scores.values())):.4f}" for row, scores in training.scores.items()
    )
    took = f"({training.epochs} epochs, {training.seconds:.0f} s)"
    return f"{job.variant} seed {job.seed}: {shown}  {took}"


def compare_variants(
    pipeline: AnyPipeline,
    options: OptionsT,
    plan: Plan[OptionsT, SpecT],
    *,
    baseline: str,
    untrained: Callable[[Splits[SpecT]], Scores],
    title: str,
    unit: str = "pictures",
) -> pl.DataFrame:
    """Train every variant with every seed; writes trainings/, comparison.csv, .md and .png.

    baseline: the variant that the others are compared with. untrained: rows of the table that need
    no training. title: "{title} on DATA" heads the table. unit: what the test part is counted in.

    Returns the table: mean, deviation over seeds, and the difference to the baseline with the 95 %
    t interval of pairs of equal seeds."""
    with trained_variants(pipeline, options, plan) as compared:
        table = summarise(compared.trainings, untrained(compared.splits), baseline)
        text = comparison_markdown(
            table,
            heading=f"{title} on {Path(str(compared.options.data)).name}",
            tested=f"{len(compared.splits.test)} {unit}",
            seeds=seeds_text(options.seed, plan.seeds),
            baseline=baseline,
        )
        write_comparison(Path(plan.output), table, text, comparison_figure(table))
        for cells in aligned(table):
            say("  ".join(cell.ljust(24) for cell in cells).rstrip())
    return table
