"""Chosen keys against a sort of each query's keys."""

from itertools import product

import pytest
import torch
from torch import Tensor

from headwise.kernels.key_selection import select_keys


def inputs(samples: int = 3, heads: int = 2, group: int = 3, queries: int = 4, keys: int = 23):
    torch.manual_seed(samples)
    query = torch.randn(samples, heads * group, queries, 5)
    return query, torch.randn(samples, heads, keys, 5)


def padding(keys: int) -> Tensor:
    """Padding on the left, on the right, and of nearly all."""
    place = torch.arange(keys)
    return torch.stack([place >= 6, place < keys - 2, place == keys - 1])


def sets(chosen: Tensor, valid: Tensor) -> dict[tuple[int, ...], set[int]]:
    """The chosen keys of each (sample, head, query); each once."""
    out = {}
    for at in product(*(range(size) for size in chosen.shape[:3])):
        places = chosen[at][valid[at]].tolist()
        assert len(set(places)) == len(places)
        assert valid[at].tolist() == sorted(valid[at].tolist(), reverse=True)
        out[at] = set(places)
    return out


def expected(query, key, count, sink, recent, mask, last, block=1):
    """By a loop over the keys that each query sees."""
    out = {}
    shared = query.unflatten(1, (key.shape[1], -1)).mean(2)
    for b, k, q in product(range(key.shape[0]), range(key.shape[1]), range(query.shape[2])):
        real = [j for j in range(int(last[b, q]) + 1) if mask[b, j]]
        forced = {*real[:sink], *(real[-recent:] if recent else [])}
        score = {j: float(shared[b, k, q] @ key[b, k, j]) for j in real}
        blocks = {}
        for j in real:
            best = float("inf") if j in forced else score[j]
            blocks[j // block] = max(blocks.get(j // block, -float("inf")), best)
        taken = sorted(blocks, key=blocks.__getitem__, reverse=True)[: count // block]
        out[b, k, q] = {j for j in real if j // block in taken}
    return out


@pytest.mark.parametrize(
    ("count", "sink", "recent"),
    [(8, 0, 0), (8, 3, 5), (8, 2, 3), (23, 4, 4), (50, 1, 1), (1, 0, 1)],
)
def test_sets_hold_the_best_keys_the_first_and_the_last(count: int, sink: int, recent: int) -> None:
    query, key = inputs()
    mask, last = padding(23), torch.tensor([[19, 20, 21, 22], [3, 9, 9, 22], [0, 5, 21, 22]])
    chosen, valid = select_keys(query, key, count, sink=sink, recent=recent, mask=mask, last=last)
    assert chosen.shape == valid.shape == (3, 2, 4, min(count, 23))
    got = sets(chosen, valid)
    assert got == expected(query, key, count, sink, recent, mask, last)
    for (b, _, q), places in got.items():
        assert len(places) == min(count, int(mask[b, : last[b, q] + 1].sum()))


@pytest.mark.parametrize(("count", "sink", "recent"), [(16, 0, 0), (16, 1, 4), (24, 2, 6)])
def test_blocks_come_by_their_best_key(count: int, sink: int, recent: int) -> None:
    query, key = inputs()
    mask, last = padding(23), torch.tensor([[19, 20, 21, 22], [3, 9, 9, 22], [0, 5, 21, 22]])
    chosen, valid = select_keys(
        query, key, count, sink=sink, recent=recent, mask=mask, last=last, block=4
    )
    assert chosen.shape == valid.shape == (3, 2, 4, min(count, 23))
    assert sets(chosen, valid) == expected(query, key, count, sink, recent, mask, last, 4)


def test_by_default_queries_are_those_of_the_last_keys_and_see_no_later_one() -> None:
    query, key = inputs()
    last = torch.arange(19, 23).expand(3, 4)
    mask = torch.ones(3, 23, dtype=torch.bool)
    got = sets(*select_keys(query, key, 6, sink=1, recent=2))
    assert got == expected(query, key, 6, 1, 2, mask, last)


def test_a_query_chooses_the_same_alone_later_and_among_padding() -> None:
    """What is chosen in training, all queries at once, is what is chosen token by token."""
    query, key = inputs(samples=1)
    together = sets(*select_keys(query, key, 6, sink=1, recent=2))
    for q in range(4):
        end = 20 + q
        alone = sets(*select_keys(query[:, :, q : q + 1], key[:, :, :end], 6, sink=1, recent=2))
        padded = torch.cat([torch.randn(1, 2, 5, 5), key[:, :, :end]], 2)
        mask = torch.arange(end + 5)[None] >= 5
        shifted = sets(*select_keys(query[:, :, q : q + 1], padded, 6, sink=1, recent=2, mask=mask))
        for k in range(2):
            assert alone[0, k, 0] == together[0, k, q]
            assert shifted[0, k, 0] == {place + 5 for place in together[0, k, q]}


def test_no_gradient_and_no_new_program_for_it() -> None:
    query, key = inputs()
    chosen, _ = select_keys(query.requires_grad_(), key, 4)
    compiled = torch.compile(select_keys, fullgraph=True, backend="aot_eager")
    assert compiled(query, key, 4)[0].equal(chosen)


def test_mistakes_are_named() -> None:
    query, key = inputs()
    for call, message in (
        (lambda: select_keys(query[:, :5], key, 4), "K dividing H"),
        (lambda: select_keys(query[..., :3], key, 4), "do not fit"),
        (lambda: select_keys(query, key.double(), 4), "do not fit"),
        (lambda: select_keys(query, key[:, :, :0], 4), "needs keys"),
        (lambda: select_keys(query, key, 0), "count of whole blocks"),
        (lambda: select_keys(query, key, 6, block=4), "count of whole blocks"),
        (lambda: select_keys(query, key, 4, sink=3, recent=2), "cannot hold a sink of 3"),
        (lambda: select_keys(query, key, 8, sink=3, recent=2, block=4), "in blocks of 4; 16 can"),
        (lambda: select_keys(query, key, 4, mask=torch.ones(3, 22)), "mask must be torch.bool"),
        (lambda: select_keys(query, key, 4, last=torch.ones(3, 4)), "last must be torch.int64"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
