"""Owners of rows by counting ends, against a loop."""

import itertools

import pytest
import torch

from headwise.kernels.segments import ended, segment_of


@pytest.mark.parametrize("offsets", [[0, 3, 3, 7], [0, 0, 0, 5], [0, 9], [0, 4, 4, 4], [0, 0]])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_each_row_belongs_to_the_segment_around_it(offsets: list[int], dtype: torch.dtype) -> None:
    owner = [
        s for s, (first, last) in enumerate(itertools.pairwise(offsets)) for _ in range(first, last)
    ]
    owners = segment_of(torch.tensor(offsets, dtype=dtype), offsets[-1])
    assert owners.tolist() == owner
    assert owners.dtype == torch.int64


@pytest.mark.parametrize("ends", [[2, 2, 5], [5, 0, 2], [40, 1], [], [3, 6]])
def test_ends_are_counted_in_any_order_and_behind_the_last_place(ends: list[int]) -> None:
    expected = [sum(end <= place for end in ends) for place in range(6)]
    assert ended(torch.tensor(ends, dtype=torch.int64), 6).tolist() == expected
