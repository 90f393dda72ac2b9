"""Retrieval metrics of re-identification and metric learning, without a sort for every query.

Shapes: Q queries, G gallery pictures, N pictures that are queries for all others, D numbers of a
vector, P pairs of a query and one of its matches, I identities. distance: finite floats (Q, G),
smaller is nearer; ids, cameras, groups and labels: whole numbers. Equal distances are in the order
of the gallery, as by a stable sort. Undefined values are NaN. `ValueError` for shapes or numbers
that do not fit."""

from dataclasses import dataclass

import numpy as np

from .bootstrap import DRAWS, UNDEFINED, Interval, bootstrap_intervals
from .vectors import check_ranks, checked_integers, checked_vectors, squared_euclidean

BLOCK_NUMBERS = 1 << 22  # distances computed at once
CACHE_NUMBERS = 1 << 20  # distances ranked at once: what is derived from them stays in the cache
MOST_TIES = 64  # tied matches per query, above which a stable sort is cheaper than comparing each


@dataclass(frozen=True)
class Retrieval:
    """How high the gallery's pictures of the queries' identities rank.

    mean_ap     mean of the average precision
    mean_inp    mean of the inverse negative penalty (Ye et al., arXiv 2001.04193, equation 5)
    cmc         (ranks,) float64, share of queries with a match among the k nearest, k from 1
    ap          (Q,) float64, NaN for skipped queries
    inp         (Q,) float64, matches over the rank of the farthest one; NaN for skipped queries
    first_rank  (Q,) int64, rank of the nearest match, from 1; 0 for skipped queries
    queries     how many count
    skipped     how many have no match in the gallery
    cameras     whether pictures of the query's own camera were left out
    """

    mean_ap: float
    mean_inp: float
    cmc: np.ndarray
    ap: np.ndarray
    inp: np.ndarray
    first_rank: np.ndarray
    queries: int
    skipped: int
    cameras: bool


def retrieval_scores(
    distance: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None,
    gallery_cameras: np.ndarray | None = None,
    *,
    ranks: int = 50,
    same: np.ndarray | None = None,
    junk: int | None = -1,
    distractor: int | None = 0,
) -> Retrieval:
    """Scores by the protocol of Market-1501 (Zheng et al., ICCV 2015).

    Gallery pictures of the query's identity and camera are left out; without cameras none is. Those
    of identity `junk` are left out for every query; those of identity `distractor` are wrong for
    every query. A query without a match is skipped. Average precision is the mean, over a query's
    matches, of the precision at each.

    distance (Q, G), kept in float32 or float64; query_ids, query_cameras (Q,); gallery_ids,
    gallery_cameras (G,). same: (Q,) place of the query's own picture in the gallery, which is left
    out; -1 for none. junk, distractor: None where every number is an identity. Memory besides the
    arguments: up to 64 MiB, more for galleries above 2^20."""
    distance = np.asarray(distance)
    plan = _planned(query_ids, gallery_ids, query_cameras, gallery_cameras, same, junk, distractor)
    if distance.shape != plan.shape:
        raise ValueError(
            f"retrieval: distance {distance.shape} does not fit {plan.shape} queries and gallery "
            "pictures"
        )
    check_ranks(ranks)
    return _collected([_ranked(distance, plan, 0)], ranks, plan.gallery_cameras is not None)


def score_vectors(
    query: np.ndarray,
    gallery: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None = None,
    gallery_cameras: np.ndarray | None = None,
    *,
    metric: str = "cosine",
    block: int | None = None,
    ranks: int = 50,
    same: np.ndarray | None = None,
    junk: int | None = -1,
    distractor: int | None = 0,
) -> Retrieval:
    """`retrieval_scores` of vectors (Q, D) and (G, D), without holding their distances.

    metric: `cosine`, one minus the cosine (a zero vector is at 1 from all), or `euclidean`,
    squared; in float32. block: queries at once; none: so many that there are at most 2^22
    distances."""
    query, gallery = (
        checked_vectors(query, metric, "query"),
        checked_vectors(gallery, metric, "gallery"),
    )
    plan = _planned(query_ids, gallery_ids, query_cameras, gallery_cameras, same, junk, distractor)
    check_ranks(ranks)
    if (len(query), len(gallery)) != plan.shape or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"retrieval: vectors {query.shape} and {gallery.shape} do not fit {plan.shape} ids"
        )
    return _collected(
        _by_blocks(query, gallery, plan, metric, block), ranks, plan.gallery_cameras is not None
    )


