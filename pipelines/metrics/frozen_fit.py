"""Linear maps of frozen features, with what they leave open chosen on held-out data.

Shapes: n pictures, D width of a feature, K classes, E numbers of a vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .linear_baseline import fit_linear_baseline, linear_probabilities
from .retrieval import leave_one_out

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn, on standardised features
SHRINKAGES = (1.0, 0.1)  # share of the mean variance that whitening adds to each
FOLDS = 4
ITERATIONS = 300


class LinearMap(NamedTuple):
    """(f - centre) W' + b: centre (D,), weight (E, D), bias (E,), float32; words: how it was
    chosen; penalty: the inverse one (C of scikit-learn), 0 where there is none.
    """

    centre: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    words: str
    penalty: float = 0.0


def fit_classes(
    features: np.ndarray,
    labels: np.ndarray,
    held_features: np.ndarray,
    held_labels: np.ndarray,
    classes: int,
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> LinearMap:
    """Logistic regression on standardised features, of which the penalty has the smallest log-loss
    on the held-out (validation) part; without such a part, in folds of the training part.

    features (n, D), labels int (n,) of the training part, held_features and held_labels of the
    other; groups (n,): what no two folds share.
    """
    all_rows = np.arange(len(features))
    if len(held_labels):
        parts = [(all_rows, held_features, held_labels)]
    else:
        folds = _folds(all_rows if groups is None else groups, seed)
        parts = [(np.setdiff1d(all_rows, held), features[held], labels[held]) for held in folds]
    parts = [part for part in parts if len(np.unique(labels[part[0]])) > 1]
    losses: dict[float, float] = {}
    candidates: dict[float, dict[str, np.ndarray]] = {}
    for penalty in INVERSE_PENALTIES:
        total = 0.0
        for rows, other, truth in parts:
            candidates[penalty] = _fitted(features[rows], labels[rows], classes, penalty, seed)
            total += _log_loss(other, truth, candidates[penalty])
        losses[penalty] = total
    best = min(losses, key=lambda penalty: losses[penalty])
    if len(held_labels) and parts:
        return _map_of(candidates[best], features, best)
    return fit_penalty(features, labels, classes, best, seed=seed)


def fit_penalty(
    features: np.ndarray, labels: np.ndarray, classes: int, penalty: float, *, seed: int
) -> LinearMap:
    """Logistic regression on standardised features (n, D) with labels int (n,); penalty: the
    inverse one.
    """
    return _map_of(_fitted(features, labels, classes, penalty, seed), features, penalty)


def refit_classes(
    fitted: LinearMap, parts: Sequence[tuple[np.ndarray, np.ndarray]], classes: int, *, seed: int
) -> LinearMap:
    """`fit_classes` once more with the penalty that was chosen, to all parts together.

    parts: features (n, D) and labels (n,) of each.
    """
    features, labels = (np.concatenate(values) for values in zip(*parts, strict=True))
    return fit_penalty(features, labels, classes, fitted.penalty, seed=seed)


def _fitted(
    features: np.ndarray, labels: np.ndarray, classes: int, penalty: float, seed: int
) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the solver stops early
        tensors = fit_linear_baseline(
            features,
            labels,
            classes,
            inverse_penalty=penalty,
            iterations=ITERATIONS,
            seed=seed,
            standardise=True,
        )
    return {name: value.numpy() for name, value in tensors.items()}


def _map_of(tensors: dict[str, np.ndarray], features: np.ndarray, penalty: float) -> LinearMap:
    """The map of a regression that was fitted to these features (n, D)."""
    weight, centre = tensors["baseline_weight"].astype(np.float32), features.mean(0)
    # About the mean, the sum loses fewer digits than about 0.
    bias = tensors["baseline_bias"] + tensors["baseline_weight"] @ centre
    words = f"logistic regression (C {penalty:g})"
    return LinearMap(centre.astype(np.float32), weight, bias.astype(np.float32), words, penalty)


def _log_loss(features: np.ndarray, labels: np.ndarray, fitted: dict[str, np.ndarray]) -> float:
    import torch

    probability = linear_probabilities(
        features, {name: torch.from_numpy(value) for name, value in fitted.items()}
    )
    return float(-np.log(probability[np.arange(len(labels)), labels].clip(1e-12)).mean())


def fit_vectors(
    features: np.ndarray,
    labels: np.ndarray,
    held_features: np.ndarray,
    held_labels: np.ndarray,
    *,
    seed: int,
) -> LinearMap:
    """A map of features of length 1 after which identities are found best by cosine.

    Tried, the simplest first: the mean taken off, without which all cosines are nearly 1; whitening
    by the variance of all pictures, and by that within identities, each with two shrinkages. Chosen
    by mAP among identities that the map was not fitted on: folds of the training part, and the
    validation part.

    features (n, D) and labels int (n,) of the training part; held_features and held_labels of the
    validation part, with other identities.
    """
    x, held = normalised(features), normalised(held_features)
    present = labels > 0  # not junk or distractors
    x, labels = x[present], labels[present]
    held, held_labels = held[held_labels > 0], held_labels[held_labels > 0]
    maps = _maps()
    folds = _folds(labels, seed)
    scores = dict.fromkeys(maps, 0.0)
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(x)), rows)
        for name, fit in maps.items():
            mapped = _apply(fit(x[rest], labels[rest]), x[rows])
            scores[name] += _mean_ap(mapped, labels[rows]) * len(rows)
    for name, fit in maps.items() if len(held) else ():
        scores[name] += _mean_ap(_apply(fit(x, labels), held), held_labels) * len(held)
    best = max(scores, key=lambda name: round(scores[name] / max(1, len(x) + len(held)), 4))
    centre, weight = maps[best](x, labels)
    bias = np.zeros(len(weight), np.float32)
    return LinearMap(centre.astype(np.float32), weight.astype(np.float32), bias, best)


def normalised(features: np.ndarray) -> np.ndarray:
    """Features of length 1, float32 (n, D)."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-12)).astype(np.float32)


