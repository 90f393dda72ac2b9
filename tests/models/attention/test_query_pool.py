"""Pooling by few learned queries, padded and packed, and exchange through them, against loops."""

import pytest
import torch
from torch import Tensor

from headwise.models.attention.query_pool import InducedAttention, QueryPool


def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return x @ layer.weight.t() + (0 if layer.bias is None else layer.bias)


def pooled(model: QueryPool, rows: Tensor) -> Tensor:
    """One bag (M, D), a loop over queries and heads."""
    size = model.width // model.heads
    key, value = linear(rows, model.key), linear(rows, model.value)
    out = torch.zeros(model.queries, model.width, dtype=rows.dtype)
    for q in range(model.queries):
        for h in range(model.heads):
            part = slice(h * size, (h + 1) * size)
            if len(rows):
                weight = torch.softmax(key[:, part] @ model.seeds[q, part] / size**0.5, 0)
                out[q, part] = weight @ value[:, part]
    return linear(out, model.out)


@pytest.mark.parametrize(("queries", "heads"), [(1, 1), (3, 2), (5, 4)])
@torch.no_grad()
def test_padded_and_packed_bags_equal_the_loop(queries: int, heads: int) -> None:
    torch.manual_seed(0)
    model = QueryPool(8, queries=queries, heads=heads).double()
    lengths = [4, 0, 1, 9]
    rows = torch.randn(sum(lengths), 8, dtype=torch.float64)
    bags = rows.split(lengths)
    expected = torch.stack([pooled(model, bag) for bag in bags])
    packed = model(rows, offsets=torch.tensor([0, *lengths]).cumsum(0))
    torch.testing.assert_close(packed, expected, rtol=1e-10, atol=1e-10)
    padded = 1e3 * torch.randn(4, 11, 8, dtype=torch.float64)
    for i, bag in enumerate(bags):
        padded[i, : len(bag)] = bag
    mask = torch.arange(11) < torch.tensor(lengths)[:, None]
    torch.testing.assert_close(model(padded, mask=mask), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(packed[1], model.out.bias.expand(queries, -1))


def test_the_order_of_rows_does_not_matter_and_gradients_are_right() -> None:
    torch.manual_seed(1)
    model = QueryPool(6, queries=2, heads=3).double()
    rows = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(5)
    torch.testing.assert_close(model(rows[:, order]), model(rows))
    assert torch.autograd.gradcheck(model, (rows,), fast_mode=True)
    model(rows).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    with pytest.raises(ValueError, match="rows of width 6"):
        model(torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="heads that divide"):
        QueryPool(6, heads=4)


@torch.no_grad()
def test_induced_attention_equals_the_loop() -> None:
    torch.manual_seed(2)
    model = InducedAttention(8, heads=2, queries=3).double()
    x, context = (
        torch.randn(2, 4, 8, dtype=torch.float64),
        torch.randn(2, 7, 8, dtype=torch.float64),
    )
    mask = torch.rand(2, 7) < 0.6
    for b in range(2):
        summary = pooled(model.pool, context[b][mask[b]])
        query, (key, value) = (
            linear(x[b], model.query),
            linear(summary, model.key_value).chunk(2, 1),
        )
        parts = [slice(0, 4), slice(4, 8)]
        mixed = torch.cat(
            [torch.softmax(query[:, p] @ key[:, p].t() / 2, 1) @ value[:, p] for p in parts], 1
        )
        out = model(x, context, mask=mask)[b]
        torch.testing.assert_close(out, linear(mixed, model.out), rtol=1e-10, atol=1e-10)
    packed = context.flatten(0, 1)
    torch.testing.assert_close(model.packed(x, packed, torch.tensor([0, 7, 14])), model(x, context))


def test_one_query_gives_every_token_the_same_output() -> None:
    out = InducedAttention(8, heads=2, queries=1)(torch.randn(2, 5, 8))
    torch.testing.assert_close(out, out[:, :1].expand_as(out))
