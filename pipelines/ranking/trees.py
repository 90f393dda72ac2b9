"""Boosted trees (LightGBM) on what a row holds and how often its values were clicked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...base.errors import InputError, one_line
from ...data.clicks.batches import ClickRows
from ...models.clicks.simple import BoostedClicks, ClickStatistics
from ...models.layers.forest import Forest, ForestSizes, boosted_forest
from ..engine.pipeline import Batch
from .baselines import SMOOTHING, log_odds
from .data import RankingSpec

FOLDS = 5  # rates of a training row are counted in the others' folds, or they would hold its label
MOST_NUMBERS = 300_000_000  # in the table that the trees are fitted to; more rows are thinned out
MANY_NUMBERS = 20_000_000  # in that table from which several threads are worth their waiting
BATCH = 8192
ROUNDS, PATIENCE = 500, 25  # trees at most, and without a better validation loss
LEAVES = (8, 32)
SETTINGS = {
    "objective": "binary",
    "metric": "binary_logloss",
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def check_trees() -> None:
    """Raise `InputError` where LightGBM cannot be loaded: before a training, not after it."""
    try:
        import lightgbm  # noqa: F401
    except OSError as error:  # its wheel takes the OpenMP library of the system
        remedy = "install the OpenMP library of the system (Debian: apt install libgomp1)"
        raise InputError(f"LightGBM cannot be loaded ({one_line(error)[:120]}); {remedy}") from None


class CodeCounts(NamedTuple):
    """How often each code was clicked and seen, (FOLDS, N, S), in each fold of the training part;
    fold: of each row.
    """

    fold: np.ndarray
    clicks: np.ndarray
    seen: np.ndarray


def count_in_folds(train: ClickRows, spec: RankingSpec, seed: int) -> CodeCounts:
    """The counts of random folds, by one pass over the rows."""
    fold = np.random.default_rng(seed).integers(0, FOLDS, len(train))
    return CodeCounts(fold, *count_codes(train, fold, spec))


def fit_trees(
    train: ClickRows, validation: ClickRows, spec: RankingSpec, seed: int, counts: CodeCounts
) -> BoostedClicks:
    """A forest for each task, of the size that the validation part is for. counts: of `train`."""
    statistics = ClickStatistics(spec.layout, spec.targets)
    rows = np.arange(len(train))
    fold, clicks, seen = counts
    width = spec.layout.fields * (2 + len(spec.tasks)) + 6 * spec.layout.sequences
    rows = rows[:: max(1, -(-len(rows) * width // MOST_NUMBERS))]
    parts, order = [], []
    for held_out in range(FOLDS):
        others = [f for f in range(FOLDS) if f != held_out]
        _set_rates(statistics, clicks[others].sum(0), seen[others].sum(0))
        of_fold = rows[fold[rows] == held_out]
        parts += [_statistics(statistics, batch) for batch in batches_of(train, of_fold)]
        order.append(of_fold)
    _set_rates(statistics, clicks.sum(0), seen.sum(0))
    x, places = np.concatenate(parts), np.concatenate(order)
    held = np.concatenate(
        [_statistics(statistics, b) for b in batches_of(validation, np.arange(len(validation)))]
    )
    forests = [
        _fit_forest(x, _labels(train, places, task), held, _labels(validation, None, task), seed)
        for task in range(len(spec.tasks))
    ]
    return BoostedClicks(statistics, forests)


def empty_trees(spec: RankingSpec, sizes: Sequence[ForestSizes]) -> BoostedClicks:
    """The same without its tensors."""
    statistics = ClickStatistics(spec.layout, spec.targets)
    return BoostedClicks(statistics, [Forest(**size) for size in sizes])


def batches_of(dataset: ClickRows, rows: np.ndarray, size: int = BATCH) -> Iterator[Batch]:
    """Batches of some rows of a data set, in their order."""
    for start in range(0, len(rows), size):
        yield dataset.__getitems__(rows[start : start + size])


def count_codes(
    dataset: ClickRows, fold: np.ndarray, spec: RankingSpec
) -> tuple[np.ndarray, np.ndarray]:
    """How often each code was clicked and seen, (FOLDS, N, S), by fold of the rows."""
    folds, codes, tasks = FOLDS, sum(spec.layout.codes), len(spec.tasks)
    clicks = np.zeros((folds, codes, tasks), np.float32)
    seen = np.zeros((folds, codes, tasks), np.float32)
    for held_out in range(folds):
        for batch in batches_of(dataset, np.flatnonzero(fold == held_out)):
            flat = batch["fields"].flatten().numpy()
            columns = batch["fields"].shape[1]
            counted = batch["counts"].numpy().astype(np.float32)
            clicked = batch["labels"].numpy() * counted
            for task in range(tasks):
                for table, values in ((clicks, clicked), (seen, counted)):
                    weight = np.repeat(values[:, task], columns)
                    table[held_out, :, task] += np.bincount(flat, weight, codes).astype(np.float32)
    return clicks, seen


def smoothed_rates(clicks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Log-odds of each code (N, S), drawn towards the rate of all rows."""
    mean = clicks.sum(0) / np.maximum(seen.sum(0), 1)
    return log_odds((clicks + SMOOTHING * mean) / (seen + SMOOTHING))


def _set_rates(statistics: ClickStatistics, clicks: np.ndarray, seen: np.ndarray) -> None:
    rates = smoothed_rates(clicks, seen)
    statistics.rates = torch.from_numpy(rates.astype(np.float32))
    statistics.counts = torch.from_numpy(np.log1p(seen.max(1)).astype(np.float32))


@torch.no_grad()
def _statistics(statistics: ClickStatistics, batch: Batch) -> np.ndarray:
    return statistics(batch["fields"], batch["events"], batch["ages"], batch["offsets"]).numpy()


def _labels(dataset: ClickRows, places: np.ndarray | None, task: int) -> np.ndarray:
    """int8, -1 where a row does not count for a task."""
    labels = dataset.rows.labels
    assert labels is not None
    which = dataset.which if places is None else dataset.which[places]
    return labels[which, task]


def _fit_forest(
    x: np.ndarray, labels: np.ndarray, held: np.ndarray, held_labels: np.ndarray, seed: int
) -> Forest:
    """The forest with the smallest validation loss; a single leaf where there is nothing to fit."""
    import lightgbm

    known, held_known = labels >= 0, held_labels >= 0
    x, labels, held, held_labels = (
        x[known],
        labels[known],
        held[held_known],
        held_labels[held_known],
    )
    if len(np.unique(labels)) < 2 or not len(held_labels):
        return boosted_forest([], float(log_odds(labels.mean() if len(labels) else 0.5)))
    training = lightgbm.Dataset(x, labels, free_raw_data=False)
    best: tuple[float, lightgbm.Booster] | None = None
    for leaves in LEAVES:
        booster = lightgbm.train(
            {
                **SETTINGS,
                "num_leaves": leaves,
                "learning_rate": 0.1,
                "seed": seed,
                "num_threads": torch.get_num_threads() if x.size > MANY_NUMBERS else 1,
            },
            training,
            ROUNDS,
            valid_sets=[training.create_valid(held, held_labels)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        loss = booster.best_score["valid_0"]["binary_logloss"]
        if best is None or loss < best[0]:
            best = loss, booster
    assert best is not None
    booster = best[1]
    described = booster.dump_model(num_iteration=booster.best_iteration)
    return boosted_forest([tree["tree_structure"] for tree in described["tree_info"]])
