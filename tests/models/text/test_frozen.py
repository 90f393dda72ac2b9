"""An encoder that no training changes gives what it would give alone, and encodes a text once."""

import pytest
import torch
from torch import Tensor

from headwise.models.text.encoder import BertEncoder
from headwise.models.text.frozen import FrozenEncoder


@pytest.fixture
def encoder() -> BertEncoder:
    torch.manual_seed(0)
    made = BertEncoder(20, 8, heads=2, layers=1, hidden=16, positions=12)
    torch.nn.init.normal_(made.places)
    return made.eval()


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[3, 4, 5, 0, 0], [6, 7, 0, 0, 0], [3, 4, 5, 0, 0], [0, 0, 0, 0, 0]])
    return ids, ids > 0


def test_states_are_those_of_the_encoder_and_a_text_is_encoded_once(encoder) -> None:
    ids, mask = texts()
    expected = encoder(ids, mask).detach()
    frozen = FrozenEncoder(encoder)
    encoded: list[int] = []
    encoder.register_forward_hook(lambda _module, inputs, _output: encoded.append(len(inputs[0])))
    for _ in range(2):
        torch.testing.assert_close(frozen(ids, mask), expected)
    wider = torch.nn.functional.pad(ids, (0, 3))
    torch.testing.assert_close(frozen(wider, wider > 0)[:, :5], expected)
    assert encoded == [4]  # all rows of the first call, none of the others


def test_nothing_is_kept_beyond_the_limit_and_nothing_changes(encoder) -> None:
    ids, mask = texts()
    frozen = FrozenEncoder(encoder, most_bytes=3 * 8 * 4)
    first = frozen(ids, mask)
    calls: list[int] = []
    encoder.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    torch.testing.assert_close(frozen(ids, mask), first)
    assert calls == [1]  # the second text does not fit behind the first


def test_it_is_not_trained_and_its_weights_are_stored(encoder) -> None:
    frozen = FrozenEncoder(encoder).train()
    assert not encoder.training
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert len(frozen.state_dict()) == len(encoder.state_dict())


def test_it_is_exported_as_the_encoder(encoder) -> None:
    ids, mask = texts()
    program = torch.export.export(FrozenEncoder(encoder), (ids, mask))
    torch.testing.assert_close(program.module()(ids, mask), encoder(ids, mask))
