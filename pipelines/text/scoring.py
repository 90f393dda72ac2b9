"""How good a model of texts is: ranks, decisions, probabilities and sets, by source and language.

Shapes: N texts, L outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from ..engine.pipeline import Metrics
from ..figures.classifier import interval_text
from ..metrics import classification
from ..metrics.bootstrap import Interval, bootstrap_intervals
from ..metrics.labels.decisions import (
    decision_bootstrap,
    decision_scores,
    frequency_buckets,
    given_labels,
    hierarchical_scores,
    label_decisions,
    label_reliability,
    label_tree,
)
from ..metrics.labels.ranking import (
    DEPTHS,
    label_average_precision,
    mean_average_precision,
    ranking_bootstrap,
    ranking_scores,
)
from .data import TextPart
from .probabilities import Told
from .spec import TextSpec

DRAWS = 200  # of the bootstrap over groups, as each draw scores all labels
SAME = 1e-12  # of the square of the mean: numbers with a variance below it are all the same
LEAST_PART = 20  # texts of a source or language that is scored by itself
SHOWN = ("precision_at_1", "map", "micro_f1", "macro_f1")
NAMES = {
    **{f"precision_at_{k}": f"P@{k}" for k in DEPTHS},
    **{f"ndcg_at_{k}": f"nDCG@{k}" for k in DEPTHS},
    "coverage_error": "labels to read until all true ones are there (coverage error)",
    "ranking_loss": "pairs of labels in the wrong order (ranking loss)",
    "map": "mAP",
    "micro_ap": "average precision of all texts and labels together",
    "sample_precision": "precision, mean over texts",
    "sample_recall": "recall, mean over texts",
    "sample_f1": "F1, mean over texts",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "exact_match": "texts with exactly the true labels",
    "micro_f1_at_half": "micro-F1 if all thresholds were 0.5",
    "macro_f1_at_half": "macro-F1 if all thresholds were 0.5",
    "ece": "calibration error (ECE)",
    "ece_mean_of_labels": "calibration error, mean over labels",
    "set_coverage": "true labels that are among the possible ones",
    "set_size": "possible labels of a text",
    "hierarchical_precision": "precision, with the labels above",
    "hierarchical_recall": "recall, with the labels above",
    "hierarchical_f1": "F1, with the labels above",
    "auc": "AUC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "r2": "R²",
    "pearson": "correlation",
    "mae": "mean absolute error",
    "rmse": "root of the mean squared error",
}


class Scores(NamedTuple):
    """Scores by name, their 95 % intervals, and tables of the report by caption."""

    values: Metrics
    intervals: dict[str, Interval]
    tables: dict[str, pl.DataFrame]
    headline: str


def score_labels(part: TextPart, logits: np.ndarray, told: Told, spec: TextSpec) -> Scores:
    """Scores of any number of labels for each text. logits: calibrated, (N, L)."""
    truth, groups = part.truth > 0, part.groups
    values: Metrics = {
        "texts": len(part),
        "groups": len(np.unique(part.groups)),
        **ranking_scores(truth, logits),
        **decision_scores(truth, told.labels),
    }
    half = decision_scores(truth, given_labels(logits, 0.0))
    values |= {f"{name}_at_half": half[name] for name in ("micro_f1", "macro_f1")}
    reliability = label_reliability(truth, told.probability)
    values["ece"], values["ece_mean_of_labels"] = (
        reliability.overall_error,
        reliability.mean_error,
    )
    present = truth.sum(1)
    covered = (truth & told.possible).sum(1)[present > 0] / present[present > 0]
    values["set_coverage"] = float(covered.mean()) if len(covered) else float("nan")
    values["set_size"] = float(told.possible.sum(1).mean())
    if spec.levels:
        values |= hierarchical_scores(truth, told.labels, label_tree(spec.labels, spec.levels)[1])
    intervals = ranking_bootstrap(truth, logits, groups, draws=DRAWS)
    intervals |= decision_bootstrap(truth, told.labels, groups, draws=DRAWS)
    tables = {
        _caption(part): _score_table(values, intervals),
        "Labels in thirds, by how often the training part has them": _bucket_table(
            truth, logits, told.labels, spec
        ),
        "Labels": _label_table(truth, logits, told.labels, spec),
    }
    for caption, names in (("source", part.table.sources), ("language", part.table.languages)):
        tables |= _by_part(caption, names, truth, logits, told.labels)
    shown = ", ".join(
        f"{_clear(name)} {interval_text(float(str(values[name])), intervals[name])}"
        for name in SHOWN
    )
    values |= _rows_of_parts(tables)
    return Scores(values, intervals, tables, f"{len(part):,} texts: {shown}")


def score_classes(part: TextPart, told: Told, spec: TextSpec) -> Scores:
    """Scores of one class for each text."""
    labels = part.truth.argmax(1)
    groups = len(np.unique(part.groups))
    values: Metrics = {
        "texts": len(part),
        "groups": groups,
        **classification.scores(labels, told.probability),
    }
    intervals = classification.bootstrap(labels, told.probability, part.groups, seed=0)
    inside = told.possible[np.arange(len(labels)), labels]
    values["set_coverage"] = float(inside.mean())
    values["set_size"] = float(told.possible.sum(1).mean())
    table = pl.DataFrame(
        [
            {"score": _clear(name), "value": interval_text(float(str(v)), intervals[name])}
            for name, v in values.items()
            if name in intervals
        ]
    )
    tables = {_caption(part): table}
    rows = [
        {
            "class": name,
            "texts of this part": int((labels == k).sum()),
            "predicted": int(told.labels[:, k].sum()),
            "of these right": int((told.labels[:, k] & (labels == k)).sum()),
        }
        for k, name in enumerate(spec.labels)
    ]
    tables["Classes"] = pl.DataFrame(rows)
    for caption, names in (("source", part.table.sources), ("language", part.table.languages)):
        right = told.labels[np.arange(len(labels)), labels]
        tables |= _shares_by_part(caption, names, right)
    accuracy = interval_text(float(str(values["accuracy"])), intervals["accuracy"])
    balanced = interval_text(
        float(str(values["balanced_accuracy"])), intervals["balanced_accuracy"]
    )
    headline = f"{len(part):,} texts: accuracy {accuracy}, balanced accuracy {balanced}"
    values |= _rows_of_parts(tables)
    return Scores(values, intervals, tables, headline)


def score_numbers(part: TextPart, logits: np.ndarray, width: float, spec: TextSpec) -> Scores:
    """Scores of a number for each text; width: half of its interval, scaled."""
    truth, predicted = (
        x[:, 0].astype(np.float64) * spec.deviation + spec.mean for x in (part.truth, logits)
    )

    def of(weights: np.ndarray) -> dict[str, np.ndarray]:
        return _number_scores(truth, predicted, weights)

    plain = {name: float(v[0]) for name, v in of(np.ones((1, len(truth)))).items()}
    intervals = bootstrap_intervals(of, part.groups, seed=0)
    half = width * spec.deviation
    values: Metrics = {"texts": len(part), "groups": len(np.unique(part.groups)), **plain}
    values["interval_coverage"] = float((np.abs(truth - predicted) <= half).mean())
    values["interval_half_width"] = half if np.isfinite(half) else None
    tables = {
        _caption(part): pl.DataFrame(
            [
                {"score": _clear(k), "value": interval_text(v, intervals[k])}
                for k, v in plain.items()
            ]
        )
    }
    tables |= _numbers_by_source(part.table.sources, truth, predicted)
    shown = ", ".join(
        f"{_clear(name)} {interval_text(plain[name], intervals[name])}"
        for name in ("r2", "pearson", "mae")
    )
    values |= _rows_of_parts(tables)
    return Scores(values, intervals, tables, f"{len(part):,} texts: {shown}")


def _number_scores(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores for each row of weights (R, N)."""
    total = weights.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, mean_predicted = weights @ truth / total, weights @ predicted / total
        variance = weights @ truth**2 / total - mean**2
        spread = weights @ predicted**2 / total - mean_predicted**2
        both = weights @ (truth * predicted) / total - mean * mean_predicted
        squared = weights @ np.square(truth - predicted) / total
        variance = np.where(variance > SAME * np.square(mean), variance, np.nan)
        return {
            "r2": 1 - squared / variance,
            "pearson": both / np.sqrt(variance * spread),
            "mae": weights @ np.abs(truth - predicted) / total,
            "rmse": np.sqrt(squared),
        }


