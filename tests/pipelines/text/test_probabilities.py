"""From logits to probabilities, labels that are given, and sets."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines.text.options import TextOptions
from headwise.pipelines.text.probabilities import (
    ancestors,
    calibrated,
    check_calibration,
    fit_calibration,
    tell,
)
from headwise.tests.pipelines.text.messages import spec_of

N, LABELS = 400, ("a", "b", "c")
GROUPS = np.arange(N)
OF_LABELS, OF_CLASSES = spec_of("labels", LABELS), spec_of("class", LABELS)


def of_labels(seed: int = 0, slope: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by 1 / slope, and the truth."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(N, 3)) * 4 - np.array([0, 1, 3])
    truth = generator.random((N, 3)) < expit(slope * logits)
    return logits, truth.astype(np.float32)


def of_classes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(N, 3)) * 4
    share = softmax(logits / 2, axis=1).cumsum(1)
    return logits, np.eye(3, dtype=np.float32)[(share < generator.random((N, 1))).sum(1).clip(0, 2)]


def fitted(logits: np.ndarray, truth: np.ndarray, spec: Any = OF_LABELS, **options: Any) -> Any:
    return fit_calibration(logits, truth, GROUPS, TextOptions(**options), spec)


@pytest.mark.parametrize("calibrate", ["platt", "temperature"])
def test_probabilities_mean_what_they_say_on_other_texts(calibrate):
    calibration = fitted(*of_labels(), calibrate=calibrate)
    logits, truth = of_labels(1)
    probability = tell(logits, calibration, OF_LABELS).probability
    for low, high in pairwise([0, 0.3, 0.7, 1.01]):
        inside = (probability >= low) & (probability < high)
        assert probability[inside].mean() == pytest.approx(truth[inside].mean(), abs=0.06)
    raw = fitted(*of_labels(), calibrate="none")
    np.testing.assert_allclose(tell(logits, raw, OF_LABELS).probability, expit(logits))


def test_half_gives_what_is_more_probable_than_not():
    logits, truth = of_labels()
    told = tell(logits, fitted(logits, truth, thresholds="half"), OF_LABELS)
    np.testing.assert_array_equal(told.labels, told.probability >= 0.5)


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
def test_a_budget_of_labels_is_given(budget):
    logits, truth = of_labels()
    told = tell(logits, fitted(logits, truth, thresholds="budget", budget=budget), OF_LABELS)
    assert told.labels.sum(1).mean() == pytest.approx(budget, abs=0.1)


def test_one_threshold_is_one_for_all_labels():
    logits, truth = of_labels()
    thresholds = fitted(logits, truth, thresholds="one")["threshold"].numpy()
    assert len(set(thresholds.tolist())) == 1


def test_a_label_at_its_threshold_is_given_and_one_below_is_not():
    calibration = {
        name: torch.tensor(values, dtype=torch.float64)
        for name, values in {
            "slope": [1.0] * 3, "shift": [0.0] * 3, "threshold": [0.5, 0, -0.5], "set": [-1.0] * 3
        }.items()
    }  # fmt: skip
    logits = np.array([[0.5, 0, -0.5], [0.499, -0.001, -0.501]])
    told = tell(logits, calibration, OF_LABELS)
    assert told.labels.tolist() == [[True] * 3, [False] * 3]
    assert told.possible.tolist() == [[True] * 3, [True] * 3]


@pytest.mark.parametrize("thresholds", ["per-label", "one", "half", "budget"])
def test_what_is_given_is_possible(thresholds):
    logits, truth = of_labels()
    calibration = fitted(logits, truth, thresholds=thresholds)
    told = tell(of_labels(1)[0], calibration, OF_LABELS)
    assert not (told.labels & ~told.possible).any()
    logits, truth = of_classes()
    told = tell(of_classes(1)[0], fitted(logits, truth, OF_CLASSES), OF_CLASSES)
    assert not (told.labels & ~told.possible).any()
    assert (told.labels.sum(1) == 1).all()


@pytest.mark.parametrize("coverage", [0.7, 0.95])
def test_sets_hold_the_truth_as_often_as_promised_on_other_texts(coverage):
    held = []
    for seed in range(8):
        calibration = fitted(*of_labels(seed), coverage=coverage)
        logits, truth = of_labels(100 + seed)
        told, present = tell(logits, calibration, OF_LABELS), truth.sum(1) > 0
        held.append(((truth > 0) & told.possible).sum(1)[present] / truth.sum(1)[present])
    assert np.concatenate(held).mean() > coverage - 0.03
    inside = []
    for seed in range(8):
        calibration = fitted(*of_classes(seed), OF_CLASSES, coverage=coverage)
        logits, truth = of_classes(100 + seed)
        inside.append((tell(logits, calibration, OF_CLASSES).possible & (truth > 0)).any(1))
    assert np.concatenate(inside).mean() > coverage - 0.03


def test_a_validation_part_too_small_promises_all_labels_and_says_so():
    logits, truth = of_labels()
    with opened() as account:
        calibration = fit_calibration(
            logits[:4], truth[:4], np.zeros(4, int), TextOptions(coverage=0.99), OF_LABELS
        )
    assert tell(logits, calibration, OF_LABELS).possible.all()
    assert "labels are given" in " ".join(account.lines())


def test_a_label_that_the_validation_part_lacks_is_calibrated_all_the_same():
    logits, truth = of_labels()
    truth[:, 2] = 0
    calibration = fitted(logits, truth)
    assert all(values.isfinite().all() for name, values in calibration.items() if name != "set")
    assert (calibration["slope"] > 0).all()


def test_forgotten_labels_raise_probabilities_and_move_no_label():
    logits, truth = of_labels()
    generator = np.random.default_rng(0)
    given = truth * (generator.random(truth.shape) < 0.5)
    plain, raised = (fitted(logits, given, unlabelled=value) for value in (False, True))
    both = [tell(logits, calibration, OF_LABELS) for calibration in (plain, raised)]
    assert (both[1].probability >= both[0].probability - 1e-9).all()
    assert both[1].probability.mean() > both[0].probability.mean() + 0.05
    np.testing.assert_array_equal(both[0].labels, both[1].labels)


def test_the_temperature_of_classes_makes_them_less_sure():
    logits, truth = of_classes()
    calibration = fitted(logits, truth, OF_CLASSES)
    assert calibration["slope"].numpy() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(
        calibrated(logits, calibration), logits * calibration["slope"][0].item()
    )
    probability = tell(logits, calibration, OF_CLASSES).probability
    np.testing.assert_allclose(probability.sum(1), 1)


def test_the_interval_of_a_number_is_the_rank_of_split_conformal():
    generator = np.random.default_rng(0)
    logits, truth = generator.normal(size=(2, 99, 1))
    spec = spec_of("number", ["stars"])
    options = TextOptions(coverage=0.9)
    width = fit_calibration(logits, truth, np.arange(99), options, spec)["width"].item()
    assert width == np.sort(np.abs(logits - truth)[:, 0])[89]
    with opened() as account:
        few = fit_calibration(logits[:5], truth[:5], np.arange(5), options, spec)
    assert few["width"].item() == float("inf")
    assert "too few texts of validation" in " ".join(account.lines())


def test_a_label_above_is_given_with_any_below_and_never_less_probable():
    names = ["a::x", "a::y", "b::z::w", "c"]
    spec = spec_of("labels", names, "::")
    probability = np.array([[0.2, 0.7, 0.4, 0.9], [0.1, 0.1, 0.6, 0.0]])
    labels = np.array([[False, True, False, True], [False, False, True, False]])
    above, chance, given = ancestors(spec, probability, labels)
    rows = [dict(zip(above, values.tolist(), strict=True)) for values in chance]
    assert rows == [{"a": 0.7, "b::z": 0.4, "b": 0.4}, {"a": 0.1, "b::z": 0.6, "b": 0.6}]
    told = [{name for name, yes in zip(above, row, strict=True) if yes} for row in given]
    assert told == [{"a"}, {"b::z", "b"}]


def test_a_label_is_never_above_the_one_that_it_is_below():
    spec = spec_of("labels", ["a", "a::b::c", "d"], "::")
    calibration = {"slope": torch.ones(3), "shift": torch.zeros(3)}
    calibration |= {"threshold": torch.zeros(3), "set": torch.full((3,), -1.0)}
    told = tell(np.array([[-4.0, 2.0, -4.0], [3.0, -2.0, -4.0]]), calibration, spec)
    np.testing.assert_allclose(told.probability[:, 0], expit([2, 3]))
    assert told.labels.tolist() == [[True, True, False], [True, False, False]]
    assert told.possible[0, 0]
    above, chance, given = ancestors(spec, told.probability, told.labels)
    assert above == ["a::b"]
    np.testing.assert_allclose(chance[:, 0], expit([2, -2]))
    assert given[:, 0].tolist() == [True, False]


def test_what_a_label_says_goes_up_all_levels():
    spec = spec_of("labels", ["a", "a::b", "a::b::c"], "::")
    calibration = {"slope": torch.ones(3), "shift": torch.zeros(3)}
    calibration |= {"threshold": torch.zeros(3), "set": torch.zeros(3)}
    told = tell(np.array([[-4.0, -3.0, 2.0]]), calibration, spec)
    np.testing.assert_allclose(told.probability[0], [expit(2)] * 3)
    assert told.labels.all()


def test_labels_without_levels_have_nothing_above():
    above, chance, given = ancestors(OF_LABELS, np.zeros((2, 3)), np.zeros((2, 3), bool))
    assert above == []
    assert chance.shape == given.shape == (2, 0)


@pytest.mark.parametrize(
    ("goal", "name"),
    [("labels", "threshold"), ("labels", "set"), ("class", "slope"), ("number", "width")],
)
def test_tensors_that_do_not_fit_the_labels_are_refused(goal, name):
    spec = spec_of(goal, LABELS if goal != "number" else ["stars"])
    sizes = {"slope": 3, "shift": 3, "threshold": 3, "set": 3, "width": 1}
    if goal == "class":
        sizes["set"] = 1
    calibration = {key: torch.zeros(size) for key, size in sizes.items()}
    check_calibration(spec, calibration)
    for wrong in ({}, {name: torch.zeros(9)}):
        damaged = {k: v for k, v in calibration.items() if k != name} | wrong
        with pytest.raises(InputError, match=f"holds no {name} of"):
            check_calibration(spec, damaged)
