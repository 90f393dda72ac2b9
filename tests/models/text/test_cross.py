"""A row of a table that reads the text beside it, against its formula and in its special cases."""

import math
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.attention import names_with
from headwise.models.attention.base import auxiliary_loss
from headwise.models.attention.softmax import SoftmaxAttention
from headwise.models.layers.blocks import FeedForward
from headwise.models.text.cross import CrossTexts, Direction
from headwise.models.text.linear import LinearTexts
from headwise.tests.models.contracts import (
    assert_evaluation_is_without_dropout,
    assert_gradient_is_the_derivative,
)
from headwise.tests.models.text.small_texts import (
    NUMBERS,
    TERMS,
    WIDTH,
    SmallEncoder,
    Texts,
    answers,
    some_texts,
    with_random_weights,
)

both_directions = pytest.mark.parametrize("direction", ["table", "text"])
every_reader = pytest.mark.parametrize("name", names_with("context"))


def make(direction: Direction = "table", *, linear: bool = False, **options: object) -> CrossTexts:
    return with_random_weights(
        CrossTexts(
            SmallEncoder(),
            outputs=2,
            table=NUMBERS,
            queries=3,
            heads=2,
            hidden=8,
            direction=direction,
            linear=LinearTexts(TERMS, 2, NUMBERS) if linear else None,
            **options,  # type: ignore[arg-type]
        )
    )


def attention_of(mixer: SoftmaxAttention, x: Tensor, context: Tensor) -> Tensor:
    """Softmax attention (N, D) from (M, D), head by head."""
    size = mixer.width // mixer.heads
    key, value = mixer.key_value(context).chunk(2, 1)
    parts = []
    for h in range(mixer.heads):
        at = slice(h * size, (h + 1) * size)
        scores = mixer.query(x)[:, at] @ key[:, at].T / math.sqrt(size)
        parts.append(scores.softmax(1) @ value[:, at])
    return mixer.out(torch.cat(parts, 1))


def network_of(model: CrossTexts, z: Tensor) -> Tensor:
    network = cast(FeedForward, model.layer.feedforward)
    return model.layer.norm2(z + network.down(F.gelu(network.up(z))))


def plain(model: CrossTexts, texts: Texts, row: int) -> Tensor:
    """The formula for one text without its padding."""
    length = int(texts.mask[row].sum())
    states = model.encoder.words(texts.tokens[row, :length])  # type: ignore[attr-defined]
    rows = model.rows(texts.table[row].double()).view(model.count, WIDTH)
    asking, answering = (rows, states) if model.direction == "table" else (states, rows)
    mixer = cast(SoftmaxAttention, model.layer.mixer)
    z = model.layer.norm1(asking + attention_of(mixer, asking, answering))
    return model.head(network_of(model, z).mean(0))


@both_directions
def test_each_text_of_a_batch_has_the_formulas_logits(direction: Direction) -> None:
    model, texts = make(direction), some_texts()
    expected = torch.stack([plain(model, texts, row) for row in range(4)])
    torch.testing.assert_close(answers(model, texts), expected)


@both_directions
@every_reader
def test_padding_and_other_texts_change_nothing(name: str, direction: Direction) -> None:
    model, texts = make(direction, attention=name, linear=True), some_texts()
    together = answers(model, texts)
    torch.testing.assert_close(answers(model, texts.padded(5)), together)
    alone = [answers(model, texts.rows(slice(row, row + 1))) for row in range(4)]
    torch.testing.assert_close(torch.cat(alone), together)


@both_directions
def test_columns_of_the_table_may_be_in_any_order_with_their_weights(direction: Direction) -> None:
    model, texts = make(direction, linear=True), some_texts()
    before, order = answers(model, texts), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        model.rows.weight.copy_(model.rows.weight[:, order])
        assert model.linear is not None
        model.linear.table_weight.copy_(model.linear.table_weight[order])
    assert not torch.allclose(answers(model, texts), before)
    moved = texts._replace(table=texts.table[:, order])
    torch.testing.assert_close(answers(model, moved), before)


@both_directions
def test_without_weights_the_table_is_not_read(direction: Direction) -> None:
    model, texts = make(direction), some_texts()
    moved = texts._replace(table=texts.table + 3)
    assert not torch.allclose(answers(model, moved), answers(model, texts))
    torch.nn.init.zeros_(model.rows.weight)
    torch.testing.assert_close(answers(model, moved), answers(model, texts))


def test_a_text_of_one_token_is_fused_by_concatenation() -> None:
    """All attention is on the token, so that a query is a linear function of [row, token]."""
    model, texts = make(), some_texts((1, 1, 1))
    states = model.encoder(texts.tokens, texts.mask)[:, 0]
    mixer = cast(SoftmaxAttention, model.layer.mixer)
    value = mixer.key_value.weight[WIDTH:], mixer.key_value.bias[WIDTH:]
    of_token = mixer.out.weight @ value[0]
    shift = mixer.out.weight @ value[1] + mixer.out.bias
    joined = torch.cat([texts.table.double(), states], 1)
    total = 0.0
    for of_row, bias in zip(model.rows.weight.split(WIDTH), model.rows.bias.split(WIDTH)):
        fused = F.linear(joined, torch.cat([of_row, of_token], 1), bias + shift)
        total = total + network_of(model, model.layer.norm1(fused))
    torch.testing.assert_close(answers(model, texts), model.head(total / model.count))


