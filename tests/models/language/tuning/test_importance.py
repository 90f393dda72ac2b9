"""Importance of hidden units: a signal where there is one, and what the published form gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from headwise.models.language.tuning.importance import (
    TextBatch,
    UnitGradients,
    joined_importance,
    unit_gradients,
)
from headwise.tests.models.language.tuning.tuned_models import texts, tiny

LAYERS = (0, 2)


def batch(rows: int = 3) -> TextBatch:
    ids = texts(rows, 10, seed=7)
    targets = torch.full_like(ids, -100)
    targets[:, 3:-1] = ids[:, 4:]
    return TextBatch(ids, targets)


@torch.no_grad()
def loss_of(model, text: TextBatch) -> float:
    logits = model(input_ids=text.tokens).logits.double()
    return float(F.cross_entropy(logits.flatten(0, 1), text.targets.flatten()))


def test_the_gradient_of_a_unit_is_what_scaling_it_changes():
    model = tiny().double()
    text = TextBatch(*(part[:1] for part in batch()))
    gradients = unit_gradients(model, [text], LAYERS).by_layer
    step = 1e-2  # norms are computed in 32 bits
    for layer, unit in ((0, 1), (0, 5), (2, 3)):
        column = model.model.layers[layer].mlp.down_proj.weight.data[:, unit]
        column *= 1 + step
        high = loss_of(model, text)
        column *= (1 - step) / (1 + step)
        low = loss_of(model, text)
        column /= 1 - step
        expected = abs(high - low) / (2 * step)
        assert float(gradients[layer][unit]) == pytest.approx(expected, rel=1e-2)


def test_absolute_values_are_taken_for_each_text():
    model = tiny()
    together = unit_gradients(model, [batch()], LAYERS).by_layer
    alone = [
        unit_gradients(model, [TextBatch(*(part[k : k + 1] for part in batch()))], LAYERS).by_layer
        for k in range(3)
    ]
    for layer in LAYERS:
        mean = torch.stack([part[layer] for part in alone]).mean(0)
        torch.testing.assert_close(together[layer], mean)


def test_the_published_form_is_rounding_noise_that_looks_like_importance():
    model = tiny()
    published, signal = (
        unit_gradients(model, [batch()], LAYERS, form=form) for form in ("published", "loss")
    )
    assert published.largest() < 1e-6
    assert signal.largest() > 1e3 * published.largest()
    noise = torch.cat(list(published.importance().values()))
    assert float(noise.mean()) > 0.2, "a z-score makes any noise as large as a signal"
    exact = unit_gradients(tiny().double(), [batch()], LAYERS, form="published")
    assert exact.largest() < 1e-14


def test_the_divergence_from_a_disturbed_copy_has_a_signal_and_repeats():
    model = tiny()
    first, again, other = (
        unit_gradients(model, [batch()], LAYERS, form="divergence", seed=seed).by_layer
        for seed in (1, 1, 2)
    )
    assert float(first[0].max()) > 1e-4
    assert torch.equal(first[2], again[2])
    assert not torch.equal(first[2], other[2])


def test_importance_is_in_0_to_1_and_joined_by_the_largest():
    values = {0: torch.tensor([0.0, 1.0, 2.0, 9.0]), 1: torch.ones(4)}
    importance = UnitGradients(values).importance()
    z = (values[0] - 3) / values[0].std(unbiased=False)
    torch.testing.assert_close(importance[0], z.tanh().abs())
    assert float(importance[1].max()) == 0, "equal gradients protect nothing"
    joined = joined_importance([{0: torch.tensor([0.1, 0.8])}, {0: torch.tensor([0.5, 0.2])}])
    assert joined[0].tolist() == pytest.approx([0.5, 0.8])


def test_the_model_is_left_as_it_was():
    model = tiny().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.model.layers[0].requires_grad_(False)
    unit_gradients(model, [batch()], LAYERS)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not next(model.model.layers[0].parameters()).requires_grad
    assert next(model.model.layers[1].parameters()).requires_grad
    assert not model.model.layers[0].mlp.down_proj._forward_pre_hooks


def test_no_texts_are_refused():
    with pytest.raises(ValueError, match="no texts"):
        unit_gradients(tiny(), [], LAYERS)
