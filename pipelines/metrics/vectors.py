"""Vectors and labels of retrieval: checked, and the distances between vectors.

Shapes: Q queries, G gallery pictures, N pictures, D numbers of a vector. `ValueError` for shapes or
numbers that do not fit.
"""

import numpy as np

METRICS = ("cosine", "euclidean")


def squared_euclidean(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (Q, G) of float32 vectors by one matrix product, none below 0."""
    # Ranking refuses distances that are not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        distance = query @ gallery.T
        distance *= -2
        distance += np.einsum("qd,qd->q", query, query)[:, None]
        distance += np.einsum("gd,gd->g", gallery, gallery)
    return np.maximum(distance, 0, out=distance)


def checked_vectors(vectors: np.ndarray, metric: str, name: str) -> np.ndarray:
    """The vectors as finite float32 (N, D), of unit length for the cosine."""
    if metric not in METRICS:
        raise ValueError(f"retrieval: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise ValueError(
            f"retrieval: {name} must be numbers (N, D), got {vectors.dtype} {vectors.shape}"
        )
    vectors = np.ascontiguousarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"retrieval: {name} must be finite")
    if metric == "cosine":
        # The largest number first, so that squares neither overflow nor vanish.
        vectors = vectors / np.maximum(
            np.abs(vectors).max(axis=1, keepdims=True, initial=0), np.finfo(np.float32).tiny
        )
        vectors /= np.maximum(
            np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny
        )
    return vectors


def checked_integers(values: np.ndarray, name: str) -> np.ndarray:
    """Whole numbers (N,) as int64."""
    values = np.asarray(values)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
        raise ValueError(
            f"retrieval: {name} must be whole numbers in one row, got {values.dtype} {values.shape}"
        )
    return values.astype(np.int64, copy=False)


def check_ranks(ranks: int) -> None:
    """Refuse a number of ranks below 1."""
    if ranks < 1:
        raise ValueError(f"retrieval: ranks must be at least 1, got {ranks}")