def leave_one_out(
    vectors: np.ndarray,
    labels: np.ndarray,
    *,
    metric: str = "cosine",
    groups: np.ndarray | None = None,
    ranks: int = 50,
) -> Retrieval:
    """Every picture is a query for all others; those with its label are the matches.

    vectors (N, D), metric: as of `score_vectors`. labels (N,): every number is a label. groups
    (N,): a picture is a query only for its group, for instance those under one attribute. A picture
    that is the only one with its label is skipped."""
    vectors, labels = (
        checked_vectors(vectors, metric, "vectors"),
        checked_integers(labels, "labels"),
    )
    check_ranks(ranks)
    groups = (
        np.zeros(len(labels), np.int64) if groups is None else checked_integers(groups, "groups")
    )
    if not len(vectors) == len(labels) == len(groups):
        raise ValueError(
            f"retrieval: {len(vectors)} vectors, {len(labels)} labels, {len(groups)} groups"
        )
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    parts = []
    for rows in np.split(order, starts):
        plan = _planned(labels[rows], labels[rows], None, None, np.arange(len(rows)), None, None)
        members = vectors[rows]
        parts += _by_blocks(members, members, plan, metric, None)
    back = np.argsort(order)
    ap, inp, first = (np.concatenate(values)[back] for values in zip(*parts, strict=True))
    return _collected([(ap, inp, first)], ranks, False)


def recall_at(
    vectors: np.ndarray,
    labels: np.ndarray,
    ks: tuple[int, ...] = (1, 2, 4, 8),
    *,
    metric: str = "cosine",
    groups: np.ndarray | None = None,
) -> dict[int, float]:
    """Recall@K of metric learning by K: share of pictures whose K nearest others include one with
    their label.

    Arguments as for `leave_one_out`. Pictures that are the only one with their label do not count.
    (Jégou et al.,
    PAMI 2011; Oh Song et al., CVPR 2016.)"""
    if not ks or min(ks) < 1:
        raise ValueError(f"recall_at: ks must be whole numbers from 1, got {ks}")
    cmc = leave_one_out(vectors, labels, metric=metric, groups=groups, ranks=max(ks)).cmc
    return {k: float(cmc[k - 1]) for k in ks}


