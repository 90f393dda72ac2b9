"""Who is in a picture, or nobody: the threshold and the probability that a run keeps, fitted on its
validation part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from ...base.account import note
from ..engine.pipeline import Calibration, Metrics
from ..metrics.bootstrap import interval_of_mean
from ..metrics.open_set import Nearest, choose_open_threshold, nearest_of
from ..metrics.operating import fit_logistic
from .pictures import JUNK, Pictures
from .protocol import SearchScores, search_part

NOBODY = "nobody"
MOST_PICTURES = 2000  # of the validation part that are compared with each other
MUCH_LARGER = 3  # times as many pictures as the gallery of the threshold, from which it is said


@dataclass(frozen=True)
class Answering:
    """How a search answers.

    threshold: cosine from which the nearest picture names a query; slope, intercept: of the
    log-odds that a pair shows one identity; nearest: cosines of the searches of the validation part
    that the threshold is chosen by; gallery: pictures that each of them was compared with; width:
    numbers of the vectors.
    """

    threshold: float
    slope: float
    intercept: float
    nearest: Nearest
    gallery: int
    width: int

    def probability(self, cosine: np.ndarray) -> np.ndarray:
        """That the two pictures of a pair show one identity, of any shape."""
        return 1 / (1 + np.exp(-(self.slope * cosine.astype(np.float64) + self.intercept)))

    def at(self, false_match: float | None) -> Answering:
        """With the threshold of another share of false matches; None: as it is."""
        if false_match is None:
            return self
        return replace(self, threshold=_threshold(self.nearest, false_match))

    def tensors(self) -> Calibration:
        """What the run keeps."""
        numbers = {
            "answer_map": [self.threshold, self.slope, self.intercept],
            "answer_match": self.nearest.match,
            "answer_other": self.nearest.other,
        }
        counts = {"answer_right": self.nearest.right, "answer_sizes": [self.gallery, self.width]}
        return {
            **{name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()},
            **{name: torch.tensor(value, dtype=torch.int64) for name, value in counts.items()},
        }


def stored_answering(calibration: Calibration) -> Answering | None:
    """How a run answers; None where it has no threshold, as runs of older versions have none."""
    if "answer_map" not in calibration:
        return None
    threshold, slope, intercept = calibration["answer_map"].tolist()
    gallery, width = calibration["answer_sizes"].tolist()
    match, right, other = (
        calibration[f"answer_{name}"].cpu().numpy() for name in ("match", "right", "other")
    )
    return Answering(threshold, slope, intercept, Nearest(match, right > 0, other), gallery, width)


def fit_answering(
    validation: Pictures, vectors: np.ndarray, false_match: float | None
) -> Answering | None:
    """The threshold and the probability by searches in the validation part: each picture among all
    others, with its identity and without; None where there is nothing to compare.

    vectors: (n, E) of length 1.
    """
    part, vectors = _some_identities(validation, vectors)
    searched = search_part(part, vectors)
    similarity, query_ids, gallery_ids, counted = compared(part, searched)
    nearest = nearest_of(similarity, query_ids, gallery_ids, counted)
    if np.isnan(nearest.match).all() or np.isnan(nearest.other).all():
        return None
    same = (query_ids[:, None] == gallery_ids)[counted]
    slope, intercept = fit_logistic(similarity[counted], same)
    threshold = _threshold(nearest, false_match)
    size = int(np.median(counted.sum(1)))
    return Answering(threshold, slope, intercept, nearest, size, vectors.shape[1])


def _threshold(nearest: Nearest, false_match: float | None) -> float:
    strangers = int((~np.isnan(nearest.other)).sum())
    if false_match is not None and false_match * strangers < 1:
        what = f"the threshold is above all of the {strangers} searches of the validation part"
        note("assumed", f"{what} for nobody, which are too few to show a share of {false_match:g}")
    return choose_open_threshold(nearest, false_match)


def _some_identities(part: Pictures, vectors: np.ndarray) -> tuple[Pictures, np.ndarray]:
    """A part, or the pictures of its first identities."""
    if len(part) <= MOST_PICTURES:
        return part, vectors
    order = np.argsort(part.labels, kind="stable")
    places = np.sort(order[part.labels[order] > 0][:MOST_PICTURES])
    return Pictures(part.source, part.rows[places], part.labels[places]), vectors[places]


def compared(
    part: Pictures, searched: SearchScores
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cosines (Q, G), identities of the queries (Q,) and of the gallery (G,), and which pairs count
    (Q, G), by the protocol of the search. Junk and distractors are no queries.
    """
    every = np.arange(len(part))
    query, gallery = (part.query, part.gallery) if part.ranked else (every, every)
    people = part.labels[query] > 0
    query, similarity = query[people], 1 - searched.distance[people]
    query_ids, gallery_ids = part.labels[query], part.labels[gallery]
    counted = np.broadcast_to(gallery_ids != JUNK, similarity.shape).copy()
    counted &= query[:, None] != gallery
    if searched.cameras_used and part.cameras is not None:
        same_camera = part.cameras[query][:, None] == part.cameras[gallery]
        counted &= ~(same_camera & (query_ids[:, None] == gallery_ids))
    return similarity, query_ids, gallery_ids, counted


