"""Click models: rows do not see each other, and INFNet against its formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.clicks.click import (
    DIN,
    KNOTS,
    PLE,
    DCNv2,
    Embedding,
    Knots,
    Layout,
    MMoE,
    SharedBottom,
)
from headwise.models.clicks.infnet import INFNet
from headwise.models.clicks.tokens import TokenMixer

FULL, BARE = (Layout([9, 7, 5], [1, 1, 3], sequences, 2, 32) for sequences in (2, 0))
MODELS = {
    "shared": lambda y, **o: SharedBottom(y, bottom=[12, 8], towers=[6], **o),
    "mmoe": lambda y, **o: MMoE(y, hidden=8, towers=[6], **o),
    "ple": lambda y, **o: PLE(y, hidden=8, towers=[6], **o),
    "din": lambda y, **o: DIN(
        y, targets=[0, 1][: y.sequences], hidden=[8], bottom=[8], towers=[6], **o
    ),
    "dcn": lambda y, **o: DCNv2(y, bottom=[8], towers=[6], **o),
    "mixer": lambda y, **o: TokenMixer(y, towers=[6], **o),
    "infnet": lambda y, **o: INFNet(y, **o),
    "hub": lambda y, **o: INFNet(y, variant="hub", **o),
    "printed": lambda y, **o: INFNet(y, residual=False, **o),
    "ungated": lambda y, **o: INFNet(y, gated=False, **o),
    "uniform": lambda y, **o: INFNet(y, cross=False, **o),
    "taskless": lambda y, **o: INFNet(y, task_tokens=False, **o),
    "taylor": lambda y, **o: INFNet(y, attention="taylor", **o),
}
INFNETS = list(MODELS)[6:]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def batch_of(rows: list[tuple[list[int], list[list[int]]]]) -> Batch:
    """fields and, by sequence, events of each row; an event's age is its code."""
    parts = [
        torch.tensor(sequence, dtype=torch.int64) for _, sequences in rows for sequence in sequences
    ]
    events = torch.cat([*parts, torch.zeros(0, dtype=torch.int64)])
    offsets = torch.tensor([0, *(len(sequence) for sequence in parts)]).cumsum(0)
    return torch.tensor([fields for fields, _ in rows]), events, events.clone(), offsets


ROWS = [
    ([1, 10, 17, 16, 20], [[1, 2, 3], [9]]),
    ([8, 9, 16, 16, 16], [[], []]),
    ([0, 15, 19, 18, 17], [[5], [10, 15, 9, 9]]),
]


