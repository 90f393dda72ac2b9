"""The paired difference of two classifiers against sums written out."""

from math import comb

import numpy as np
import pytest

from headwise.pipelines.metrics.classification import paired_accuracy


def test_p_is_the_two_sided_binomial_of_the_samples_that_differ() -> None:
    first = np.array([1, 1, 1, 1, 1, 0, 1, 0, 1], bool)
    second = np.array([1, 0, 0, 0, 0, 1, 1, 0, 0], bool)
    gap = paired_accuracy(first, second, len(first))
    assert (gap.first_alone, gap.second_alone) == (5, 1)
    assert gap.gain == pytest.approx(4 / 9)
    assert gap.p == pytest.approx(2 * sum(comb(6, k) for k in (0, 1)) / 2**6)
    back = paired_accuracy(second, first, len(first))
    assert (back.gain, back.p) == (-gap.gain, gap.p)


def test_equal_classifiers_have_no_difference_and_groups_widen_the_interval() -> None:
    right = np.array([True, False, True])
    assert paired_accuracy(right, right, 3) == (0.0, (0.0, 0.0), 0, 0, 1.0)
    first = np.repeat([True, False], 50)
    second = np.zeros(100, bool)
    alone = paired_accuracy(first, second, 100).interval
    together = paired_accuracy(first, second, np.repeat([0, 1], 50)).interval
    assert together[0] <= 0 < alone[0]
    assert together[1] >= 1 > alone[1]
