"""Open-set search: a query's identity may be in the gallery or not, and then nobody is the answer.

The nearest picture names the query where its similarity reaches a threshold. Two errors depend on
it: a name for somebody who is not in the gallery (false positive identification, ISO/IEC 19795-1),
and no or a wrong name for somebody who is.

Shapes: Q queries, G gallery pictures. similarity: (Q, G), larger is nearer; identities:
whole numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Nearest(NamedTuple):
    """The nearest pictures of queries, two searches for each.

    match: (Q,) similarity of the nearest picture of all; NaN where the query's identity is not in
    the gallery; right: bool (Q,), whether that picture shows it; other: (Q,) similarity of the
    nearest picture of another identity, which would be found if its own were not in the gallery;
    NaN where there is none.
    """

    match: np.ndarray
    right: np.ndarray
    other: np.ndarray

    def found_at(self, threshold: float) -> np.ndarray:
        """Whether each query is named rightly, for those whose identity is in the gallery."""
        known = ~np.isnan(self.match)
        return self.right[known] & (self.match[known] >= threshold)

    def named_at(self, threshold: float) -> np.ndarray:
        """Whether each query gets a name where its identity is not in the gallery."""
        return self.other[~np.isnan(self.other)] >= threshold


def nearest_of(
    similarity: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray, counted: np.ndarray
) -> Nearest:
    """What a search finds with and without the query's identity. counted: bool (Q, G), pairs that
    are compared.
    """
    same = query_ids[:, None] == gallery_ids
    right, wrong = (
        np.where(counted & pairs, similarity, -np.inf).max(1, initial=-np.inf)
        for pairs in (same, ~same)
    )
    known = np.isfinite(right)
    match = np.where(known, np.maximum(right, wrong), np.nan)
    return Nearest(match, known & (right >= wrong), np.where(np.isfinite(wrong), wrong, np.nan))


def choose_open_threshold(nearest: Nearest, false_match: float | None = None) -> float:
    """The similarity from which the nearest picture names a query: the lowest at which at most this
    share of those whose identity is not in the gallery get a name; None: at which the two errors
    are equal, or as nearly as they can be.

    It lies midway between two similarities that occur. Raises ValueError where there is no query of
    one of the two kinds.
    """
    match, right = nearest.match[~np.isnan(nearest.match)], nearest.right[~np.isnan(nearest.match)]
    other = np.sort(nearest.other[~np.isnan(nearest.other)])
    if not len(match) or not len(other):
        raise ValueError("open set: needs queries with and without their identity in the gallery")
    values = np.unique(np.concatenate([match, other]))
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    named = 1 - np.searchsorted(other, cuts) / len(other)
    if false_match is not None:
        return float(cuts[np.flatnonzero(named <= false_match)[0]])
    missed = 1 - right.mean() + np.searchsorted(np.sort(match[right]), cuts) / len(match)
    worse = np.maximum(named, missed)
    best = np.flatnonzero(worse <= worse.min() + 1e-12)
    return float(cuts[best[len(best) // 2]])
