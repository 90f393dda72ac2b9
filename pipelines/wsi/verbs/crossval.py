"""Repeated k-fold cross-validation by patient, several models and seeds, scikit-learn beside them;
resumable.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from ....base.errors import InputError
from ....base.files import held, write_aside, write_json
from ....models.bags.acmil import ACMIL
from ...engine.command_line.terminal import Progressbar, say
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.training import order
from ...engine.training.quick import fit
from ...metrics.classification import bootstrap, scores
from ..data import BagSet, Source, find_source, grouped_folds, moments
from ..explain import concentration
from ..options import CrossvalOptions
from ..scoring import probabilities

FLOORS = ("mean, logistic regression", "mean-min-max, logistic regression", "mean-min-max, RBF SVM")
SHOWN = ("accuracy", "auc", "balanced_accuracy", "macro_f1", "ece")


@dataclass(frozen=True)
class Job:
    """One training: a model, a seed, a repeat and a fold of it; or the floors of a fold (model
    "floors").
    """

    model: str
    seed: int
    repeat: int
    fold: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.model}-seed{self.seed}-repeat{self.repeat}-fold{self.fold}.parquet"


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train and score every fold; writes folds/, crossval.json, predictions.parquet and
    crossval.png into --output.

    Seeds of a model are averaged into one prediction a bag before they are scored (an ensemble),
    and each seed is scored alone, too. Returns the table of scores."""
    output = Path(options.output)
    source = find_source(options)
    folds = [
        grouped_folds(
            source.cohort, np.arange(len(source.cohort)), options.folds, repeat, source.where
        )
        for repeat in range(options.repeats)
    ]
    jobs = [
        Job(model, seed, repeat, fold)
        for model in (*options.models, "floors")
        for seed in (range(options.seeds) if model != "floors" else (0,))
        for repeat in range(options.repeats)
        for fold in range(options.folds)
    ]
    with _claimed(output, options, source):
        table = _train_all(pipeline, options, source, folds, jobs)
    write_aside(output / "predictions.parquet", lambda path: table.write_parquet(path))
    found = summarise(table, source, options)
    write_json(
        output / "crossval.json",
        {
            "data": source.where,
            "folds": options.folds,
            "repeats": options.repeats,
            "seeds": options.seeds,
            "scores": found.to_dicts(),
        },
    )
    figure = picture(found)
    write_aside(output / "crossval.png", lambda path: figure.savefig(path, format="png", dpi=110))
    for row in found.iter_rows(named=True):
        shown = "  ".join(f"{name} {row[name]:.3f} ± {row[f'{name}_sd']:.3f}" for name in SHOWN[:3])
        say(f"{row['model']:<36} {shown}")
    say(f"scores {output / 'crossval.json'}")
    return found


def _train_all(
    pipeline: AnyPipeline,
    options: CrossvalOptions,
    source: Source,
    folds: list[list[np.ndarray]],
    jobs: list[Job],
) -> pl.DataFrame:
    """Do what is left of the jobs; the predictions of all of them."""
    home = Path(options.output) / "folds"
    left = [job for job in jobs if not (home / job.name).is_file()]
    if len(left) < len(jobs):
        say(f"{len(jobs) - len(left)} of {len(jobs)} trainings were done before")
    with Progressbar(total=len(left), unit="fold", desc="crossval") as bar:
        for _ in _run(pipeline, options, source, folds, left):
            bar.update()
    return pl.concat([pl.read_parquet(home / job.name) for job in jobs])


@contextmanager
def _claimed(output: Path, options: CrossvalOptions, source: Source) -> Iterator[None]:
    """Hold the folder, which must be of these options and this data, or of nobody, and of no other
    process now.
    """
    _claim(output, options, source)
    with held(output / "folds", output):
        yield


def _claim(output: Path, options: CrossvalOptions, source: Source) -> None:
    """The folder is of these options and this data, or of nobody."""
    free = (
        "output",
        "processes",
        "run",
        "accelerator",
        "models",
        "seeds",
        "repeats",
    )  # more of them are added to it
    said = {name: value for name, value in asdict(options).items() if name not in free}
    digest = hashlib.sha256(
        json.dumps([said, source.cohort.names, source.cohort.labels], default=str).encode()
    )
    fingerprint = digest.hexdigest()
    path = output / "folds" / "options.json"
    if path.is_file():
        if json.loads(path.read_text()).get("fingerprint") != fingerprint:
            raise InputError(
                f"{output}: holds folds of other options or data; choose another --output"
            )
    elif output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output}: is not empty and holds no folds; choose another --output")
    else:
        write_json(path, {"fingerprint": fingerprint, "options": said})


