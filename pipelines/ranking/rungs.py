"""The rungs of ranking: counted rates, the best of three simple models, and the blend with it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.clicks.batches import ClickRows
from ...models.clicks.simple import AdditiveClicks, BlendedClicks, BoostedClicks
from ...models.layers.forest import ForestSizes
from ..engine.command_line.terminal import Progressbar
from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores, rung_outputs
from ..engine.options import RungName
from ..engine.pipeline import Batch, Context, Splits
from ..metrics.bootstrap import DRAWS
from ..metrics.classification import weighted_auc
from ..metrics.ranking import ranking_scores
from .baselines import log_odds
from .data import RankingSpec
from .options import RankingOptions
from .scoring import forward, validation_scores
from .trees import (
    CodeCounts,
    batches_of,
    check_trees,
    count_in_folds,
    empty_trees,
    fit_trees,
    smoothed_rates,
)

CROSSES = 1 << 18  # rows of the table of hashed pairs
FACTORS = 8
BATCH, LEARNING_RATE, EPOCHS = 2048, 0.005, 12
PENALTY = 0.02  # of the squared weights of a batch
MOST_CODES = 2_000_000  # of models whose tables are updated as a whole
MANY_ROWS = 200_000  # from which fewer draws are made
SHORT = {
    "trees": "boosted trees",
    "crossed": "logistic regression",
    "factors": "a factorisation machine",
}
WORDS = {
    "trees": "boosted trees (LightGBM) on codes, counted rates and histories",
    "crossed": "logistic regression on codes, events with their ages, and hashed pairs of codes",
    "factors": f"factorisation machine with {FACTORS} factors on codes, and events with their ages",
}


class RankingRungs(Rungs[RankingOptions, RankingSpec, ClickRows]):
    """Counted rates, the best of three simple models, and its logits stacked with the network's."""

    def answer_words(self, options: RankingOptions, spec: RankingSpec) -> str:
        """What is predicted."""
        return f"probability of {' and '.join(spec.tasks)}"

    def model_words(self, options: RankingOptions) -> str:
        """The name of the model."""
        return options.model

    def prepare(self, splits: Splits[RankingSpec, ClickRows], options: RankingOptions) -> None:
        """LightGBM must be there."""
        check_trees()

    def simple(
        self,
        model: nn.Module,
        splits: Splits[RankingSpec, ClickRows],
        options: RankingOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """Counted rates of users and items, and the simple model with the best validation score."""
        seed, spec, validation = options.seed, splits.spec, splits.validation
        counts = count_in_folds(splits.train, spec, seed)
        models = simple_models(splits, seed, counts)
        losses = {kind: _score(model, validation) for kind, model in models.items()}
        best = min(losses, key=lambda kind: losses[kind])
        chosen, facts = models[best], dict[str, object](kind=best)
        if isinstance(chosen, BoostedClicks):
            facts["sizes"] = [forest.sizes for forest in chosen.forests]
        else:
            facts["ages"] = True  # which those of older runs do not read
        naive = "clicked shares of users and items"
        return {
            "naive": Rung(naive, _counted(spec, counts), short="users and items counted"),
            "simple": Rung(WORDS[best], chosen, facts, short=SHORT[best]),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[RankingSpec, ClickRows],
        options: RankingOptions,
        device: torch.device,
    ) -> Rung:
        """The two stacked by logistic regression on the validation part, for each task."""
        from sklearn.linear_model import LogisticRegression

        dataset, tasks = splits.validation, len(splits.spec.tasks)
        logits = logits_of({"model": model, "simple": simple.to(device)}, dataset, device)
        labels = dataset.rows.labels
        assert labels is not None
        labels = labels[dataset.which]
        blend = BlendedClicks(model, simple, tasks)
        for task in range(tasks):
            known = labels[:, task] >= 0
            x = np.stack([logits["model"][known, task], logits["simple"][known, task]], 1)
            share = (0.5, 0.5, 0.0)
            if len(np.unique(labels[known, task])) == 2:
                fitted = LogisticRegression(C=100.0).fit(x, labels[known, task])
                share = (*fitted.coef_[0], fitted.intercept_[0])
            blend.share[:, task] = torch.tensor(share)
        of = "sum of the logits of the two, stacked by logistic regression on the validation part"
        return Rung(of, blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: RankingSpec,
    ) -> nn.Module:
        """Counted rates, trees or a sum over codes, or the blend."""
        if name == "naive":
            return AdditiveClicks(spec.layout, sequences=False)
        if name == "blend":
            return BlendedClicks(models["model"], models["simple"], len(spec.tasks))
        if facts["kind"] == "trees":
            return empty_trees(spec, cast("list[ForestSizes]", facts["sizes"]))
        return _additive(str(facts["kind"]), spec, ages=bool(facts.get("ages")))

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: ClickRows,
        context: Context[RankingOptions, RankingSpec],
    ) -> LadderScores:
        """AUC, the mean over tasks, with draws of users, or of rows where there are no users.

        Where no task has both labels, log-loss.
        """
        spec, rows, which = context.spec, dataset.rows, dataset.which
        logits = logits_of(models, dataset, context.device)
        assert rows.labels is not None
        labels, users = rows.labels[which], rows.user[which]
        further: dict[str, dict[RungName, float]] = {}
        for place, task in enumerate(spec.tasks):
            known = labels[:, place] >= 0
            for name in models:
                probability = 1 / (1 + np.exp(-logits[name][known, place]))
                scores = ranking_scores(labels[known, place], probability, users[known])
                for score, words in (("auc", "AUC"), ("gauc", "gAUC"), ("log_loss", "log-loss")):
                    further.setdefault(f"{words} {task}", {})[name] = scores[score]
        statistics = {name: partial(_mean_over_tasks, labels, logits[name]) for name in models}
        ones = np.ones((1, len(which)))
        ranked = bool(_tasks_of_both_labels(labels))
        return drawn_scores(
            "AUC" if ranked else "log-loss",
            {name: float(statistic(ones)[0]) for name, statistic in statistics.items()},
            statistics,
            len(which) if spec.input["user"] is None else users,
            larger_is_better=ranked,
            draws=DRAWS if len(which) < MANY_ROWS else DRAWS // 5,
            further=further,
        )