def bootstrap(
    retrieval: Retrieval,
    query_ids: np.ndarray,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of mean_ap, mean_inp and rank_1 by the percentiles of a clustered bootstrap.

    Identities are drawn with replacement, with all their queries that count: queries of one
    identity depend on each other. query_ids (Q,). NaN where fewer than two identities count."""
    query_ids = checked_integers(query_ids, "query_ids")
    if query_ids.shape != retrieval.ap.shape:
        raise ValueError(
            f"bootstrap: query_ids {query_ids.shape} do not fit {retrieval.ap.shape} queries"
        )
    if draws < 1 or not 0 < level < 1:
        raise ValueError(
            "bootstrap: draws must be at least 1 and level between 0 and 1, got "
            f"{draws} and {level}"
        )
    counted = retrieval.first_rank > 0
    ids, code = np.unique(query_ids[counted], return_inverse=True)
    names = ("mean_ap", "mean_inp", "rank_1")
    if len(ids) < 2:
        return dict.fromkeys(names, UNDEFINED)
    values = (
        retrieval.ap[counted],
        retrieval.inp[counted],
        retrieval.first_rank[counted] == 1,
        np.ones(len(code)),
    )
    # (I, 4); the last column holds the numbers of queries.
    sums = np.stack([np.bincount(code, value, len(ids)) for value in values], axis=1)

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        totals = weights @ sums
        return dict(zip(names, (totals[:, :3] / totals[:, 3:]).T, strict=True))

    ends = (1 - level) / 2, (1 + level) / 2
    return bootstrap_intervals(means, len(ids), draws=draws, ends=ends, seed=seed)


@dataclass(frozen=True)
class _Plan:
    """What does not depend on the distances: pictures of query q's identity are order[start[q] :
    start[q] + count[q]].
    """

    shape: tuple[int, int]
    order: np.ndarray  # (G,) gallery by identity
    start: np.ndarray  # (Q,)
    count: np.ndarray  # (Q,), 0 where the query's identity is no identity
    junk: np.ndarray  # gallery pictures that are left out for all
    query_cameras: np.ndarray | None
    gallery_cameras: np.ndarray | None
    same: np.ndarray | None


# Average precision, inverse negative penalty, first rank.
_Scores = tuple[np.ndarray, np.ndarray, np.ndarray]


def _planned(
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cameras: np.ndarray | None,
    gallery_cameras: np.ndarray | None,
    same: np.ndarray | None,
    junk: int | None,
    distractor: int | None,
) -> _Plan:
    query_ids, gallery_ids = (
        checked_integers(query_ids, "query_ids"),
        checked_integers(gallery_ids, "gallery_ids"),
    )
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError("retrieval: cameras of both queries and gallery are needed, or of neither")
    if query_cameras is not None and gallery_cameras is not None:
        query_cameras = checked_integers(query_cameras, "query_cameras")
        gallery_cameras = checked_integers(gallery_cameras, "gallery_cameras")
        if query_cameras.shape != query_ids.shape or gallery_cameras.shape != gallery_ids.shape:
            shapes = query_cameras.shape, gallery_cameras.shape, query_ids.shape, gallery_ids.shape
            raise ValueError("retrieval: cameras {}, {} do not fit ids {}, {}".format(*shapes))
    if same is not None:
        same = checked_integers(same, "same")
        if same.shape != query_ids.shape or (
            len(same) and not -1 <= same.min() <= same.max() < len(gallery_ids)
        ):
            raise ValueError(
                f"retrieval: same must be (Q,) places in a gallery of {len(gallery_ids)}, or -1 "
                "for none"
            )
    order = np.argsort(gallery_ids, kind="stable")
    sorted_ids = gallery_ids[order]
    start = np.searchsorted(sorted_ids, query_ids, "left")
    count = np.searchsorted(sorted_ids, query_ids, "right") - start
    left_out = np.zeros(0, np.int64)
    if junk is not None:
        left_out = np.flatnonzero(gallery_ids == junk)
        count[query_ids == junk] = 0
    if distractor is not None:
        count[query_ids == distractor] = 0
    shape = (len(query_ids), len(gallery_ids))
    return _Plan(shape, order, start, count, left_out, query_cameras, gallery_cameras, same)


def _by_blocks(
    query: np.ndarray, gallery: np.ndarray, plan: _Plan, metric: str, block: int | None
) -> list[_Scores]:
    if block is not None and block < 1:
        raise ValueError(f"retrieval: block must be at least 1, got {block}")
    step = block or max(1, BLOCK_NUMBERS // max(1, len(gallery)))
    parts = []
    for k in range(0, max(1, len(query)), step):  # without queries, one empty part
        if metric == "cosine":
            distance = query[k : k + step] @ gallery.T
            np.subtract(1, distance, out=distance)
        else:
            distance = squared_euclidean(query[k : k + step], gallery)
        parts.append(_ranked(distance, plan, k))
    return parts


def _ranked(distance: np.ndarray, plan: _Plan, first: int) -> _Scores:
    """Scores of the queries from number `first`, by their rows of distances."""
    if distance.dtype.kind not in "fiu":
        raise ValueError(f"retrieval: distances must be numbers, got {distance.dtype}")
    dtype = np.float32 if distance.dtype in (np.float16, np.float32) else np.float64
    step = max(1, CACHE_NUMBERS // max(1, plan.shape[1]))
    ap, inp = np.full(len(distance), np.nan), np.full(len(distance), np.nan)
    first_rank = np.zeros(len(distance), np.int64)
    for k in range(0, len(distance), step):
        part = distance[k : k + step].astype(dtype)  # a copy, to write to
        if part.size and not np.isfinite(part).all():
            raise ValueError("retrieval: distances must be finite")
        row, column = _matches(part, plan, first + k)
        count = np.bincount(row, minlength=len(part))
        answered = np.flatnonzero(count)
        rank = _ranks(part, row, column)
        stop = np.cumsum(count)
        # Sequential sums, as a plain loop has them, so that both agree to the last bit.
        precision = np.bincount(
            row, (np.arange(len(row)) - (stop - count)[row] + 1) / rank, len(part)
        )
        ap[k + answered] = precision[answered] / count[answered]
        inp[k + answered] = count[answered] / rank[stop[answered] - 1]
        first_rank[k + answered] = rank[(stop - count)[answered]]
    return ap, inp, first_rank


def _matches(distance: np.ndarray, plan: _Plan, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and gallery places of the matches, (P,) each, by row; what is left out is put at
    infinity in `distance`.
    """
    rows = slice(first, first + len(distance))
    count = plan.count[rows]
    row = np.repeat(np.arange(len(distance)), count)
    inside = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    column = plan.order[plan.start[rows][row] + inside]
    out = np.zeros(len(row), bool)
    if plan.query_cameras is not None and plan.gallery_cameras is not None:
        out |= plan.query_cameras[rows][row] == plan.gallery_cameras[column]
    if plan.same is not None:
        self_place = plan.same[rows]
        out |= self_place[row] == column
        owner = np.flatnonzero(self_place >= 0)
        distance[owner, self_place[owner]] = np.inf
    distance[row[out], column[out]] = np.inf
    distance[:, plan.junk] = np.inf
    return row[~out], column[~out]


