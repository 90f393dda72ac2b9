"""Bags as data sets: parts by patient, batches of bags of any size, moments of the features.

Shapes: B bags, n instances of a bag, M instances of all bags of a batch, D width of a feature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, fail, shown
from ...data.slides.bags import Cohort
from ..engine.pipeline import Member
from ..engine.spec import Spec
from ..engine.subsets import Subsets, inverse_frequencies, stratified_folds
from .extraction import Extraction
from .options import WsiOptions
from .sources import BagSource

FOLDS = 5  # of which one is the test part and one the validation part


class BagInput(TypedDict):
    """What the bags of a training were."""

    bags: int
    patients: int
    features: int


class Moments(TypedDict):
    """Mean and deviation of each feature; None where nothing is standardised."""

    mean: list[float] | None
    deviation: list[float] | None


@dataclass(frozen=True, kw_only=True)
class WsiSpec(Spec):
    """The spec of a run."""

    input: BagInput
    classes: list[str]
    width: int
    """Width of a feature."""
    extraction: Extraction | None
    """How features are extracted from slides; None for a model of a table of bags or of features of
    another tool."""
    mpp: float | None
    """--mpp of the training."""
    parts: Mapping[str, int]
    """Bags in each part."""
    mean: list[float] | None
    deviation: list[float] | None
    groups_joined: bool = False
    """Whether patients were found under any usual name of their column and exact copies kept in one
    part, which older versions did not do: their parts must stay what they were."""
    bag_features: list[str] | None = None
    """Names of the features of a table of bags, in the order of the model; None where the table had
    no header, for slides, and in runs of older versions."""

    @property
    def features_of_bags(self) -> Sequence[str] | int:
        """The features that a table of bags must have: their names, else how many."""
        return self.width if self.bag_features is None else self.bag_features


class BagSet:
    """Some bags of a source, as a data set; a batch holds bags of any size one after the other.

    rows: of the source. Raises `InputError` for a label that is none of `classes`.
    """

    def __init__(self, source: BagSource, rows: Iterable[int], classes: Sequence[str]) -> None:
        self.source, self.rows, self.classes = source, list(map(int, rows)), list(classes)
        self.class_weights: Tensor | None = None
        cohort, number_of = source.cohort, {name: k for k, name in enumerate(classes)}
        unknown = sorted({cohort.labels[row] for row in self.rows} - set(classes))
        if unknown:
            raise fail(
                source.where,
                f"label {shown(unknown[0])} is none of the model's: {', '.join(classes)}",
            )
        self.labels = np.array([number_of[cohort.labels[row]] for row in self.rows], np.int64)
        self.names = [cohort.names[row] for row in self.rows]
        self.patients = np.array([cohort.patients[row] for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.source.bag(self.rows[index]), int(self.labels[index]), index

    def members(self) -> list[Member]:
        """What later predictions may name as items of this part."""
        return [member for row in self.rows for member in self.source.members(row)]

    def weigh_classes(self) -> None:
        """Weight the classes in the loss by the inverse of their frequency here."""
        self.class_weights = inverse_frequencies(self.labels, len(self.classes))

    def collate(self, samples: Sequence[tuple[Tensor, int, int]]) -> dict[str, Tensor]:
        """x (M, D), offsets (B + 1,), labels (B,), index (B,): the bag's place in the data set; and
        class_weights, if there are any.
        """
        bags, labels, index = zip(*samples)
        widths = {bag.shape[1] for bag in bags}
        if len(widths) > 1:
            raise InputError(
                f"features have the widths {sorted(widths)}; take one encoder for all slides"
            )
        batch = {
            "x": torch.cat(bags),
            "offsets": torch.tensor([0, *map(len, bags)]).cumsum(0),
            "labels": torch.tensor(labels),
            "index": torch.tensor(index),
        }
        weights = self.class_weights
        return batch if weights is None else {**batch, "class_weights": weights}


def split(cohort: Cohort, seed: int, where: str) -> Subsets:
    """Rows of the three parts: the file's own, else 60/20/20 % by patient, classes balanced.

    Raises `InputError` for an empty part and if there are too few patients.
    """
    rows = np.arange(len(cohort))
    if not any(cohort.splits):
        test, validation, *rest = grouped_folds(cohort, rows, FOLDS, seed, where)
        return Subsets(np.sort(np.concatenate(rest)), validation, test)
    parts = np.array([part or "train" for part in cohort.splits])
    train, validation, test = (np.flatnonzero(parts == name) for name in Subsets._fields)
    if not len(validation):
        train, validation = without_validation(cohort, train, seed, where)
    subsets = Subsets(train, validation, test)
    if missing := [name for name, part in subsets._asdict().items() if not len(part)]:
        raise fail(where, f"column 'split' leaves no slide for {' and '.join(missing)}")
    return subsets


def without_validation(
    cohort: Cohort, rows: np.ndarray, seed: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to stop early by, of those that are no test rows: a fifth of them,
    or more where there are fewer than five patients.

    Raises `InputError` for a single patient.
    """
    patients = len({cohort.patients[row] for row in rows})
    largest_class = Counter(cohort.labels[row] for row in rows).most_common(1)[0][1]
    folds = max(2, min(FOLDS, patients, largest_class))
    taken = grouped_folds(cohort, rows, folds, seed, where)[0]
    return np.delete(rows, taken), rows[taken]


def grouped_folds(
    cohort: Cohort, rows: np.ndarray, folds: int, seed: int, where: str
) -> list[np.ndarray]:
    """Folds of `rows` without a patient in two of them, classes balanced as far as possible: the
    places in `rows`, sorted, of each fold.

    Raises `InputError` for fewer patients than folds.
    """
    labels, patients = np.array(cohort.labels)[rows], np.array(cohort.patients)[rows]
    if (count := len(set(patients))) < folds:
        raise fail(
            where, f"has {count} patients, too few to part into {folds}; name a split column"
        )
    # Where no patient has two slides, the plain folds are those that others compare with.
    return stratified_folds(labels, patients, folds, seed, plain=True)


def spec_of(source: BagSource, parts: Mapping[str, BagSet], options: WsiOptions) -> WsiSpec:
    """The spec of a training on the part "train"."""
    train = parts["train"]
    width = source.bag(0).shape[1]
    return WsiSpec(
        input={
            "bags": len(source.cohort),
            "patients": len(set(source.cohort.patients)),
            "features": width,
        },
        classes=train.classes,
        width=width,
        extraction=source.extraction,
        mpp=options.mpp,
        parts={name: len(part) for name, part in parts.items()},
        **moments(train, options.standardise),
        groups_joined=True,
        bag_features=source.feature_names,
    )


def moments(bags: BagSet, standardise: bool) -> Moments:
    """Mean and deviation over all instances of all bags; None where nothing is standardised."""
    if not standardise:
        return {"mean": None, "deviation": None}
    total = square = torch.zeros(())
    count = 0
    for k in range(len(bags)):
        x = bags[k][0].double()
        total, square, count = total + x.sum(0), square + x.square().sum(0), count + len(x)
    mean = total / count
    deviation = (square / count - mean.square()).clamp_min(0).sqrt()
    # A feature that hardly varies is only centred.
    deviation = torch.where(deviation < 1e-6 * (1 + mean.abs()), 1.0, deviation)
    return {"mean": mean.float().tolist(), "deviation": deviation.float().tolist()}