CentreAndWeight = tuple[np.ndarray, np.ndarray]


def _maps() -> dict[str, Callable[[np.ndarray, np.ndarray], CentreAndWeight]]:
    """The maps that are tried, each fitted to features (n, D) and labels (n,)."""

    def centred(x: np.ndarray, y: np.ndarray) -> CentreAndWeight:
        return x.mean(0), np.eye(x.shape[1])

    maps = {"cosine of centred features": centred}
    for shrinkage in SHRINKAGES:

        def white(x: np.ndarray, y: np.ndarray, share: float = shrinkage) -> CentreAndWeight:
            return x.mean(0), whitening(x - x.mean(0), share)

        def within(x: np.ndarray, y: np.ndarray, share: float = shrinkage) -> CentreAndWeight:
            return x.mean(0), whitening(x - _means(x, y), share)

        maps[f"cosine after whitening (shrinkage {shrinkage:g})"] = white
        maps[f"cosine after whitening within identities (shrinkage {shrinkage:g})"] = within
    return maps


def whitening(residuals: np.ndarray, shrinkage: float) -> np.ndarray:
    """The symmetric matrix (D, D) after which residuals (n, D) vary alike in all directions; the
    mean variance times `shrinkage` is added to each, and the scale is such that directions without
    variance stay as they are.
    """
    _, singular, directions = np.linalg.svd(residuals.astype(np.float64), full_matrices=False)
    variance = singular**2 / max(1, len(residuals))
    added = shrinkage * variance.sum() / residuals.shape[1]
    if added <= 0:
        return np.eye(residuals.shape[1])
    shares = np.sqrt(added / (variance + added)) - 1
    return np.eye(residuals.shape[1]) + (directions.T * shares) @ directions


def _means(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of each picture's identity, (n, D)."""
    _, code, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, code, x)
    return (sums / counts[:, None])[code]


def _apply(fitted: CentreAndWeight, x: np.ndarray) -> np.ndarray:
    centre, weight = fitted
    return ((x - centre) @ weight.T).astype(np.float32)


def _mean_ap(vectors: np.ndarray, labels: np.ndarray) -> float:
    """mAP of each picture against all others; 0 where no identity has two pictures."""
    value = leave_one_out(vectors, labels).mean_ap
    return value if np.isfinite(value) else 0.0


def _folds(groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows of each fold, in which groups are not divided."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    count = min(FOLDS, len(names) // 2)
    return (
        [np.flatnonzero(np.isin(groups, part)) for part in np.array_split(names, count)]
        if (count > 1)
        else []
    )