def _ranks(distance: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Ranks of the matches from 1, int64 (P,), by row and rank.

    Distances alone sort several times faster than their places do; a search then tells how many are
    below a match."""
    width = distance.shape[1]
    value = distance[row, column]
    ordered = np.sort(distance, axis=1).reshape(-1)
    low = row * width
    high = low + width
    for _ in range(width.bit_length()):
        # A match is in its own row, so the search stays in it.
        middle = (low + high) >> 1
        below = ordered[middle] < value
        low = np.where(below, middle + 1, low)
        high = np.where(below, high, middle)
    rank = low - row * width + 1
    follows = np.minimum(low + 1, len(ordered) - 1)
    tied = np.flatnonzero((rank < width) & (ordered[follows] == value))
    if len(tied) > MOST_TIES * len(distance):
        place = np.empty(distance.shape, np.int64)
        np.put_along_axis(
            place,
            np.argsort(distance, axis=1, kind="stable"),
            np.arange(1, width + 1)[None],
            axis=1,
        )
        rank = place[row, column]
    else:
        places = np.arange(width)
        step = max(1, CACHE_NUMBERS // max(1, width))
        for k in range(0, len(tied), step):
            some = tied[k : k + step]
            before = (distance[row[some]] == value[some, None]) & (places < column[some, None])
            rank[some] += np.count_nonzero(before, axis=1)
    # Ranks within a row differ, so the sort leaves rows where they are.
    return np.sort(row * (width + 1) + rank) - row * (width + 1)


def _collected(parts: list[_Scores], ranks: int, cameras: bool) -> Retrieval:
    ap, inp, first = (np.concatenate(values) for values in zip(*parts, strict=True))
    counted = first > 0
    queries = int(counted.sum())
    if queries:
        hits = np.bincount(np.minimum(first[counted], ranks + 1), minlength=ranks + 2)[
            1 : ranks + 1
        ]
        mean_ap, mean_inp, cmc = (
            float(ap[counted].mean()),
            float(inp[counted].mean()),
            np.cumsum(hits) / queries,
        )
    else:
        mean_ap, mean_inp, cmc = float("nan"), float("nan"), np.full(ranks, np.nan)
    return Retrieval(mean_ap, mean_inp, cmc, ap, inp, first, queries, len(first) - queries, cameras)
