"""Batches of identities: all pictures once but for fills, identities that differ, one order per
seed.
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.pipelines.reid.sampling import count_batches, identity_batches

COUNTS = st.lists(st.integers(1, 13), min_size=1, max_size=9)


def labels_of(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)) * 7 + 2, counts)
    return np.random.default_rng(seed).permutation(labels)


def batches_of(
    labels: np.ndarray, identities: int, per_identity: int, seed: int = 0
) -> list[np.ndarray]:
    return identity_batches(labels, identities, per_identity, np.random.default_rng(seed))


@given(COUNTS, st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_batches_have_different_identities_with_k_pictures_of_each(
    counts, identities, per_identity, seed
) -> None:
    labels = labels_of(counts, seed)
    batches = batches_of(labels, identities, per_identity, seed)
    groups = sum(-(-count // per_identity) for count in counts)
    assert (
        len(batches)
        == count_batches(labels, identities, per_identity)
        == -(-groups // min(identities, len(counts)))
    )
    for batch in batches:
        assert batch.shape == (min(identities, len(counts)), per_identity)
        assert batch.dtype == np.int64
        identity = labels[batch]
        assert (identity == identity[:, :1]).all()
        assert len(set(identity[:, 0].tolist())) == len(batch)
        for row in batch:
            # A copy only of an identity that has fewer than K pictures, and then all of them are
            # in the batch.
            assert len(set(row.tolist())) == min(
                per_identity, int((labels == labels[row[0]]).sum())
            )


@given(COUNTS, st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_all_pictures_are_used_and_once_but_for_fills(
    counts, identities, per_identity, seed
) -> None:
    labels = labels_of(counts, seed)
    batches = batches_of(labels, identities, per_identity, seed)
    used = Counter(place for batch in batches for place in batch.ravel().tolist())
    rows = Counter(int(labels[row[0]]) for batch in batches for row in batch)
    for label, count in zip(*np.unique(labels, return_counts=True)):
        uses = [used[place] for place in np.flatnonzero(labels == label).tolist()]
        groups = -(-int(count) // per_identity)
        if groups <= len(batches):
            assert min(uses) >= 1
            if (
                rows[int(label)] == groups
            ):  # no group a second time: nothing but the last one is filled up
                assert sum(uses) - count == groups * per_identity - count
                if count >= per_identity and count % per_identity == 0:
                    assert max(uses) == 1
        else:  # more groups than batches: one in each, no picture in two but by the last fill
            assert rows[int(label)] == len(batches)
            assert sum(value - 1 for value in uses if value) <= per_identity - 1


def test_equal_identities_are_used_exactly_once() -> None:
    labels = labels_of([8] * 24)
    for seed in range(20):
        batches = batches_of(labels, 16, 4, seed)
        assert sorted(np.concatenate(batches).ravel().tolist()) == list(range(192))


def test_the_seed_decides_the_order() -> None:
    labels = labels_of([9, 5, 7, 4, 12, 8])
    first, again, with_other_seed = (np.stack(batches_of(labels, 3, 4, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, with_other_seed)


def test_few_identities_make_smaller_batches() -> None:
    labels = labels_of([4, 4])
    batches = batches_of(labels, 16, 4)
    assert [batch.shape for batch in batches] == [(2, 4)]
    assert sorted(batches[0].ravel().tolist()) == list(range(8))


def test_an_identity_with_one_picture_is_that_picture_k_times() -> None:
    labels = np.array([0, 0, 0, 0, 5, 0])
    for batch in batches_of(labels, 2, 4):
        lone = batch[labels[batch[:, 0]] == 5]
        assert lone.tolist() == [[4, 4, 4, 4]]


def test_frequent_identities_come_more_often() -> None:
    labels = labels_of([40, 4, 4, 4, 4, 4])
    rows = Counter(int(labels[row[0]]) for batch in batches_of(labels, 2, 4) for row in batch)
    assert rows[2] == 8  # all 10 groups do not fit into 8 batches
    assert all(rows[7 * k + 2] >= 1 for k in range(1, 6))


@pytest.mark.parametrize(("identities", "expected"), [(1, 5), (2, 3), (3, 2), (9, 2)])
def test_counted_batches(identities: int, expected: int) -> None:
    assert count_batches(np.array([0] * 5 + [1] * 4 + [2] * 8), identities, 4) == expected
