"""Logits of labels made true: sigmoid(logit) is how often such texts have the label.

Every fitted object is a few arrays (`arrays`, and back by `from_arrays`) and maps logits to logits
(`apply`), label by label and rising, so that a label ranks the texts as before.

    class                form                                  contributions to a logit stay a sum
    AffineCalibration    slope_k z + shift_k                   yes, each times slope_k
    IsotonicCalibration  points joined by lines, flat parts    no, and texts on a flat part tie
    PositiveUnlabelled   log p - log(c_k - p), p = sigmoid(z)  no

Shapes: see the package; P points of all curves of an isotonic calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy.special import expit, log_expit, logit

from .shapes import checked, checked_groups, folds_of

LEAST_SLOPE = 0.05  # so that a label never ranks the texts the other way round
PRIORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # penalties that cross-validation chooses from
STEPS = 50  # of Newton's method
HALVINGS = 30  # of a step of it
TEXTS_OF_A_CURVE = 30  # true and false ones each, below which a label has no isotonic curve
MOST_SHARE = 1 - 1e-6  # of c, that a probability of positive-unlabelled data may reach
PRIOR_TEXTS = 10.0  # what the common c of Elkan and Noto counts


@dataclass(frozen=True)
class Calibration:
    """A map of logits to logits, label by label."""

    affine = False  # whether contributions to a logit stay a sum

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, L) -> float64 (N, L)."""
        raise NotImplementedError

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """sigmoid of `apply`: (N, L)."""
        return expit(self.apply(logits))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, to be kept; `from_arrays` makes the object from them again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The object of `arrays`; further names are passed over. Raises KeyError where one
        lacks."""
        return cls(**{field.name: np.asarray(arrays[field.name]) for field in fields(cls)})


@dataclass(frozen=True)
class AffineCalibration(Calibration):
    """slope z + shift, both (L,)."""

    slope: np.ndarray
    shift: np.ndarray
    affine = True

    def apply(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(logits, np.float64) * self.slope + self.shift


@dataclass(frozen=True)
class IsotonicCalibration(Calibration):
    """Points of rising curves, joined by lines and level outside: logits in and out, (P,) each, and
    where the curve of each label begins, int64 (L + 1,). Labels without points: slope z + shift."""

    points_in: np.ndarray
    points_out: np.ndarray
    starts: np.ndarray
    slope: np.ndarray
    shift: np.ndarray

    def apply(self, logits: np.ndarray) -> np.ndarray:
        results = np.asarray(logits, np.float64) * self.slope + self.shift
        for k in np.flatnonzero(np.diff(self.starts)):
            part = slice(self.starts[k], self.starts[k + 1])
            results[:, k] = np.interp(logits[:, k], self.points_in[part], self.points_out[part])
        return results


@dataclass(frozen=True)
class PositiveUnlabelled(Calibration):
    """p / c on the scale of logits, where c (L,) is how often a text that has a label is also
    labelled with it (Elkan and Noto 2008); p / c is below 1 - 1e-6."""

    c: np.ndarray

    def apply(self, logits: np.ndarray) -> np.ndarray:
        log_p = log_expit(np.asarray(logits, np.float64))
        log_share = np.minimum(log_p - np.log(self.c), np.log(MOST_SHARE))
        return log_share - np.log(-np.expm1(log_share))


def fit_temperature(truth: np.ndarray, logits: np.ndarray) -> AffineCalibration:
    """z / T with one T from 0.05 to 20 for all labels: the smallest mean log-loss of all pairs.

    Raises ValueError for shapes that do not fit."""
    from scipy.optimize import minimize_scalar

    truth, logits = checked("fit_temperature", truth, logits)
    labels = truth.shape[1]
    temperature = 1.0
    if truth.any() and not truth.all():
        fit = minimize_scalar(
            lambda t: _losses(truth, logits / np.exp(t)).sum(),
            bounds=np.log([0.05, 20.0]),
            method="bounded",
        )
        temperature = float(np.exp(fit.x))  # pyright: ignore[reportAttributeAccessIssue]
    return AffineCalibration(np.full(labels, 1 / temperature), np.zeros(labels))


def fit_platt(
    truth: np.ndarray,
    logits: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    penalty: float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> AffineCalibration:
    """Logistic regression of each label on its logit (Platt 1999), drawn towards the slope and
    shift of all labels together.

    To the log-loss of a label, a sum over texts, comes penalty / 2 ((slope - common slope)^2 +
    (shift - common shift)^2), so labels with few texts stay near the common ones and those with
    many go their way; slopes are at least 0.05. penalty: by default, of `PRIORS`, the one with the
    smallest log-loss in folds that share no group. Raises ValueError for shapes that do not fit and
    a penalty that is not above 0."""
    truth, logits = checked("fit_platt", truth, logits)
    member = checked_groups("fit_platt", groups, len(truth))
    if penalty is not None and penalty <= 0:
        raise ValueError(f"fit_platt: penalty = {penalty} must be above 0")
    labels = truth.shape[1]
    if not truth.any() or truth.all():
        return AffineCalibration(np.ones(labels), np.zeros(labels))
    if penalty is None:
        penalty = _best_penalty(truth, logits, member, folds, seed)
    return AffineCalibration(*_platt(truth, logits, penalty, _common(truth, logits)))


def fit_isotonic(
    truth: np.ndarray, logits: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> IsotonicCalibration:
    """The rising curve of each label that is nearest to the truth (Zadrozny and Elkan 2002), where
    at least 30 texts have the label and 30 do not; `fit_platt` for the others.

    Shares are at least that of half a text, and as far from 1, so that logits are finite. Raises
    ValueError for shapes that do not fit."""
    from sklearn.isotonic import IsotonicRegression

    truth, logits = checked("fit_isotonic", truth, logits)
    platt = fit_platt(truth, logits, groups, seed=seed)
    half = 0.5 / max(len(truth), 1)
    points: list[tuple[np.ndarray, np.ndarray]] = []
    for k in range(truth.shape[1]):
        true = int(truth[:, k].sum())
        if min(true, len(truth) - true) < TEXTS_OF_A_CURVE:
            points.append((np.zeros(0), np.zeros(0)))
            continue
        curve = IsotonicRegression().fit(logits[:, k], truth[:, k].astype(np.float64))
        share = curve.y_thresholds_.clip(half, 1 - half)
        points.append((curve.X_thresholds_, logit(share)))
    starts = np.cumsum([0, *(len(first) for first, _ in points)])
    points_in, points_out = (
        np.concatenate([np.zeros(0), *(pair[side] for pair in points)]) for side in (0, 1)
    )
    return IsotonicCalibration(points_in, points_out, starts, platt.slope, platt.shift)


def fit_positive_unlabelled(
    truth: np.ndarray, logits: np.ndarray, prior_texts: float = PRIOR_TEXTS
) -> PositiveUnlabelled:
    """c of Elkan and Noto (2008): the mean probability of the texts of this (validation) part that
    are labelled, drawn towards that of all labels as if `prior_texts` further texts had it.

    The correction is right where which texts are labelled depends on the label alone,
    sigmoid(logits) is how often texts are labelled (calibrate first), and the model is sure of the
    texts that truly have the label. Where it cannot be, c is too low and what comes out too high:
    then it is an upper bound. Raises ValueError for shapes
    that do not fit."""
    truth, logits = checked("fit_positive_unlabelled", truth, logits)
    if prior_texts < 0:
        raise ValueError(f"fit_positive_unlabelled: prior_texts = {prior_texts} is below 0")
    probability = np.where(truth, expit(logits), 0.0)
    count, total = truth.sum(0), probability.sum(0)
    common = total.sum() / count.sum() if count.any() else 1.0
    weight = count + prior_texts
    mean = np.where(weight > 0, total + prior_texts * common, common)
    return PositiveUnlabelled(np.clip(mean / np.where(weight > 0, weight, 1.0), 1e-6, 1.0))


def _losses(truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Log-loss of each label, a sum over the texts: (L,)."""
    return (np.logaddexp(0, logits) - logits * truth).sum(0)


