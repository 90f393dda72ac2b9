"""Calibrations against scikit-learn and plain formulas: what they leave as it is, and new texts."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from headwise.pipelines.metrics.labels import calibration
from headwise.pipelines.metrics.labels.calibration import (
    AffineCalibration,
    IsotonicCalibration,
    PositiveUnlabelled,
    fit_isotonic,
    fit_platt,
    fit_positive_unlabelled,
    fit_temperature,
)


def case(texts=400, seed=0):
    """Truth of four labels, and logits of which 2 z + 1 + something of the label is true; the last
    label nobody has."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 1.2, (texts, 5))
    truth = generator.random((texts, 5)) < expit(2 * logits + [1.0, 1.5, 0.5, -1.0, -99])
    return truth, logits


def log_loss(truth, logits):
    return (np.logaddexp(0, logits) - logits * truth).mean()


def fitted():
    truth, logits = case()
    platt = fit_platt(truth, logits, penalty=1.0)
    return [
        fit_temperature(truth, logits),
        platt,
        fit_isotonic(truth, logits),
        fit_positive_unlabelled(truth, platt.apply(logits)),
    ]


@pytest.mark.parametrize("which", range(4))
def test_calibrations_rise_and_come_back_from_their_arrays(which):
    calibrated = fitted()[which]
    grid = np.linspace(-40, 40, 801)[:, None] * np.ones(5)
    values = calibrated.apply(grid)
    assert values.shape == grid.shape
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=0) >= 0).all()
    arrays = calibrated.arrays()
    assert all(type(array) is np.ndarray for array in arrays.values())
    again = type(calibrated).from_arrays({**arrays, "another": np.zeros(1)})
    np.testing.assert_array_equal(again.apply(grid), values)
    np.testing.assert_allclose(calibrated.probability(grid), expit(values))
    # Only where it is said is a sum of contributions a sum of calibrated contributions.
    second = np.diff(values, 2, axis=0)
    assert calibrated.affine == np.allclose(second, 0, atol=1e-9)
    with pytest.raises(KeyError):
        type(calibrated).from_arrays({})


def test_the_temperature_has_the_smallest_loss():
    truth, logits = case()
    slope = fit_temperature(truth, logits).slope
    assert np.ptp(slope) == 0
    losses = [log_loss(truth, logits * slope[0] * factor) for factor in (0.98, 1, 1.02)]
    assert losses[1] < min(losses[0], losses[2])
    assert fit_temperature(truth & False, logits).slope.tolist() == [1.0] * 5


@pytest.mark.parametrize("penalty", [0.1, 5.0])
def test_platt_minimises_its_formula(penalty):
    truth, logits = case(150)
    result = fit_platt(truth, logits, penalty=penalty)
    everything = LogisticRegression(C=1e6, tol=1e-10, max_iter=1000)
    everything.fit(logits.reshape(-1, 1), truth.ravel())
    common = np.array([everything.coef_[0, 0], everything.intercept_[0]])
    for k in range(5):

        def objective(values, k=k):
            z = logits[:, k] * values[0] + values[1]
            return log_loss(truth[:, k], z) * 150 + penalty / 2 * ((values - common) ** 2).sum()

        best = minimize(objective, common, method="Nelder-Mead", options={"xatol": 1e-7})
        assert best.x == pytest.approx([result.slope[k], result.shift[k]], abs=2e-3)


def test_labels_with_few_texts_stay_near_the_common_slope_and_shift():
    truth, logits = case(4000)
    many = fit_platt(truth, logits, penalty=3.0)
    np.testing.assert_allclose(many.shift[:4], [1.0, 1.5, 0.5, -1.0], atol=0.3)
    few = fit_platt(truth[:40], logits[:40], penalty=3.0)
    assert np.ptp(few.shift[:4]) < 0.75 * np.ptp(many.shift[:4])
    stiff = fit_platt(truth, logits, penalty=1e9)
    assert np.ptp(stiff.slope) < 1e-4
    assert np.ptp(stiff.shift) < 1e-4


def test_a_slope_never_falls_to_where_the_label_would_rank_the_other_way_round():
    truth, logits = case()
    truth[:, 0] = logits[:, 0] < -1
    result = fit_platt(truth, logits, penalty=0.1)
    assert result.slope[0] == calibration.LEAST_SLOPE
    share = expit(result.apply(logits))[:, 0].mean()
    assert share == pytest.approx(truth[:, 0].mean(), abs=0.02)


