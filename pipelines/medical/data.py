"""X-rays as data sets: read and cached, in parts by patient, in batches in which all classes are
equally frequent.

Shapes: Y x X pixels of the classifier's picture, y x x of the body's, which is the same at another
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.account import note, recount
from ...base.errors import InputError, fail, nearest, shown
from ...data.columns import parse_columns
from ...data.items import digest
from ...data.xrays.findings import classes_of
from ...data.xrays.records import ALL, Reading, XraySet
from ...data.xrays.several import truth_of
from ...data.xrays.table import FIELDS
from ...data.xrays.xrays import leave_out_unreadable, read_row, read_xray_set, two_sizes
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Member, Splits
from ..engine.subsets import BoundedCache, Subsets
from ..engine.training.order import count_steps, mix
from .explain import read_boxes, read_lungs
from .options import MedicalOptions
from .parts import split_by_patient
from .several.parts import learnable, note_counts
from .spec import MedicalSpec


class XraySample(TypedDict):
    """What a data set gives for one picture."""

    picture: Tensor  # float32 (1, Y, X) in [0, 1]
    small: Tensor  # float32 (1, y, x) in [0, 1]
    label: Tensor  # int64 (), or of several findings float32 (K,)
    index: Tensor  # int64 ()
    known: NotRequired[Tensor]  # float32 (K,): 1 where it is known whether there is the finding


Picture = tuple[np.ndarray, np.ndarray, np.ndarray]
"""float32 (1, Y, X) and (1, y, x) in [0, 1], and the (height, width) of the file, int64 (2,)."""


class XrayReader:
    """The pictures of a set at two sizes (height, width) in pixels, cached in memory.

    source: a reader that has these pictures, and its row of each of them; its memory is used.
    """

    def __init__(
        self,
        xrays: XraySet,
        size: tuple[int, int],
        body_size: tuple[int, int],
        source: tuple[XrayReader, Sequence[int]] | None = None,
    ) -> None:
        self.xrays, self.size, self.body_size, self._source = xrays, size, body_size, source
        self.pictures = (
            BoundedCache(self._read) if source is None else BoundedCache(self._of_source, 0)
        )
        self._digests: dict[int, str] = {}
        self._sides: dict[int, tuple[int, int]] = {}

    def of(self, rows: Sequence[int]) -> XrayReader:
        """A reader of these rows, with what this one has in memory."""
        return XrayReader(self.xrays.of(rows), self.size, self.body_size, (self, list(rows)))

    def sides(self, row: int) -> tuple[int, int]:
        """Height and width of the file of a row, pixels."""
        if self._source is not None:
            return self._source[0].sides(self._source[1][row])
        if row not in self._sides:
            self._read(row)
        return self._sides[row]

    def content(self, row: int) -> str:
        """What tells the pixels of the file of a row from others."""
        if self._source is not None:
            return self._source[0].content(self._source[1][row])
        if row not in self._digests:
            self._read(row)
        return self._digests[row]

    def _read(self, row: int) -> Picture:
        pixels = read_row(self.xrays, row)
        picture, small = two_sizes(pixels, self.size, self.body_size)
        self._digests[row] = digest(pixels)
        self._sides[row] = height, width = pixels.shape[0], pixels.shape[1]
        return picture, small, np.array([height, width])

    def _of_source(self, row: int) -> Picture:
        assert self._source is not None
        reader, rows = self._source
        return reader.pictures[rows[row]]


class XrayPart:
    """Some X-rays of a set, without what is to be told of them."""

    def __init__(self, reader: XrayReader, rows: np.ndarray, classes: Sequence[str]) -> None:
        self.reader, self.rows, self.classes = reader, np.asarray(rows, np.int64), list(classes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> XraySample:
        picture, small, _ = self.reader.pictures[int(self.rows[index])]
        return {
            "picture": torch.from_numpy(picture),
            "small": torch.from_numpy(small),
            "label": self.label(index),
            "index": torch.tensor(index),
        }

    def label(self, index: int) -> Tensor:
        """What is to be told of a picture."""
        raise NotImplementedError

    def column(self, name: str) -> list[str]:
        """A column of the set, such as names, patients, views or sources, for these pictures."""
        values = getattr(self.reader.xrays, name)
        return [values[row] for row in self.rows]


class Xrays(XrayPart):
    """X-rays with the numbers of their classes.

    Raises `InputError` for a picture whose class is not one of `classes`.
    """

    def __init__(self, reader: XrayReader, rows: np.ndarray, classes: Sequence[str]) -> None:
        super().__init__(reader, rows, classes)
        number = {name: k for k, name in enumerate(classes)}
        labels = self.column("labels")
        if unknown := sorted(set(labels) - set(classes)):
            hint = nearest(unknown[0], classes)
            where = reader.xrays.where
            raise fail(where, f"class {shown(unknown[0])} is none of the model's{hint}")
        self.labels = np.array([number[label] for label in labels], np.int64)

    def label(self, index: int) -> Tensor:
        """The number of the class."""
        return torch.tensor(self.labels[index])


class SeveralXrays(XrayPart):
    """X-rays with several findings each. truth, known: bool (N, K), see `truth_of`."""

    def __init__(self, reader: XrayReader, rows: np.ndarray, classes: Sequence[str]) -> None:
        super().__init__(reader, rows, classes)
        self.truth, self.known = truth_of(self.column("labels"), classes)

    def __getitem__(self, index: int) -> XraySample:
        known = torch.from_numpy(self.known[index].astype(np.float32))
        return {**super().__getitem__(index), "known": known}

    def label(self, index: int) -> Tensor:
        """1 for each finding that the picture has."""
        return torch.from_numpy(self.truth[index].astype(np.float32))


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
) -> Splits[MedicalSpec, XrayPart]:
    """Read the list of pictures and split it by patient; exact copies share a part.

    All pictures are read once, for copies and for those that cannot be read, unless `spec` knows
    them. spec: of the run whose data this is. as_test: everything is the test part, or what the
    data calls its test part. Raises `InputError` for data that does not fit."""
    findings = spec.classes if spec is not None and spec.several else ()
    xrays = read_xray_set(*_reading(options, findings, as_test=as_test and spec is not None))
    size, body_size = options.size, options.body_size
    reader = XrayReader(xrays, (size[0], size[1]), (body_size[0], body_size[1]))
    kind: type[XrayPart] = SeveralXrays if options.findings else Xrays
    if as_test and spec is not None:
        test_rows = xrays.rows("test")
        reader = _readable(reader, test_rows if len(test_rows) else xrays.rows())
        rows = reader.xrays.rows()
        part = kind(reader, rows, spec.classes)
        members = _members_of(reader.xrays, rows)
        return Splits(part, part, part, spec, members={"test": members})
    unread: list[str] = []
    if spec is None:
        reader = _readable(reader, xrays.rows())
        unread = sorted(set(xrays.names) - set(reader.xrays.names))
    elif spec.unread:
        rows = [row for row, name in enumerate(xrays.names) if name not in set(spec.unread)]
        reader = reader.of(rows)
    xrays = reader.xrays
    copies = _copies(reader) if spec is None else spec.copies
    subsets = split_by_patient(options, xrays, copies)
    classes = _classes(options, xrays, subsets) if spec is None else spec.classes
    train = _training_part(options, reader, subsets, classes)
    if spec is None:
        # A folder or table that does not fit is reported now, not after the training.
        if options.lungs is not None:
            masks = read_lungs(xrays, options.lungs)
            note("read", "lung masks", count=len(masks))
        if options.boxes is not None:
            boxes = read_boxes(xrays, options.boxes, options.box_frame, reader.sides)
            note("read", "pictures with boxes", count=len(boxes))
        spec = _new_spec(options, reader, classes, subsets)
        spec = replace(spec, copies=copies, unread=unread, rule="operating point")
    if not spec.counts:  # nor has an older run any
        spec = _with_counts(spec, train)
    validation, test = (kind(reader, rows, classes) for rows in subsets[1:])
    return Splits(train, validation, test, spec, members=_members(xrays, subsets))


def _reading(
    options: MedicalOptions, findings: Sequence[str], *, as_test: bool
) -> tuple[str, Reading]:
    """The path of the data and how to read it; findings: of the model, where there is one.

    as_test: whether it is other data than that of the training, which may lack a class, a finding
    or a column that was named for the training's table.
    """
    if options.data is None:
        raise ValueError("medical: needs data")
    reading = Reading(
        classes=() if as_test else options.classes,
        columns=parse_columns(options.columns, FIELDS),
        images=options.images,
        finding=options.finding,
        findings=tuple(findings) if as_test else options.findings,
        # Nobody was asked about the uncertain labels of other data: they are scored nowhere.
        uncertain=options.uncertain or ("ignore" if as_test else None),
        strict=not as_test,
    )
    return options.data, reading


def _readable(reader: XrayReader, rows: np.ndarray) -> XrayReader:
    """The pictures of these rows that can be read; all of them are, and are then in memory as far
    as they fit. Those that cannot be read go into the account.
    """
    if len(rows) < len(reader.xrays):
        reader = reader.of(rows.tolist())
    problems: dict[int, str] = {}
    with Progressbar(total=len(rows), unit="picture", desc="reading") as bar:
        for row in range(len(rows)):
            try:
                reader.pictures[row]
            except InputError as error:
                problems[row] = str(error)
            bar.update()
    readable = leave_out_unreadable(reader.xrays, problems)
    recount("read", "pictures", len(readable))
    if len(readable) == len(rows):
        return reader
    return reader.of([row for row in range(len(rows)) if row not in problems])


def _copies(reader: XrayReader) -> list[list[str]]:
    """Names of the pictures that are exact copies of each other, in the order of the data."""
    by_content: dict[str, list[str]] = {}
    for row, name in enumerate(reader.xrays.names):
        by_content.setdefault(reader.content(row), []).append(name)
    return [names for names in by_content.values() if len(names) > 1]


def _members(xrays: XraySet, subsets: Subsets) -> dict[str, list[Member]]:
    """The pictures of each part, by which later predictions name it."""
    return {part: _members_of(xrays, rows) for part, rows in subsets._asdict().items()}


def _members_of(xrays: XraySet, rows: np.ndarray) -> list[Member]:
    return [member_of(xrays.files[row], xrays.names[row], xrays.places[row]) for row in rows]


def member_of(file: str, name: str, place: tuple[str, int] | None) -> Member:
    """A picture as an item of the data: its file, and its name where the file holds several."""
    return Member(file, "" if place is None else name)


def _training_part(
    options: MedicalOptions, reader: XrayReader, subsets: Subsets, classes: Sequence[str]
) -> XrayPart:
    """Balanced as the options say. Raises `InputError` for a class without a picture."""
    if options.findings:
        return SeveralXrays(reader, subsets.train, classes)
    train = (BalancedXrays if options.balanced else Xrays)(reader, subsets.train, classes)
    _require_all_classes(train)
    return train


def _classes(options: MedicalOptions, xrays: XraySet, subsets: Subsets) -> list[str]:
    """The classes in the order of the option, or else of their names; of several findings, those
    that all parts have enough pictures of.
    """
    if options.findings:
        truth, known = truth_of(xrays.labels, xrays.findings)
        note_counts(xrays.findings, truth, known, subsets)
        named = options.findings != (ALL,)
        return learnable(xrays.where, xrays.findings, truth, known, subsets, named=named)
    if options.finding is not None:
        return list(classes_of(options.finding))
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


def _with_counts(spec: MedicalSpec, train: XrayPart) -> MedicalSpec:
    """The spec with what the loss goes by."""
    if isinstance(train, SeveralXrays):
        counts, known = ((train.truth & train.known).sum(0), train.known.sum(0))
        return replace(spec, counts=counts.tolist(), known=known.tolist())
    assert isinstance(train, Xrays)
    counts = np.bincount(train.labels, minlength=len(spec.classes))
    return replace(spec, counts=counts.tolist())


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
        several=bool(options.findings),
    )