def _best_penalty(
    truth: np.ndarray,
    logits: np.ndarray,
    member: np.ndarray,
    folds: int,
    seed: int,
    penalties: Sequence[float] = PRIORS,
) -> float:
    totals = np.zeros(len(penalties))
    for rows, held in folds_of(member, folds, seed):
        if not truth[rows].any() or truth[rows].all():
            continue
        common = _common(truth[rows], logits[rows])
        for i, penalty in enumerate(penalties):
            slope, shift = _platt(truth[rows], logits[rows], penalty, common)
            totals[i] += _losses(truth[held], logits[held] * slope + shift).sum()
    # Without folds all totals are 0: then the strongest.
    return penalties[int(np.flatnonzero(totals <= totals.min())[-1])]


def _common(truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Slope and shift (2, 1) of all pairs; a weak pull to 1 and 0 where they can be told apart."""
    identity = np.array([[1.0], [0.0]])
    return _newton(truth.reshape(-1, 1), logits.reshape(-1, 1), identity, 1e-2)


def _platt(
    truth: np.ndarray, logits: np.ndarray, penalty: float, common: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and shifts (L,) of all labels."""
    slope, shift = _newton(truth, logits, np.repeat(common, truth.shape[1], 1), penalty)
    return slope, shift


def _newton(
    truth: np.ndarray, logits: np.ndarray, centre: np.ndarray, penalty: float
) -> np.ndarray:
    """Slopes and shifts (2, L) that minimise log-loss + penalty / 2 |. - centre|^2, slope >= 0.05;
    steps are halved where they would not help."""

    def objective(values: np.ndarray) -> np.ndarray:
        return _losses(truth, logits * values[0] + values[1]) + penalty / 2 * np.square(
            values - centre
        ).sum(0)

    values = centre.copy()
    values[0] = values[0].clip(LEAST_SLOPE)
    current = objective(values)
    for _ in range(STEPS):
        p = expit(logits * values[0] + values[1])
        rest, curve = p - truth, p * (1 - p)
        gradient = np.stack([(rest * logits).sum(0), rest.sum(0)]) + penalty * (values - centre)
        a = (curve * logits**2).sum(0) + penalty
        b = (curve * logits).sum(0)
        c = curve.sum(0) + penalty
        step = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]])
        step /= a * c - b * b
        # At the least slope only the shift can move.
        held = (values[0] <= LEAST_SLOPE) & (step[0] > 0)
        step = np.where(held, np.stack([np.zeros_like(c), gradient[1] / c]), step)
        before = values
        values, current = _descend(objective, values, step, current)
        if np.abs(values - before).max(initial=0.0) < 1e-7:
            break
    return values


def _descend(
    objective: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    step: np.ndarray,
    current: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Values (2, L) less as much of the step as raises the objective (L,) of no label, and the
    objective there."""
    length = np.ones_like(current)
    trial, after, worse = values, current, np.ones_like(current, bool)
    for _ in range(HALVINGS):
        trial = values - length * step
        trial[0] = trial[0].clip(LEAST_SLOPE)
        after = objective(trial)
        worse = after > current * (1 + 1e-12)
        if not worse.any():
            break
        length = np.where(worse, length / 2, length)
    return np.where(worse, values, trial), np.where(worse, current, after)
