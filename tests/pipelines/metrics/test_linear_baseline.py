"""The linear baseline as tensors gives scikit-learn's probabilities, whatever the classes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headwise.pipelines.metrics.linear_baseline import fit_linear_baseline

SETTINGS = {"inverse_penalty": 0.5, "iterations": 500, "seed": 0}


def probabilities(features: np.ndarray, baseline: dict) -> np.ndarray:
    logits = features @ baseline["baseline_weight"].numpy().T + baseline["baseline_bias"].numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(classes: int, standardise: bool) -> None:
    generator = np.random.default_rng(classes)
    features = generator.normal(3, [1, 20, 0.1, 0], (40, 4))  # the last one is constant
    labels = np.arange(40) % classes
    baseline = fit_linear_baseline(features, labels, classes, standardise=standardise, **SETTINGS)
    scaled = features - features.mean(0) if standardise else features
    if standardise:
        scaled[:, :3] /= features[:, :3].std(0)
    model = LogisticRegression(C=0.5, max_iter=500, random_state=0).fit(scaled, labels)
    expected = model.predict_proba(scaled)
    np.testing.assert_allclose(probabilities(features, baseline), expected, atol=1e-9)


def test_a_class_without_training_rows_is_never_predicted() -> None:
    features = np.random.default_rng(0).normal(size=(20, 3))
    baseline = fit_linear_baseline(features, np.arange(20) % 2 * 2, 4, **SETTINGS)
    assert baseline["baseline_weight"].shape == (4, 3)
    probability = probabilities(features, baseline)
    assert probability[:, [1, 3]].max() < 1e-9
    np.testing.assert_allclose(probability[:, [0, 2]].sum(1), 1)
