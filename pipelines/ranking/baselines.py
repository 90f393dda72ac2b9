"""What counting gives: a model must be better than the rates of users and items in the training
part.
"""

import numpy as np

from ...data.clicks.coding import Rows
from ...data.clicks.encoder import ClickEncoder

SMOOTHING = 20.0  # rows of the overall rate that each user's and item's rate is mixed with


def rates(rows: Rows, which: np.ndarray, users: int, items: int) -> dict[str, np.ndarray]:
    """Smoothed log-odds of each user (U, S) and item (I, S), above the overall (S,), on some
    rows.
    """
    assert rows.labels is not None
    labels = rows.labels[which]
    tasks = labels.shape[1]
    odds = {
        "overall": np.zeros(tasks),
        "user": np.zeros((users, tasks)),
        "item": np.zeros((items, tasks)),
    }
    for task in range(tasks):
        counts = labels[:, task] >= 0
        clicked = labels[counts, task] == 1
        mean = clicked.mean() if len(clicked) else 0.5
        odds["overall"][task] = _odds(mean)
        for name, who, size in (("user", rows.user, users), ("item", rows.item, items)):
            ids = who[which][counts]
            known = ids >= 0
            total = np.bincount(ids[known], minlength=size)
            yes = np.bincount(ids[known], clicked[known], minlength=size)
            odds[name][:, task] = (
                _odds((yes + SMOOTHING * mean) / (total + SMOOTHING)) - odds["overall"][task]
            )
    return odds


def rate_scores(encoder: ClickEncoder, user: np.ndarray, item: np.ndarray, task: int) -> np.ndarray:
    """Probability (N,) by the rates of users and items alone; those unknown count as average."""
    logit = np.full(len(user), encoder.rates["overall"][task])
    for name, who in (("user", user), ("item", item)):
        logit += np.where(who < 0, 0.0, encoder.rates[name][np.maximum(who, 0), task])
    return 1 / (1 + np.exp(-logit))


def _odds(share: np.ndarray | float) -> np.ndarray:
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))
