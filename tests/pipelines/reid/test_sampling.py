"""Batches of identities: every picture once but for fills, identities that differ, one order a
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


def drawn(labels: np.ndarray, identities: int, each: int, seed: int = 0) -> list[np.ndarray]:
    return identity_batches(labels, identities, each, np.random.default_rng(seed))


@given(COUNTS, st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_every_batch_has_different_identities_with_k_pictures_of_each(
    counts, identities, each, seed
) -> None:
    labels = labels_of(counts, seed)
    batches = drawn(labels, identities, each, seed)
    groups = sum(-(-count // each) for count in counts)
    assert (
        len(batches)
        == count_batches(labels, identities, each)
        == -(-groups // min(identities, len(counts)))
    )
    for batch in batches:
        assert batch.shape == (min(identities, len(counts)), each)
        assert batch.dtype == np.int64
        own = labels[batch]
        assert (own == own[:, :1]).all()
        assert len(set(own[:, 0].tolist())) == len(batch)
        for row in batch:
            # A copy only of an identity that has fewer than K pictures, and then all of them are
            # there.
            assert len(set(row.tolist())) == min(each, int((labels == labels[row[0]]).sum()))


@given(COUNTS, st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_every_picture_is_there_and_once_but_for_fills(counts, identities, each, seed) -> None:
    labels = labels_of(counts, seed)
    batches = drawn(labels, identities, each, seed)
    used = Counter(place for batch in batches for place in batch.ravel().tolist())
    rows = Counter(int(labels[row[0]]) for batch in batches for row in batch)
    for one, count in zip(*np.unique(labels, return_counts=True)):
        own = [used[place] for place in np.flatnonzero(labels == one).tolist()]
        groups = -(-int(count) // each)
        if groups <= len(batches):
            assert min(own) >= 1
            if (
                rows[int(one)] == groups
            ):  # no group a second time: nothing but the last one is filled up
                assert sum(own) - count == groups * each - count
                if count >= each and count % each == 0:
                    assert max(own) == 1
        else:  # more groups than batches: one in each, and no picture in two but by the last one's fill
            assert rows[int(one)] == len(batches)
            assert sum(value - 1 for value in own if value) <= each - 1


def test_equal_identities_are_dealt_out_exactly() -> None:
    labels = labels_of([8] * 24)
    for seed in range(20):
        batches = drawn(labels, 16, 4, seed)
        assert sorted(np.concatenate(batches).ravel().tolist()) == list(range(192))


def test_the_order_is_the_seeds() -> None:
    labels = labels_of([9, 5, 7, 4, 12, 8])
    first, again, other = (np.stack(drawn(labels, 3, 4, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_few_identities_make_smaller_batches() -> None:
    labels = labels_of([4, 4])
    batches = drawn(labels, 16, 4)
    assert [batch.shape for batch in batches] == [(2, 4)]
    assert sorted(batches[0].ravel().tolist()) == list(range(8))


def test_an_identity_with_one_picture_is_that_picture_k_times() -> None:
    labels = np.array([0, 0, 0, 0, 5, 0])
    for batch in drawn(labels, 2, 4):
        lone = batch[labels[batch[:, 0]] == 5]
        assert lone.tolist() == [[4, 4, 4, 4]]


def test_frequent_identities_come_more_often() -> None:
    labels = labels_of([40, 4, 4, 4, 4, 4])
    rows = Counter(int(labels[row[0]]) for batch in drawn(labels, 2, 4) for row in batch)
    assert rows[2] == 8  # all 10 groups do not fit into 8 batches
    assert all(rows[7 * k + 2] >= 1 for k in range(1, 6))


@pytest.mark.parametrize(("identities", "expected"), [(1, 5), (2, 3), (3, 2), (9, 2)])
def test_counted_batches(identities: int, expected: int) -> None:
    assert count_batches(np.array([0] * 5 + [1] * 4 + [2] * 8), identities, 4) == expected
