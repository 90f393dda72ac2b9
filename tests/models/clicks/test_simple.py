"""Simple click models against plain loops, and their blend."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headwise.models.clicks.click import Layout
from headwise.models.clicks.simple import (
    PRIMES,
    RECENT,
    AdditiveClicks,
    BlendedClicks,
    ClickStatistics,
)

LAYOUT = Layout([9, 7, 5], [1, 1, 3], 2, 2, 32)
# fields of each row, and the events of its two sequences; an event's age is its code.
ROWS = [
    ([1, 10, 17, 16, 20], [[1, 2, 3], [9]]),
    ([8, 9, 16, 16, 16], [[], []]),
    ([0, 15, 19, 18, 17], [[5], [10, 15, 9, 9]]),
]


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = [torch.tensor(s, dtype=torch.int64) for _, sequences in ROWS for s in sequences]
    events = torch.cat(parts)
    offsets = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    return torch.tensor([fields for fields, _ in ROWS]), events, events.clone(), offsets


def with_random_weights(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
            tensor.normal_()
    return model.eval()


def mean(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(rows).mean(0) if rows else torch.zeros_like(like)


@pytest.mark.parametrize("factors", [0, 3])
@pytest.mark.parametrize(("sequences", "ages"), [(True, False), (True, True), (False, True)])
def test_additive_clicks_are_sums_over_codes_and_pairs(
    factors: int, sequences: bool, ages: bool
) -> None:
    model = with_random_weights(
        AdditiveClicks(LAYOUT, factors=factors, sequences=sequences, ages=ages)
    )
    assert (model.recent_table is not None) == (sequences and ages)
    table, of_events = model.table.weight, model.event_table.weight
    for (fields, events), logits in zip(ROWS, model(*inputs()), strict=True):
        vectors = [table[fields[0]], table[fields[1]], table[fields[2:]].mean(0)]
        if sequences:
            vectors += [mean([of_events[e] for e in s], table[0]) for s in events]
        if model.recent_table is not None:  # an event's age is its code
            recent, share = (
                model.recent_table.weight,
                [math.exp(-code / RECENT) for code in range(21)],
            )
            for s in events:
                parts = [recent[e] * share[e] / sum(share[o] for o in s) for e in s]
                vectors.append(sum(parts, torch.zeros_like(table[0])))
        for task in range(2):
            expected = model.bias[task] + sum(vector[task] for vector in vectors)
            latent = [vector[2 + task * factors : 2 + (task + 1) * factors] for vector in vectors]
            for k, first in enumerate(latent):
                for second in latent[k + 1 :]:
                    expected = expected + first @ second
            torch.testing.assert_close(logits[task], expected, rtol=1e-4, atol=1e-4)


def test_crosses_are_weights_of_hashed_pairs_of_single_fields() -> None:
    model = with_random_weights(AdditiveClicks(LAYOUT, crosses=11))
    bare = AdditiveClicks(LAYOUT)
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if k != "pairs.weight"},
                         strict=False)  # fmt: skip
    crossed = model(*inputs()) - bare.eval()(*inputs())
    for (fields, _), logits in zip(ROWS, crossed, strict=True):
        code = fields[0] * PRIMES[0] + fields[1] * PRIMES[1]
        torch.testing.assert_close(logits, model.pairs.weight[code % 11], rtol=1e-4, atol=1e-4)


def test_statistics_are_those_of_a_plain_loop() -> None:
    model = with_random_weights(ClickStatistics(LAYOUT, [0, 1]))
    rates, counts = model.rates, model.counts
    for (fields, sequences), row in zip(ROWS, model(*inputs()), strict=True):
        expected = [float(fields[0]), float(fields[1])]
        for columns in ([fields[0]], [fields[1]], fields[2:]):
            both = [[*rates[c].tolist(), float(counts[c])] for c in columns]
            expected += np.mean(both, axis=0).tolist()
        for target, events in zip(fields[:2], sequences, strict=True):
            weight = [math.exp(-event / RECENT) for event in events]
            for how in ([1.0] * len(events), weight):
                total = max(sum(how), 1e-6)
                for task in range(2):
                    summed = sum(w * float(rates[e, task]) for w, e in zip(how, events))
                    expected.append(summed / total if events else 0.0)
            expected += [math.log1p(len(events)), sum(weight), float(events.count(target))]
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_blend_is_a_weighted_sum_for_each_task() -> None:
    first, second = (with_random_weights(AdditiveClicks(LAYOUT)) for _ in range(2))
    with torch.no_grad():
        second.bias += 1
    blend = BlendedClicks(first, second, 2)
    blend.share = torch.tensor([[0.5, 2.0], [0.25, -1.0], [3.0, 4.0]])
    a, b = first(*inputs()), second(*inputs())
    expected = torch.stack([0.5 * a[:, 0] + 0.25 * b[:, 0] + 3, 2 * a[:, 1] - b[:, 1] + 4], 1)
    torch.testing.assert_close(blend(*inputs()), expected)