def small_model(name: str, layout: Layout = FULL, **options) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name](layout, width=8, **options)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_rows_one_by_one(name: str) -> None:
    model = small_model(name).eval()
    out = model(*batch_of(ROWS))
    assert out.shape == (3, 2)
    assert out.isfinite().all()
    for place, row in enumerate(ROWS):
        torch.testing.assert_close(
            model(*batch_of([row])), out[place : place + 1], rtol=1e-4, atol=1e-5
        )
    changed = model(*batch_of([ROWS[0], ([2, 9, 16, 16, 16], [[4] * 9, [12] * 5]), ROWS[2]]))
    torch.testing.assert_close(changed[[0, 2]], out[[0, 2]], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(changed[1], out[1])


@pytest.mark.parametrize("layout", [FULL, BARE], ids=["full", "bare"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_and_empty_histories_do_no_harm(name: str, layout: Layout) -> None:
    model = small_model(name, layout)
    rows = [(fields, sequences[: layout.sequences]) for fields, sequences in ROWS]
    for precision in (torch.float32, torch.bfloat16):
        model.zero_grad()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            out = model(*batch_of(rows))
        out.float().square().sum().backward()
        assert all(
            weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters()
        )
    if layout.sequences:
        assert model(*batch_of([(ROWS[0][0], [[], []])] * 2)).isfinite().all()


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in INFNETS] + ["infnet", "hub"]
)
def test_gradients_reach_every_parameter_that_the_answer_needs(name: str) -> None:
    model = small_model(name)
    model(*batch_of(ROWS)).square().sum().backward()
    idle = [
        key
        for key, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []


@pytest.mark.parametrize("name", ["shared", "din", "infnet"])
def test_sparse_gradients_are_the_dense_ones(name: str) -> None:
    gradients = []
    for sparse in (False, True):
        model = small_model(name, sparse=sparse)
        model(*batch_of(ROWS)).square().sum().backward()
        grad = model.embedding.table.weight.grad
        assert grad.is_sparse == sparse
        gradients.append(grad.to_dense())
    torch.testing.assert_close(*gradients)


def test_several_values_are_averaged_without_the_missing() -> None:
    embedding = Embedding(FULL, 4)
    table = embedding.table.weight
    vectors = embedding(torch.tensor([[0, 9, 18, 16, 20], [0, 9, 16, 16, 16]]))
    torch.testing.assert_close(vectors[0, 2], (table[18] + table[20]) / 2)
    assert not vectors[1, 2].any()
    torch.testing.assert_close(vectors[:, 0], table[[0, 0]])


def test_two_printed_blocks_are_their_formulas() -> None:
    model = small_model("printed", blocks=2).eval()
    fields, events, ages, offsets = batch_of(ROWS)
    table = model.embedding.table.weight

    def ca(reads, kind: str, query: Tensor, tokens: Tensor) -> Tensor:
        if not len(tokens):
            return torch.zeros_like(query)
        q, (k, v), out = (
            query @ reads.queries[kind].weight.T,
            (tokens @ reads.keys.weight.T).split(8, 1),
            [],
        )
        for head in (slice(0, 4), slice(4, 8)):
            out.append((q[:, head] @ k[:, head].T / math.sqrt(4)).softmax(1) @ v[:, head])
        return torch.cat(out, 1)

    def gate(block, kind: str, proxies: Tensor) -> Tensor:
        return block.gates[kind].network(proxies.flatten()).sigmoid()

    expected = []
    for row in range(3):
        tokens = [table[fields[row, 0]], table[fields[row, 1]]]
        several = [table[code] for code in fields[row, 2:] if code != 16]
        tokens.append(torch.stack(several).mean(0) if several else torch.zeros(8))
        c = torch.stack(tokens) + model.place
        c_ = model.of_fields(c.flatten()).view(4, 8)
        parts, s_ = [], []
        for kind in range(2):
            where = range(int(offsets[2 * row + kind]), int(offsets[2 * row + kind + 1]))
            sequences_of_row = [
                table[events[i]] + model.age.weight[ages[i]] + model.kind.weight[kind]
                for i in where
            ]
            parts += sequences_of_row
            s_.append(
                sum((model.of_sequences(vector) for vector in sequences_of_row), torch.zeros(8))
                / math.sqrt(max(len(sequences_of_row), 1))
            )
        s, s_, t, t_ = (
            torch.stack(parts) if parts else torch.zeros(0, 8),
            torch.stack(s_),
            model.tasks,
            model.shared,
        )
        for place, block in enumerate(model.blocks):
            t_new = ca(block.read_c, "t", t_, c) + ca(block.read_s, "t", t_, s)
            t_hat = ca(block.read_c, "task", t, c) + ca(block.read_s, "task", t, s)
            t_out = t_hat * gate(block, "task", t_new)
            if place == 0:  # what the last block does to fields and events is read by no one
                c_new = ca(block.read_s, "c", c_, s) + ca(block.read_t, "c", c_, t)
                s_new = ca(block.read_c, "s", s_, c) + ca(block.read_t, "s", s_, t)
                c_, s_, c, s = (
                    c_new,
                    s_new,
                    c * gate(block, "c", c_new),
                    s * gate(block, "s", s_new),
                )
            t, t_ = t_out, t_new
        expected.append(torch.cat([tower(vector) for tower, vector in zip(model.towers.towers, t)]))
    torch.testing.assert_close(
        model(fields, events, ages, offsets), torch.stack(expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["infnet", "hub"])
def test_compiled_infnet_gives_the_same_step(name: str) -> None:
    model, batch = small_model(name), batch_of(ROWS)
    results = []
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        out = call(*batch)
        results.append(
            (out, *torch.autograd.grad(F.softplus(out).sum(), model.embedding.table.weight))
        )
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_fit_are_named() -> None:
    for options, message in (
        ({"heads": 3}, "heads divide width"),
        ({"blocks": 0}, "positive"),
        ({"variant": "hub", "gated": False}, "hub variant"),
    ):
        with pytest.raises(ValueError, match=message):
            INFNet(FULL, width=8, **options)


class TestKnots:
    LAYOUT = Layout([40, 30, 12], [1, 1, 1], 0, 1, 32, ordered=[True, False, True])

    def test_buckets_of_a_number_lie_between_the_vectors_of_their_knots(self) -> None:
        knots, table = Knots(self.LAYOUT), nn.Embedding(82, 3)
        vectors = knots(table, torch.arange(82)).detach()
        places = np.linspace(0, 37, KNOTS).round().astype(int)
        for column in range(3):
            at_knots = table.weight[2 + places, column].detach().numpy()
            expected = np.interp(np.arange(38), places, at_knots)
            np.testing.assert_allclose(
                vectors[2:40, column].numpy(), expected, rtol=1e-5, atol=1e-6
            )
        # Missing and unseen numbers, other fields, and numbers with few buckets have their own.
        for code in (0, 1, *range(40, 82)):
            assert torch.equal(vectors[code], table.weight[code])

    def test_without_numbers_it_is_the_table(self) -> None:
        knots, table = Knots(FULL), nn.Embedding(21, 3)
        codes = torch.tensor([[3, 20], [0, 9]])
        assert torch.equal(knots(table, codes), table(codes))
