"""Batches of one pseudo-label, and labels that only ever split."""

import numpy as np
import pytest

from headwise.models.moe.contrastive import alike_batches, refine_labels


def test_a_batch_has_one_label_and_no_index_comes_twice() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 203)
    batches = list(alike_batches(labels, 8, seed=3))
    assert len(batches) == sum(int((labels == label).sum()) // 8 for label in range(5))
    indices = [i for batch in batches for i in batch]
    assert len(indices) == len(set(indices))
    for batch in batches:
        assert len(batch) == 8
        assert len(set(labels[batch])) == 1
    again = list(alike_batches(labels, 8, seed=3))
    assert again == batches
    rest = [
        set(range(203)) - {i for b in alike_batches(labels, 8, seed=s) for i in b} for s in (3, 4)
    ]
    assert rest[0] != rest[1]


def test_labels_split_further_at_each_stage() -> None:
    dice = np.random.default_rng(1)
    corners = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    which = dice.integers(0, 3, (2, 300))
    image, text = (corners[w] + 0.1 * dice.standard_normal((300, 2)) for w in which)
    first = refine_labels(None, [image, text])
    assert len(np.unique(first)) == 9
    for pair in {tuple(p) for p in which.T}:
        assert len(np.unique(first[(pair == which.T).all(1)])) == 1
    second = refine_labels(first, [dice.standard_normal((300, 2))])
    assert all(len(np.unique(first[second == label])) == 1 for label in np.unique(second))
    assert len(np.unique(second)) > 9


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="one length"):
        refine_labels(np.zeros(3, dtype=np.int64), [np.zeros((4, 2))])
    with pytest.raises(ValueError, match="no label has 9"):
        alike_batches(np.zeros(8, dtype=np.int64), 9)
