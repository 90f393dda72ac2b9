"""What all functions on labels ask of their arrays, and folds that share no group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def checked(name: str, truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """truth as bool (N, L) and score as float64 (N, L).

    Raises ValueError, which begins with `name`, for other shapes or types and for numbers that are
    not finite."""
    truth, score = np.asarray(truth), np.asarray(score)
    if truth.ndim != 2 or truth.shape != score.shape:
        raise ValueError(
            f"{name}: truth and scores are both (texts, labels), got {truth.shape} and "
            f"{score.shape}"
        )
    if truth.dtype != bool:
        raise ValueError(f"{name}: truth must be bool, got {truth.dtype}")
    score = score.astype(np.float64)
    if not np.isfinite(score).all():
        raise ValueError(f"{name}: scores must be finite")
    return truth, score


def checked_groups(name: str, groups: np.ndarray | None, texts: int) -> np.ndarray:
    """Number of the group of each text, int64 (N,) from 0; all texts by themselves without groups.

    Raises ValueError for another shape."""
    if groups is None:
        return np.arange(texts)
    groups = np.asarray(groups)
    if groups.shape != (texts,):
        raise ValueError(f"{name}: groups {groups.shape} do not fit {texts} texts")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def folds_of(member: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of the texts to fit to and of those held out, fold after fold; no group is in both.

    member: numbers of the groups, int (N,). With fewer groups than `folds` there are as many folds
    as groups, and no fold where there is one group or none."""
    groups = int(member.max(initial=-1)) + 1
    folds = min(folds, groups)
    if folds < 2:
        return
    fold = np.random.default_rng(seed).permutation(groups)[member] % folds
    for k in range(folds):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)