def _caption(part: TextPart) -> str:
    """Of the table of scores: groups are drawn, so that equal texts and those of one customer or
    package count as one.
    """
    groups = len(np.unique(part.groups))
    what = "group" if groups < len(part) else "text"
    return f"Scores, 95 % intervals over {groups:,} {what}s"


def _score_table(values: Metrics, intervals: dict[str, Interval]) -> pl.DataFrame:
    rows = []
    for name in [*SHOWN, *(name for name in values if name not in SHOWN)]:
        if isinstance(value := values[name], float):
            text = interval_text(value, intervals[name]) if name in intervals else f"{value:.3f}"
            rows.append({"score": _clear(name), "value": text})
    return pl.DataFrame(rows)


def _bucket_table(
    truth: np.ndarray, logits: np.ndarray, called: np.ndarray, spec: TextSpec
) -> pl.DataFrame:
    buckets = frequency_buckets(np.array(spec.counts))
    precision = label_average_precision(truth, logits)
    decisions = label_decisions(truth, called)
    rows = []
    for name in ("rare", "medium", "frequent"):
        columns = buckets.columns(name)
        if not len(columns):
            continue
        counts = np.array(spec.counts)[columns]
        rows.append(
            {
                "labels": name,
                "texts of the training part": f"{counts.min():,} to {counts.max():,}",
                "how many labels": len(columns),
                "mAP": _mean(precision[columns] if precision.ndim == 1 else precision[0, columns]),
                "macro-F1": _mean(decisions.f1[columns]),
            }
        )
    return pl.DataFrame(rows)