def test_calibrated_logits_are_better_on_new_texts():
    truth, logits = case(600)
    new_truth, new_logits = case(4000, seed=1)
    raw = log_loss(new_truth, new_logits)
    temperature = log_loss(new_truth, fit_temperature(truth, logits).apply(new_logits))
    groups = np.arange(600) // 2
    platt = log_loss(new_truth, fit_platt(truth, logits, groups).apply(new_logits))
    assert platt < temperature < raw


def test_the_penalty_is_chosen_with_groups_that_are_held_out(monkeypatch):
    """Labels of one slope and shift have the strongest, very different ones a weak one."""
    chosen = []
    plain = calibration._platt

    def recording(truth, logits, penalty, common):
        chosen.append(penalty)
        return plain(truth, logits, penalty, common)

    monkeypatch.setattr(calibration, "_platt", recording)
    generator = np.random.default_rng(0)
    logits = generator.normal(-1, 1, (80, 40))
    fit_platt(generator.random((80, 40)) < expit(logits), logits)
    assert chosen[-1] == max(calibration.PRIORS)
    shifts = np.linspace(-3, 3, 40)
    fit_platt(generator.random((80, 40)) < expit(logits + shifts), logits)
    assert chosen[-1] <= 1


def test_isotonic_curves_are_scikit_learns_and_platts_where_texts_are_few():
    truth, logits = case()
    truth[:, 3] = False
    truth[:10, 3] = True
    result = fit_isotonic(truth, logits)
    platt = fit_platt(truth, logits)
    values = result.apply(logits)
    for k in range(3):
        expected = IsotonicRegression(out_of_bounds="clip").fit(logits[:, k], truth[:, k])
        share = expected.predict(logits[:, k]).clip(0.5 / 400, 1 - 0.5 / 400)
        np.testing.assert_allclose(values[:, k], logit(share))
    np.testing.assert_allclose(values[:, 3:], platt.apply(logits)[:, 3:])
    assert np.diff(result.starts)[3:].tolist() == [0, 0]


@pytest.mark.parametrize("sharpness", [200, 2])
def test_positive_unlabelled_texts_get_back_the_labels_that_were_not_noted(sharpness):
    """Where the truth is certain; where it is not, c is too low and probabilities too high."""
    generator = np.random.default_rng(0)
    share = expit(generator.normal(-1, 1, (20000, 3)) * sharpness)
    true = generator.random(share.shape) < share
    noted_share = np.array([0.3, 0.5, 0.9])
    noted = true & (generator.random(share.shape) < noted_share)
    model = logit((share * noted_share).clip(1e-9))  # what a calibrated model of the notes says
    result = fit_positive_unlabelled(noted, model)
    plain = [(expit(model[:, k])[noted[:, k]]).mean() for k in range(3)]
    np.testing.assert_allclose(result.c, plain, rtol=0.02)
    corrected = result.probability(model).mean(0)
    if sharpness == 200:
        np.testing.assert_allclose(result.c, noted_share, rtol=0.03)
        np.testing.assert_allclose(corrected, true.mean(0), rtol=0.03)
    else:
        assert (result.c < 0.9 * noted_share).all()
        assert (corrected > true.mean(0)).all()


def test_p_over_c_stays_below_one():
    simple = PositiveUnlabelled(np.array([0.5]))
    np.testing.assert_allclose(simple.probability(logit(np.array([[0.2]]))), [[0.4]])
    np.testing.assert_allclose(simple.probability(np.array([[9.0]])), [[1 - 1e-6]])


def test_c_of_labels_that_no_text_has_is_the_common_mean():
    truth, logits = case()
    result = fit_positive_unlabelled(truth, logits)
    assert result.c[4] == pytest.approx(expit(logits)[truth].mean())
    count, total = truth[:, 0].sum(), expit(logits)[truth[:, 0], 0].sum()
    assert result.c[0] == pytest.approx((total + 10 * result.c[4]) / (count + 10))
    assert fit_positive_unlabelled(truth & False, logits).c.tolist() == [1.0] * 5


def test_nothing_to_fit_leaves_logits_as_they_are():
    truth, logits = case()
    for fit in (fit_platt, fit_temperature, fit_isotonic):
        np.testing.assert_array_equal(fit(truth & False, logits).apply(logits), logits)
    assert isinstance(fit_isotonic(truth & False, logits), IsotonicCalibration)
    assert isinstance(fit_platt(truth, logits, np.zeros(400)), AffineCalibration)
    with pytest.raises(ValueError, match="penalty"):
        fit_platt(truth, logits, penalty=0)
    with pytest.raises(ValueError, match="groups"):
        fit_platt(truth, logits, np.zeros(3))
    with pytest.raises(ValueError, match="prior_texts"):
        fit_positive_unlabelled(truth, logits, -1)
