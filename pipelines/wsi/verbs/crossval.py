"""Repeated k-fold cross-validation by patient: several models and seeds, compared with
scikit-learn; resumable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from torch import nn

from ....base.files import write_aside, write_json
from ....models.bags.acmil import ACMIL
from ...engine.command_line.terminal import say
from ...engine.experiments.jobs import Job, Record, claimed, fingerprint_of, run_jobs
from ...engine.experiments.table import draw_values
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.spec import DictSpec
from ...engine.training import order
from ...engine.training.quick import fit
from ...metrics.classification import bootstrap, scores
from ..data import BagSet, Source, find_source, grouped_folds, moments
from ..explain import concentration
from ..options import CrossvalOptions
from ..scoring import probabilities

FLOORS = ("mean, logistic regression", "mean-min-max, logistic regression", "mean-min-max, RBF SVM")
SHOWN = ("accuracy", "auc", "balanced_accuracy", "macro_f1", "ece")
# More models, seeds and repeats are added to a folder.
FREE = ("output", "processes", "run", "accelerator", "models", "seeds", "repeats")
SCHEMA = {
    "model": pl.String,
    "seed": pl.Int64,
    "repeat": pl.Int64,
    "fold": pl.Int64,
    "bag": pl.String,
    "patient": pl.String,
    "label": pl.Int64,
    "probability": pl.List(pl.Float64),
    "top10": pl.Float64,
}


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train and score every fold; writes folds/, crossval.json, predictions.parquet and
    crossval.png into --output.

    Seeds of a model are averaged into one prediction a bag before they are scored (an ensemble),
    and each seed is scored alone, too. Returns the table of scores."""
    output = Path(options.output)
    source = find_source(options)
    rows = np.arange(len(source.cohort))
    folds = [
        grouped_folds(source.cohort, rows, options.folds, repeat, source.where)
        for repeat in range(options.repeats)
    ]
    jobs = [
        Job(model, seed, repeat, fold)
        for model in (*options.models, "floors")
        for seed in (range(options.seeds) if model != "floors" else (0,))
        for repeat in range(options.repeats)
        for fold in range(options.folds)
    ]
    data = {"names": source.cohort.names, "labels": source.cohort.labels}
    with claimed(output, "folds") as home:
        records = run_jobs(
            {job.name: job for job in jobs},
            Fold(pipeline, options, source, folds),
            home,
            fingerprint_of(options, data, FREE),
            title="crossval",
            unit="fold",
            processes=options.processes,
        )
    table = pl.concat(
        [pl.DataFrame(record["predictions"], schema=SCHEMA) for record in records.values()]
    )
    write_aside(output / "predictions.parquet", lambda path: table.write_parquet(path))
    summary = summarise(table, options)
    write_json(
        output / "crossval.json",
        {
            "data": source.where,
            "folds": options.folds,
            "repeats": options.repeats,
            "seeds": options.seeds,
            "scores": summary.to_dicts(),
        },
    )
    figure = picture(summary)
    write_aside(output / "crossval.png", lambda path: figure.savefig(path, format="png", dpi=110))
    for row in summary.iter_rows(named=True):
        shown = "  ".join(f"{name} {row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in SHOWN[:3])
        say(f"{row['model']:<36} {shown}")
    say(f"scores {output / 'crossval.json'}")
    return summary


@dataclass(frozen=True)
class Fold:
    """Does a job: a training scored on the bags that it has not seen, or the floors of a fold (of
    the variant "floors").
    """

    pipeline: AnyPipeline
    options: CrossvalOptions
    source: Source
    folds: Sequence[Sequence[np.ndarray]]
    """Rows of each fold of each repeat."""

    def __call__(self, job: Job) -> Record:
        assert job.repeat is not None
        assert job.fold is not None
        cohort = self.source.cohort
        classes = sorted(set(cohort.labels))
        test = self.folds[job.repeat][job.fold]
        train = np.setdiff1d(np.arange(len(cohort)), test)
        seen, unseen = BagSet(self.source, train, classes), BagSet(self.source, test, classes)
        if job.variant == "floors":
            outputs = [(name, values, None) for name, values in floors(seen, unseen).items()]
        else:
            outputs = [(job.variant, *self._trained(job, seen, unseen))]
        tables = [
            pl.DataFrame(
                {
                    "model": name,
                    "seed": job.seed,
                    "repeat": job.repeat,
                    "fold": job.fold,
                    "bag": unseen.names,
                    "patient": unseen.patients,
                    "label": unseen.labels,
                    "probability": probability.astype(np.float64).tolist(),
                    "top10": pl.Series(top10 or [None] * len(test), dtype=pl.Float64),
                }
            )
            for name, probability, top10 in outputs
        ]
        return {"predictions": pl.concat(tables).to_dict(as_series=False)}

    def _trained(
        self, job: Job, seen: BagSet, unseen: BagSet
    ) -> tuple[np.ndarray, list[float] | None]:
        """Probabilities (N, C) of the bags unseen in a training, and the share of the attention on
        the ten highest instances of each bag.
        """
        device = pick_device(self.options.accelerator)
        assert job.repeat is not None
        assert job.fold is not None
        seed = order.mix(self.options.seed, job.seed, job.repeat, job.fold) >> 1
        spec = DictSpec(
            classes=seen.classes,
            width=seen[0][0].shape[1],
            **moments(seen, self.options.standardise),
        )
        options = replace(self.options, model=job.variant, seed=seed)  # pyright: ignore[reportArgumentType]
        model, _ = fit(self.pipeline, options, seen, spec, device)
        batches = order.loader(unseen, order.sequential(len(unseen), 32))
        moved = ({name: value.to(device) for name, value in batch.items()} for batch in batches)
        _, probability = probabilities(model, moved)
        return probability, _top10(model, unseen, device)


def _top10(model: nn.Module, bags: BagSet, device: torch.device) -> list[float] | None:
    """The share of the attention on the ten highest instances of each bag, by a model that has it."""
    if not isinstance(model, ACMIL):
        return None
    shares = []
    with torch.no_grad():
        for k in range(len(bags)):
            attention = model.attention_of(model.attend(bags[k][0].to(device)).scores)  # pyright: ignore
            shares.append(float(concentration(attention.mean(1).cpu().numpy(), 10)[-1]))
    return shares


def floors(train: BagSet, test: BagSet) -> dict[str, np.ndarray]:
    """Probabilities (N, C) of scikit-learn on [mean], and on [mean, min, max], of the instances of
    a bag; constants are fixed, not tuned (C = 0.05 and C = 3). The SVM's come from its decision
    function, which a logistic squeezes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    def statistics(bags: BagSet) -> tuple[np.ndarray, np.ndarray]:
        given = [bags[k][0].double().numpy() for k in range(len(bags))]
        mean = np.stack([x.mean(0) for x in given])
        return mean, np.stack([np.concatenate([x.mean(0), x.min(0), x.max(0)]) for x in given])

    (mean, whole), (test_mean, test_whole) = statistics(train), statistics(test)
    count = len(train.classes)
    found = {}
    for name, own, other in ((FLOORS[0], mean, test_mean), (FLOORS[1], whole, test_whole)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=5000)).fit(
            own, train.labels
        )
        found[name] = _all_classes(model.predict_proba(other), model.classes_, count)
    machine = make_pipeline(StandardScaler(), SVC(C=3.0)).fit(whole, train.labels)
    margin = machine.decision_function(test_whole)
    if margin.ndim == 1:
        margin = np.stack([-margin / 2, margin / 2], 1)
    raised = np.exp(margin - margin.max(1, keepdims=True))
    found[FLOORS[2]] = _all_classes(raised / raised.sum(1, keepdims=True), machine.classes_, count)
    return found


def _all_classes(probability: np.ndarray, there: np.ndarray, count: int) -> np.ndarray:
    full = np.zeros((len(probability), count))
    full[:, there] = probability
    return full


def summarise(table: pl.DataFrame, options: CrossvalOptions) -> pl.DataFrame:
    """Mean and deviation over repeats, the folds of a repeat pooled; the interval by patient is
    that of repeat 0.
    """
    rows: list[dict[str, object]] = []
    for model in (*options.models, *FLOORS):
        of_model = table.filter(pl.col("model") == model)
        repeats = [of_model.filter(pl.col("repeat") == r) for r in range(options.repeats)]
        seeds = of_model["seed"].unique().sort().to_list()
        ensembles = [_pooled(rows_of_repeat) for rows_of_repeat in repeats]
        of_ensembles = [scores(label, probability) for label, probability, _ in ensembles]
        of_single_seeds = [
            scores(*_pooled(rows_of_repeat.filter(pl.col("seed") == seed))[:2])
            for rows_of_repeat in repeats
            for seed in seeds
        ]
        interval = bootstrap(*ensembles[0], seed=options.seed)
        row: dict[str, object] = {"model": model}
        for name in of_ensembles[0]:
            values = np.array([scored[name] for scored in of_ensembles])
            row |= {
                name: values.mean(),
                f"{name}_sd": values.std(),
                f"{name}_low": interval[name][0],
                f"{name}_high": interval[name][1],
                f"{name}_single_seed": float(np.mean([scored[name] for scored in of_single_seeds])),
            }
        row["top10"] = of_model["top10"].mean()
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _pooled(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """label, probability (mean over seeds) and patient of every bag of a repeat."""
    wide = rows.with_columns(
        pl.col("probability").list.to_struct(
            fields=[f"p{k}" for k in range(len(rows["probability"][0]))]
        )
    ).unnest("probability")
    columns = [name for name in wide.columns if name.startswith("p") and name[1:].isdigit()]
    mean = wide.group_by("bag", maintain_order=True).agg(
        pl.col("label").first(),
        pl.col("patient").first(),
        *(pl.col(name).mean() for name in columns),
    )
    return mean["label"].to_numpy(), mean.select(columns).to_numpy(), mean["patient"].to_numpy()


def picture(summary: pl.DataFrame) -> Figure:
    """AUC and accuracy of every model with the deviation over repeats."""
    figure = Figure(figsize=(8, 0.45 * len(summary) + 1.2), layout="constrained")
    models = summary["model"].to_list()
    colours = ["0.55" if model in FLOORS else "C0" for model in models]
    for axis, name in zip(figure.subplots(1, 2, sharey=True), ("accuracy", "auc")):
        draw_values(axis, models, summary[name], summary[f"{name}_sd"], colours)
        axis.set_xlabel(f"{name}, mean and deviation over repeats")
    return figure