def _label_table(
    truth: np.ndarray, logits: np.ndarray, called: np.ndarray, spec: TextSpec
) -> pl.DataFrame:
    decisions = label_decisions(truth, called)
    precision = np.atleast_2d(label_average_precision(truth, logits))[0]
    table = pl.DataFrame(
        {
            "label": spec.labels,
            "training texts": spec.counts,
            "texts of this part": decisions.occurring,
            "predicted": decisions.called,
            "precision": decisions.precision,
            "recall": decisions.recall,
            "F1": decisions.f1,
            "average precision": precision,
        }
    )
    return table.sort("training texts", descending=True)


def _by_part(
    caption: str, names: Sequence[str], truth: np.ndarray, logits: np.ndarray, called: np.ndarray
) -> dict[str, pl.DataFrame]:
    rows = []
    for name, member in _members(names):
        scores = decision_scores(truth[member], called[member])
        rows.append(
            {
                caption: name,
                "texts": int(member.sum()),
                "mAP": mean_average_precision(truth[member], logits[member]),
                "micro-F1": scores["micro_f1"],
                "macro-F1": scores["macro_f1"],
            }
        )
    return {f"By {caption}": pl.DataFrame(rows)} if len(rows) > 1 else {}


def _shares_by_part(
    caption: str, names: Sequence[str], right: np.ndarray
) -> dict[str, pl.DataFrame]:
    rows = [
        {caption: name, "texts": int(member.sum()), "accuracy": float(right[member].mean())}
        for name, member in _members(names)
    ]
    return {f"By {caption}": pl.DataFrame(rows)} if len(rows) > 1 else {}


def _numbers_by_source(
    names: Sequence[str], truth: np.ndarray, predicted: np.ndarray
) -> dict[str, pl.DataFrame]:
    rows = []
    for name, member in _members(names):
        ones = np.ones((1, int(member.sum())))
        scores = _number_scores(truth[member], predicted[member], ones)
        of_source = {_clear(k): float(v[0]) for k, v in scores.items()}
        rows.append({"source": name, "texts": int(member.sum()), **of_source})
    return {"By source": pl.DataFrame(rows)} if len(rows) > 1 else {}


def _rows_of_parts(tables: dict[str, pl.DataFrame]) -> Metrics:
    """The tables by source and language as values of the metrics."""
    captions = {"By source": "by_source", "By language": "by_language"}
    return {captions[name]: table.to_dicts() for name, table in tables.items() if name in captions}


def _members(names: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """The larger parts that texts come from, and which texts those are."""
    array = np.array(names)
    parts = [(str(name), array == name) for name in np.unique(array)]
    return [(name, member) for name, member in parts if name and member.sum() >= LEAST_PART]


def _clear(name: str) -> str:
    """A score as reports call it."""
    return NAMES.get(name, name.replace("_", " "))


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