def simple_models(
    splits: Splits[RankingSpec, ClickRows], seed: int, counts: CodeCounts
) -> dict[str, nn.Module]:
    """The simple models by kind, fitted; those that sum over codes only while the codes are few."""
    spec, train, validation = splits.spec, splits.train, splits.validation
    models: dict[str, nn.Module] = {"trees": fit_trees(train, validation, spec, seed, counts)}
    if sum(spec.layout.codes) <= MOST_CODES:
        for kind in ("crossed", "factors"):
            models[kind] = additive = _additive(kind, spec, ages=True)
            _fit_additive(additive, train, validation, seed, kind)
    return models


def _additive(kind: str, spec: RankingSpec, *, ages: bool) -> AdditiveClicks:
    if kind == "crossed":
        return AdditiveClicks(spec.layout, crosses=CROSSES, ages=ages)
    return AdditiveClicks(spec.layout, factors=FACTORS, ages=ages)


@torch.no_grad()
def _score(model: nn.Module, dataset: ClickRows) -> float:
    rows = np.arange(len(dataset))
    return validation_scores(model, batches_of(dataset, rows))["one_minus_auc"]


def _counted(spec: RankingSpec, counts: CodeCounts) -> AdditiveClicks:
    """The rates of users and items as far as they are fields, added to that of all rows."""
    model = AdditiveClicks(spec.layout, sequences=False)
    clicks, seen = counts.clicks.sum(0), counts.seen.sum(0)
    rates = smoothed_rates(clicks, seen)
    names = [f["name"] for f in spec.fields]
    starts = np.cumsum([0, *spec.layout.codes])
    overall = log_odds(clicks.sum(0) / np.maximum(seen.sum(0), 1))
    with torch.no_grad():
        model.bias.copy_(torch.from_numpy(overall))
        for column in (spec.input["user"], spec.input["item"]):
            if column in names:
                place = names.index(column)
                rows = slice(int(starts[place]), int(starts[place + 1]))
                shifted = np.where(seen[rows] > 0, rates[rows] - overall, 0.0)
                model.table.weight[rows] = torch.from_numpy(shifted.astype(np.float32))
    return model


