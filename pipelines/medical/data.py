"""X-rays as data sets: which part they belong to, by patient; batches in which all classes are as
frequent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import fail, nearest, shown
from ...data.xrays.xrays import XraySet, read_row, read_xray_set, two_sizes
from ..engine.pipeline import Splits
from ..engine.spec import DictSpec
from ..engine.training.order import count_steps, mix
from .augment import normalise
from .explain import read_boxes, read_lungs

HELD_BYTES = (
    2 << 30
)  # pictures kept in memory, as the model sees them; others are read again each time


@dataclass
class Source:
    """A set of X-rays, read at two sizes (height, width) in pixels."""

    rows: XraySet
    size: tuple[int, int]
    small: tuple[int, int]
    held: dict[int, tuple[np.ndarray, np.ndarray, tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.most = HELD_BYTES // (
            4 * (self.size[0] * self.size[1] + self.small[0] * self.small[1])
        )

    def picture(self, row: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """float32 (1, Y, X) and (1, y, x) in [0, 1], and the (height, width) of the file."""
        found = self.held.get(row)
        if found is None:
            pixels = read_row(self.rows, row)
            found = (*two_sizes(pixels, self.size, self.small), (pixels.shape[0], pixels.shape[1]))
            if len(self.held) < self.most:
                self.held[row] = found
        return found


class Xrays:
    """Some X-rays of a source with the numbers of their classes."""

    def __init__(self, source: Source, rows: np.ndarray, classes: Sequence[str]) -> None:
        self.source, self.rows, self.classes = source, np.asarray(rows, np.int64), list(classes)
        number = {name: k for k, name in enumerate(classes)}
        given = self.of("labels")
        if unknown := sorted(set(given) - set(classes)):
            close = nearest(unknown[0], classes)
            raise fail(
                source.rows.where, f"class {shown(unknown[0])} is none of the model's{close}"
            )
        self.labels = np.array([number[name] for name in given], np.int64)
        self.class_weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        picture, small, _ = self.source.picture(int(self.rows[index]))
        found = {"picture": torch.from_numpy(picture), "small": torch.from_numpy(small)}
        found |= {"label": torch.tensor(self.labels[index]), "index": torch.tensor(index)}
        return (
            found if self.class_weights is None else {**found, "class_weights": self.class_weights}
        )

    def of(self, name: str) -> list[str]:
        """A list of the set, such as names, patients, views or sources, for these pictures."""
        given = getattr(self.source.rows, name)
        return [given[row] for row in self.rows]


class BalancedXrays(Xrays):
    """Draws its own batches: an epoch is as many pictures as there are, each class its equal share
    of them.
    """

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return count_steps(len(self), batch_size)

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """An epoch of batches of places; a class is gone through before it begins anew."""
        generator = np.random.default_rng(mix(seed, epoch, 1))
        there = np.unique(self.labels)
        count = -(-len(self) // len(there))
        each = [_repeated(generator, np.flatnonzero(self.labels == one), count) for one in there]
        order = np.stack(
            [row[generator.permutation(len(row))] for row in np.stack(each, 1)]
        ).reshape(-1)[: len(self)]
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _repeated(generator: np.random.Generator, places: np.ndarray, count: int) -> np.ndarray:
    rounds = -(-count // len(places))
    return np.concatenate([generator.permutation(places) for _ in range(rounds)])[:count]


def read_source(options: Any, spec: dict[str, Any] | None = None) -> Source:
    """The X-rays that the options name."""
    if options.data is None:
        raise ValueError("medical: needs data")
    rows = read_xray_set(options.data, classes=options.classes if spec is None else ())
    size, small = (options.size[0], options.size[1]), (options.body_size[0], options.body_size[1])
    return Source(rows, size, small)


def open_splits(options: Any, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Read the list of pictures and split it by patient."""
    source = read_source(options, None if not whole else spec)
    rows = source.rows
    classes = (
        spec["classes"] if spec is not None else list(options.classes) or sorted(set(rows.labels))
    )
    if len(classes) < 2:
        raise fail(
            rows.where, f"all labels are {shown(classes[0])}; a classifier needs two classes"
        )
    if options.positive is not None and options.positive not in classes:
        raise fail(
            rows.where,
            f"has no class {shown(options.positive)}{nearest(options.positive, classes)}",
        )
    if whole:
        own = rows.rows("test")
        part = Xrays(source, own if len(own) else rows.rows(), classes)
        return Splits(part, part, part, spec or DictSpec())
    train, validation, test = split(options, rows)
    kind = BalancedXrays if options.balanced else Xrays
    parts = (
        kind(source, train, classes),
        Xrays(source, validation, classes),
        Xrays(source, test, classes),
    )
    if lost := [name for k, name in enumerate(classes) if k not in set(parts[0].labels.tolist())]:
        raise fail(rows.where, f"class {shown(lost[0])} has no picture in the training part")
    if options.class_weights:
        count = np.bincount(parts[0].labels, minlength=len(classes)).clip(1)
        parts[0].class_weights = torch.from_numpy(
            (len(train) / len(classes) / count).astype(np.float32)
        )
    if spec is None:
        # A folder or table that does not fit is found now, not after the training.
        if options.lungs is not None:
            read_lungs(rows, options.lungs)
        if options.boxes is not None:
            read_boxes(rows, options.boxes, options.box_frame)
        spec = {
            "input": {
                "pictures": len(rows),
                "patients": len(set(rows.patients)),
                "size": list(source.size),
                "body size": list(source.small),
            },
            "classes": classes,
            "positive": classes.index(options.positive) if options.positive else len(classes) - 1,
            "layout": rows.layout,
            "parts": {"train": len(train), "validation": len(validation), "test": len(test)},
        }
    return Splits(*parts, DictSpec(spec))


