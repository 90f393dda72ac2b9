"""How good a model of pictures is, by the protocols of search and recognition, compared with
colours alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ...models.vision.picture_rungs import BINS, COLOUR_WIDTH, stripe_histograms
from ..engine.pipeline import Calibration, Metrics, ReportFigure, Review
from ..engine.training import order
from ..metrics import classification, retrieval
from ..metrics.linear_baseline import linear_probabilities
from ..metrics.reranking import rerank
from . import figures
from .answers import Answering, answer_scores, answer_words
from .embedding import Outputs
from .options import ReidOptions
from .pictures import DISTRACTOR, JUNK, Pictures
from .protocol import NOBODY, SearchScores, protocol, search_all, search_part

RANKS = (1, 5, 10)
COLOURS = "colours alone"


def validation_scores(embedded: Outputs) -> dict[str, float]:
    """error: 1 - mAP with each picture compared with all others, or 1 - accuracy.

    It is 0 if there is no validation part, so that the last epoch counts as the best.
    """
    if not embedded:
        return {"error": 0.0}
    if "probability" in embedded:
        predicted = embedded["probability"].argmax(1)
        accuracy = float((predicted == embedded["label"]).mean())
        return {"error": 1 - accuracy, "accuracy": accuracy}
    camera = None if embedded["camera"].min() < 0 else embedded["camera"]
    scores, _ = search_all(embedded["vectors"], embedded["label"], camera, embedded["condition"])
    return {"error": 1 - scores.mean_ap, "mAP": scores.mean_ap, "rank_1": float(scores.cmc[0])}


def colours(images: Tensor) -> Tensor:
    """Histograms of the colours of six stripes, see `stripe_histograms`: uint8 (B, 3, Y, X) -> (B,
    144)."""
    return stripe_histograms(images // (256 // BINS))


def colours_of(part: Pictures) -> np.ndarray:
    """The colours of all pictures of a part (n, E)."""
    blocks = [
        colours(torch.stack([part.image(index) for index in block]))
        for block in order.sequential(len(part), 64)
    ]
    return torch.cat(blocks).numpy() if blocks else np.zeros((0, COLOUR_WIDTH), np.float32)


def review_search(
    part: Pictures,
    embedded: Outputs,
    options: ReidOptions,
    maps: Sequence[ReportFigure],
    name: str | None = None,
    answering: Answering | None = None,
) -> Review:
    """Scores of a search with intervals by identity, compared with a search by colours.

    name: of the model, by default --model; answering: how the run answers, if it has a threshold.
    """
    name = name or options.model
    model_scores = search_part(part, embedded["vectors"])
    colour_scores = search_part(part, colours_of(part))
    skipped = model_scores.scores.skipped
    if not model_scores.scores.queries:
        return Review(
            {"queries": 0, "skipped": skipped},
            f"none of {skipped} queries has a match in the gallery: nothing to score",
        )
    metrics = {
        **search_metrics(model_scores, options.seed),
        "protocol": protocol(part, model_scores),
        "baselines": {COLOURS: search_metrics(colour_scores, options.seed)},
    }
    rows = {name: metrics, COLOURS: metrics["baselines"][COLOURS]}
    curves = {name: model_scores.scores.cmc, COLOURS: colour_scores.scores.cmc}
    if part.ranked and len(part) <= options.rerank:
        reranked = _reranked(part, embedded["vectors"], model_scores)
        metrics["reranked"] = rows["re-ranked"] = search_metrics(reranked, options.seed)
        curves["re-ranked"] = reranked.scores.cmc
    if not part.ranked:
        metrics["recall_at"] = _recall_of_people(part, embedded["vectors"])
    headline = (
        f"{model_scores.scores.queries} queries: mAP {score_text(metrics, 'mAP')}, rank 1 "
        f"{score_text(metrics, 'rank_1')}; colours alone mAP {score_text(rows[COLOURS], 'mAP')}; "
        f"{metrics['protocol']}"
    )
    table = _score_table(("mAP", *(f"rank_{k}" for k in RANKS), "mINP"), rows)
    tables = {"Scores, 95 % intervals by identity": table}
    if answering is not None:
        metrics["answers"] = answers = answer_scores(part, model_scores, answering, options.seed)
        headline += f"; {answer_words(answers)}"
        tables[f"Answers from a cosine of {answering.threshold:.3f} on"] = answer_table(answers)
    threshold = None if answering is None else answering.threshold
    pictures = [
        figures.match_curves(curves),
        *figures.ranked_lists(part, model_scores),
        figures.similarities(part, model_scores, threshold),
        *maps,
    ]
    return Review(metrics, headline, pictures, tables)


def _reranked(part: Pictures, vectors: np.ndarray, searched: SearchScores) -> SearchScores:
    query, gallery = part.query, part.gallery
    cameras = ()
    if searched.cameras_used and part.cameras is not None:
        cameras = part.cameras[query], part.cameras[gallery]
    distance = rerank(vectors[query], vectors[gallery])
    labels = part.labels[query], part.labels[gallery]
    scores = retrieval.retrieval_scores(distance, *labels, *cameras)
    return SearchScores(scores, distance, searched.labels, searched.cameras_used)


def _recall_of_people(part: Pictures, vectors: np.ndarray) -> dict[str, float]:
    """Recall@K. As in the search, junk does not count, and no distractor is like another."""
    counted = part.labels != JUNK
    distinct = NOBODY - np.arange(len(part))
    labels = np.where(part.labels == DISTRACTOR, distinct, part.labels)
    return _recall(vectors[counted], labels[counted])


def _recall(vectors: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {str(k): value for k, value in retrieval.recall_at(vectors, labels).items()}


def search_metrics(searched: SearchScores, seed: int) -> Metrics:
    """mAP, CMC and mINP with intervals."""
    scores = searched.scores
    intervals = retrieval.bootstrap(scores, searched.labels, seed=seed)
    names = {"mean_ap": "mAP", "mean_inp": "mINP", "rank_1": "rank_1"}
    return {
        "mAP": scores.mean_ap,
        **{f"rank_{k}": float(scores.cmc[min(k, len(scores.cmc)) - 1]) for k in RANKS},
        "mINP": scores.mean_inp,
        "queries": scores.queries,
        "skipped": scores.skipped,
        "cameras": searched.cameras_used,
        "intervals": {names[name]: list(ends) for name, ends in intervals.items()},
    }


def score_text(metrics: Metrics, name: str) -> str:
    """A score, with the ends of its interval if it has a finite one."""
    intervals = cast(Mapping[str, Sequence[float]], metrics.get("intervals", {}))
    ends = intervals.get(name)
    text = f"{metrics[name]:.3f}"
    if ends is not None and np.isfinite(ends).all():
        text += f" ({ends[0]:.3f} to {ends[1]:.3f})"
    return text


def _score_table(names: Sequence[str], rows: Mapping[str, Metrics]) -> pl.DataFrame:
    """One row per score, one column per model."""
    return pl.DataFrame(
        [
            {"score": name} | {model: score_text(row, name) for model, row in rows.items()}
            for name in names
        ]
    )


# What a row of the table is of, and what its share is of.
_ROWS = (
    ("named_rightly", "queries", "query, identity in the gallery", "named rightly"),
    ("named_wrongly", "queries", "query, identity in the gallery", "named wrongly"),
    ("missed", "queries", "query, identity in the gallery", "nobody"),
    ("strangers_named", "strangers", "the same without its identity in the gallery", "named"),
    ("missed_matches", "pairs_of_one_identity", "pair of one identity", "below the threshold"),
    ("false_matches", "pairs_of_two_identities", "pair of two identities", "above the threshold"),
)


def answer_table(scores: Metrics) -> pl.DataFrame:
    """The scores in words, a row for each kind of answer."""
    return pl.DataFrame(
        [
            {"of": of, "number": scores[count], "answer": answer, "share": score_text(scores, name)}
            for name, count, of, answer in _ROWS
        ]
    )


def review_attributes(part: Pictures, embedded: Outputs, attributes: Sequence[str]) -> Review:
    """mAP and Recall@1 of each attribute, compared with a search by colours."""
    spaces = {"cca": embedded["vectors"], COLOURS: colours_of(part)}
    rows: list[dict[str, str | int | float]] = []
    for condition, name in enumerate(attributes):
        members = np.flatnonzero(part.conditions == condition)
        row: dict[str, str | int | float] = {"attribute": name, "pictures": len(members)}
        for model, space in spaces.items():
            labels, no_condition = part.labels[members], np.zeros(len(members))
            scores, _ = search_all(space[members], labels, None, no_condition)
            row |= {f"{model}: mAP": scores.mean_ap, f"{model}: recall at 1": float(scores.cmc[0])}
        rows.append(row)
    table = pl.DataFrame(rows)
    mean = {
        model: {
            "mAP": float(np.nanmean(table[f"{model}: mAP"])),
            "recall_at_1": float(np.nanmean(table[f"{model}: recall at 1"])),
        }
        for model in spaces
    }
    metrics = {**mean["cca"], "attributes": rows, "baselines": {COLOURS: mean[COLOURS]}}
    headline = (
        f"{len(rows)} attributes: mean mAP {metrics['mAP']:.3f}, recall at 1 "
        f"{metrics['recall_at_1']:.3f}; colours alone {mean[COLOURS]['mAP']:.3f}"
    )
    pictures = [
        figures.attributes(table),
        *figures.neighbours(part, embedded["vectors"], attributes),
    ]
    return Review(metrics, headline, pictures, {"Scores by attribute": table})


def review_recognition(
    part: Pictures,
    embedded: Outputs,
    calibration: Calibration,
    options: ReidOptions,
    classes: list[str],
    maps: Sequence[ReportFigure],
    name: str | None = None,
) -> Review:
    """Accuracy and its kin with intervals by picture, compared with a linear model of colours.

    name: of the model, by default --model.
    """
    labels, probability = part.labels, embedded["probability"].astype(np.float64)
    probability /= probability.sum(1, keepdims=True)
    baseline = linear_probabilities(colours_of(part), calibration)
    with_intervals = partial(
        classification.scores_with_intervals,
        labels,
        groups=np.arange(len(labels)),
        seed=options.seed,
    )
    metrics, colour_metrics = with_intervals(probability), with_intervals(baseline)
    metrics["pictures"] = len(part)
    best_5 = np.argsort(-probability, 1)[:, :5]
    metrics["top_5"] = float((best_5 == labels[:, None]).any(1).mean())
    metrics["baselines"] = {COLOURS: colour_metrics}
    metrics["recall_at"] = _recall(embedded["vectors"], labels)
    pictures = [
        figures.confusion(labels, probability, classes),
        figures.calibration(labels, probability, baseline),
        *figures.mistakes(part, probability, classes),
        *maps,
    ]
    headline = (
        f"{len(part)} pictures of {len(classes)} classes: accuracy "
        f"{score_text(metrics, 'accuracy')}; colours alone {score_text(colour_metrics, 'accuracy')}"
    )
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")
    table = _score_table(names, {name or options.model: metrics, COLOURS: colour_metrics})
    return Review(metrics, headline, pictures, {"Scores, 95 % intervals by picture": table})
