"""Linear models of texts against the sums that define them."""

import numpy as np
import torch

from headwise.models.text.linear import BlendedTexts, ConstantTexts, LinearTexts
from headwise.tests.models.text.small_texts import (
    NUMBERS,
    TERMS,
    answers,
    some_texts,
    with_random_weights,
)

OUTPUTS = 3


def linear(table: int = NUMBERS) -> LinearTexts:
    return with_random_weights(LinearTexts(TERMS, OUTPUTS, table))


def by_hand(model: LinearTexts, texts) -> np.ndarray:
    """Term by term, in plain numpy."""
    weight, of_table, bias = (
        values.numpy() for values in (model.weight, model.table_weight, model.bias)
    )
    rows = []
    for features, amounts, table in zip(texts.features, texts.amounts, texts.table, strict=True):
        row = bias.copy()
        for term, amount in zip(features.tolist(), amounts.double().tolist(), strict=True):
            row = row + amount * weight[term]
        rows.append(row + table.double().numpy() @ of_table)
    return np.stack(rows)


def test_the_logits_are_the_sum_of_terms_and_table() -> None:
    model, texts = linear(), some_texts()
    np.testing.assert_allclose(answers(model, texts), by_hand(model, texts), atol=1e-12)


def test_a_term_that_a_text_has_twice_counts_twice() -> None:
    model, texts = linear(), some_texts()
    twice = texts._replace(
        features=torch.cat([texts.features, texts.features], 1),
        amounts=torch.cat([texts.amounts, texts.amounts], 1),
        table=2 * texts.table,
    )
    expected = 2 * answers(model, texts) - model.bias
    torch.testing.assert_close(answers(model, twice), expected)


def test_padding_and_other_texts_change_nothing() -> None:
    model, texts = linear(), some_texts()
    together = answers(model, texts)
    torch.testing.assert_close(answers(model, texts.padded(3)), together, rtol=0, atol=0)
    for row in range(len(together)):
        alone = answers(model, texts.rows(slice(row, row + 1)))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-12)


def test_without_a_table_the_terms_count_alone() -> None:
    model, texts = linear(0), some_texts()
    texts = texts._replace(table=texts.table[:, :0])
    assert answers(model, texts).shape == (4, OUTPUTS)


def test_nothing_of_a_linear_model_is_trained_and_all_of_it_is_stored() -> None:
    model = linear()
    assert not list(model.parameters())
    assert set(model.state_dict()) == {"weight", "table_weight", "bias"}


def test_the_constant_model_gives_each_text_the_same() -> None:
    model = ConstantTexts(OUTPUTS)
    model.logits = torch.tensor([0.5, -1, 2])
    assert answers(model, some_texts()).tolist() == [[0.5, -1, 2]] * 4


def test_the_blend_weighs_each_output_by_itself() -> None:
    first, second = linear(), with_random_weights(LinearTexts(TERMS, OUTPUTS, NUMBERS), seed=9)
    blend, texts = BlendedTexts(first, second, OUTPUTS).double(), some_texts()
    both = answers(first, texts), answers(second, texts)
    torch.testing.assert_close(answers(blend, texts), 0.5 * both[0] + 0.5 * both[1])
    blend.first = torch.tensor([1.0, 0, 0.5]).double()
    blend.second = torch.tensor([0.0, 2, 0.5]).double()
    blend.shift = torch.tensor([0.0, 0, -1]).double()
    expected = torch.stack(
        [both[0][:, 0], 2 * both[1][:, 1], (both[0][:, 2] + both[1][:, 2]) / 2 - 1], 1
    )
    torch.testing.assert_close(answers(blend, texts), expected)
    assert {"first", "second", "shift"} < set(blend.state_dict())
