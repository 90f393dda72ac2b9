"""Ranking scores against scikit-learn user by user, and against the plain count of pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from headwise.pipelines.metrics import ranking
from headwise.pipelines.metrics.ranking import (
    GroupedAuc,
    auc,
    calibration_ratio,
    calibration_table,
    grouped_auc,
    log_loss,
    normalised_entropy,
    ranking_scores,
)

# How scores are drawn: a few values (many ties), either sign with both zeros, float64 alone, and
# neighbours in float64 that no leading bits tell apart.
KINDS = ("few", "signed", "float32", "float64", "neighbours")


def sample(
    count: int, users: int, kind: str = "float64", seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, users, count)
    score = rng.random(count)
    labels = rng.random(count) < 0.2 + 0.4 * score
    if kind == "few":
        score = (score * 5).round() / 10
    elif kind == "signed":
        score = np.copysign((score * 4).round(), rng.normal(size=count)).astype(np.float32)
    elif kind == "float32":
        score = score.astype(np.float32)
    elif kind == "neighbours":
        score = np.where(score < 0.1, score, 0.5 + (score * 6).round() * 2.0**-53)
    return labels, score, group


def by_pairs(labels: np.ndarray, score: np.ndarray) -> float:
    """The share of pairs of a click and a row without one that are in order."""
    up, down = score[labels == 1][:, None], score[labels == 0][None]
    return float(((up > down) + (up == down) / 2).mean()) if up.size and down.size else np.nan


def plain(
    labels: np.ndarray, score: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.unique(group)
    members = [group == i for i in ids]
    return (
        ids,
        np.array([by_pairs(labels[m], score[m]) for m in members]),
        np.array([m.sum() for m in members]),
    )


def assert_plain(labels: np.ndarray, score: np.ndarray, group: np.ndarray) -> GroupedAuc:
    result = grouped_auc(labels, score, group)
    ids, area, count = plain(labels, score, group)
    np.testing.assert_array_equal(result.group, ids)
    np.testing.assert_allclose(result.auc, area, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(result.count, count)
    assert result.group.dtype == ids.dtype
    defined = ~np.isnan(area)
    assert (result.groups, result.rows) == (defined.sum(), count[defined].sum())
    if defined.any():
        assert result.gauc == pytest.approx(
            np.average(area[defined], weights=count[defined]), abs=1e-12
        )
        assert result.mean == pytest.approx(area[defined].mean(), abs=1e-12)
    else:
        assert np.isnan(result.gauc)
        assert np.isnan(result.mean)
    return result


@given(
    count=st.integers(1, 200),
    users=st.integers(1, 40),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 999),
)
def test_areas_are_shares_of_pairs(count: int, users: int, kind: str, seed: int) -> None:
    labels, score, group = sample(count, users, kind, seed)
    assert_plain(labels, score, group)
    assert auc(labels, score) == pytest.approx(by_pairs(labels, score), abs=1e-12, nan_ok=True)


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from([-(2**63), -7, 0, 3, 2**63 - 1]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_finite_scores_and_any_ids(rows: list[tuple[int, float, int]]) -> None:
    """Among them numbers that float32 overflows or rounds to zero, and ids too far apart for a
    key.
    """
    labels, score, group = (np.array(values) for values in zip(*rows, strict=True))
    assert_plain(labels, score, group)
    np.testing.assert_array_equal(
        ranking._sorted_rows(score + 0.0), np.argsort(score, kind="stable")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learn_user_by_user(kind: str) -> None:
    labels, score, group = sample(5000, 300, kind)
    result = grouped_auc(labels, score, group)
    total, weight = 0.0, 0
    for user in np.unique(group):
        rows = group == user
        if 0 < labels[rows].sum() < rows.sum():
            total += metrics.roc_auc_score(labels[rows], score[rows]) * rows.sum()
            weight += rows.sum()
    assert result.gauc == pytest.approx(total / weight, abs=1e-12)
    assert result.rows == weight
    assert auc(labels, score) == pytest.approx(metrics.roc_auc_score(labels, score), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample(2000, 30, kind)
    at_once, loss = grouped_auc(*data), log_loss(data[0], np.abs(data[1]) / 4)
    for rows in (1, 64, 1999):
        monkeypatch.setattr(ranking, "BLOCK_ROWS", rows)
        result = grouped_auc(*data)
        np.testing.assert_array_equal(result.auc, at_once.auc)
        np.testing.assert_array_equal(result.group, at_once.group)
        assert log_loss(data[0], np.abs(data[1]) / 4) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_rows_and_monotone_maps_change_nothing(kind: str) -> None:
    labels, score, group = sample(1000, 20, kind)
    expected = grouped_auc(labels, score, group)
    order = np.random.default_rng(1).permutation(1000)
    # The dense rank is a monotone map that is exact.
    for result in (
        grouped_auc(labels[order], score[order], group[order]),
        grouped_auc(labels, np.unique(score, return_inverse=True)[1] * 3.0 - 100.0, group),
        grouped_auc(labels, np.unique(score, return_inverse=True)[1], group),
    ):
        np.testing.assert_array_equal(result.auc, expected.auc)
        assert result.gauc == expected.gauc
    np.testing.assert_allclose(grouped_auc(labels, -score, group).auc, 1 - expected.auc, atol=1e-15)
    assert auc(labels, -score) == pytest.approx(1 - auc(labels, score), abs=1e-15)


def test_scores_equal_in_float32_alone_are_not_tied() -> None:
    score = np.array([0.5, 0.5 + 1e-12])
    assert (
        auc(np.array([0, 1]), score)
        == grouped_auc(np.array([0, 1]), score, np.zeros(2, int)).gauc
        == 1.0
    )
    assert grouped_auc(np.array([1, 0]), score, np.zeros(2, int)).gauc == 0.0
    assert grouped_auc(np.array([1, 0]), score.astype(np.float32), np.zeros(2, int)).gauc == 0.5


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_both_zeros_tie(dtype: type) -> None:
    score = np.array([-0.0, 0.0, 0.1], dtype)
    assert auc(np.array([0, 1, 0]), score) == 0.25
    assert grouped_auc(np.array([0, 1, 0]), score, np.zeros(3, int)).gauc == 0.25


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.float64]
)
def test_groups_of_any_number_type(dtype: type) -> None:
    labels, score, group = sample(300, 9, "few")
    most = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    ids = np.array([most.min, most.max, 5] if most else [0, 1, 2], dtype)
    assert_plain(labels, score, ids[group % 3])


@pytest.mark.parametrize("bits", [1, 4, 24])
def test_ids_that_are_far_apart(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table that is too small most ids lose their place."""
    monkeypatch.setattr(ranking, "TABLE_BITS", bits)
    labels, score, group = sample(400, 60, "few")
    ids = np.random.default_rng(2).integers(-(2**63), 2**63 - 1, 60)
    assert_plain(labels, score, ids[group])
    assert_plain(labels, score, ids.astype(np.uint64)[group])


