"""Encoders of text: padding changes nothing, lengths are checked, all compile and export."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from headwise.models.attention.base import auxiliary_loss
from headwise.models.text.encoder import (
    BertEncoder,
    PackedVectors,
    StaticEncoder,
    TextEncoder,
    TokenEncoder,
    build_text_encoder,
    mean_vector,
    unpacked,
)

V, D = 11, 32


def bert(packed: bool = False) -> BertEncoder:
    return BertEncoder(V, D, heads=4, layers=2, hidden=64, positions=9, packed=packed)


def tokens(attention: str = "softmax", **options: object) -> TokenEncoder:
    return TokenEncoder(V, D, heads=4, layers=2, positions=9, attention=attention, **options)  # pyright: ignore[reportArgumentType]


BUILDERS: dict[str, Callable[[], TextEncoder]] = {
    "bert": bert,
    "packed": lambda: bert(packed=True),
    "static": lambda: StaticEncoder(V, D),
    "softmax": tokens,
    "rotary": lambda: tokens(options={"positions": "rotary"}),
    "differential": lambda: tokens("differential"),
    "static-attention": lambda: tokens("static"),
    "moh": lambda: tokens("moh"),
    "star": lambda: tokens("star"),
    "moe": lambda: tokens(ffn="moe", moe={"experts": 4}),
    "words-alone": lambda: TokenEncoder(V, D, layers=0, positions=9),
}


@pytest.fixture(params=BUILDERS)
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    torch.manual_seed(1)
    built = BUILDERS[request.param]()
    for buffer in built.buffers():
        if buffer.dtype == torch.uint8:
            buffer.random_(0, 256)
        elif buffer.dtype == torch.float16:
            buffer.uniform_(0.01, 0.1)
    return built.eval()


def batch(*lengths: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(size) < torch.tensor(lengths)[:, None]
    return torch.randint(0, V, (len(lengths), size), generator=generator), mask


def test_padding_and_company_change_nothing(encoder: TextEncoder) -> None:
    ids, mask = batch(5, 1, 7, 0, size=9)
    with torch.no_grad():
        states = encoder(ids, mask)
        assert states.shape == (4, 9, D)
        assert not states[~mask].any()
        scrambled = encoder(torch.where(mask, ids, (ids + 3) % V), mask)
        torch.testing.assert_close(scrambled, states)
        for row, length in enumerate((5, 1, 7)):
            short = slice(row, row + 1), slice(0, length)
            alone = encoder(ids[short], mask[short])
            torch.testing.assert_close(alone[0], states[row, :length], rtol=1e-4, atol=1e-5)


def test_no_texts_and_texts_without_tokens_give_nothing(encoder: TextEncoder) -> None:
    for shape in ((0, 3), (2, 0)):
        states = encoder(torch.zeros(shape, dtype=torch.long), torch.zeros(shape).bool())
        assert states.shape == (*shape, D)


def test_shapes_that_do_not_fit_are_one_line(encoder: TextEncoder) -> None:
    ids, mask = batch(3, size=3)
    for wrong in ((ids[0], mask[0]), (ids, mask[:, :2]), (ids, mask.long())):
        with pytest.raises(ValueError, match="needs ids"):
            encoder(*wrong)
    ids, mask = batch(10, size=10)
    if encoder.positions is None:
        assert encoder(ids, mask).shape == (1, 10, D)
        return
    with pytest.raises(ValueError, match="up to 9 tokens, got 10; cut the text into windows"):
        encoder(ids, mask)


def test_an_encoder_is_built_again_from_its_options_as_json(encoder: TextEncoder) -> None:
    again = build_text_encoder(encoder.form, json.loads(json.dumps(encoder.options))).eval()
    again.load_state_dict(encoder.state_dict())
    ids, mask = batch(5, 2, size=6)
    torch.testing.assert_close(again(ids, mask), encoder(ids, mask))


def test_the_order_of_tokens_counts_where_there_are_positions() -> None:
    torch.manual_seed(1)
    ids, mask = batch(4, size=4)
    for built, counts in ((bert(), True), (tokens().eval(), True), (StaticEncoder(V, D), False)):
        nn.init.normal_(getattr(built, "places", torch.empty(1)))
        with torch.no_grad():
            mean = mean_vector(built.eval()(ids, mask), mask)
            turned = mean_vector(built(ids.flip(1), mask), mask)
        assert torch.allclose(mean, turned, atol=1e-5) != counts


def test_gradients_reach_all_that_is_trained() -> None:
    ids, mask = batch(5, 3, size=6)
    for built in (bert(), tokens(dropout=0.2), StaticEncoder(V, D, trained=True)):
        built.train()
        built(ids, mask).square().sum().backward()
        assert all(weight.grad is not None for weight in built.parameters())
    assert not any(weight.requires_grad for weight in StaticEncoder(V, D).parameters())
    moe = tokens(ffn="moe", moe={"experts": 4}).train()
    moe(ids, mask)
    assert auxiliary_loss(moe) is not None


@pytest.mark.parametrize("name", ["bert", "softmax", "static"])
def test_tune_trains_the_last_part_or_nothing(name: str) -> None:
    last = BUILDERS[name]()
    last.tune("last")
    trained = {key for key, weight in last.named_parameters() if weight.requires_grad}
    prefixes = {"bert": ("layers.1.",), "softmax": ("layers.1.", "norm."), "static": ("words",)}
    assert all(key.startswith(prefixes[name]) for key in trained)
    assert bool(trained) == (name != "static")
    nothing = BUILDERS[name]()
    nothing.tune("none")
    assert not any(weight.requires_grad for weight in nothing.parameters())
    assert not nothing.train().training


@pytest.mark.parametrize("name", ["bert", "packed", "static", "softmax"])
def test_one_program_is_exported_for_all_sizes(name: str) -> None:
    built = BUILDERS[name]().eval()
    if isinstance(words := built.words, PackedVectors):
        words.scales.fill_(0.1)
        words.bits.random_(0, 256)
    sizes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("tokens", min=2, max=9)}
    program = torch.export.export(
        built, batch(5, 3, size=6), dynamic_shapes={"ids": sizes, "mask": sizes}
    ).module()
    for inputs in (batch(2, 9, 4, size=9), batch(3, size=3)):
        torch.testing.assert_close(program(*inputs), built(*inputs))


@pytest.mark.parametrize("name", ["packed", "softmax"])
def test_an_encoder_compiles_as_one_graph(name: str) -> None:
    built = BUILDERS[name]().eval()
    compiled = torch.compile(built, backend="eager", fullgraph=True, dynamic=True)
    for inputs in (batch(5, 3, size=6), batch(4, size=4)):
        torch.testing.assert_close(compiled(*inputs), built(*inputs))


def test_options_that_do_not_fit_are_one_line() -> None:
    cases: list[tuple[str, dict[str, object], str]] = [
        ("tokens", {"vocabulary": 3, "width": 7, "heads": 1}, "even width"),
        ("tokens", {"vocabulary": 3, "width": 8, "attention": "contmix"}, "for grids"),
        ("tokens", {"vocabulary": 3, "width": 8, "ffn": "convglu"}, "on a grid"),
        ("tokens", {"vocabulary": 3, "width": 8, "options": {"kv": 1}}, "no option 'kv'"),
        ("tokens", {"vocabulary": 3, "width": 8, "colour": 1}, "colour"),
        ("other", {}, "no form of encoder"),
    ]
    for form, options, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            build_text_encoder(form, options)  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="divide by 32"):
        PackedVectors(4, 33)


def test_four_bits_are_unpacked_as_the_format_says() -> None:
    bits = torch.zeros(1, 16, dtype=torch.uint8)
    bits[0, 0], bits[0, 15] = 0x9F, 0x08
    values = unpacked(torch.tensor([0.5], dtype=torch.float16), bits)
    assert values.shape == (1, 32)
    assert values[0, [0, 16, 15, 31, 1]].tolist() == [3.5, 0.5, 0.0, -4.0, -4.0]


def test_the_mean_vector_is_of_the_tokens_alone() -> None:
    states = torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]], [[1.0, 1.0]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    mean = mean_vector(states, mask, normalised=False)
    assert mean.tolist() == [[3.0, 4.0], [0.0, 0.0]]
    torch.testing.assert_close(mean_vector(states, mask), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
