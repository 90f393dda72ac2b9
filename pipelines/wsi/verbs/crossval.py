"""Repeated k-fold cross-validation by patient: several models and seeds, compared with
scikit-learn; resumable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from ....base.account import note, opened
from ....base.files import write_json
from ....data.items import digest
from ...engine.command_line.terminal import say
from ...engine.experiments.folds import predictions_of_folds
from ...engine.experiments.jobs import Job, Record, fingerprint_of
from ...engine.ladder import Rung, refitted
from ...engine.options import RungName
from ...engine.pipeline import AnyPipeline, Context, Splits
from ...engine.runs.ladder_files import fit_ladder
from ...engine.runs.loaded import pick_device
from ...engine.runs.paths import homes_of
from ...engine.training import order
from ...engine.training.quick import fit
from ...figures.style import save_png
from ...metrics.classification import bootstrap, scores
from ..data import BagSet, grouped_folds, spec_of, without_validation
from ..explain import concentration
from ..figures import crossval_figure
from ..options import CrossvalOptions
from ..scoring import attention_of_bags, loader, probabilities
from ..sources import BagSource, read_source

FLOORS = ("mean, logistic regression", "mean-min-max, logistic regression", "mean-min-max, RBF SVM")
CHOSEN = ", chosen"  # ends the name of what the ladder of a model chooses
SHOWN = ("accuracy", "auc", "balanced_accuracy", "log_loss", "ece")
# More models, seeds and repeats are added to a folder.
FREE = ("output", "processes", "run", "accelerator", "models", "seeds", "repeats", "workers")
SCHEMA = {
    "model": pl.String,
    "seed": pl.Int32,
    "repeat": pl.Int32,
    "fold": pl.Int32,
    "bag": pl.String,
    "patient": pl.String,
    "label": pl.Int64,
    "probability": pl.List(pl.Float64),
    "top10": pl.Float64,
}


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train and score every fold, by the recipe of `train`; writes folds/, crossval.json,
    predictions.parquet, account.json and crossval.png into --output.

    The seeds of a model are averaged into one prediction per bag before they are scored (an
    ensemble), and each seed is scored alone, too. Returns the table of scores.
    """
    output = Path(options.output)
    with opened(options.accept, homes_of(options)) as account:
        source = read_source(options)
        if not options.last_epoch:
            what = "a fifth of the bags outside of a fold stops its training early, as in train"
            note("assumed", what)
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
    cohort = source.cohort
    contents = digest(np.array(source.digests))
    data = {"names": cohort.names, "labels": cohort.labels, "contents": contents}
    table = predictions_of_folds(
        output,
        account,
        jobs,
        Fold(pipeline, options, source, folds),
        fingerprint_of(options, data, FREE),
        SCHEMA,
        options.processes,
    )
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
    save_png(crossval_figure(summary, FLOORS), output / "crossval.png")
    for row in summary.iter_rows(named=True):
        shown = "  ".join(f"{name} {row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in SHOWN)
        say(f"{row['model']:<36} {shown}")
    say(f"scores {output / 'crossval.json'}")
    return summary


@dataclass(frozen=True)
class Fold:
    """Does a job: a training scored on the test bags of its fold, or (for the variant "floors") the
    simple models of the fold.
    """

    pipeline: AnyPipeline
    options: CrossvalOptions
    source: BagSource
    folds: Sequence[Sequence[np.ndarray]]
    """Rows of each fold of each repeat."""
    simple: dict[tuple[int, int, int], Mapping[RungName, Rung]] = field(default_factory=dict)
    """The simple models of a seed, repeat and fold, which all bag models share."""

    def __call__(self, job: Job) -> Record:
        assert job.repeat is not None
        assert job.fold is not None
        cohort = self.source.cohort
        classes = sorted(set(cohort.labels))
        test_rows = self.folds[job.repeat][job.fold]
        train_rows = np.setdiff1d(np.arange(len(cohort)), test_rows)
        test = BagSet(self.source, test_rows, classes)
        if job.variant == "floors":
            outputs = self._floors(BagSet(self.source, train_rows, classes), test)
        else:
            outputs = self._trained(job, train_rows, test)
        tables = [
            pl.DataFrame(
                {
                    "model": name,
                    "seed": job.seed,
                    "repeat": job.repeat,
                    "fold": job.fold,
                    "bag": test.names,
                    "patient": test.patients,
                    "label": test.labels,
                    "probability": probability.astype(np.float64).tolist(),
                    "top10": pl.Series(top10 or [None] * len(test), dtype=pl.Float64),
                }
            )
            for name, probability, top10 in outputs
        ]
        return {"predictions": pl.concat(tables).to_dict(as_series=False)}

    def _floors(
        self, train: BagSet, test: BagSet
    ) -> list[tuple[str, np.ndarray, list[float] | None]]:
        return [(name, values, None) for name, values in floors(train, test).items()]

    def _trained(
        self, job: Job, train_rows: np.ndarray, test: BagSet
    ) -> list[tuple[str, np.ndarray, list[float] | None]]:
        """Probabilities (N, C) of the test bags after a training, and the share of the attention on
        the ten highest instances of each bag: of the bag model, and of what its ladder chooses.
        """
        device = pick_device(self.options.accelerator)
        assert job.repeat is not None
        assert job.fold is not None
        seed = order.mix(self.options.seed, job.seed, job.repeat, job.fold) >> 1
        options = replace(self.options, model=job.variant, seed=seed)  # pyright: ignore[reportArgumentType]
        validation: BagSet | None = None
        if not options.last_epoch:
            cohort, where = self.source.cohort, self.source.where
            train_rows, rows = without_validation(cohort, train_rows, seed % (1 << 32), where)
            validation = BagSet(self.source, rows, test.classes)
        train = BagSet(self.source, train_rows, test.classes)
        if options.class_weights:
            train.weigh_classes()
        spec = spec_of(self.source, {"train": train, "test": test}, options)
        model, _ = fit(self.pipeline, options, train, spec, device, validation=validation)
        top10 = _top10(model, test, device)
        _, probability = probabilities(model, loader(test, 32, device))
        outputs = [(job.variant, probability, top10)]
        if validation is not None:
            splits = Splits(train, validation, test, spec)
            place = job.seed, job.repeat, job.fold
            if place not in self.simple:
                rungs = self.pipeline.rungs(spec)
                assert rungs is not None
                self.simple[place] = rungs.simple(model, splits, options, device)
            context = Context(options, spec, {}, device)
            ladder = fit_ladder(self.pipeline, model, splits, context, self.simple[place])
            assert ladder is not None
            ladder = refitted(ladder, device)
            _, probability = probabilities(ladder.predictor, loader(test, 32, device))
            outputs.append((f"{job.variant}{CHOSEN}", probability, None))
        return outputs


def _top10(model: nn.Module, bags: BagSet, device: torch.device) -> list[float] | None:
    """The share of the attention on the ten highest instances of each bag; None for a model without
    attention.
    """
    attention = attention_of_bags(model, bags, device)
    means = [torch.from_numpy(shares).mean(1).numpy() for shares in attention]
    return [float(concentration(mean, 10)[-1]) for mean in means] or None


def floors(train: BagSet, test: BagSet) -> dict[str, np.ndarray]:
    """Probabilities (N, C) of scikit-learn on [mean], and on [mean, min, max], of the instances of
    a bag. The constants are fixed, not tuned (C = 0.05 and C = 3). The probabilities of the SVM are
    the softmax of its decision function.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    (mean, all_statistics), (test_mean, test_all) = _statistics(train), _statistics(test)
    count = len(train.classes)
    probability_of = {}
    for name, features, test_features in (
        (FLOORS[0], mean, test_mean),
        (FLOORS[1], all_statistics, test_all),
    ):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=5000))
        model.fit(features, train.labels)
        probability_of[name] = _all_classes(
            model.predict_proba(test_features), model.classes_, count
        )
    machine = make_pipeline(StandardScaler(), SVC(C=3.0)).fit(all_statistics, train.labels)
    margin = machine.decision_function(test_all)
    if margin.ndim == 1:
        margin = np.stack([-margin / 2, margin / 2], 1)
    raised = np.exp(margin - margin.max(1, keepdims=True))
    softmax = raised / raised.sum(1, keepdims=True)
    probability_of[FLOORS[2]] = _all_classes(softmax, machine.classes_, count)
    return probability_of


def _statistics(bags: BagSet) -> tuple[np.ndarray, np.ndarray]:
    """[mean] (N, D) and [mean, min, max] (N, 3 D) of the instances of each bag."""
    values = [bags[k][0].double().numpy() for k in range(len(bags))]
    mean = np.stack([x.mean(0) for x in values])
    return mean, np.stack([np.concatenate([x.mean(0), x.min(0), x.max(0)]) for x in values])


def _all_classes(probability: np.ndarray, present: np.ndarray, count: int) -> np.ndarray:
    """Probabilities of all classes, 0 for those that the training lacked."""
    full = np.zeros((len(probability), count))
    full[:, present] = probability
    return full


def summarise(table: pl.DataFrame, options: CrossvalOptions) -> pl.DataFrame:
    """Mean and deviation over repeats, the folds of a repeat pooled; the interval by patient is
    that of repeat 0.
    """
    rows: list[dict[str, object]] = []
    present = set(table["model"].unique())
    chosen = [f"{model}{CHOSEN}" for model in options.models]
    for model in (*options.models, *(name for name in chosen if name in present), *FLOORS):
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
