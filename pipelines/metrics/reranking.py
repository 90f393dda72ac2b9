"""Re-ranking by k-reciprocal encoding (Zhong et al., CVPR 2017, arXiv 1701.08398), in blocks.

Shapes: Q queries, G gallery pictures, N = Q + G, D numbers of a vector, K = k1 + 1 neighbours with
the picture itself. There is never an N x N array: neighbours are stored as (N, K), encodings are
sparse, and distances are computed where they are needed."""

import numpy as np
from scipy import sparse

from .vectors import squared_euclidean

TRIPLES = 1 << 21  # numbers of a query's and a gallery picture's encoding compared at once
PAIR_NUMBERS = 1 << 22  # numbers of vectors whose distances are computed pair by pair


def rerank(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    block: int = 512,
) -> np.ndarray:
    """Distances after re-ranking, float32 (Q, G): weight * original + (1 - weight) * Jaccard
    (equation 12).

    query (Q, D), gallery (G, D): finite numbers, taken as float32; pass unit vectors for the
    cosine. k1: neighbours of which the reciprocal ones encode a picture; k2: neighbours
    whose encodings are averaged (equation 11), at most k1 + 1. Both count the picture itself as the
    paper's code does. weight: of the original distance, from 0 to 1. block: rows of distances at
    once.

    As in the authors' code, original distances are squared Euclidean, divided by the largest of
    their row over all N, and the expansion takes more than two thirds of a set where equation 5 has
    two thirds or more. A picture is its own first neighbour; other equal distances are in the order
    of queries, then gallery."""
    vectors = _joined(query, gallery)
    if k1 < 1 or not 1 <= k2 <= k1 + 1 or not 0 <= weight <= 1 or block < 1:
        values = f"k1 {k1}, k2 {k2}, weight {weight}, block {block}"
        raise ValueError(
            "rerank: needs k1 >= 1, k2 from 1 to k1 + 1, weight from 0 to 1, block >= 1; got "
            f"{values}"
        )
    queries, width = len(query), len(gallery)
    final = np.empty((queries, width), np.float32)
    if not final.size:
        return final
    near, farthest = _neighbours(vectors, min(k1 + 1, len(vectors)), block)
    encoding = _encoded(vectors, _expanded(near, k1), farthest)
    if k2 > 1:
        encoding = sparse.csr_array(_incidence(near[:, :k2]).astype(np.float32) @ encoding)
        encoding.data /= min(k2, len(vectors))
    asked, columns = (
        _rows(encoding, 0, queries),
        sparse.csc_array(_rows(encoding, queries, len(vectors))),
    )
    del encoding, near
    triples = np.append(0, np.cumsum(np.diff(columns.indptr)[asked.indices]))[asked.indptr]
    start = 0
    while start < queries:
        # As many rows as fit, at least one.
        stop = int(np.searchsorted(triples, triples[start] + TRIPLES, "right")) - 1
        stop = min(max(stop, start + 1), start + block, queries)
        common = _common(_rows(asked, start, stop), columns)
        part = squared_euclidean(vectors[start:stop], vectors[queries:])
        part *= weight / farthest[start:stop, None]
        # Each encoding sums to 1, so the union is 2 minus the common part.
        part += (1 - weight) * (1 - common / (2 - common))
        final[start:stop] = part
        start = stop
    return final


def _joined(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    query, gallery = np.asarray(query), np.asarray(gallery)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            "rerank: query and gallery must be (Q, D) and (G, D), got "
            f"{query.shape}, {gallery.shape}"
        )
    if query.dtype.kind not in "fiu" or gallery.dtype.kind not in "fiu":
        raise ValueError(f"rerank: vectors must be numbers, got {query.dtype}, {gallery.dtype}")
    vectors = np.concatenate([query, gallery], dtype=np.float32, casting="unsafe")
    if not np.isfinite(vectors).all():
        raise ValueError("rerank: vectors must be finite")
    return vectors


