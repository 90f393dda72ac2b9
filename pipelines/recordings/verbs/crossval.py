"""Leave one speaker (or group) out: heads and simple models on the same folds; resumable.

Shapes: N recordings, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from ....base.account import note, opened
from ....base.errors import InputError, fail
from ....base.files import write_aside, write_json
from ....data.items import digest
from ...engine.command_line.terminal import say
from ...engine.experiments.folds import predictions_of_folds
from ...engine.experiments.jobs import Job, Record, check_plain, fingerprint_of
from ...engine.pipeline import AnyPipeline, Splits
from ...engine.runs.loaded import pick_device
from ...engine.runs.paths import homes_of
from ...engine.subsets import Subsets, stratified_folds, take_stratified
from ...engine.training.order import mix
from ...engine.training.quick import fit
from ...figures.style import save_png
from ...metrics.classification import PairedDifference, bootstrap, paired_accuracy, scores
from ..data import RecordingSet, RecordingSource, classes_of, read_source, spec_of
from ..figures import crossval_figure
from ..options import CrossvalOptions, Head
from ..rungs import RecordingRungs
from ..scoring import fit_calibration, probabilities

SIMPLE = ("simple", "naive")  # rungs that stand beside the heads
# More heads and seeds are added to a folder.
FREE = ("output", "processes", "run", "accelerator", "compared", "seeds", "workers")
SHOWN = ("accuracy", "balanced_accuracy", "log_loss")
SCHEMA = {
    "model": pl.String,
    "seed": pl.Int32,
    "fold": pl.Int32,
    "recording": pl.String,
    "group": pl.String,
    "speaker": pl.String,
    "label": pl.Int64,
    "probability": pl.List(pl.Float64),
}


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train and score every fold as `train` does; writes folds/, crossval.json,
    predictions.parquet, pairs.csv, account.json and crossval.png into --output.

    Returns the table of scores.
    """
    check_plain(options, "crossval")
    output = Path(options.output)
    with opened(options.accept, homes_of(options)) as account:
        source = read_source(options)
        what = f"{options.validation_share:g} of the speakers outside of a fold stop its training"
        note("assumed", what)
    folds = folds_of(source, options)
    jobs = [
        Job(model, seed, None, fold)
        for model in (*options.compared, "simple")
        for seed in (range(options.seeds) if model != "simple" else (0,))
        for fold in range(len(folds))
    ]
    contents = digest(np.array(source.contents), np.array(source.groups))
    data = {"names": source.names, "labels": source.labels, "contents": contents}
    table = predictions_of_folds(
        output,
        account,
        jobs,
        Fold(pipeline, options, source, folds),
        fingerprint_of(options, data, FREE),
        SCHEMA,
        options.processes,
    )
    return _report(table, source, options, len(folds))


def folds_of(source: RecordingSource, options: CrossvalOptions) -> list[np.ndarray]:
    """Rows of each fold: those of a speaker (or group), or of several, the classes balanced as far
    as possible.

    Raises `InputError` for fewer than three speakers, of which one validates.
    """
    groups = np.array(source.groups)
    names = np.unique(groups)
    if len(names) < max(3, options.folds):
        least = max(3, options.folds)
        raise fail(
            source.where, f"has {len(names)} speakers or groups; {least} are needed: see --pattern"
        )
    if options.folds:
        labels = np.unique(source.labels, return_inverse=True)[1]
        return stratified_folds(labels, groups, options.folds, options.seed % (1 << 32))
    return [np.flatnonzero(groups == name) for name in names]


@dataclass(frozen=True)
class Fold:
    """Does a job: the probabilities of the recordings of a fold by a head, or by the simple
    models.
    """

    pipeline: AnyPipeline
    options: CrossvalOptions
    source: RecordingSource
    folds: Sequence[np.ndarray]

    def __call__(self, job: Job) -> Record:
        """Train without the fold; gives the predictions as columns."""
        assert job.fold is not None
        splits = self._splits(job.fold)
        device = pick_device(self.options.accelerator)
        if job.variant == "simple":
            rungs = RecordingRungs().simple(nn.Identity(), splits, self.options, device)
            models = {name: rungs[name].model.to(device) for name in SIMPLE}
        else:
            models = {job.variant: self._trained(job, splits, device)}
        tables = []
        for name, model in models.items():
            calibration = fit_calibration(model, splits.validation, device)
            probability = probabilities(model, splits.test, calibration, device)
            tables.append(_table(name, job, splits.test, probability))
        return {"predictions": pl.concat(tables).to_dict(as_series=False)}

    def _splits(self, fold: int) -> Splits:
        source, options, test = self.source, self.options, self.folds[fold]
        rest = np.setdiff1d(np.arange(len(source)), test)
        labels, groups = np.array(source.labels), np.array(source.groups)
        seed = mix(options.seed, fold) % (1 << 32)
        share = options.validation_share
        validation, train = take_stratified(
            source.where, rest, labels[rest], groups[rest], share, seed
        )
        subsets = Subsets(train, validation, test)
        source.standardise_by(None)
        try:
            spec = spec_of(source, subsets, classes_of(source), options)
        except InputError as error:
            raise InputError(f"fold {fold + 1}: {error}") from None
        parts = [RecordingSet(source, rows, spec.classes) for rows in subsets]
        return Splits(parts[0], parts[1], parts[2], spec)

    def _trained(self, job: Job, splits: Splits, device: torch.device) -> nn.Module:
        seed = mix(self.options.seed, job.seed, job.fold or 0) >> 1
        head: Head = job.variant  # pyright: ignore[reportAssignmentType]
        options = replace(self.options, head=head, seed=seed)
        model, _ = fit(
            self.pipeline, options, splits.train, splits.spec, device, validation=splits.validation
        )
        return model


