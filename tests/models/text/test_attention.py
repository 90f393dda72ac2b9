"""The network of texts: windows against the texts cut by hand, and contributions that sum up."""

from typing import cast

import pytest
import torch
from torch import nn

from headwise.models.text.attention import AttentionTexts, Contributions, HybridTexts, ScaledTexts
from headwise.models.text.encoder import TokenEncoder
from headwise.models.text.inputs import TextInputs
from headwise.models.text.label_attention import LabelAttention
from headwise.models.text.linear import LinearTexts
from headwise.models.text.sources import SourceLinearTexts
from headwise.tests.models.text.small_texts import (
    NUMBERS,
    TERMS,
    WORDS,
    SmallEncoder,
    Texts,
    answers,
    some_texts,
    with_random_weights,
)

OUTPUTS, WINDOW = 3, 4
Explained = AttentionTexts | HybridTexts | ScaledTexts


def network(*, mixing: bool = False, window: int = WINDOW) -> AttentionTexts:
    encoder = (
        TokenEncoder(WORDS, 16, positions=WINDOW, layers=1, heads=2) if mixing else SmallEncoder()
    )
    head = LabelAttention(encoder.width, OUTPUTS)
    return AttentionTexts(encoder, head, window=window, dropout=0.5)  # pyright: ignore


def model_of(name: str) -> Explained:
    linear = LinearTexts(TERMS, OUTPUTS, NUMBERS)
    if name.startswith("sources"):
        linear = SourceLinearTexts(TERMS, OUTPUTS, NUMBERS, sources=3)
    if name == "attention":
        return with_random_weights(network())
    if name.endswith("scaled"):
        return with_random_weights(ScaledTexts(linear, OUTPUTS))
    return with_random_weights(HybridTexts(linear, network(mixing=True)))


MODELS = ["attention", "scaled", "hybrid", "sources, scaled", "sources, hybrid"]
LONG = (9, 4, 1, 12, 8)


def explained(model: Explained, texts: Texts) -> Contributions:
    doubled = texts._replace(amounts=texts.amounts.double(), table=texts.table.double())
    return model.contributions(TextInputs(*doubled))


@pytest.mark.parametrize("mixing", [False, True])
def test_a_long_text_is_encoded_window_by_window(mixing: bool) -> None:
    model, texts = with_random_weights(network(mixing=mixing)), some_texts(LONG)
    logits = answers(model, texts)
    for row, length in enumerate(LONG):
        ids = texts.tokens[row, :length]
        states = [
            model.encoder(part[None], torch.ones(1, len(part), dtype=torch.bool))
            for part in ids.split(WINDOW)
        ]
        joined = torch.cat(states, 1)
        alone = model.head(joined, torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(logits[row], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_other_texts_change_nothing(name: str) -> None:
    model, texts = model_of(name), some_texts(LONG)
    together = answers(model, texts)
    torch.testing.assert_close(answers(model, texts.padded(5)), together, rtol=0, atol=1e-12)
    for row, length in enumerate(LONG):
        single = texts.rows(slice(row, row + 1))
        single = single._replace(tokens=single.tokens[:, :length], mask=single.mask[:, :length])
        torch.testing.assert_close(answers(model, single)[0], together[row], rtol=0, atol=1e-12)


def test_windows_of_padding_alone_are_not_encoded() -> None:
    model, texts = with_random_weights(network()), some_texts((12, 1, 1))
    rows: list[int] = []
    hook = model.encoder.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    answers(model, texts)
    hook.remove()
    assert rows == [3 + 1 + 1]


def test_texts_without_tokens_have_the_bias() -> None:
    model = with_random_weights(network())
    logits = answers(model, some_texts((0, 9, 0)))
    torch.testing.assert_close(logits[0], logits[2])
    assert logits.isfinite().all()
    assert answers(model, some_texts((0, 0))).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_contributions_sum_to_the_logits(name: str) -> None:
    model, texts = model_of(name), some_texts(LONG)
    parts = explained(model, texts)
    torch.testing.assert_close(parts.logits, answers(model, texts), rtol=0, atol=1e-12)
    total = parts.tokens.sum(2) + parts.features.sum(2) + parts.table + parts.bias
    torch.testing.assert_close(total, parts.logits, rtol=0, atol=1e-12)
    assert parts.tokens.shape == (*parts.logits.shape, texts.tokens.shape[1])
    assert parts.features.shape == (*parts.logits.shape, texts.features.shape[1])
    outside = parts.tokens.masked_fill(texts.mask[:, None], 0.0)
    assert not outside.any(), "padding speaks for no label"


@pytest.mark.parametrize("name", [name for name in MODELS if name != "attention"])
def test_corrected_logits_take_others_for_those_of_the_linear_model(name: str) -> None:
    model, texts = model_of(name), some_texts(LONG)
    assert isinstance(model, HybridTexts | ScaledTexts)
    doubled = texts._replace(amounts=texts.amounts.double(), table=texts.table.double())
    base = cast(torch.Tensor, model.linear(*doubled))
    torch.testing.assert_close(model.corrected(base, *doubled), answers(model, texts))
    other = torch.randn_like(base)
    change = model.corrected(other, *doubled) - model.corrected(base, *doubled)
    factor = model.scale if isinstance(model, ScaledTexts) else 1.0
    torch.testing.assert_close(change, factor * (other - base))


def test_a_hybrid_with_an_empty_head_is_its_linear_model() -> None:
    linear = with_random_weights(LinearTexts(TERMS, OUTPUTS, NUMBERS))
    model = HybridTexts(linear, network()).double().eval()
    nn.init.zeros_(model.network.head.weight)
    nn.init.zeros_(model.network.head.bias)
    texts = some_texts(LONG)
    torch.testing.assert_close(answers(model, texts), answers(linear, texts))


def test_dropout_is_in_training_alone() -> None:
    model, texts = with_random_weights(network()), some_texts(LONG)
    torch.testing.assert_close(answers(model, texts), answers(model, texts), rtol=0, atol=0)
    model.train()
    assert not torch.equal(answers(model, texts), answers(model, texts))


def test_the_linear_part_is_not_trained() -> None:
    model, texts = model_of("hybrid"), some_texts(LONG)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(name.startswith("network.") for name in names)
    answers(model, texts).sum().backward()
    assert all(weight.grad is not None for _, weight in model.named_parameters())
