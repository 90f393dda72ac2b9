"""How INFNet's proxies read tokens: by the paper's cross-attention, or by a mechanism."""

import pytest
import torch
from torch import nn

from headwise.kernels.segments import padded
from headwise.models.clicks.reads import Reading, Reads

WIDTH, HEADS = 8, 2


def test_rows_are_padded_to_the_longest_segment() -> None:
    rows = torch.arange(1.0, 7.0)[:, None]
    out, present = padded(rows, torch.tensor([0, 2, 2, 5, 6]))
    assert out[..., 0].tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [6, 0, 0]]
    assert present.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]
    out, present = padded(rows[:0], torch.zeros(3, dtype=torch.int64))
    assert out.shape == (2, 1, 1)
    assert not present.any()


@pytest.mark.parametrize("offsets", [None, torch.tensor([0, 3, 3, 7])], ids=["tokens", "packed"])
def test_a_softmax_mechanism_reads_as_the_paper_does(offsets: torch.Tensor | None) -> None:
    """With the paper's keys and values, and nothing before its queries or after its values."""
    torch.manual_seed(0)
    kinds = ["c", "t"]
    paper = Reads(WIDTH, Reading(HEADS), kinds)
    core = Reads(WIDTH, Reading(HEADS, options={"kv_heads": HEADS}), kinds)
    assert core.keys is None
    mixer = core.mixer
    assert paper.keys is not None
    assert mixer is not None
    core.queries.load_state_dict(paper.queries.state_dict())
    with torch.no_grad():
        for layer in (mixer.query, mixer.out):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        mixer.key_value.weight.copy_(paper.keys.weight)
        nn.init.zeros_(mixer.key_value.bias)
    queries = {"c": torch.randn(3, 4, WIDTH), "t": torch.randn(3, 2, WIDTH)}
    tokens = torch.randn(3, 5, WIDTH) if offsets is None else torch.randn(7, WIDTH)
    expected, actual = (reads(queries, tokens, offsets) for reads in (paper, core))
    for kind in kinds:
        assert actual[kind].shape == queries[kind].shape
        torch.testing.assert_close(actual[kind], expected[kind])


def test_an_exported_program_reads_histories_of_any_length() -> None:
    """Its padding cannot be as long as the longest history, which is a value and no size."""

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reads = Reads(WIDTH, Reading(HEADS, attention="taylor"), ["c"])

        def forward(
            self, query: torch.Tensor, tokens: torch.Tensor, offsets: torch.Tensor
        ) -> torch.Tensor:
            return self.reads({"c": query}, tokens, offsets)["c"]

    torch.manual_seed(0)
    model, query = Asking().eval(), torch.randn(3, 2, WIDTH)
    events = torch.export.Dim("events", min=2)
    inputs = query, torch.randn(7, WIDTH), torch.tensor([0, 3, 3, 7])
    program = torch.export.export(model, inputs, dynamic_shapes=(None, {0: events}, None))
    for offsets in ([0, 1, 1, 4], [0, 5, 9, 12]):
        tokens = torch.randn(offsets[-1], WIDTH)
        actual = program.module()(query, tokens, torch.tensor(offsets))
        torch.testing.assert_close(actual, model(query, tokens, torch.tensor(offsets)))
