"""Weights of a blend: which logits they trust, and how far single labels are believed."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from headwise.pipelines.text import blending
from headwise.pipelines.text.blending import fit_weights
from headwise.pipelines.text.linear import losses

N = 600


def logits_of(seed: int = 0, labels: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a model that knows the truth, of one that knows nothing, and the truth."""
    generator = np.random.default_rng(seed)
    model = generator.normal(size=(N, labels)) * 2 - 1
    noise = generator.normal(size=(N, labels)) * 2
    truth = (generator.random((N, labels)) < expit(model)).astype(float)
    return model, noise, truth


def fitted(model, simple, truth, goal="labels"):
    return fit_weights(model, simple, truth, goal)


def test_the_model_that_knows_has_the_weight():
    model, noise, truth = logits_of()
    values = fitted(model, noise, truth).values
    assert values.shape == (3, 4)
    np.testing.assert_allclose(values[0], 1, atol=0.3)
    np.testing.assert_allclose(values[1], 0, atol=0.2)
    swapped = fitted(noise, model, truth).values
    np.testing.assert_allclose(swapped[[1, 0, 2]], values, atol=1e-6)


def test_of_all_labels_together_it_is_logistic_regression():
    model, noise, truth = logits_of()
    x = np.stack([model.ravel(), noise.ravel(), np.ones(model.size)], 1)
    y = truth.ravel()
    prior = np.array([0.5, 0.5, 0])

    def loss(w: np.ndarray) -> float:
        z = x @ w
        penalty = 0.5 * blending.RIDGE * ((w - prior) ** 2).sum()
        return float((np.logaddexp(0, z) - y * z).sum() + penalty)

    expected = minimize(loss, prior).x
    np.testing.assert_allclose(blending._common(model, noise, truth), expected, atol=1e-3)


def test_a_rare_label_has_the_weights_of_all_and_a_frequent_one_its_own():
    model, noise, truth = logits_of()
    rare = truth.copy()
    rare[:, 3] = 0
    rare[np.argsort(noise[:, 3])[-2:], 3] = 1  # both by what the other model says
    frequent = truth.copy()
    frequent[:, 2] = (noise[:, 2] > 0.5).astype(float)
    common = blending._common(model, noise, rare)
    values = fitted(model, noise, rare).values
    assert np.abs(values[:2, 3] - common[:2]).max() < 0.25
    own = fitted(model, noise, frequent).values
    assert own[1, 2] > own[0, 2] + 0.5


def test_a_label_that_no_text_has_stays_with_the_common_weights():
    model, noise, truth = logits_of()
    truth[:, 1] = 0
    values = fitted(model, noise, truth).values
    assert np.isfinite(values).all()
    assert values[:2].min() >= 0


@pytest.mark.parametrize("scale", [1, 50])
def test_logits_that_divide_all_texts_give_finite_weights(scale):
    _, noise, truth = logits_of()
    values = fitted(scale * (2 * truth - 1), noise, truth).values
    assert np.isfinite(values).all()
    assert values[:2].min() >= 0
    blend = values[0] * scale * (2 * truth - 1) + values[1] * noise + values[2]
    assert losses(blend, truth, "labels").mean() < losses(noise, truth, "labels").mean()


def test_a_model_that_is_wrong_gets_no_weight_below_0():
    model, noise, truth = logits_of()
    assert fitted(-model, noise, truth).values[:2].min() >= 0


@pytest.mark.parametrize("goal", ["class", "number"])
def test_one_share_for_classes_and_numbers(goal):
    model, noise, truth = logits_of(labels=3 if goal == "class" else 1)
    truth = np.eye(3)[model.argmax(1)] if goal == "class" else model + 0.1 * noise
    weights = fitted(model, noise, truth, goal)
    share = weights.values[0, 0]
    assert share > 0.8
    np.testing.assert_allclose(weights.values.sum(0), 1)
    totals = [
        losses(s * model + (1 - s) * noise, truth, goal).mean() for s in np.linspace(0, 1, 21)
    ]
    assert share == pytest.approx(np.linspace(0, 1, 21)[int(np.argmin(totals))])
