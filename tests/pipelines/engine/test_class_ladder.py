"""Scores of the rungs of classifiers, and the fit of their blend."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from headwise.models.layers.blend import BlendedClassifier
from headwise.pipelines.engine.class_ladder import class_scores, fit_blend, prior_logits


def sample(rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits that know something of them, and logits of noise."""
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=rows)
    knows = np.zeros((rows, 2))
    knows[:, 1] = 2.0 * (2 * labels - 1) + 1.5 * generator.normal(size=rows)
    return labels, knows, generator.normal(size=(rows, 2))


def test_scores_are_those_of_scikit_learn() -> None:
    labels, knows, noise = sample()
    scores = class_scores(labels, {"naive": noise, "model": knows}, len(labels))
    for name, logits in (("naive", noise), ("model", knows)):
        probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert scores.score[name] == pytest.approx(log_loss(labels, probability))
        assert scores.further["AUC"][name] == pytest.approx(
            roc_auc_score(labels, probability[:, 1])
        )
    assert not scores.larger_is_better


def test_patients_are_drawn_together() -> None:
    labels, knows, _ = sample()
    apart = class_scores(labels, {"model": knows}, len(labels)).interval("model")
    patients = np.repeat(np.arange(20), 20)
    together = class_scores(np.sort(labels), {"model": np.sort(knows, 0)}, patients)
    assert together.blocks == 20
    interval = together.interval("model")
    assert apart is not None
    assert interval is not None
    assert interval[1] - interval[0] > 1.5 * (apart[1] - apart[0])


class TestBlend:
    def test_of_many_groups_the_share_goes_to_the_one_that_knows(self) -> None:
        labels, knows, noise = sample()
        blend = BlendedClassifier(nn.Identity(), nn.Identity())
        words = fit_blend(blend, labels, knows, noise, groups=400)
        assert float(blend.share) > 0.9
        assert "of the model" in words
        turned = BlendedClassifier(nn.Identity(), nn.Identity())
        fit_blend(turned, labels, noise, knows, groups=400)
        assert float(turned.share) < 0.1

    def test_of_few_groups_it_stays_near_one_half(self) -> None:
        labels, knows, noise = sample()
        blend = BlendedClassifier(nn.Identity(), nn.Identity())
        fit_blend(blend, labels, knows, noise, groups=1)
        assert abs(float(blend.share) - 0.5) < 0.05
        assert float((blend.temperatures - 1).abs().max()) < 0.2

    def test_overconfident_logits_are_cooled(self) -> None:
        labels, knows, _ = sample()
        blend = BlendedClassifier(nn.Identity(), nn.Identity())
        fit_blend(blend, labels, 10 * knows, knows, groups=10_000)
        assert float(blend.temperatures[0]) == pytest.approx(
            10 * float(blend.temperatures[1]), rel=0.02
        )


def test_the_prior_counts_each_class_once_more() -> None:
    logits = prior_logits(np.array([0, 0, 0, 1]), 3)
    assert torch.allclose(logits.exp(), torch.tensor([4.0, 2.0, 1.0]) / 7)
