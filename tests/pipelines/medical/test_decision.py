"""One rule decides: the operating point, in the scores, the figure, the headline and the
predictions.
"""

import warnings

import numpy as np
import polars as pl
import pytest

pytest.importorskip("timm", reason="the extra `vision` is not installed")

import torch

from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.medical import figures
from headwise.pipelines.medical.data import MedicalSpec
from headwise.pipelines.medical.options import MedicalPredictOptions
from headwise.pipelines.medical.prediction import PreparedXray, _row, answer
from headwise.pipelines.medical.scoring import decided, headline_of, patient_scores


class Part:
    """Five of ten pictures are ill; `chance` is the probability of it."""

    classes = ("well", "ill")
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    chance = np.array([0.9, 0.6, 0.35, 0.32, 0.2, 0.45, 0.31, 0.25, 0.1, 0.05])

    def column(self, name):
        return [str(k) for k in range(10)]

    def __len__(self):
        return 10


def test_accuracies_are_those_of_the_operating_point():
    part = Part()
    probability = np.stack([1 - part.chance, part.chance], 1)
    scores = patient_scores(part, probability, 1, 0.3, 0)
    # Above 0.3: four of five ill pictures and two of five well ones.
    assert scores.values["sensitivity"] == pytest.approx(0.8)
    assert scores.values["specificity"] == pytest.approx(0.6)
    assert scores.values["balanced_accuracy"] == pytest.approx(0.7)
    assert scores.values["accuracy"] == pytest.approx(0.7)
    f1 = (2 * 4 / (2 * 4 + 1 + 2) + 2 * 3 / (2 * 3 + 1 + 2)) / 2
    assert scores.values["macro_f1"] == pytest.approx(f1)
    low, high = scores.intervals["balanced_accuracy"]
    assert low < 0.7 < high
    headline = headline_of(scores, part, "ill", "")
    assert "sensitivity 0.800" in headline
    assert "specificity 0.600" in headline
    assert "balanced accuracy 0.700" in headline


def test_of_several_classes_the_most_probable_of_the_others_is_taken():
    probability = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.7, 0.2], [0.15, 0.6, 0.25]])
    assert decided(probability, 2, 0.25).tolist() == [0, 2, 1, 2]
    assert decided(probability, 0, 0.2).tolist() == [0, 0, 1, 1]


def row_of(rule: str, chance: list[float]) -> pl.DataFrame:
    spec = MedicalSpec(
        input={"pictures": 1, "patients": 1, "size": [32, 32], "body size": [16, 16]},
        classes=["well", "odd", "ill"],
        positive=2,
        layout="table",
        parts={},
        rule=rule,
    )
    options = MedicalPredictOptions(run="r", input="i", output="o")
    calibration = {"threshold": torch.tensor(0.25)}
    xray = PreparedXray(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), None, None)
    row = _row(chance, xray, Context(options, spec, calibration, torch.device("cpu")))
    assert answer(row, spec)[0].startswith(f"{row['prediction'][0]} (well ")
    return row


def test_the_predicted_class_agrees_with_positive_except_in_older_runs():
    row = row_of("operating point", [0.5, 0.2, 0.3])
    assert row.select("prediction", "positive").row(0) == ("ill", True)
    assert row_of("operating point", [0.3, 0.5, 0.2])["prediction"][0] == "odd"
    row = row_of("most probable", [0.5, 0.2, 0.3])
    assert row.select("prediction", "positive").row(0) == ("well", True)


def test_the_figure_of_one_class_alone_warns_of_nothing():
    labels = np.zeros(6, np.int64)
    chance = np.linspace(0.1, 0.6, 6)
    probability = np.stack([1 - chance, chance], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = figures.calibration(labels, probability, probability, ["a", "b"], 1, 0.3)
        picture.figure.canvas.draw()
    counts = [text.get_text() for text in picture.figure.axes[-1].texts]
    assert counts == ["2", "4", "0", "0"]  # at the operating point, not at one half
