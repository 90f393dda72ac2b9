"""Retrieval scores against a plain loop of the protocol, and re-ranking against a plain form of its
paper.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.pipelines.metrics import reranking, retrieval
from headwise.pipelines.metrics.reranking import rerank
from headwise.pipelines.metrics.retrieval import (
    Retrieval,
    bootstrap,
    leave_one_out,
    recall_at,
    retrieval_scores,
    score_vectors,
)
from headwise.pipelines.metrics.vectors import squared_euclidean

SCORES = ("ap", "inp", "first_rank", "cmc", "mean_ap", "mean_inp", "queries", "skipped", "cameras")


def plain(
    distance,
    query_ids,
    gallery_ids,
    query_cameras=None,
    gallery_cameras=None,
    ranks=50,
    same=None,
    junk=-1,
    distractor=0,
):
    """The protocol of Market-1501, query by query and picture by picture."""
    queries = len(query_ids)
    ap, inp, first = np.full(queries, np.nan), np.full(queries, np.nan), np.zeros(queries, np.int64)
    for q in range(queries):
        rank, total, matches = 0, 0.0, 0
        for g in np.argsort(distance[q], kind="stable"):
            if gallery_ids[g] == junk or (same is not None and same[q] == g):
                continue
            alike = query_ids[q] == gallery_ids[g]
            if alike and query_cameras is not None and query_cameras[q] == gallery_cameras[g]:
                continue
            rank += 1
            if alike and query_ids[q] not in (junk, distractor):
                matches += 1
                total += matches / rank
                first[q] = first[q] or rank
                last = rank
        if matches:
            ap[q], inp[q] = total / matches, matches / last
    counted = first > 0
    count = int(counted.sum())
    mean = (lambda values: float(np.mean(values[counted]))) if count else lambda _: np.nan
    cmc = np.array(
        [(first[counted] <= k).sum() / count if count else np.nan for k in range(1, ranks + 1)]
    )
    return Retrieval(
        mean(ap), mean(inp), cmc, ap, inp, first, count, queries - count, query_cameras is not None
    )


def assert_equal(result: Retrieval, expected: Retrieval) -> None:
    for name in SCORES:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)


def sample(
    queries: int, gallery: int, ids: int, values: int, seed: int, dtype: type = np.float32
) -> tuple:
    """Distances of `values` different numbers (0: any), ids with junk and distractors, cameras."""
    rng = np.random.default_rng(seed)
    distance = rng.random((queries, gallery))
    if values:
        distance = (distance * values).astype(int) / values
    ids_of = [rng.integers(-1, ids + 1, n) for n in (queries, gallery)]
    return distance.astype(dtype), *ids_of, *(rng.integers(0, 3, n) for n in (queries, gallery))


@settings(max_examples=120, deadline=None)
@given(
    queries=st.integers(0, 12),
    gallery=st.integers(0, 40),
    ids=st.integers(1, 12),
    values=st.sampled_from([0, 1, 3, 20]),
    cameras=st.booleans(),
    leave_out=st.booleans(),
    seed=st.integers(0, 999),
)
def test_scores_are_those_of_the_plain_loop(
    queries: int, gallery: int, ids: int, values: int, cameras: bool, leave_out: bool, seed: int
) -> None:
    distance, *pictures = sample(
        queries, gallery, ids, values, seed, np.float32 if seed % 2 else np.float64
    )
    if not cameras:
        pictures = pictures[:2]
    same = np.random.default_rng(seed).integers(-1, gallery, queries) if leave_out else None
    numbers = {"junk": None, "distractor": None} if seed % 5 == 0 else {}
    result = retrieval_scores(distance, *pictures, ranks=7, same=same, **numbers)
    assert_equal(result, plain(distance, *pictures, ranks=7, same=same, **numbers))


@pytest.mark.parametrize("values", [0, 2, 300])
def test_larger_galleries_in_several_blocks(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = sample(30, 700, 20, values, seed=1)
    expected = plain(*arguments)
    assert expected.skipped
    for numbers in (1, 2000, 1 << 20):
        monkeypatch.setattr(retrieval, "CACHE_NUMBERS", numbers)
        for ties in (0, 64):  # both ways to rank ties
            monkeypatch.setattr(retrieval, "MOST_TIES", ties)
            assert_equal(retrieval_scores(*arguments), expected)


def test_a_small_case_by_hand() -> None:
    # The order of the gallery: match of the same camera (out), distractor, match, junk (out),
    # stranger, match.
    gallery_ids, gallery_cameras = np.array([5, 0, 5, -1, 7, 5]), np.array([1, 2, 2, 2, 2, 3])
    distance = np.arange(6, dtype=np.float32)[None] / 10
    result = retrieval_scores(
        distance, np.array([5]), gallery_ids, np.array([1]), gallery_cameras, ranks=3
    )
    assert result.ap[0] == (1 / 2 + 2 / 4) / 2
    assert result.inp[0] == 2 / 4
    assert result.first_rank[0] == 2
    assert result.cmc.tolist() == [0, 1, 1]
    assert result.cameras
    without = retrieval_scores(distance, np.array([5]), gallery_ids)
    assert without.ap[0] == (1 + 2 / 3 + 3 / 5) / 3
    assert not without.cameras


def test_queries_that_are_distractors_or_junk_have_no_match() -> None:
    ids = np.array([0, -1, 4])
    result = retrieval_scores(np.zeros((3, 3)), ids, ids)
    assert (result.queries, result.skipped) == (1, 2)
    assert np.isnan(result.ap[:2]).all()
    assert result.first_rank.tolist() == [
        0,
        0,
        2,
    ]  # the distractor before it counts, the junk does not
    with_all = retrieval_scores(np.zeros((3, 3)), ids, ids, junk=None, distractor=None)
    assert with_all.first_rank.tolist() == [1, 2, 3]


def test_no_query_counts() -> None:
    result = retrieval_scores(np.ones((2, 3)), np.array([1, 2]), np.array([3, 4, 5]), ranks=4)
    assert np.isnan([result.mean_ap, result.mean_inp, *result.cmc]).all()
    assert (result.queries, result.skipped, len(result.cmc)) == (0, 2, 4)


def test_arguments_are_left_as_they_are() -> None:
    arguments = sample(6, 30, 4, 3, seed=0)
    copies = [a.copy() for a in arguments]
    retrieval_scores(*arguments, same=np.arange(6))
    for before, after in zip(copies, arguments, strict=True):
        np.testing.assert_array_equal(before, after)


def whole_vectors(count: int, seed: int, width: int = 5) -> np.ndarray:
    """Small whole numbers: their squared distances are exact in any order of sums, and often
    equal.
    """
    return np.random.default_rng(seed).integers(-2, 3, (count, width)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 4, 1000, None])
def test_vectors_in_blocks_of_any_size(block: int | None) -> None:
    _, *pictures = sample(25, 90, 8, 0, seed=3)
    query, gallery = whole_vectors(25, 1), whole_vectors(90, 2)
    distance = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    result = score_vectors(query, gallery, *pictures, metric="euclidean", block=block)
    assert_equal(result, plain(distance, *pictures))


def test_the_cosine_knows_no_length() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(10, 6)), rng.normal(size=(60, 6))
    gallery[3] = 0  # at 1 from all
    _, *pictures = sample(10, 60, 6, 0, seed=4)
    lengths = np.linalg.norm(gallery, axis=1, keepdims=True)
    cosine = (query / np.linalg.norm(query, axis=1, keepdims=True)) @ (
        gallery / np.where(lengths, lengths, 1)
    ).T
    expected = plain(1 - cosine, *pictures)
    for scale in (1, 1e-25, 1e25):
        assert_equal(score_vectors(query * scale, gallery * scale, *pictures), expected)


def test_squared_distances_are_not_below_zero() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    result = squared_euclidean(vectors, vectors)
    expected = ((vectors[:, None].astype(float) - vectors[None]) ** 2).sum(-1)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
    assert result.min() >= 0


@pytest.mark.parametrize("grouped", [False, True])
def test_leave_one_out_and_recall(grouped: bool) -> None:
    rng = np.random.default_rng(5)
    vectors, labels = (
        whole_vectors(70, 6),
        rng.integers(-1, 9, 70),
    )  # -1 and 0 are labels as others are
    labels[0] = 99  # alone
    groups = rng.integers(0, 4, 70) if grouped else np.zeros(70, int)
    result = leave_one_out(
        vectors, labels, metric="euclidean", groups=groups if grouped else None, ranks=8
    )
    ap, inp, first = np.full(70, np.nan), np.full(70, np.nan), np.zeros(70, int)
    for i in range(70):
        others = np.array([j for j in range(70) if j != i and groups[j] == groups[i]])
        ap_values = ((vectors[others] - vectors[i]) ** 2).sum(-1)[None]
        alone = plain(ap_values, labels[[i]], labels[others], junk=None, distractor=None)
        ap[i], inp[i], first[i] = alone.ap[0], alone.inp[0], alone.first_rank[0]
    np.testing.assert_array_equal(result.ap, ap)
    np.testing.assert_array_equal(result.inp, inp)
    np.testing.assert_array_equal(result.first_rank, first)
    assert result.skipped == (first == 0).sum() >= 1
    recall = recall_at(
        vectors, labels, (1, 8), metric="euclidean", groups=groups if grouped else None
    )
    assert recall == {k: (first[first > 0] <= k).mean() for k in (1, 8)}
    assert 0 < recall[1] < recall[8]


def test_bootstrap_draws_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    ids = np.repeat(np.arange(40), 5)
    ap_values = np.repeat(
        rng.random(40), 5
    )  # queries of one identity are alike, so that only identities carry information
    first = np.where(ap_values > 0.5, 1, 4)
    first[:5] = 0  # skipped
    ap_values[:5] = np.nan
    ranking = Retrieval(
        np.nanmean(ap_values),
        np.nanmean(ap_values),
        np.zeros(1),
        ap_values,
        ap_values / 2,
        first,
        195,
        5,
        False,
    )
    intervals = bootstrap(ranking, ids, draws=4000, level=0.9)
    assert list(intervals) == ["mean_ap", "mean_inp", "rank_1"]
    by_id = ap_values[5::5]
    low, high = intervals["mean_ap"]
    # Five times as many independent queries would have 45 % of this width.
    width = 2 * 1.645 * by_id.std() / np.sqrt(39)
    assert high - low == pytest.approx(width, rel=0.08)
    assert (low + high) / 2 == pytest.approx(by_id.mean(), abs=0.01)
    np.testing.assert_allclose(intervals["mean_inp"], np.array(intervals["mean_ap"]) / 2)
    assert intervals["rank_1"][0] < (by_id > 0.5).mean() < intervals["rank_1"][1]
    assert bootstrap(ranking, ids, draws=4000, level=0.9) == intervals
    assert bootstrap(ranking, ids, draws=4000, level=0.9, seed=1) != intervals
    monkeypatch.setattr("headwise.pipelines.metrics.bootstrap.BLOCK_NUMBERS", 1000)
    assert bootstrap(ranking, ids, draws=4000, level=0.9) == intervals


def test_bootstrap_weights_identities_by_their_queries() -> None:
    """Of two identities a draw is one of three means; the outer percentiles are the means of either
    alone.
    """
    ap = np.array([1.0, 0.0, 0.0, 0.0])
    result = Retrieval(0.25, 0.25, np.zeros(1), ap, ap, np.array([1, 2, 2, 2]), 4, 0, False)
    assert bootstrap(result, np.array([3, 8, 8, 8]))["mean_ap"] == (0, 1)
    assert bootstrap(result, np.array([3, 8, 8, 8]), level=0.01)["mean_ap"] == (0.25, 0.25)


def test_bootstrap_of_one_identity_is_undefined() -> None:
    result = retrieval_scores(np.ones((2, 3)), np.array([1, 2]), np.array([1, 1, 5]))
    assert np.isnan(list(bootstrap(result, np.array([1, 2])).values())).all()


def plain_reranking(query, gallery, k1, k2, weight):
    """Zhong et al., sections 3.2 to 3.5, picture by picture, with the authors' normalisation and
    strict inequality.
    """
    x = np.concatenate([query, gallery]).astype(np.float64)
    count = len(x)
    distance = ((x[:, None] - x[None]) ** 2).sum(-1)
    distance /= np.maximum(distance.max(axis=1, keepdims=True), 1e-30)
    order = np.argsort(
        distance - np.eye(count), axis=1, kind="stable"
    )  # itself first, also among identical ones

    def reciprocal_sets(k: int) -> list[set[int]]:
        nearest = [set(row[: k + 1].tolist()) for row in order]
        return [{j for j in nearest[i] if i in nearest[j]} for i in range(count)]

    sets, half_sets = reciprocal_sets(k1), reciprocal_sets(int(np.around(k1 / 2)))
    encoding = np.zeros((count, count))
    for i in range(count):
        members = set(sets[i])
        for j in sets[i]:
            if 3 * len(half_sets[j] & sets[i]) > 2 * len(half_sets[j]):
                members |= half_sets[j]
        for j in members:
            encoding[i, j] = np.exp(-distance[i, j])
        encoding[i] /= max(encoding[i].sum(), 1e-30)
    encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(count)])
    queries = len(query)
    jaccard = np.array(
        [
            [1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in encoding[queries:]]
            for a in encoding[:queries]
        ]
    )
    return weight * distance[:queries, queries:] + (1 - weight) * jaccard


def clustered(queries: int, gallery: int, seed: int, clusters: int = 8, width: int = 16) -> tuple:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(clusters, width))
    ids = [rng.integers(0, clusters, n) for n in (queries, gallery)]
    return *(
        (centre[i] + 0.7 * rng.normal(size=(len(i), width))).astype(np.float32) for i in ids
    ), *ids


@pytest.mark.parametrize(
    ("k1", "k2", "weight"),
    [(20, 6, 0.3), (7, 1, 0.0), (5, 3, 0.6), (1, 2, 0.5), (60, 6, 0.3), (500, 6, 0.3)],
)
def test_reranking_is_that_of_the_paper(k1: int, k2: int, weight: float) -> None:
    query, gallery, *_ = clustered(23, 110, seed=k1)
    result = rerank(query, gallery, k1=k1, k2=k2, weight=weight, block=40)
    assert result.dtype == np.float32
    np.testing.assert_allclose(
        result, plain_reranking(query, gallery, k1, k2, weight), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "width", [1, 2, 3]
)  # pictures twice and more; of width 1 more often than k1
def test_reranking_with_equal_distances(width: int) -> None:
    query, gallery = whole_vectors(15, 8, width), whole_vectors(80, 9, width)
    result = rerank(query, gallery, k1=4, k2=2)
    np.testing.assert_allclose(
        result, plain_reranking(query, gallery, 4, 2, 0.3), rtol=0, atol=1e-5
    )


def test_reranking_of_one_point_only() -> None:
    result = rerank(np.ones((2, 4)), np.ones((5, 4)))
    np.testing.assert_allclose(result, 0, atol=1e-6)


def test_reranking_does_not_hang_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = whole_vectors(20, 10), whole_vectors(120, 11)
    at_once = rerank(query, gallery, k1=10, k2=4)
    for block, numbers in ((1, 1), (7, 100), (64, 10_000)):
        monkeypatch.setattr(reranking, "TRIPLES", numbers)
        monkeypatch.setattr(reranking, "PAIR_NUMBERS", numbers)
        np.testing.assert_allclose(
            rerank(query, gallery, k1=10, k2=4, block=block), at_once, rtol=0, atol=1e-6
        )


def test_reranking_helps_where_identities_are_clusters() -> None:
    query, gallery, query_ids, gallery_ids = clustered(60, 400, seed=2, clusters=20, width=24)
    before = score_vectors(
        query, gallery, query_ids, gallery_ids, metric="euclidean", distractor=None
    )
    after = retrieval_scores(rerank(query, gallery), query_ids, gallery_ids, distractor=None)
    assert after.mean_ap > before.mean_ap + 0.02


def test_reranking_of_nothing() -> None:
    assert rerank(np.zeros((0, 3)), np.zeros((4, 3))).shape == (0, 4)
    assert rerank(np.zeros((2, 3)), np.zeros((0, 3))).shape == (2, 0)


IDS = np.array([1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval_scores(np.ones((2, 3)), IDS, IDS), "does not fit"),
        (lambda: retrieval_scores(np.array([[1, np.nan], [1, 1]]), IDS, IDS), "finite"),
        (lambda: retrieval_scores(np.array([[1, np.inf], [1, 1]]), IDS, IDS), "finite"),
        (lambda: retrieval_scores(np.array([["a", "b"]] * 2), IDS, IDS), "must be numbers"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS / 2, IDS), "query_ids must be whole"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS, IDS[None]), "gallery_ids must be whole"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS, IDS, IDS), "both queries and gallery"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS, IDS, IDS, IDS[:1]), "cameras"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS, IDS, same=np.array([0, 2])), "same"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS, IDS, same=np.array([-2, 1])), "same"),
        (lambda: retrieval_scores(np.ones((2, 2)), IDS, IDS, ranks=0), "ranks"),
        (lambda: score_vectors(np.ones((2, 3)), np.ones((2, 4)), IDS, IDS), "do not fit"),
        (lambda: score_vectors(np.ones((2, 3)), np.ones((3, 3)), IDS, IDS), "do not fit"),
        (
            lambda: score_vectors(np.ones((2, 3)), np.ones((2, 3)), IDS, IDS, metric="dot"),
            "metric must be one of",
        ),
        (lambda: score_vectors(np.ones((2, 3)), np.ones((2, 3)), IDS, IDS, block=0), "block"),
        (
            lambda: score_vectors(np.full((2, 3), np.nan), np.ones((2, 3)), IDS, IDS),
            "query must be finite",
        ),
        (lambda: score_vectors(np.ones(2), np.ones((2, 3)), IDS, IDS), "query must be numbers"),
        (lambda: leave_one_out(np.ones((2, 3)), IDS[:1]), "1 labels"),
        (lambda: leave_one_out(np.ones((2, 3)), IDS, groups=IDS[:1]), "1 groups"),
        (lambda: recall_at(np.ones((2, 3)), IDS, (0, 1)), "ks"),
        (lambda: recall_at(np.ones((2, 3)), IDS, ()), "ks"),
        (lambda: bootstrap(retrieval_scores(np.ones((2, 2)), IDS, IDS), IDS[:1]), "do not fit"),
        (lambda: bootstrap(retrieval_scores(np.ones((2, 2)), IDS, IDS), IDS, level=1), "level"),
        (lambda: rerank(np.ones((2, 3)), np.ones((2, 4))), "query and gallery must be"),
        (lambda: rerank(np.array([["a"]]), np.ones((2, 1))), "must be numbers"),
        (lambda: rerank(np.full((2, 3), np.inf), np.ones((2, 3))), "finite"),
        (lambda: rerank(np.full((2, 3), 1e25), np.ones((2, 3))), "scale the vectors"),
        (lambda: rerank(np.ones((2, 3)), np.ones((2, 3)), k1=2, k2=4), "k2 from 1"),
        (lambda: rerank(np.ones((2, 3)), np.ones((2, 3)), weight=1.5), "weight"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_no_pictures_at_all() -> None:
    result = leave_one_out(np.zeros((0, 3)), np.zeros(0, int))
    assert (result.queries, result.skipped, len(result.ap)) == (0, 0, 0)
