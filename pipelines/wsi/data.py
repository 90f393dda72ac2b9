"""Lists of slides and tables of bags as data sets of bags: features on demand, parts by patient.

Shapes: B bags, n instances of a bag, M instances of all bags of a batch, D width of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, fail, shown
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.slides.bags import (
    BagTable,
    Cohort,
    is_bag_table,
    match_files,
    read_bag_table,
    read_cohort,
)
from ...data.slides.generate import SAMPLE
from ...data.slides.slides import list_slides
from ..engine.command_line.terminal import say
from ..engine.spec import Spec
from ..engine.subsets import BoundedCache, Subsets, stratified_folds
from .extraction import Extraction, Extractor, extract_slides, extraction_of, stored_features
from .options import WsiOptions

MEMORY_BYTES = 8 << 30  # of features; what is more is read again each time
LABELS = "labels.csv"
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
    """How features are extracted from slides; None for a model of a table of bags."""
    mpp: float | None
    """--mpp of the training."""
    parts: Mapping[str, int]
    """Bags in each part."""
    mean: list[float] | None
    deviation: list[float] | None


class BagSource:
    """Bags and what is known about them. extraction: how the features of slides are extracted."""

    extraction: Extraction | None = None

    def __init__(self, cohort: Cohort, where: str) -> None:
        self.cohort, self.where = cohort, where

    def bag(self, row: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        raise NotImplementedError


class TableBags(BagSource):
    """The bags of a table, in memory."""

    def __init__(self, table: BagTable, where: str) -> None:
        super().__init__(table.cohort, where)
        self.table = table

    def bag(self, row: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        return torch.from_numpy(self.table.bag(row))


class SlideBags(BagSource):
    """Slides whose features are in files; those that were read are held in memory as far as they
    fit.

    folder: of the feature files. slides: the file of each slide, by name, as far as they are at
    hand.
    """

    def __init__(
        self,
        cohort: Cohort,
        where: str,
        folder: Path,
        slides: Mapping[str, str],
        extraction: Extraction,
    ) -> None:
        super().__init__(cohort, where)
        self.folder, self.slides, self.extraction = folder, slides, extraction
        self._cache = BoundedCache(self._read, MEMORY_BYTES)

    def _read(self, row: int) -> Tensor:
        return torch.from_numpy(stored_features(self.folder, self.cohort.names[row]).features)

    def bag(self, row: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        return self._cache[row]


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


def read_source(options: WsiOptions, extraction: Extraction | None = None) -> BagSource:
    """The bags that --data names; features that are missing are extracted.

    extraction: of a trained run, in place of that of the options. Raises `InputError` for a list
    that cannot be read, and if none of its slides can be used.
    """
    table = _table_of(options)
    if suffix_of(table) in TABLE_SUFFIXES and is_bag_table(table):
        return TableBags(read_bag_table(table), str(table))
    cohort, home = read_cohort(table), _slides_home(options, table)
    extraction = extraction or _own_extraction(options, home)
    folder = _feature_folder(options, home, extraction)
    slides = match_files(cohort.names, list_slides(home) if home.is_dir() else [], table)
    stored = {name for name in cohort.names if (folder / f"{name}.h5").is_file()}
    missing = [name for name in cohort.names if name not in slides and name not in stored]
    if missing:
        _report_missing(missing, cohort, options, table, home, folder)
    unusable = set(missing)
    if new := {name: path for name, path in slides.items() if name not in stored}:
        extractor = Extractor(
            extraction, torch.device("cpu"), options.encode_batch, options.threads
        )
        mpp = {name: known or options.mpp for name, known in zip(cohort.names, cohort.mpp)}
        status = extract_slides(extractor, folder, new, mpp)
        unusable |= set(status.filter(status["status"] == "error")["slide"])
    usable = [row for row, name in enumerate(cohort.names) if name not in unusable]
    if not usable:
        raise fail(table, f"no slide of it could be used; {folder / 'status.csv'} says why")
    columns = (tuple(values[row] for row in usable) for values in astuple(cohort))
    return SlideBags(Cohort(*columns), str(table), folder, slides, extraction)


def _report_missing(
    missing: Sequence[str],
    cohort: Cohort,
    options: WsiOptions,
    table: Path,
    home: Path,
    folder: Path,
) -> None:
    if len(missing) == len(cohort):
        hint = "" if options.slides else "; say where with --slides"
        raise fail(table, f"no slide of it lies in {home} and none has features in {folder}{hint}")
    say(
        f"{len(missing)} of {len(cohort)} slides are neither in {home} nor in {folder} and left "
        f"out: {', '.join(missing[:5])}"
    )


def own_feature_folder(options: WsiOptions) -> str | None:
    """Where the features of a training's own slides are; None for a table of bags."""
    table = _table_of(options)
    if suffix_of(table) in TABLE_SUFFIXES and is_bag_table(table):
        return None
    home = _slides_home(options, table)
    return str(_feature_folder(options, home, _own_extraction(options, home)))


def _table_of(options: WsiOptions) -> Path:
    """The file that lists the slides or holds the bags."""
    if options.data is None:
        raise InputError("wsi: name a list of slides or a table of bags with --data")
    path = Path(options.data)
    if path.is_dir() and not (path / LABELS).is_file():
        raise fail(
            path,
            f"holds no {LABELS}; it lists the slides (slide,label and perhaps patient,split,mpp)",
        )
    return path / LABELS if path.is_dir() else path


def _slides_home(options: WsiOptions, table: Path) -> Path:
    """The folder of the slides."""
    return Path(options.slides) if options.slides else table.parent


def _own_extraction(options: WsiOptions, home: Path) -> Extraction:
    return extraction_of(options, generated=home.name == SAMPLE)


def _feature_folder(options: WsiOptions, home: Path, extraction: Extraction) -> Path:
    if options.features:
        return Path(options.features)
    encoder = extraction["encoder"].replace("/", "-").replace(":", "-")
    return home / f"features-{encoder}-{extraction['tile']}px-{extraction['tile_mpp']:g}um"


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
        taken = grouped_folds(cohort, train, FOLDS, seed, where)[0]
        train, validation = np.delete(train, taken), train[taken]
    subsets = Subsets(train, validation, test)
    if missing := [name for name, part in subsets._asdict().items() if not len(part)]:
        raise fail(where, f"column 'split' leaves no slide for {' and '.join(missing)}")
    return subsets


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
