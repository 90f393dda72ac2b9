"""The ladder of tasks whose answer is one of several classes: scores of the rungs, and the blend.

Shapes: N samples, C classes, G groups of samples (patients).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from scipy.special import log_softmax

from ...models.layers.blend import BlendedClassifier
from ..metrics import classification
from ..metrics.bootstrap import Groups
from ..metrics.operating import fit_temperature
from .ladder import LadderScores, drawn_scores, weighted_mean
from .options import RungName

PRIOR_GROUPS = 20
"""Groups that the starting values of a blend count as: equal shares and temperatures of 1."""
SHARES = np.linspace(0, 1, 21)


def class_scores(
    labels: np.ndarray, logits: Mapping[RungName, np.ndarray], groups: Groups
) -> LadderScores:
    """Log-loss of each rung, with AUC and balanced accuracy beside it.

    labels: int (N,); logits: (N, C) of each rung; groups: of each sample.
    """
    losses, further = {}, {"AUC": {}, "balanced accuracy": {}}
    for name, values in logits.items():
        logarithm = log_softmax(values, axis=1)
        losses[name] = -logarithm[np.arange(len(labels)), labels]
        scores = classification.scores(labels, np.exp(logarithm))
        further["AUC"][name] = scores["auc"]
        further["balanced accuracy"][name] = scores["balanced_accuracy"]
    return drawn_scores(
        "log-loss",
        {name: float(values.mean()) for name, values in losses.items()},
        {name: partial(weighted_mean, values) for name, values in losses.items()},
        groups,
        further=further,
    )


def fit_blend(
    blend: BlendedClassifier, labels: np.ndarray, first: np.ndarray, second: np.ndarray, groups: int
) -> str:
    """Set the temperatures and the share of a blend by the log-loss on the validation part, drawn
    towards 1 and one half, the more the fewer groups there are. Returns what it is, in words.

    first, second: logits (N, C) of the model and of the simple one.
    """
    certainty = certainty_of(groups)
    temperatures = [fit_temperature(labels, logits) ** certainty for logits in (first, second)]
    blend.temperatures = torch.tensor(temperatures)
    true_class = np.arange(len(labels)), labels
    p, q = (
        np.exp(log_softmax(logits / temperature, axis=1)[true_class])
        for logits, temperature in zip((first, second), temperatures, strict=True)
    )
    losses = [-np.log(np.maximum(s * p + (1 - s) * q, 1e-12)).mean() for s in SHARES]
    share = min(max(cautious_share(float(SHARES[int(np.argmin(losses))]), groups), 0.01), 0.99)
    blend.share = torch.tensor(share)
    return f"mean of the probabilities of the two, {share:.0%} of the model"


def certainty_of(groups: int) -> float:
    """How far values that were fitted to so many groups are trusted, from 0 to 1."""
    return groups / (groups + PRIOR_GROUPS)


def cautious_share(best: float, groups: int) -> float:
    """The share of a blend: the best one, drawn towards one half, the more the fewer groups."""
    certainty = certainty_of(groups)
    return certainty * best + (1 - certainty) * 0.5


def class_list(classes: Sequence[str]) -> str:
    """The first classes, for a sentence: "a, b, c, d, …"."""
    return ", ".join(classes[:4]) + ", …" * (len(classes) > 4)


def prior_logits(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Logarithms of the shares of the classes (C,), each counted once more than it occurs."""
    counts = np.bincount(labels, minlength=classes) + 1.0
    return torch.from_numpy(np.log(counts / counts.sum())).float()
