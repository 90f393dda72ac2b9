"""How pictures are searched for: queries against the gallery, or each picture against all others.

Vectors are float (n, E) of length 1; labels as in `data`: -1 of junk, 0 of distractors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metrics.retrieval import Retrieval, leave_one_out, score_vectors
from .pictures import Pictures

NOBODY = -2  # the identity of a query that is junk or a distractor: it has no match


@dataclass(frozen=True)
class SearchScores:
    """Scores of one way to search, and how the search was done.

    distance: cosine distances (Q, G); labels: of the queries (Q,); cameras_used: whether pictures
    of a query's identity and camera do not count.
    """

    scores: Retrieval
    distance: np.ndarray
    labels: np.ndarray
    cameras_used: bool


def search_part(part: Pictures, vectors: np.ndarray) -> SearchScores:
    """Compare queries with the gallery, or each picture with all others; across cameras where
    possible."""
    scores, crossed = score_part(part, vectors)
    if not part.ranked:
        return SearchScores(scores, cosine_distances(vectors, vectors), part.labels, crossed)
    query, gallery = part.query, part.gallery
    distance = cosine_distances(vectors[query], vectors[gallery])
    return SearchScores(scores, distance, part.labels[query], crossed)


def score_part(part: Pictures, vectors: np.ndarray) -> tuple[Retrieval, bool]:
    """The scores of `search_part` without the distances, and whether only pictures of other cameras
    counted.
    """
    labels, cameras = part.labels, part.cameras
    if not part.ranked:
        return search_all(vectors, labels, cameras, part.conditions)
    query, gallery = part.query, part.gallery
    arguments = (vectors[query], vectors[gallery], labels[query], labels[gallery])
    if cameras is not None:
        scores = score_vectors(*arguments, cameras[query], cameras[gallery])
        if scores.queries:
            return scores, True
    return score_vectors(*arguments), False


def search_all(
    vectors: np.ndarray, labels: np.ndarray, cameras: np.ndarray | None, conditions: np.ndarray
) -> tuple[Retrieval, bool]:
    """Scores of each picture compared with all others of its condition, and whether only pictures
    of other cameras counted, which is so if some query then has a match."""
    if conditions.any():
        return leave_one_out(vectors, labels, groups=conditions), False
    places = np.arange(len(labels))
    identities = np.where(labels > 0, labels, NOBODY)
    if cameras is not None:
        crossed = score_vectors(vectors, vectors, identities, labels, cameras, cameras, same=places)
        if crossed.queries:
            return crossed, True
    return score_vectors(vectors, vectors, identities, labels, same=places), False


def cosine_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """float32 (Q, G) of vectors of length 1."""
    return 1 - query.astype(np.float32) @ gallery.astype(np.float32).T


def protocol(part: Pictures, searched: SearchScores) -> str:
    """How the search was done, in a few words."""
    if part.cameras is None:
        cameras = "no cameras are known, so pictures of one camera count"
    elif searched.cameras_used:
        cameras = "pictures of the query's identity and camera do not count"
    else:
        cameras = "cameras are ignored, as no query has a match of another camera"
    how = "queries against the gallery" if part.ranked else "each picture against all others"
    count = searched.scores.skipped
    skipped = f", {count} queries without a match left out" if count else ""
    return f"{how}; {cameras}{skipped}"