def _table(name: str, job: Job, part: RecordingSet, probability: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "model": name,
            "seed": job.seed,
            "fold": job.fold,
            "recording": part.names,
            "group": part.groups,
            "speaker": part.speakers,
            "label": part.labels,
            "probability": probability.tolist(),
        },
        schema_overrides=SCHEMA,
    )


@dataclass(frozen=True)
class Pooled:
    """The predictions of a model for all recordings, in one order: the mean over seeds."""

    labels: np.ndarray
    probability: np.ndarray
    groups: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool (N,)."""
        return self.probability.argmax(1) == self.labels

    @property
    def deviation(self) -> dict[str, float]:
        """Deviation of the scores over groups."""
        of_groups = [
            scores(self.labels[rows], self.probability[rows])
            for name in np.unique(self.groups)
            if len(rows := np.flatnonzero(self.groups == name))
        ]
        return {
            f"{name}_sd": float(np.std([scored[name] for scored in of_groups])) for name in SHOWN
        }


def pooled(table: pl.DataFrame, model: str) -> Pooled:
    """Predictions of a model, sorted by fold and recording."""
    of_model = table.filter(pl.col("model") == model).sort("fold", "recording", "seed")
    seeds = of_model["seed"].n_unique()
    values = np.array(of_model["probability"].to_list())
    first = of_model[::seeds]
    mean = values.reshape(len(first), seeds, -1).mean(1)
    return Pooled(first["label"].to_numpy(), mean, first["group"].to_numpy())


def _report(
    table: pl.DataFrame, source: RecordingSource, options: CrossvalOptions, folds: int
) -> pl.DataFrame:
    output, names = Path(options.output), [*options.compared, *SIMPLE]
    by_model = {name: pooled(table, name) for name in names}
    rows: list[dict[str, object]] = []
    for name, of_model in by_model.items():
        scored = scores(of_model.labels, of_model.probability)
        interval = bootstrap(
            of_model.labels, of_model.probability, of_model.groups, seed=options.seed
        )
        row: dict[str, object] = {"model": name, **of_model.deviation}
        for score in scored:
            low, high = interval[score]
            row |= {score: scored[score], f"{score}_low": low, f"{score}_high": high}
        rows.append(row)
    summary = pl.DataFrame(rows, infer_schema_length=None)
    gaps = pairs_of(by_model)
    pairs = pair_table(gaps)
    write_aside(output / "pairs.csv", lambda path: pairs.write_csv(path))
    facts = {
        "data": source.where,
        "recordings": len(source),
        "folds": folds,
        "seeds": options.seeds,
        "scores": summary.to_dicts(),
        "pairs": pairs.to_dicts(),
    }
    write_json(output / "crossval.json", facts)
    save_png(crossval_figure(summary, SIMPLE), output / "crossval.png")
    for row in summary.iter_rows(named=True):
        spans = (
            f"{name} {row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
            for name in SHOWN
        )
        say(f"{row['model']:<14} {'  '.join(spans)}")
    for head in options.compared:
        say(sentence(head, gaps[head, "simple"]))
    say(f"scores {output / 'crossval.json'}")
    return summary


def pairs_of(by_model: Mapping[str, Pooled]) -> dict[tuple[str, str], PairedDifference]:
    """Each pair of models, on the same recordings."""
    return {
        (first, second): paired_accuracy(
            by_model[first].right, by_model[second].right, by_model[first].groups
        )
        for first, second in combinations(by_model, 2)
    }


def pair_table(pairs: Mapping[tuple[str, str], PairedDifference]) -> pl.DataFrame:
    """A row for each pair."""
    return pl.DataFrame(
        [
            {
                "first": first,
                "second": second,
                "gain": gap.gain,
                "low": gap.interval[0],
                "high": gap.interval[1],
                "first_alone_right": gap.first_alone,
                "second_alone_right": gap.second_alone,
                "mcnemar_p": gap.p,
            }
            for (first, second), gap in pairs.items()
        ]
    )


def sentence(head: str, gap: PairedDifference) -> str:
    """What the pair of a head and the simple model says, in words."""
    low, high = gap.interval
    verdict = "is level with"
    if low > 0:
        verdict = "is more accurate than"
    elif high < 0:
        verdict = "is LESS accurate than"
    return (
        f"{head} {verdict} the simple model: {gap.gain:+.3f} ({low:+.3f} to {high:+.3f} over "
        f"speakers; McNemar over recordings p = {gap.p:.2g})"
    )
