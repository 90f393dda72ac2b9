"""X-rays as data sets: read and cached, in parts by patient, in batches in which all classes are
equally frequent.

Shapes: Y x X pixels of the classifier's picture, y x x of the body's, which is the same at another
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import fail, nearest, shown
from ...data.xrays.xrays import XraySet, read_row, read_xray_set, two_sizes
from ..engine.pipeline import Splits
from ..engine.spec import Spec
from ..engine.subsets import (
    BoundedCache,
    Subsets,
    Taken,
    inverse_frequencies,
    own_or_shares,
    refuse_shared_groups,
    take_stratified,
)
from ..engine.training.order import count_steps, mix
from .explain import read_boxes, read_lungs
from .options import MedicalOptions

InputFacts = TypedDict(
    "InputFacts", {"pictures": int, "patients": int, "size": list[int], "body size": list[int]}
)
"""What the model was trained on, as the run's card says it; sizes are (height, width)."""


@dataclass(frozen=True, kw_only=True)
class MedicalSpec(Spec):
    """What a classifier of X-rays needs to meet new pictures.

    positive  number of the class that the operating point is for
    parts     pictures of each part
    """

    input: InputFacts
    classes: list[str]
    positive: int
    layout: str
    parts: dict[str, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the classifier's picture, pixels."""
        height, width = self.input["size"]
        return height, width

    @property
    def body_size(self) -> tuple[int, int]:
        """Height and width of the body's picture, pixels."""
        height, width = self.input["body size"]
        return height, width


class XraySample(TypedDict):
    """What a data set gives for one picture."""

    picture: Tensor  # float32 (1, Y, X) in [0, 1]
    small: Tensor  # float32 (1, y, x) in [0, 1]
    label: Tensor  # int64 ()
    index: Tensor  # int64 ()
    class_weights: NotRequired[Tensor]  # float32 (K,)


Picture = tuple[np.ndarray, np.ndarray, np.ndarray]
"""float32 (1, Y, X) and (1, y, x) in [0, 1], and the (height, width) of the file, int64 (2,)."""


class XrayReader:
    """The pictures of a set at two sizes (height, width) in pixels, cached in memory."""

    def __init__(self, xrays: XraySet, size: tuple[int, int], body_size: tuple[int, int]) -> None:
        self.xrays, self.size, self.body_size = xrays, size, body_size
        self.pictures = BoundedCache(self._read)

    def _read(self, row: int) -> Picture:
        pixels = read_row(self.xrays, row)
        picture, small = two_sizes(pixels, self.size, self.body_size)
        return picture, small, np.array(pixels.shape[:2])


class Xrays:
    """Some X-rays of a set with the numbers of their classes.

    Raises `InputError` for a picture whose class is not one of `classes`.
    """

    def __init__(self, reader: XrayReader, rows: np.ndarray, classes: Sequence[str]) -> None:
        self.reader, self.rows, self.classes = reader, np.asarray(rows, np.int64), list(classes)
        number = {name: k for k, name in enumerate(classes)}
        labels = self.column("labels")
        if unknown := sorted(set(labels) - set(classes)):
            hint = nearest(unknown[0], classes)
            where = reader.xrays.where
            raise fail(where, f"class {shown(unknown[0])} is none of the model's{hint}")
        self.labels = np.array([number[label] for label in labels], np.int64)
        self.class_weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> XraySample:
        picture, small, _ = self.reader.pictures[int(self.rows[index])]
        sample: XraySample = {
            "picture": torch.from_numpy(picture),
            "small": torch.from_numpy(small),
            "label": torch.tensor(self.labels[index]),
            "index": torch.tensor(index),
        }
        if self.class_weights is not None:
            sample["class_weights"] = self.class_weights
        return sample

    def column(self, name: str) -> list[str]:
        """A column of the set, such as names, patients, views or sources, for these pictures."""
        values = getattr(self.reader.xrays, name)
        return [values[row] for row in self.rows]


class BalancedXrays(Xrays):
    """Draws its own batches: an epoch has as many pictures as the part, an equal share of each
    class.
    """

    def steps(self, batch_size: int) -> int:
        """Batches per epoch."""
        return count_steps(len(self), batch_size)

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as places; no picture of a class comes again before all of its
        class have come.
        """
        generator = np.random.default_rng(mix(seed, epoch, 1))
        present = np.unique(self.labels)
        count = -(-len(self) // len(present))
        by_class = [
            _repeated(generator, np.flatnonzero(self.labels == label), count) for label in present
        ]
        rounds = [row[generator.permutation(len(row))] for row in np.stack(by_class, 1)]
        order = np.stack(rounds).reshape(-1)[: len(self)]
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _repeated(generator: np.random.Generator, places: np.ndarray, count: int) -> np.ndarray:
    rounds = -(-count // len(places))
    return np.concatenate([generator.permutation(places) for _ in range(rounds)])[:count]


def open_splits(
    options: MedicalOptions, spec: MedicalSpec | None = None, *, as_test: bool = False
) -> Splits[MedicalSpec, Xrays]:
    """Read the list of pictures and split it by patient.

    spec: of the run whose data this is. as_test: everything is the test part, or what the data
    calls its test part. Raises `InputError` for data that does not fit."""
    if options.data is None:
        raise ValueError("medical: needs data")
    xrays = read_xray_set(options.data, classes=() if as_test and spec else options.classes)
    size, body_size = options.size, options.body_size
    reader = XrayReader(xrays, (size[0], size[1]), (body_size[0], body_size[1]))
    classes = _classes(options, xrays) if spec is None else spec.classes
    if as_test and spec is not None:
        named = xrays.rows("test")
        part = Xrays(reader, named if len(named) else xrays.rows(), classes)
        return Splits(part, part, part, spec)
    subsets = split_by_patient(options, xrays)
    train = (BalancedXrays if options.balanced else Xrays)(reader, subsets.train, classes)
    _require_all_classes(train)
    if options.class_weights:
        train.class_weights = inverse_frequencies(train.labels, len(classes))
    if spec is None:
        # A folder or table that does not fit is reported now, not after the training.
        if options.lungs is not None:
            read_lungs(xrays, options.lungs)
        if options.boxes is not None:
            read_boxes(xrays, options.boxes, options.box_frame)
        spec = _new_spec(options, reader, classes, subsets)
    validation, test = (Xrays(reader, rows, classes) for rows in subsets[1:])
    return Splits(train, validation, test, spec)


def _classes(options: MedicalOptions, xrays: XraySet) -> list[str]:
    """The classes in the order of the option, or else of their names."""
    classes = list(options.classes) or sorted(set(xrays.labels))
    if len(classes) < 2:
        message = f"all labels are {shown(classes[0])}; a classifier needs two classes"
        raise fail(xrays.where, message)
    if options.positive is not None and options.positive not in classes:
        hint = nearest(options.positive, classes)
        raise fail(xrays.where, f"has no class {shown(options.positive)}{hint}")
    return classes


def _require_all_classes(train: Xrays) -> None:
    """Raise `InputError` where a class has no picture to train on."""
    present = set(train.labels.tolist())
    if missing := [name for k, name in enumerate(train.classes) if k not in present]:
        message = f"class {shown(missing[0])} has no picture in the training part"
        raise fail(train.reader.xrays.where, message)


def _new_spec(
    options: MedicalOptions, reader: XrayReader, classes: list[str], subsets: Subsets
) -> MedicalSpec:
    return MedicalSpec(
        input={
            "pictures": len(reader.xrays),
            "patients": len(set(reader.xrays.patients)),
            "size": list(reader.size),
            "body size": list(reader.body_size),
        },
        classes=classes,
        positive=classes.index(options.positive) if options.positive else len(classes) - 1,
        layout=reader.xrays.layout,
        parts=subsets.sizes(),
    )


def split_by_patient(options: MedicalOptions, xrays: XraySet) -> Subsets:
    """Rows of the three parts: those that the data names, or else shares of the patients, with the
    classes balanced as far as possible.

    Raises `InputError` where a part is empty or a patient is in two parts.
    """
    labels, patients = np.array(xrays.labels), np.array(xrays.patients)

    def take(rows: np.ndarray, share: float, part: str) -> Taken:
        seed = options.seed + (part == "validation")
        return take_stratified(xrays.where, rows, labels[rows], patients[rows], share, seed)

    subsets = own_or_shares(
        xrays.where,
        xrays.parts,
        take,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="pictures",
    )
    refuse_shared_groups(xrays.where, subsets, xrays.patients, "patient")
    return subsets
