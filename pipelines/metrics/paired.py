"""Two classifiers on the same samples: the difference of their accuracies, and whether it is
chance.

Shapes: N samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .bootstrap import Groups, Interval, interval_of_mean


class PairedDifference(NamedTuple):
    """By how much the first is more accurate, the 95 % interval with groups drawn anew, on how many
    samples one of the two alone is right, and the exact p of McNemar's test (1947), which takes
    samples as independent.
    """

    gain: float
    interval: Interval
    first_alone: int
    second_alone: int
    p: float


def paired_accuracy(
    first_right: np.ndarray, second_right: np.ndarray, groups: Groups, *, seed: int = 0
) -> PairedDifference:
    """first_right, second_right: bool (N,); groups: of each sample.

    >>> right = np.array([True, True, True, False])
    >>> paired_accuracy(right, ~right, 4).p
    0.625
    """
    from scipy.stats import binomtest

    first_alone = int((first_right & ~second_right).sum())
    second_alone = int((second_right & ~first_right).sum())
    differing = first_alone + second_alone
    p = float(binomtest(first_alone, differing).pvalue) if differing else 1.0
    gains = first_right.astype(float) - second_right
    interval = interval_of_mean(gains, groups, seed=seed)
    return PairedDifference(float(gains.mean()), interval, first_alone, second_alone, p)
