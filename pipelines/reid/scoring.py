"""What a model of pictures is worth: by the protocols of search and recognition, beside colours
alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.vision.cca import ConditionalEmbedder
from ...models.vision.dcal import DCAL, probabilities, vectors
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import ReportFigure, Review, Splits
from ..engine.training import order
from ..metrics import classification
from ..metrics.reranking import rerank
from ..metrics.retrieval import (
    Retrieval,
    bootstrap,
    leave_one_out,
    recall_at,
    retrieval_scores,
    score_vectors,
)
from . import figures
from .augment import normalise
from .data import DISTRACTOR, JUNK, Pictures

RANKS = (1, 5, 10)
NOBODY = -2  # the identity of a query that is junk or a distractor: it has no match
STRIPES, BINS = 6, 8  # of the colour histograms
COLOURS = "colours alone"


@torch.no_grad()
def embed(
    model: nn.Module, batches: Iterable[dict[str, Tensor]], size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """vectors (n, E), label, camera, condition, index (n,), and probability (n, K) of a model of
    classes.
    """
    found: dict[str, list[Tensor]] = {}
    for batch in batches:
        each = {name: batch[name] for name in ("label", "camera", "condition", "index")}
        each |= outputs(model, normalise(batch["image"], size), batch["condition"])
        for name, value in each.items():
            found.setdefault(name, []).append(value.cpu())
    return {name: torch.cat(values).numpy() for name, values in found.items()}


@torch.no_grad()
def outputs(model: Any, images: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
    """vectors of normalised pictures, and probability where the model names classes."""
    if isinstance(model, ConditionalEmbedder):
        return {"vectors": model(images) if condition is None else model.embed(images, condition)}
    found = model.branches(images)
    said = {"vectors": vectors(found, model.heads)}
    if model.output == "probabilities":
        said["probability"] = probabilities(found, model.heads)
    return said


def validate(model: nn.Module, batches: Any, options: Any) -> dict[str, float]:
    """error: 1 - mAP of every picture asking all others, or 1 - accuracy; 0 where nothing is kept
    for validation, so that the last epoch counts as the best."""
    plain = getattr(model, "module", model)
    found = embed(plain, batches, tuple(options.size))
    if not found:
        return {"error": 0.0}
    if "probability" in found:
        accuracy = float((found["probability"].argmax(1) == found["label"]).mean())
        return {"error": 1 - accuracy, "accuracy": accuracy}
    camera = None if found["camera"].min() < 0 else found["camera"]
    scored, _ = search_all(found["vectors"], found["label"], camera, found["condition"])
    return {"error": 1 - scored.mean_ap, "mAP": scored.mean_ap, "rank_1": float(scored.cmc[0])}


def search_all(
    given: np.ndarray, labels: np.ndarray, cameras: np.ndarray | None, conditions: np.ndarray
) -> tuple[Retrieval, bool]:
    """Every picture asks all others of its condition, other cameras only where that leaves a match;
    whether it did.
    """
    if conditions.any():
        return leave_one_out(given, labels, groups=conditions), False
    own = np.arange(len(labels))
    asking = np.where(labels > 0, labels, NOBODY)
    if cameras is not None:
        crossed = score_vectors(given, given, asking, labels, cameras, cameras, same=own)
        if crossed.queries:
            return crossed, True
    return score_vectors(given, given, asking, labels, same=own), False


def cosine_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q, G) of vectors of length 1."""
    return 1 - query.astype(np.float32) @ gallery.astype(np.float32).T


