"""Linear maps of features: the right one is chosen, and it is what it says."""

import numpy as np
import pytest

from headwise.pipelines.metrics.frozen_fit import fit_classes, fit_vectors, normalised, whitening

RNG = np.random.default_rng


def classes_of(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in 30 numbers, of which two tell."""
    generator = RNG(seed)
    labels = np.arange(count) % 3
    features = generator.normal(size=(count, 30)).astype(np.float32) * noise + 5
    features[:, 0] += 3 * (labels == 1)
    features[:, 1] += 3 * (labels == 2)
    return features, labels


def probabilities(fitted, features: np.ndarray) -> np.ndarray:
    logits = (features - fitted.centre) @ fitted.weight.T + fitted.bias
    logits -= logits.max(1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_classes_are_told_apart_on_new_data() -> None:
    fitted = fit_classes(*classes_of(120, 0.5, 0), *classes_of(60, 0.5, 1), 3, seed=0)
    features, labels = classes_of(300, 0.5, 2)
    assert (probabilities(fitted, features).argmax(1) == labels).mean() > 0.97
    assert fitted.weight.dtype == np.float32


def test_the_penalty_is_strong_where_the_data_is_noise_and_weak_where_it_is_clear() -> None:
    noise = RNG(3).normal(size=(120, 30)).astype(np.float32)
    labels = RNG(4).integers(0, 3, 120)
    strong = fit_classes(noise[:60], labels[:60], noise[60:], labels[60:], 3, seed=0)
    weak = fit_classes(*classes_of(120, 0.1, 0), *classes_of(60, 0.1, 1), 3, seed=0)
    assert strong.words in ("logistic regression (C 0.0001)", "logistic regression (C 0.001)")
    assert weak.words == "logistic regression (C 1)"


def test_without_a_validation_part_folds_choose_and_groups_are_not_divided() -> None:
    features, labels = classes_of(120, 0.5, 0)
    nothing = np.zeros((0, 30), np.float32), np.zeros(0, np.int64)
    fitted = fit_classes(features, labels, *nothing, 3, seed=0)
    assert (probabilities(fitted, features).argmax(1) == labels).mean() > 0.97
    # Four copies of pictures of noise: only folds that keep copies together see that it is noise.
    noise, other = RNG(3).normal(size=(40, 30)).astype(np.float32), RNG(4).integers(0, 3, 40)
    copies, copied = np.repeat(noise, 4, 0), np.repeat(other, 4)
    groups = np.repeat(np.arange(40), 4)
    together = fit_classes(copies, copied, *nothing, 3, seed=0, groups=groups)
    divided = fit_classes(copies, copied, *nothing, 3, seed=0)
    assert together.words == "logistic regression (C 0.0001)"
    assert divided.words != together.words


def people(seed: int, nuisance: float) -> tuple[np.ndarray, np.ndarray]:
    """Twenty people with ten pictures each; a nuisance varies along one direction."""
    generator = RNG(seed)
    labels = np.repeat(np.arange(1, 21), 10)
    features = generator.normal(size=(20, 40))[labels - 1] + 0.3 * generator.normal(size=(200, 40))
    features[:, 0] += nuisance * generator.normal(size=200)
    return (features + 2).astype(np.float32), labels


def mean_ap(fitted, features: np.ndarray, labels: np.ndarray) -> float:
    from headwise.pipelines.metrics.retrieval import leave_one_out

    vectors = (normalised(features) - fitted.centre) @ fitted.weight.T + fitted.bias
    return leave_one_out(vectors, labels).mean_ap


def test_whitening_within_identities_is_chosen_where_a_nuisance_hides_them() -> None:
    train, held, test = (people(seed, 20.0) for seed in (0, 1, 2))
    fitted = fit_vectors(*train, *held, seed=0)
    assert "within identities" in fitted.words
    plain = fitted._replace(centre=np.zeros(40), weight=np.eye(40))
    assert mean_ap(fitted, *test) > mean_ap(plain, *test) + 0.2


def test_centring_is_chosen_where_whitening_gains_nothing_and_spreads_the_cosines() -> None:
    features, labels = people(0, 0.0)
    features = (features - 2) * 10 + 100  # a common mean, which hides what differs
    fitted = fit_vectors(features, labels, features[:0], labels[:0], seed=0)
    assert fitted.words == "cosine of centred features"
    np.testing.assert_array_equal(fitted.weight, np.eye(40, dtype=np.float32))
    x = normalised(features)
    np.testing.assert_allclose(fitted.centre, x.mean(0), rtol=1e-5)
    before, after = (v @ v.T for v in (x, normalised(x - fitted.centre)))
    assert before.min() > 0.9
    assert after.min() < -0.3


def test_junk_and_distractors_are_not_fitted_on() -> None:
    features, labels = people(0, 5.0)
    junk = np.full((30, 40), 1e3, np.float32) * RNG(9).normal(size=(30, 40)).astype(np.float32)
    with_junk = np.concatenate([features, junk]), np.concatenate([labels, np.repeat([-1, 0], 15)])
    nothing = features[:0], labels[:0]
    a, b = (fit_vectors(*data, *nothing, seed=0) for data in ((features, labels), with_junk))
    assert a.words == b.words
    np.testing.assert_array_equal(a.weight, b.weight)


@pytest.mark.parametrize("count", [10, 200])
def test_whitened_residuals_vary_alike(count: int) -> None:
    """With more and with fewer pictures than numbers; against the inverse square root."""
    x = RNG(0).normal(size=(count, 40)) * np.linspace(0.1, 3, 40)
    covariance = x.T @ x / count
    added = 0.1 * np.trace(covariance) / 40
    values, vectors = np.linalg.eigh(covariance + added * np.eye(40))
    expected = vectors @ np.diag(np.sqrt(added / values)) @ vectors.T
    np.testing.assert_allclose(whitening(x, 0.1), expected, atol=1e-8)
    np.testing.assert_array_equal(whitening(np.zeros((5, 3)), 0.1), np.eye(3))
