"""The simple models of slides: how sure they are."""

import numpy as np
import pytest
import torch

from headwise.pipelines.wsi.data import WsiSpec
from headwise.pipelines.wsi.rungs import Form, fit_form

WIDTH = 3


@pytest.fixture(scope="module")
def bags() -> tuple[np.ndarray, np.ndarray]:
    """Statistics (N, 3 D) of bags of which two thirds are of one class, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 1], 20)
    return random.normal(size=(60, 3 * WIDTH)) + labels[:, None] * 0.6, labels


def test_the_machine_is_as_sure_as_platt_would_be(bags: tuple[np.ndarray, np.ndarray]) -> None:
    """Against scikit-learn's parts, put together here: the logit of a held-out margin."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.svm import SVC

    statistics, labels = bags
    spec = WsiSpec(
        input={},  # type: ignore[typeddict-item]
        classes=["a", "b"],
        width=WIDTH,
        extraction=None,
        mpp=None,
        parts={},
        mean=None,
        deviation=None,
    )
    model = fit_form(Form("kernel", True, 3.0), statistics, labels, spec, seed=0)
    x = ((statistics - statistics.mean(0)) / statistics.std(0)).astype(np.float32)
    margins = cross_val_predict(SVC(C=3.0), x, labels, cv=5, method="decision_function")
    platt = LogisticRegression(C=10.0).fit(margins[:, None], labels)
    final = SVC(C=3.0).fit(x, labels).decision_function(x)
    expected = platt.predict_proba(final[:, None])[:, 1]
    with torch.no_grad():
        probability = model.classify(torch.from_numpy(x)).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(probability, expected, atol=1e-4)
    assert abs(probability.mean() - labels.mean()) < 0.1