def colours(images: Tensor) -> Tensor:
    """Square roots of the colour histograms of six stripes, of length 1 (Hellinger): uint8 (B, 3,
    Y, X) -> (B, E).
    """
    found = []
    for stripe in images.tensor_split(STRIPES, 2):
        level = (stripe.flatten(2) // (256 // BINS)).long()
        found.append(F.one_hot(level, BINS).float().mean(2).flatten(1))
    return F.normalize(torch.cat(found, 1).sqrt())


def colours_of(part: Pictures) -> np.ndarray:
    """(n, E) of all pictures of a part."""
    each = [
        colours(torch.stack([part[k]["image"] for k in block]))
        for block in order.sequential(len(part), 64)
    ]
    return torch.cat(each).numpy() if each else np.zeros((0, 1), np.float32)


def fit_baseline(splits: Splits, seed: int) -> dict[str, Tensor]:
    """Logistic regression of classes on colours (scikit-learn); to search, colours are compared as
    they are.
    """
    if splits.spec["goal"] != "classes":
        return {}
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
    fitted.fit(colours_of(splits.train), splits.train.labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # two classes: one row, the logit of the second
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([[0.0], bias])
    return {
        "baseline_weight": torch.from_numpy(np.ascontiguousarray(weight)),
        "baseline_bias": torch.from_numpy(bias),
    }


def review(
    model: nn.Module,
    part: Pictures,
    calibration: dict[str, Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> Review:
    """Scores with intervals beside colours alone, and the pictures of the report."""
    found = embed_part(model, part, options, device)
    maps = attention_maps(model, part, options, device)
    if "probability" in found:
        return _recognition(part, found, calibration, options, spec, maps)
    if isinstance(model, ConditionalEmbedder):
        return _conditions(part, found, spec)
    return _search(part, found, options, maps)


def embed_part(
    model: nn.Module, part: Pictures, options: Any, device: torch.device
) -> dict[str, np.ndarray]:
    """`embed` over a part, with a progress bar."""
    lists = order.sequential(len(part), options.batch_size)
    loader = order.loader(part, lists, workers=options.workers)

    def moved() -> Any:
        with Progressbar(total=len(part), unit="picture", desc="embed") as bar:
            for batch in loader:
                yield {name: value.to(device) for name, value in batch.items()}
                bar.update(len(batch["index"]))

    return embed(model, moved(), tuple(options.size))


@dataclass(frozen=True)
class Found:
    """Scores of one way to search, and how it was asked."""

    scores: Retrieval
    distance: np.ndarray
    ids: np.ndarray
    cameras_used: bool


def ask(part: Pictures, given: np.ndarray) -> Found:
    """Queries against the gallery, or every picture against all others; by other cameras where that
    can be.
    """
    labels, cameras = part.labels, part.cameras
    if not part.ranked:
        scored, crossed = search_all(given, labels, cameras, part.conditions)
        return Found(scored, cosine_distances(given, given), labels, crossed)
    query, gallery = part.query, part.gallery
    both = (given[query], given[gallery], labels[query], labels[gallery])
    if cameras is not None:
        scored = score_vectors(*both, cameras[query], cameras[gallery])
        if scored.queries:
            return Found(scored, cosine_distances(*both[:2]), labels[query], True)
    return Found(score_vectors(*both), cosine_distances(*both[:2]), labels[query], False)


def _search(
    part: Pictures, found: dict[str, np.ndarray], options: Any, maps: list[ReportFigure]
) -> Review:
    own, beside = ask(part, found["vectors"]), ask(part, colours_of(part))
    if not own.scores.queries:
        return Review(
            {"queries": 0, "skipped": own.scores.skipped},
            f"none of {own.scores.skipped} queries has a match in the gallery: nothing to score",
        )
    metrics = {**scores_of(own, options.seed), "protocol": protocol(part, own)}
    metrics["baselines"] = {COLOURS: scores_of(beside, options.seed)}
    rows = {options.model: metrics, COLOURS: metrics["baselines"][COLOURS]}
    curves = {options.model: own.scores.cmc, COLOURS: beside.scores.cmc}
    if part.ranked and len(part) <= options.rerank:
        query, gallery = part.query, part.gallery
        cameras = (
            (part.cameras[query], part.cameras[gallery])
            if own.cameras_used and part.cameras is not None
            else ()
        )
        again = rerank(found["vectors"][query], found["vectors"][gallery])
        scored = retrieval_scores(again, part.labels[query], part.labels[gallery], *cameras)
        reranked = Found(scored, again, own.ids, own.cameras_used)
        metrics["reranked"] = rows["re-ranked"] = scores_of(reranked, options.seed)
        curves["re-ranked"] = scored.cmc
    if not part.ranked:
        # As above: junk counts for nobody, and no distractor is like another.
        kept = part.labels != JUNK
        apart = np.where(part.labels == DISTRACTOR, NOBODY - np.arange(len(part)), part.labels)
        metrics["recall_at"] = {
            str(k): v for k, v in recall_at(found["vectors"][kept], apart[kept]).items()
        }
    names = ("mAP", *(f"rank_{k}" for k in RANKS), "mINP")
    table = pl.DataFrame(
        [{"score": name, **{who: _shown(row, name) for who, row in rows.items()}} for name in names]
    )
    pictures = [
        figures.match_curves(curves),
        *figures.ranked_lists(part, own),
        figures.alike(part, own),
        *maps,
    ]
    headline = (
        f"{own.scores.queries} queries: mAP {_shown(metrics, 'mAP')}, rank 1 {_shown(metrics, 'rank_1')}; "
        f"colours alone mAP {_shown(metrics['baselines'][COLOURS], 'mAP')}; {metrics['protocol']}"
    )
    return Review(metrics, headline, pictures, {"Scores, 95 % intervals by identity": table})


def protocol(part: Pictures, found: Found) -> str:
    """How was asked, in a few words."""
    if part.cameras is None:
        cameras = "no cameras are known, so pictures of one camera count"
    elif found.cameras_used:
        cameras = "pictures of the query's identity and camera do not count"
    else:
        cameras = "cameras are ignored, as no query has a match of another camera"
    how = "queries against the gallery" if part.ranked else "each picture against all others"
    skipped = (
        f", {found.scores.skipped} queries without a match left out" if found.scores.skipped else ""
    )
    return f"{how}; {cameras}{skipped}"


def scores_of(found: Found, seed: int) -> dict[str, Any]:
    """mAP, CMC, mINP with intervals."""
    scored = found.scores
    between = bootstrap(scored, found.ids, seed=seed)
    cmc = {f"rank_{k}": float(scored.cmc[min(k, len(scored.cmc)) - 1]) for k in RANKS}
    names = {"mean_ap": "mAP", "mean_inp": "mINP", "rank_1": "rank_1"}
    return {
        "mAP": scored.mean_ap,
        **cmc,
        "mINP": scored.mean_inp,
        "queries": scored.queries,
        "skipped": scored.skipped,
        "cameras": found.cameras_used,
        "intervals": {names[name]: list(ends) for name, ends in between.items()},
    }


def _shown(found: dict[str, Any], name: str) -> str:
    ends = found.get("intervals", {}).get(name)
    between = (
        f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends is not None and np.isfinite(ends).all() else ""
    )
    return f"{found[name]:.3f}{between}"


def _conditions(part: Pictures, found: dict[str, np.ndarray], spec: dict[str, Any]) -> Review:
    """mAP and Recall@1 of each attribute."""
    flat = colours_of(part)
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(spec["attributes"]):
        own = np.flatnonzero(part.conditions == place)
        row: dict[str, Any] = {"attribute": name, "pictures": len(own)}
        for who, given in (("cca", found["vectors"]), (COLOURS, flat)):
            scored, _ = search_all(given[own], part.labels[own], None, np.zeros(len(own)))
            row |= {f"{who}: mAP": scored.mean_ap, f"{who}: recall at 1": float(scored.cmc[0])}
        rows.append(row)
    table = pl.DataFrame(rows)
    mean = {name: float(np.nanmean(table[name])) for name in table.columns[2:]}
    metrics = {
        "mAP": mean["cca: mAP"],
        "recall_at_1": mean["cca: recall at 1"],
        "attributes": rows,
        "baselines": {
            COLOURS: {
                "mAP": mean[f"{COLOURS}: mAP"],
                "recall_at_1": mean[f"{COLOURS}: recall at 1"],
            }
        },
    }
    headline = (
        f"{len(rows)} attributes: mean mAP {metrics['mAP']:.3f}, recall at 1 {metrics['recall_at_1']:.3f}; colours "
        f"alone mAP {mean[f'{COLOURS}: mAP']:.3f}"
    )
    return Review(
        metrics,
        headline,
        [figures.attributes(table), *figures.neighbours(part, found["vectors"], spec)],
        {"Scores by attribute": table},
    )


def _recognition(
    part: Pictures,
    found: dict[str, np.ndarray],
    calibration: dict[str, Tensor],
    options: Any,
    spec: dict[str, Any],
    maps: list[ReportFigure],
) -> Review:
    labels, probability = part.labels, found["probability"].astype(np.float64)
    probability /= probability.sum(1, keepdims=True)
    flat = torch.from_numpy(colours_of(part)).double()
    base = F.softmax(
        flat @ calibration["baseline_weight"].double().T + calibration["baseline_bias"], 1
    ).numpy()
    own, beside = (_classified(labels, given, options.seed) for given in (probability, base))
    own["pictures"] = len(part)
    own["top_5"] = float((np.argsort(-probability, 1)[:, :5] == labels[:, None]).any(1).mean())
    metrics = {**own, "baselines": {COLOURS: beside}}
    metrics["recall_at"] = {str(k): v for k, v in recall_at(found["vectors"], labels).items()}
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")
    rows = [
        {"score": name, options.model: _shown(own, name), COLOURS: _shown(beside, name)}
        for name in names
    ]
    pictures = [
        figures.confusion(labels, probability, spec["classes"]),
        figures.calibration(labels, probability, base),
        *figures.mistakes(part, probability, spec["classes"]),
        *maps,
    ]
    headline = (
        f"{len(part)} pictures of {len(spec['classes'])} classes: accuracy {_shown(own, 'accuracy')}; colours alone "
        f"{_shown(beside, 'accuracy')}"
    )
    return Review(
        metrics, headline, pictures, {"Scores, 95 % intervals by picture": pl.DataFrame(rows)}
    )


def _classified(labels: np.ndarray, probability: np.ndarray, seed: int) -> dict[str, Any]:
    between = classification.bootstrap(labels, probability, np.arange(len(labels)), seed=seed)
    scores = classification.scores(labels, probability)
    return {**scores, "intervals": {name: list(ends) for name, ends in between.items()}}


@torch.no_grad()
def attention_maps(
    model: nn.Module, part: Pictures, options: Any, device: torch.device
) -> list[ReportFigure]:
    """Rollout over a few pictures; none for a mechanism that has no rollout."""
    if not isinstance(model, DCAL) or not model.trunk.readable or not len(part):
        return []
    which = np.linspace(0, len(part) - 1, min(8, len(part))).round().astype(int)
    images = torch.stack([part[int(k)]["image"] for k in which])
    x = normalise(images, tuple(options.size))
    rows = model.rollout(x.to(device)).float().cpu().numpy()
    return [figures.rollout(x, rows, [part.names()[k] for k in which])]
