"""Pairs of token and expert sorted by expert, against loops."""

import pytest
import torch

from headwise.kernels.dispatch import dispatch


@pytest.mark.parametrize("chosen", [[[1, 0], [3, 1], [1, 3], [0, 1]], [[2], [2]]], ids=str)
def test_rows_of_an_expert_follow_each_other_in_the_order_of_tokens(
    chosen: list[list[int]],
) -> None:
    order, place, offsets = where = dispatch(torch.tensor(chosen), 3)
    pairs = [expert for row in chosen for expert in row]
    expected = sorted(range(len(pairs)), key=pairs.__getitem__)
    assert order.tolist() == expected
    assert offsets.tolist() == [sum(pair < expert for pair in pairs) for expert in range(4)]
    assert where.tokens.tolist() == [pair // len(chosen[0]) for pair in expected]
    assert torch.equal(order[place].flatten(), torch.arange(len(pairs)))


def test_no_tokens_and_a_shape_that_does_not_fit() -> None:
    empty = dispatch(torch.zeros(0, 2, dtype=torch.int64), 3)
    assert empty.offsets.tolist() == [0] * 4
    assert empty.tokens.tolist() == []
    with pytest.raises(ValueError, match=r"needs .tokens, choices."):
        dispatch(torch.zeros(3, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="choices must be int64"):
        dispatch(torch.zeros(3, 1, dtype=torch.int32), 2)
    for expert in (-1, 3):
        with pytest.raises(ValueError, match="choices must be from 0 to 2, which is no expert"):
            dispatch(torch.tensor([[0, expert]]), 2)