def answer_scores(
    part: Pictures, searched: SearchScores, answering: Answering, seed: int
) -> Metrics:
    """How often the answers of a part are right: of queries whose identity is in the gallery, of
    the same queries without it, and of all pairs; with 95 % intervals by identity.
    """
    similarity, query_ids, gallery_ids, counted = compared(part, searched)
    nearest, threshold = (
        nearest_of(similarity, query_ids, gallery_ids, counted),
        answering.threshold,
    )
    same = query_ids[:, None] == gallery_ids
    one, two = similarity[counted & same], similarity[counted & ~same]
    known, stranger = ~np.isnan(nearest.match), ~np.isnan(nearest.other)
    right, named = nearest.found_at(threshold), nearest.named_at(threshold)
    nobody = nearest.match[known] < threshold
    means = {
        "named_rightly": (right, query_ids[known]),
        "named_wrongly": (~right & ~nobody, query_ids[known]),
        "missed": (nobody, query_ids[known]),
        "strangers_named": (named, query_ids[stranger]),
    }
    intervals = {
        name: list(interval_of_mean(values.astype(float), groups, seed=seed))
        for name, (values, groups) in means.items()
        if len(np.unique(groups)) > 1
    }
    return {
        "threshold": threshold,
        "validation_queries": len(answering.nearest.match),
        "validation_gallery": answering.gallery,
        "queries": int(known.sum()),
        "strangers": int(stranger.sum()),
        **{name: _share(values) for name, (values, _) in means.items()},
        "pairs_of_one_identity": len(one),
        "missed_matches": _share(one < threshold),
        "pairs_of_two_identities": len(two),
        "false_matches": _share(two >= threshold),
        "intervals": intervals,
    }


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def answer_words(scores: Metrics) -> str:
    """The same in a clause of a headline."""
    return (
        f"at the threshold of the validation part {scores['named_rightly']:.1%} of the queries are "
        f"named rightly, and {scores['strangers_named']:.1%} get a name where their identity is "
        "not in the gallery"
    )


def with_answers(rows: pl.DataFrame, cosine: np.ndarray, answering: Answering) -> pl.DataFrame:
    """Ranked lists with `probability` of each hit and the `answer` to each query: the identity of
    its first hit (where that is unknown, its item) if the cosine reaches the threshold, or nobody.

    rows: query, rank, item, identity, by query and rank; cosine: (Q, k).
    """
    k = cosine.shape[1]
    first = rows.select(pl.coalesce("identity", "item")).to_series().to_list()[::k]
    names = [
        name if best >= answering.threshold else NOBODY
        for name, best in zip(first, cosine[:, 0], strict=True)
    ]
    return rows.with_columns(
        probability=pl.Series(answering.probability(cosine).ravel(), dtype=pl.Float32),
        answer=pl.Series(np.repeat(np.array(names, dtype=object), k).tolist(), dtype=pl.String),
    )


def answer_line(hits: pl.DataFrame) -> str:
    """The answer to a query in words. hits: its rows, best first."""
    answer, probability = hits.select("answer", "probability").row(0)
    return (
        f"nobody in the gallery (of the nearest picture: probability {probability:.3f})"
        if answer == NOBODY
        else f"{answer}, probability {probability:.3f}"
    )


def threshold_line(answering: Answering, gallery: int) -> str:
    """What the threshold was chosen by, and whether a gallery of that many pictures is another."""
    named = answering.nearest.named_at(answering.threshold).mean()
    missed = 1 - answering.nearest.found_at(answering.threshold).mean()
    text = (
        f"a name from a cosine of {answering.threshold:.3f} on: in searches of the validation part "
        f"(galleries of {answering.gallery} pictures) {named:.1%} of those who were not in the "
        f"gallery got a name, and {missed:.1%} of those who were got none or another"
    )
    if gallery > MUCH_LARGER * answering.gallery:
        text += f"; among {gallery} pictures more strangers will get one (--false-match)"
    return text
