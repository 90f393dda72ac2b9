"""A linear classifier as the simple model that others are compared with, kept as tensors."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

ABSENT_LOGIT = -30.0  # bias of a class without a training row, which is never predicted


def fit_linear_baseline(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    inverse_penalty: float,
    iterations: int,
    seed: int,
    standardise: bool = False,
) -> dict[str, Tensor]:
    """Logistic regression (scikit-learn): `baseline_weight` (K, D) and `baseline_bias` (K,).

    Class probabilities: `linear_probabilities`.

    features: (n, D); labels: int (n,), at least two of 0 to classes - 1; classes: K.
    inverse_penalty, iterations: C and max_iter of scikit-learn. standardise: fit on features with
    mean 0 and deviation 1; weights and bias are nevertheless for features as they are.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=inverse_penalty, max_iter=iterations, random_state=seed)
    if standardise:
        centre, scale = features.mean(0), features.std(0)
        scale[scale < 1e-6 * (1 + np.abs(centre))] = 1.0
        model.fit((features - centre) / scale, labels)
        weight = model.coef_ / scale
        bias = model.intercept_ - weight @ centre
    else:
        model.fit(features, labels)
        weight, bias = model.coef_, np.asarray(model.intercept_)
    if len(weight) == 1:  # two classes: one row, the logit of the second
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([[0.0], bias])
    all_weights = np.zeros((classes, weight.shape[1]), weight.dtype)
    all_biases = np.full(classes, ABSENT_LOGIT, bias.dtype)
    present = np.unique(labels)
    all_weights[present], all_biases[present] = weight, bias
    return {
        "baseline_weight": torch.from_numpy(all_weights),
        "baseline_bias": torch.from_numpy(all_biases),
    }


def linear_probabilities(features: np.ndarray, fitted: Mapping[str, Tensor]) -> np.ndarray:
    """softmax(features @ weight.T + bias) of a fitted baseline: (n, D) -> float64 (n, K)."""
    weight, bias = fitted["baseline_weight"].double(), fitted["baseline_bias"]
    return (torch.from_numpy(features).double() @ weight.T + bias).softmax(1).numpy()
