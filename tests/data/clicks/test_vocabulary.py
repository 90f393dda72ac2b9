"""Values to codes, whatever the type of their column."""

import numpy as np
import polars as pl

from headwise.data.clicks.vocabulary import Vocabulary, bucketed, clean, equal_counts, hashed


def test_numbers_are_spelled_alike_whatever_stands_beside_them() -> None:
    assert clean(pl.Series([1.0, 2.5, float("nan"), 1e300])).to_list() == [
        "1",
        "2.5",
        None,
        "1e+300",
    ]
    assert clean(pl.Series([3.0, None, float("inf")])).to_list() == [3, None, None]
    big = pl.Series([2**64 - 1, 7], dtype=pl.UInt64)
    assert Vocabulary().grown(big).codes(big).tolist() == [2, 3]
    near = Vocabulary().grown(pl.Series([-5, 7]))
    assert near.codes(pl.Series([2**63 - 1, -(2**63), 7, -5, 0])).tolist() == [1, 1, 3, 2, 1]
    assert near.codes(pl.Series(["7", "07", " -5 ", "none"])).tolist() == [3, 1, 2, 0]
    assert near.grown(pl.Series(["07"])).codes(pl.Series(["7", "07"])).tolist() == [3, 4]


def test_codes_stay_when_a_vocabulary_grows_from_numbers_to_words() -> None:
    first = Vocabulary().grown(pl.Series([30, 10, 30, None, 10_000_000]))
    grown = first.grown(pl.Series(["10", "x", "null", "10.0"]))
    assert first.codes(pl.Series(["10000000", "30", "4"])).tolist() == [4, 2, 1]
    assert grown.codes(pl.Series([30, 10, 10_000_000])).tolist() == [2, 3, 4]
    assert grown.codes(pl.Series(["x", "10.0", "", "y"])).tolist() == [5, 6, 0, 1]
    assert Vocabulary().codes(pl.Series(["a", None])).tolist() == [1, 0]


def test_hashes_are_the_same_in_every_process_and_type() -> None:
    codes = hashed(pl.Series(["7", None, "abc", "7"]), 1000)
    assert codes.tolist() == [
        hashed(pl.Series([7]), 1000)[0],
        0,
        hashed(pl.Series(["abc"]), 1000)[0],
        codes[0],
    ]
    assert codes.max() < 1002
    assert codes[[0, 2]].tolist() == [257, 898]  # BLAKE2b of the bytes, little-endian
    assert hashed(pl.Series([None, ""]), 10).tolist() == [0, 0]
    assert len(set(hashed(pl.Series(range(5000)), 100).tolist())) == 100


def test_buckets_hold_equal_counts() -> None:
    values = np.random.default_rng(0).lognormal(size=1000)
    edges = equal_counts(np.r_[values, np.nan], 10)
    assert np.bincount(bucketed(values, edges))[2:].tolist() == [100] * 10
    assert bucketed(np.array([np.nan, edges[0], -9.0, 1e9]), edges).tolist() == [0, 3, 2, 11]
    assert len(equal_counts(np.ones(9), 10)) == len(equal_counts(np.full(3, np.nan), 10)) == 0