class TestAttended:
    def test_weights_of_a_query_sum_to_1_over_the_words_that_are_there(self) -> None:
        model, texts = make(), some_texts().padded(2)
        weights = model.attended(texts.tokens, texts.mask, texts.table.double())
        assert weights.shape == (4, 3, 8)
        assert not weights[~texts.mask[:, None].expand_as(weights)].any()
        torch.testing.assert_close(weights.sum(2), torch.ones(4, 3).double())

    def test_weights_of_a_word_sum_to_1_over_the_vectors_of_the_row(self) -> None:
        model, texts = make("text"), some_texts().padded(2)
        weights = model.attended(texts.tokens, texts.mask, texts.table.double())
        assert weights.shape == (4, 3, 8)
        torch.testing.assert_close(weights.sum(1), texts.mask.double())

    def test_a_query_reads_the_word_that_it_asks_for(self) -> None:
        model, texts = make(), some_texts((5,))
        mixer = cast(SoftmaxAttention, model.layer.mixer)
        key = mixer.keys_values(model.encoder(texts.tokens, texts.mask))[0]
        with torch.no_grad():  # the query of all three rows is a large multiple of word 3's key
            model.rows.weight.zero_()
            mixer.query.weight.zero_()
            mixer.query.bias.copy_(1e3 * (key[0, :, 3] - key[0].mean(1)).flatten())
        weights = model.attended(texts.tokens, texts.mask, texts.table.double())
        assert (weights[0].argmax(1) == 3).all()

    def test_a_mechanism_without_weights_says_so(self) -> None:
        texts = some_texts()
        with pytest.raises(ValueError, match="STAR has no attention weights"):
            make(attention="star").attended(texts.tokens, texts.mask, texts.table.double())


def test_it_starts_as_the_linear_model_and_can_take_its_cross_fitted_logits() -> None:
    linear, texts = LinearTexts(TERMS, 2, NUMBERS), some_texts()
    with_random_weights(linear)
    fresh = CrossTexts(SmallEncoder(), outputs=2, table=NUMBERS, heads=2, linear=linear).double()
    torch.testing.assert_close(answers(fresh, texts), answers(linear, texts))
    trained = make(linear=True)
    assert trained.linear is not None
    doubled = texts._replace(amounts=texts.amounts.double(), table=texts.table.double())
    base = answers(trained.linear, texts)
    torch.testing.assert_close(trained.corrected(base, *doubled), answers(trained, texts))
    torch.testing.assert_close(trained.corrected(base + 1, *doubled), answers(trained, texts) + 1)


@both_directions
def test_gradients_are_the_derivative(direction: Direction) -> None:
    model, texts = make(direction), some_texts()
    assert_gradient_is_the_derivative(model, lambda: answers(model, texts).square().sum())


@both_directions
def test_evaluation_is_without_dropout(direction: Direction) -> None:
    texts = some_texts()
    assert_evaluation_is_without_dropout(
        make(direction, dropout=0.5), make(direction), lambda model: answers(model, texts)
    )


@both_directions
def test_no_texts_and_texts_without_tokens(direction: Direction) -> None:
    model = make(direction, linear=True)
    nothing = answers(model, some_texts().rows(slice(0, 0)))
    assert nothing.shape == (0, 2)
    nothing.sum().backward()
    empty, texts = some_texts((0, 0)), some_texts((2, 0))
    assert answers(model, empty).isfinite().all()
    together = answers(model, texts)
    together.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(together[1], answers(model, texts.padded(3))[1])


def test_compiled_exported_and_copied() -> None:
    torch._dynamo.reset()
    model = make(linear=True).float()
    texts = some_texts()
    expected = model(*texts)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*texts), expected)
    batch, tokens, features = (torch.export.Dim(name, min=1) for name in ("b", "n", "f"))
    sizes = ({0: batch, 1: tokens},) * 2 + ({0: batch, 1: features},) * 2 + ({0: batch},) * 2
    with torch.no_grad():
        program = torch.export.export(model, tuple(texts), dynamic_shapes=sizes, strict=False)
        other = some_texts((9, 2), seed=3)
        torch.testing.assert_close(program.module()(*other), model(*other))
    twin = make(linear=True).float()
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(*texts), expected)


@pytest.mark.parametrize("window", [2, 3, 6])
def test_windows_of_an_encoder_that_mixes_nothing_change_nothing(window: int) -> None:
    model, texts = make(linear=True), some_texts()
    together = answers(model, texts)
    model.window = window
    torch.testing.assert_close(answers(model, texts), together)


def test_a_mechanism_with_a_loss_leaves_it_in_training() -> None:
    model, texts = make(attention="moh").train(), some_texts()
    answers(model, texts)
    assert auxiliary_loss(model) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "squeeze"}, "'squeeze' takes no context; take one of agent-learned, "),
        ({"direction": "both"}, "must be 'table' or 'text', got 'both'"),
        ({"table": 0}, "needs an output, a number of the table and a query, got 2, 0, 3"),
        ({"heads": 3}, "3 heads do not divide width 16"),
        ({"ffn": "convglu"}, "convglu needs tokens on a grid"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options: dict, message: str) -> None:
    sizes = {"outputs": 2, "table": NUMBERS, "queries": 3}
    with pytest.raises(ValueError, match=message):
        CrossTexts(SmallEncoder(), **{**sizes, **options})


def test_diverse_experts_begin_as_the_linear_model_and_answer_with_their_mean() -> None:
    torch.manual_seed(0)
    linear = with_random_weights(LinearTexts(TERMS, 3, NUMBERS))
    sizes = {"outputs": 3, "table": NUMBERS, "linear": linear}
    model = CrossTexts(SmallEncoder(), **sizes, diverse=True).double()
    x = some_texts()
    torch.testing.assert_close(answers(model, x), answers(linear, x).expand(3, -1, -1))
    torch.nn.init.normal_(model.head.weight)
    experts = answers(model, x)
    assert (experts[0] - experts[1]).abs().max() > 0.1
    torch.testing.assert_close(answers(model.eval(), x), experts.mean(0))