def _run(
    pipeline: AnyPipeline,
    options: CrossvalOptions,
    source: Source,
    folds: list[list[np.ndarray]],
    jobs: list[Job],
) -> Iterator[None]:
    if options.processes == 1 or len(jobs) < 2:
        for job in jobs:
            _do(pipeline, options, source, folds, job)
            yield
        return
    count = min(options.processes, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // count)
    with ProcessPoolExecutor(
        count, get_context("spawn"), _start, (pipeline.task.name, options, source, folds, threads)
    ) as pool:
        for _ in pool.map(_work, jobs):
            yield


_held: tuple[Any, ...] = ()


def _start(
    task: str, options: CrossvalOptions, source: Source, folds: list[list[np.ndarray]], threads: int
) -> None:
    global _held
    from ... import load_task

    torch.set_num_threads(threads)
    _held = load_task(task).load(), options, source, folds


def _work(job: Job) -> None:
    pipeline, options, source, folds = _held
    _do(pipeline, options, source, folds, job)


def _do(
    pipeline: AnyPipeline, options: Any, source: Source, folds: list[list[np.ndarray]], job: Job
) -> None:
    """One training, scored on the bags it has not seen, its file written."""
    classes = sorted(set(source.cohort.labels))
    test = folds[job.repeat][job.fold]
    train = np.setdiff1d(np.arange(len(source.cohort)), test)
    seen, unseen = BagSet(source, train, classes), BagSet(source, test, classes)
    if job.model == "floors":
        found = [(name, probability, None) for name, probability in floors(seen, unseen).items()]
    else:
        device = pick_device(options.accelerator)
        wanted = replace(
            options,
            model=job.model,
            seed=order.mix(options.seed, job.seed, job.repeat, job.fold) >> 1,
        )
        spec = {
            "classes": classes,
            "width": seen[0][0].shape[1],
            **moments(seen, options.standardise),
        }
        model, _ = fit(pipeline, wanted, seen, spec, device)
        batches = order.loader(unseen, order.sequential(len(unseen), 32))
        moved = ({name: value.to(device) for name, value in batch.items()} for batch in batches)
        _, probability = probabilities(model, moved)
        held = None
        if isinstance(model, ACMIL):
            held = []
            with torch.no_grad():
                for k in range(len(unseen)):
                    attention = model.attention_of(model.attend(unseen[k][0].to(device)).scores)  # pyright: ignore
                    held.append(float(concentration(attention.mean(1).cpu().numpy(), 10)[-1]))
        found = [(job.model, probability, held)]
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
                "top10": pl.Series(held or [None] * len(test), dtype=pl.Float64),
            }
        )
        for name, probability, held in found
    ]
    write_aside(
        Path(options.output) / "folds" / job.name,
        lambda path: pl.concat(tables).write_parquet(path),
    )


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


def summarise(table: pl.DataFrame, source: Source, options: CrossvalOptions) -> pl.DataFrame:
    """Mean and deviation over repeats, the folds of a repeat pooled; the interval by patient is
    that of repeat 0.
    """
    rows = []
    order_of = [*options.models, *FLOORS]
    for model in order_of:
        own = table.filter(pl.col("model") == model)
        ensemble = [_pooled(own.filter(pl.col("repeat") == r)) for r in range(options.repeats)]
        each = [scores(label, probability) for label, probability, _ in ensemble]
        alone = [
            scores(*_pooled(own.filter((pl.col("repeat") == r) & (pl.col("seed") == s)))[:2])
            for r in range(options.repeats)
            for s in own["seed"].unique().sort().to_list()
        ]
        label, probability, patient = ensemble[0]
        interval = bootstrap(label, probability, patient, seed=options.seed)
        row: dict[str, Any] = {"model": model}
        for name in each[0]:
            values = np.array([found[name] for found in each])
            row |= {
                name: values.mean(),
                f"{name}_sd": values.std(),
                f"{name}_low": interval[name][0],
                f"{name}_high": interval[name][1],
                f"{name}_single_seed": float(np.mean([found[name] for found in alone])),
            }
        row["top10"] = own["top10"].mean()
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


def picture(found: pl.DataFrame) -> Figure:
    """AUC and accuracy of every model with the deviation over repeats."""
    drawn = Figure(figsize=(8, 0.45 * len(found) + 1.2), layout="constrained")
    place = np.arange(len(found))[::-1]
    for axis, name in zip(drawn.subplots(1, 2, sharey=True), ("accuracy", "auc")):
        colours = ["0.55" if model in FLOORS else "C0" for model in found["model"]]
        for y, value, deviation, colour in zip(place, found[name], found[f"{name}_sd"], colours):
            axis.errorbar(value, y, xerr=deviation, fmt="o", color=colour, capsize=3)
        axis.set(xlabel=f"{name}, mean and deviation over repeats", yticks=place)
        axis.set_yticklabels(found["model"].to_list(), fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    return drawn