def test_groups_of_text() -> None:
    labels, score, group = sample(300, 9, "few")
    assert_plain(labels, score, np.array([f"u{k}" for k in "cabfedihg"])[group])


def test_by_hand() -> None:
    """User 7: click above one of two; user 9: all clicks, left out; user 4: in order. GAUC (3 * 0.5
    + 2 * 1) / 5.
    """
    group = np.array([7, 9, 7, 4, 9, 7, 4])
    labels = np.array([1, 1, 0, 1, 1, 0, 0])
    score = np.array([0.5, 0.1, 0.9, 0.3, 0.2, 0.1, 0.2])
    result = grouped_auc(labels, score, group)
    assert result.gauc == pytest.approx(0.7)
    assert result.mean == pytest.approx(0.75)
    assert (result.groups, result.rows) == (2, 5)
    assert result.group.tolist() == [4, 7, 9]
    assert result.count.tolist() == [2, 3, 2]
    np.testing.assert_array_equal(result.auc, [1.0, 0.5, np.nan])


def test_one_group_is_the_whole() -> None:
    labels, score, _ = sample(500, 1)
    result = grouped_auc(labels, score, np.full(500, -3))
    assert result.gauc == result.mean == pytest.approx(auc(labels, score), abs=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_and_calibration_are_scikit_learns(dtype: type) -> None:
    labels, probability, _ = sample(1000, 1)
    probability = probability.astype(dtype)
    exact = probability.astype(np.float64)
    loss = metrics.log_loss(labels, exact)
    assert log_loss(labels, probability) == pytest.approx(loss, abs=1e-12)
    base = metrics.log_loss(labels, np.full(1000, labels.mean()))
    assert normalised_entropy(labels, probability) == pytest.approx(loss / base, abs=1e-12)
    assert calibration_ratio(labels, probability) == pytest.approx(
        exact.sum() / labels.sum(), abs=1e-12
    )


def test_the_click_rate_itself_has_entropy_one() -> None:
    labels = np.arange(100) % 4 == 0
    assert normalised_entropy(labels, np.full(100, 0.25)) == pytest.approx(1.0, abs=1e-15)
    assert calibration_ratio(labels, np.full(100, 0.25)) == 1.0


def test_the_log_loss_of_certain_mistakes_is_clipped() -> None:
    assert log_loss(np.array([0, 1]), np.array([1.0, 1.0])) == pytest.approx(-np.log(1e-7) / 2)


def test_bins_of_equal_counts() -> None:
    labels, probability, _ = sample(1000, 1)
    result = calibration_table(labels, probability, bins=8)
    order = np.argsort(probability)
    assert result.count.tolist() == [125] * 8
    np.testing.assert_allclose(result.predicted, probability[order].reshape(8, -1).mean(1))
    np.testing.assert_allclose(result.observed, labels[order].reshape(8, -1).mean(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_probabilities_share_a_bin(dtype: type) -> None:
    probability = np.repeat([0.1, 0.7, 0.9], [2, 7, 1]).astype(dtype)
    labels = np.arange(10) % 2
    result = calibration_table(labels, probability, bins=5)
    assert result.count.tolist() == [2, 7, 1]
    np.testing.assert_allclose(result.predicted, [0.1, 0.7, 0.9], rtol=1e-6)
    np.testing.assert_allclose(result.observed, [0.5, 3 / 7, 1.0])
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_array_equal(
        calibration_table(labels[order], probability[order], bins=5).observed, result.observed
    )


@given(
    count=st.integers(1, 60),
    bins=st.integers(1, 70),
    values=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_a_table_holds_every_row(count: int, bins: int, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability, labels = rng.integers(0, values, count) / values, rng.integers(0, 2, count)
    result = calibration_table(labels, probability, bins)
    assert len(result.count) <= bins
    assert result.count.min() > 0
    assert result.count.sum() == count
    assert result.count @ result.predicted == pytest.approx(probability.sum())
    assert result.count @ result.observed == pytest.approx(labels.sum())
    assert (np.diff(result.predicted) > 0).all()


def test_all_scores_by_name() -> None:
    labels, probability, users = sample(400, 12, "float32")
    got = ranking_scores(labels, probability, users)
    within = grouped_auc(labels, probability, users)
    assert got == {
        "auc": auc(labels, probability),
        "gauc": within.gauc,
        "user_auc": within.mean,
        "log_loss": log_loss(labels, probability),
        "normalised_entropy": normalised_entropy(labels, probability),
        "predicted_over_observed": calibration_ratio(labels, probability),
        "rows": 400.0,
        "positive_rate": labels.mean(),
        "users_that_count": float(within.groups),
    }
    assert all(type(value) is float for value in got.values())


def test_no_rows() -> None:
    got = ranking_scores(np.zeros(0, int), np.zeros(0), np.zeros(0, int))
    assert got.pop("rows") == got.pop("users_that_count") == 0.0
    assert all(map(np.isnan, got.values()))
    assert len(calibration_table(np.zeros(0, int), np.zeros(0)).count) == 0
    assert len(grouped_auc(np.zeros(0, bool), np.zeros(0), np.zeros(0, int)).group) == 0


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_only(label: int) -> None:
    got = ranking_scores(np.full(4, label), np.array([0.2, 0.4, 0.4, 0.9]), np.array([1, 1, 2, 2]))
    undefined = {name for name, value in got.items() if np.isnan(value)}
    assert undefined == {"auc", "gauc", "user_auc", "normalised_entropy"} | (
        set() if label else {"predicted_over_observed"}
    )
    assert (got["users_that_count"], got["positive_rate"]) == (0.0, float(label))


@pytest.mark.parametrize(
    ("labels", "score", "message"),
    [
        (np.zeros(2, int), np.zeros(3), r"must both be \(N,\)"),
        (np.zeros((2, 1), int), np.zeros((2, 1)), r"must both be \(N,\)"),
        (np.array([0, 2]), np.zeros(2), "0 or 1"),
        (np.array([0, -1]), np.zeros(2), "0 or 1"),
        (np.array([0.0, 1.0]), np.zeros(2), "whole numbers"),
        (np.array([0, 1]), np.array(["a", "b"]), "must be numbers"),
        (np.array([0, 1]), np.array([0.5, np.nan]), "finite"),
        (np.array([0, 1]), np.array([0.5, -np.inf], np.float32), "finite"),
    ],
)
def test_mistakes_are_named(labels: np.ndarray, score: np.ndarray, message: str) -> None:
    group = np.zeros(len(labels), int)
    for call in (auc, log_loss, normalised_entropy, calibration_ratio, calibration_table):
        with pytest.raises(ValueError, match=message):
            call(labels, score)
    for call in (grouped_auc, ranking_scores):
        with pytest.raises(ValueError, match=message):
            call(labels, score, group)


def test_other_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, score = np.array([0, 1]), np.array([-0.5, 1.5])
    for call in (log_loss, normalised_entropy, calibration_ratio, calibration_table):
        with pytest.raises(ValueError, match="from 0 to 1"):
            call(labels, score)
    with pytest.raises(ValueError, match="does not fit"):
        grouped_auc(labels, score, np.zeros(3, int))
    with pytest.raises(ValueError, match="at least 1"):
        calibration_table(labels, score / 2 + 0.25, bins=0)
    monkeypatch.setattr(ranking, "MOST_ROWS", 1)
    with pytest.raises(ValueError, match="more than 1"):
        grouped_auc(labels, score, np.zeros(2, int))