def split(options: Any, rows: XraySet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the three parts: the data's own, else shares of the patients, classes balanced as far
    as that goes.
    """
    train, validation, test = (rows.rows(part) for part in ("train", "validation", "test"))
    free = rows.rows("")
    if not len(train):
        train, free = free, free[:0]
    if not len(train):
        raise fail(rows.where, "has no pictures to train on; `evaluate --data` scores such a set")
    if not len(test):
        test, train = share(rows, train, options.test_share, options.seed)
    if not len(validation):
        validation, train = share(rows, train, options.validation_share, options.seed + 1)
    for name, part in (("validation", validation), ("test", test)):
        if not len(part):
            raise fail(rows.where, f"has no {name} part, and --{name}-share leaves none of it")
    groups = [{rows.patients[row] for row in part} for part in (train, validation, test)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if groups[one] & groups[other]:
            names = ("training", "validation", "test")
            raise fail(
                rows.where,
                f"patients stand both in the {names[one]} and in the {names[other]} part",
            )
    return train, validation, test


def share(
    rows: XraySet, among: np.ndarray, part: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(taken, left): about a share of `among`, whole patients, classes balanced as far as that
    goes.
    """
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    patients = np.array([rows.patients[row] for row in among])
    if not part or len(set(patients)) < 2:
        return among[:0], among
    labels = np.array([rows.labels[row] for row in among])
    most = int(np.unique(labels, return_counts=True)[1].max())
    if most < 2:
        raise fail(
            rows.where, "has one picture of each class, too few to keep a share of them apart"
        )
    folds = min(max(2, round(1 / part)), len(set(patients)), most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class with fewer members than folds
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
            among, labels, patients
        )
        _, taken = next(iter(parts))
    chosen = np.isin(np.arange(len(among)), taken)
    return among[chosen], among[~chosen]


def example(splits: Splits) -> tuple[tuple[Any, ...], Any]:
    """Two normalised pictures of the test part, their number free, for export."""
    part = splits.test
    given = [part[min(k, len(part) - 1)] for k in range(2)]
    picture, small = (torch.stack([one[name] for one in given]) for name in ("picture", "small"))
    free = torch.export.Dim("pictures", min=1)
    return normalise(picture, small), ({0: free}, {0: free})