def _neighbours(vectors: np.ndarray, k: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each picture, the nearest first, int64 (N, k); its largest squared distance,
    float32 (N,).
    """
    near = np.empty((len(vectors), k), np.int64)
    farthest = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), block):
        part = vectors[start : start + block]
        distance = squared_euclidean(part, vectors)
        block_rows = slice(start, start + len(part))
        farthest[block_rows] = distance.max(axis=1)
        if not np.isfinite(farthest[block_rows]).all():
            raise ValueError(
                "rerank: squared distances must be finite in float32; scale the vectors"
            )
        # A picture is its own first neighbour despite rounding and identical pictures.
        distance[np.arange(len(part)), np.arange(start, start + len(part))] = -1
        some = np.argpartition(distance, k - 1, axis=1)[:, :k]
        value = np.take_along_axis(distance, some, axis=1)
        # Where more are as near as the last one, a partition takes any of them; a stable sort takes
        # the first.
        crowded = np.flatnonzero(
            np.count_nonzero(distance <= value.max(axis=1, keepdims=True), axis=1) > k
        )
        near[block_rows] = np.take_along_axis(some, np.lexsort((some, value), axis=1), axis=1)
        if len(crowded):
            near[start + crowded] = np.argsort(distance[crowded], axis=1, kind="stable")[:, :k]
    return near, np.maximum(farthest, np.finfo(np.float32).tiny)


def _incidence(near: np.ndarray) -> sparse.csr_array:
    """int32 (N, N) with a 1 for each neighbour (N, k) of each row."""
    count, k = near.shape
    return sparse.csr_array(
        (np.ones(near.size, np.int32), near.reshape(-1), np.arange(0, near.size + 1, k)),
        shape=(count, count),
    )


def _reciprocal(near: np.ndarray) -> sparse.csr_array:
    """Mutual neighbours (equation 3), int32 (N, N), symmetric."""
    nearest = _incidence(near)
    return _product(nearest, sparse.csr_array(nearest.T))


def _expanded(near: np.ndarray, k1: int) -> sparse.csr_array:
    """Expanded k-reciprocal sets (equation 5): above 0 (N, N) for each member of each row's set."""
    reciprocal = _reciprocal(near)
    half = _reciprocal(near[:, : int(np.around(k1 / 2)) + 1])
    # How much of a member's own half set lies in the row's set; half sets are symmetric.
    shared = _product(sparse.csr_array(reciprocal @ half), reciprocal)
    shared.data = (3 * shared.data > 2 * np.diff(half.indptr)[shared.indices]).astype(np.int32)
    shared.eliminate_zeros()
    return sparse.csr_array(reciprocal + shared @ half)


def _product(a: sparse.csr_array, b: sparse.csr_array) -> sparse.csr_array:
    """The elementwise product."""
    return sparse.csr_array(a.multiply(b))


def _rows(a: sparse.csr_array, start: int, stop: int) -> sparse.csr_array:
    """Rows start to stop, without a copy of their numbers."""
    numbers = slice(a.indptr[start], a.indptr[stop])
    indptr = a.indptr[start : stop + 1] - a.indptr[start]
    width = a.shape[1]  # pyright: ignore[reportOptionalSubscript]
    return sparse.csr_array(
        (a.data[numbers], a.indices[numbers], indptr), shape=(stop - start, width)
    )


def _encoded(
    vectors: np.ndarray, expanded: sparse.csr_array, farthest: np.ndarray
) -> sparse.csr_array:
    """exp(-distance) for the members of each set (equation 7), float32 (N, N), rows summing to
    1.
    """
    row, column = np.repeat(np.arange(len(vectors)), np.diff(expanded.indptr)), expanded.indices
    value = np.empty(len(row), np.float32)
    step = max(1, PAIR_NUMBERS // max(1, vectors.shape[1]))
    for k in range(0, len(row), step):
        difference = vectors[row[k : k + step]]
        difference -= vectors[column[k : k + step]]
        value[k : k + step] = np.einsum("pd,pd->p", difference, difference)
    value /= farthest[row]
    np.exp(-value, out=value)
    value /= np.bincount(row, value, len(vectors))[row]
    return sparse.csr_array((value, column, expanded.indptr), shape=expanded.shape)


def _common(asked: sparse.csr_array, columns: sparse.csc_array) -> np.ndarray:
    """Sums of the smaller number of two encodings (equation 10), float64: (rows of asked, rows of
    columns).
    """
    rows, width = len(asked.indptr) - 1, columns.shape[0]  # pyright: ignore[reportOptionalSubscript]
    begins = columns.indptr[asked.indices].astype(np.int64)
    count = columns.indptr[asked.indices + 1] - begins
    ends = np.cumsum(count)
    place = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - count), count)
    smaller = np.minimum(np.repeat(asked.data, count), columns.data[place])
    row = np.repeat(np.arange(rows), np.diff(asked.indptr))
    cell = np.repeat(row * width, count) + columns.indices[place]
    return np.bincount(cell, smaller, rows * width).reshape(rows, width)