def _fit_additive(
    model: AdditiveClicks, train: ClickRows, validation: ClickRows, seed: int, name: str
) -> None:
    """Train with Adam, and keep the weights of the epoch with the smallest validation log-loss."""
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    best, weights, worse = float("inf"), copy.deepcopy(model.state_dict()), 0
    with torch.enable_grad(), Progressbar(total=EPOCHS, unit="epoch", desc=SHORT[name]) as bar:
        for _ in range(EPOCHS):
            for batch in batches_of(train, generator.permutation(len(train)), BATCH):
                loss = _loss(model, batch) + PENALTY * _squares(model, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            bar.update(1)
            with torch.no_grad():
                rows = np.arange(len(validation))
                loss = validation_scores(model, batches_of(validation, rows))["log_loss"]
            if loss < best:
                best, weights, worse = loss, copy.deepcopy(model.state_dict()), 0
            else:
                worse += 1
                if worse == 2:
                    break
    model.load_state_dict(weights)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    counts = batch["counts"].float()
    losses = F.binary_cross_entropy_with_logits(
        forward(model, batch), batch["labels"], reduction="none"
    )
    return ((losses * counts).sum(0) / counts.sum(0).clamp(min=1)).sum()


def _squares(model: AdditiveClicks, batch: Batch) -> Tensor:
    """Mean squared weights of the codes of a batch."""
    return model.knots(model.table, batch["fields"]).square().sum() / len(batch["fields"])


@torch.no_grad()
def logits_of(
    models: Mapping[RungName, nn.Module], dataset: ClickRows, device: torch.device
) -> dict[RungName, np.ndarray]:
    """float64 (N, S) of each rung."""
    parts: dict[RungName, list[Tensor]] = {name: [] for name in models}
    with Progressbar(total=len(dataset), unit="row", desc="compare") as bar:
        for batch in batches_of(dataset, np.arange(len(dataset))):
            moved = {name: value.to(device) for name, value in batch.items()}
            outputs = rung_outputs(models, lambda model, moved=moved: forward(model, moved))
            for name, logits in outputs.items():
                parts[name].append(logits.cpu())
            bar.update(len(batch["fields"]))
    return {name: torch.cat(values).double().numpy() for name, values in parts.items()}


def _tasks_of_both_labels(labels: np.ndarray) -> list[int]:
    """Places of the tasks (S) of labels (N, S) that have an AUC."""
    return [task for task in range(labels.shape[1]) if {0, 1} <= set(labels[:, task].tolist())]


def _mean_over_tasks(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC for each row of weights (R, N) -> (R,), the mean over the tasks that have one; log-loss
    over all tasks where none has. labels, logits: (N, S).
    """
    ranked = _tasks_of_both_labels(labels)
    by_task = [
        _weighted(labels[:, task], logits[:, task], weights, bool(ranked))
        for task in ranked or range(labels.shape[1])
    ]
    return np.mean(by_task, axis=0)


def _weighted(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, area: bool
) -> np.ndarray:
    """AUC or log-loss of a task for each row of weights (R, N) -> (R,)."""
    known = labels >= 0
    if area:
        return weighted_auc(labels[known] == 1, logits[known], weights[:, known])
    losses = np.logaddexp(0, np.where(labels[known] == 1, -logits[known], logits[known]))
    return weights[:, known] @ losses / weights[:, known].sum(1)
