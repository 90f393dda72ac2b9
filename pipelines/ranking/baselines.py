"""What counting gives: a model must be better than the rates of users and items in the training
part.
"""

from collections.abc import Iterator

import numpy as np

from ...base.account import note
from ...data.clicks.coding import Rows
from ...data.clicks.encoder import ClickEncoder, field_codes
from ...data.clicks.split import TRAIN, VALIDATION
from ..metrics.ranking import auc

SMOOTHING = 20.0  # rows of the overall rate that each user's and item's rate is mixed with
TELLING = 0.995  # AUC of a single field from which it seems to be known only after the click
SAMPLED = 200_000  # rows of the validation part that single fields are scored on


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
        odds["overall"][task] = log_odds(mean)
        for name, who, size in (("user", rows.user, users), ("item", rows.item, items)):
            ids = who[which][counts]
            known = ids >= 0
            total = np.bincount(ids[known], minlength=size)
            yes = np.bincount(ids[known], clicked[known], minlength=size)
            odds[name][:, task] = (
                log_odds((yes + SMOOTHING * mean) / (total + SMOOTHING)) - odds["overall"][task]
            )
    return odds


def rate_scores(encoder: ClickEncoder, user: np.ndarray, item: np.ndarray, task: int) -> np.ndarray:
    """Probability (N,) by the rates of users and items alone; those unknown count as average."""
    logit = np.full(len(user), encoder.rates["overall"][task])
    for name, who in (("user", user), ("item", item)):
        if len(encoder.rates[name]):
            logit += np.where(who < 0, 0.0, encoder.rates[name][np.maximum(who, 0), task])
    return 1 / (1 + np.exp(-logit))


def note_telling_fields(encoder: ClickEncoder, rows: Rows, part: np.ndarray) -> None:
    """Note the fields that alone tell the label of a task: the rate of each value in the training
    part, scored on the validation part. part: int8 (N,).
    """
    assert rows.labels is not None
    train, held_out = np.flatnonzero(part == TRAIN), np.flatnonzero(part == VALIDATION)
    held_out = held_out[:: max(1, len(held_out) // SAMPLED)]
    for name, codes in _single_codes(encoder, rows):
        for place, task in enumerate(encoder.schema.tasks):
            score, apart = _auc_of_codes(codes, rows.labels[:, place], train, held_out)
            # A bucket at the border of two labels holds both, even where the numbers tell them.
            if score > TELLING or (name in encoder.schema.numeric and apart > TELLING):
                what = f"{name} alone gives an AUC of {score:.3f} for {task}"
                note("values", f"{what}; is it known before the {task}?")


def _single_codes(encoder: ClickEncoder, rows: Rows) -> Iterator[tuple[str, np.ndarray]]:
    """Fields with one value in a cell, and their codes (N,)."""
    for column in encoder.columns:
        if column.width == 1 and column.name not in encoder.schema.time_fields:
            yield column.name, field_codes(encoder, encoder.side_codes, rows, column.name)


def _auc_of_codes(
    codes: np.ndarray, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> tuple[float, float]:
    """AUC on some rows of the rate of each code in others, NaN where it is not defined; and the
    same among pairs of different rates, 0 where these are less than nine of ten.
    """
    train, held_out = train[labels[train] >= 0], held_out[labels[held_out] >= 0]
    size = int(codes.max(initial=0)) + 1
    total = np.bincount(codes[train], minlength=size)
    positive = np.bincount(codes[train], labels[train], minlength=size)
    mean = positive.sum() / max(int(total.sum()), 1)
    score = ((positive + mean) / (total + 1))[codes[held_out]]
    label = labels[held_out]
    area = auc(label, score)
    if np.isnan(area):
        return area, 0.0
    _, rate = np.unique(score, return_inverse=True)
    pairs = np.bincount(rate[label == 1], minlength=len(score)).astype(float)
    pairs *= np.bincount(rate[label == 0], minlength=len(score))
    tied = float(pairs.sum() / ((label == 1).sum() * (label == 0).sum()))
    return area, (area - tied / 2) / (1 - tied) if tied < 0.1 else 0.0


def log_odds(share: np.ndarray | float) -> np.ndarray:
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))
