"""Lists of slides and tables of bags as data sets of bags: features on demand, splits by
patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, fail, shown
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.slides.bags import Cohort, is_bag_table, match_files, read_bag_table, read_cohort
from ...data.slides.generate import SAMPLE
from ...data.slides.slides import list_slides
from ..engine.command_line.terminal import say
from ..engine.pipeline import Splits
from ..engine.spec import DictSpec
from .verbs.features import Extractor, extract_cohort, settings_of, stored

HELD_BYTES = 8 << 30  # features kept in memory; what is more is read again each time
LABELS = "labels.csv"
PARTS = ("train", "validation", "test")


@dataclass
class Source:
    """Bags with what is known of them, their features in memory or in files."""

    cohort: Cohort
    where: str
    features: np.ndarray | None = None  # of a table
    offsets: np.ndarray | None = None
    folder: Path | None = None  # of feature files
    slides: dict[str, str] | None = None  # the slide of each name, where there is one
    settings: dict[str, Any] | None = None  # of the extraction

    def __post_init__(self) -> None:
        self.held: dict[int, Tensor] = {}
        self.bytes = 0

    def bag(self, index: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        if self.features is not None and self.offsets is not None:
            return torch.from_numpy(self.features[self.offsets[index] : self.offsets[index + 1]])
        if index not in self.held:
            assert self.folder is not None
            found = torch.from_numpy(stored(self.folder, self.cohort.names[index]).features)
            if self.bytes + found.nbytes > HELD_BYTES:
                return found
            self.held[index] = found
            self.bytes += found.nbytes
        return self.held[index]


class BagSet:
    """Some bags of a source, as a data set; a batch holds bags of any size one behind the other."""

    def __init__(self, source: Source, indices: Iterable[int], classes: Sequence[str]) -> None:
        self.source, self.indices, self.classes = source, list(map(int, indices)), list(classes)
        self.class_weights: Tensor | None = None
        number = {name: k for k, name in enumerate(classes)}
        unknown = sorted({source.cohort.labels[i] for i in self.indices} - set(classes))
        if unknown:
            raise fail(
                source.where,
                f"label {shown(unknown[0])} is none of the model's: {', '.join(classes)}",
            )
        self.labels = np.array([number[source.cohort.labels[i]] for i in self.indices], np.int64)
        self.names = [source.cohort.names[i] for i in self.indices]
        self.patients = np.array([source.cohort.patients[i] for i in self.indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        return self.source.bag(self.indices[index]), int(self.labels[index]), index

    def collate(self, samples: Sequence[tuple[Tensor, int, int]]) -> dict[str, Tensor]:
        """x (M, D), offsets (B + 1,), labels (B,), index (B,): the bag's place in the data set;
        weights of classes.
        """
        bags, labels, index = zip(*samples)
        widths = {bag.shape[1] for bag in bags}
        if len(widths) > 1:
            raise InputError(
                f"features have the widths {sorted(widths)}; take one encoder for all slides"
            )
        lengths = torch.tensor([0, *map(len, bags)])
        batch = {"x": torch.cat(bags), "offsets": lengths.cumsum(0), "labels": torch.tensor(labels)}
        batch["index"] = torch.tensor(index)
        return (
            batch if self.class_weights is None else {**batch, "class_weights": self.class_weights}
        )


def find_source(
    options: Any, settings: dict[str, Any] | None = None, device: str = "cpu"
) -> Source:
    """The bags that --data names; features that are missing are extracted. settings: of a trained
    run's extraction.
    """
    path = Path(options.data)
    table = path / LABELS if path.is_dir() else path
    if path.is_dir() and not table.is_file():
        raise fail(
            path,
            f"holds no {LABELS}; it lists the slides (slide,label and perhaps patient,split,mpp)",
        )
    if suffix_of(table) in TABLE_SUFFIXES and is_bag_table(table):
        found = read_bag_table(table)
        return Source(found.cohort, str(table), found.features, found.offsets)
    cohort = read_cohort(table)
    home = Path(options.slides) if options.slides else table.parent
    settings = settings or settings_of(options, _generated(home))
    folder = Path(options.features) if options.features else home / _folder_of(settings)
    slides = match_files(cohort.names, list_slides(home) if home.is_dir() else [], table)
    there = {name for name in cohort.names if (folder / f"{name}.h5").is_file()}
    if lost := [name for name in cohort.names if name not in slides and name not in there]:
        hint = "" if options.slides else "; say where with --slides"
        if len(lost) == len(cohort):
            raise fail(
                table, f"no slide of it lies in {home} and none has features in {folder}{hint}"
            )
        some = ", ".join(lost[:5])
        say(
            f"{len(lost)} of {len(cohort)} slides are neither in {home} nor in {folder} and left out: {some}"
        )
    extractor = Extractor(settings, torch.device(device), options.encode_batch, options.threads)
    mpp = {name: given or options.mpp for name, given in zip(cohort.names, cohort.mpp)}
    wanted = {name: path for name, path in slides.items() if name not in there}
    table_of = extract_cohort(extractor, folder, wanted, mpp) if wanted else None
    bad = set(lost) | (
        set() if table_of is None else set(table_of.filter(table_of["status"] == "error")["slide"])
    )
    kept = [k for k, name in enumerate(cohort.names) if name not in bad]
    if not kept:
        raise fail(table, f"no slide of it could be used; {folder / 'status.csv'} says why")
    cohort = Cohort(
        tuple(cohort.names[k] for k in kept),
        tuple(cohort.labels[k] for k in kept),
        tuple(cohort.patients[k] for k in kept),
        tuple(cohort.splits[k] for k in kept),
        tuple(cohort.mpp[k] for k in kept),
    )
    return Source(cohort, str(table), folder=folder, slides=slides, settings=settings)


def feature_folder(options: Any) -> str | None:
    """Where the features of a training's own slides are; None for a table of bags."""
    path = Path(options.data)
    if path.is_file() and is_bag_table(path):
        return None
    home = Path(options.slides) if options.slides else path if path.is_dir() else path.parent
    return options.features or str(home / _folder_of(settings_of(options, _generated(home))))


def _generated(home: Path) -> bool:
    return home.name == SAMPLE


def _folder_of(settings: dict[str, Any]) -> str:
    name = settings["encoder"].replace("/", "-").replace(":", "-")
    return f"features-{name}-{settings['tile']}px-{settings['tile_mpp']:g}um"


def split(cohort: Cohort, seed: int, where: str) -> dict[str, np.ndarray]:
    """Indices of the three parts: the file's own, else 60/20/20 % by patient, classes balanced.

    Raises InputError where patients are too few.
    """
    if any(cohort.splits):
        parts = np.array([part or "train" for part in cohort.splits], dtype=object)
        if not (parts == "validation").any():
            train = np.flatnonzero(parts == "train")
            parts[train[grouped_folds(cohort, train, 5, seed, where)[0]]] = "validation"
        if missing := [name for name in PARTS if not (parts == name).any()]:
            raise fail(where, f"column 'split' leaves no slide for {' and '.join(missing)}")
        return {name: np.flatnonzero(parts == name) for name in PARTS}
    everything = np.arange(len(cohort))
    test, validation, *rest = grouped_folds(cohort, everything, 5, seed, where)
    return {"train": np.sort(np.concatenate(rest)), "validation": validation, "test": test}


def grouped_folds(
    cohort: Cohort, among: np.ndarray, folds: int, seed: int, where: str
) -> list[np.ndarray]:
    """Folds of `among` without a patient in two of them, classes balanced as far as that goes."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels, patients = np.array(cohort.labels)[among], np.array(cohort.patients)[among]
    if len(set(patients)) < folds:
        raise fail(
            where,
            f"has {len(set(patients))} patients, too few to part into {folds}; name a split column",
        )
    # The two differ in the folds they give; where no patient has two slides the plain one is what
    # others compare with.
    kind = StratifiedKFold if len(set(patients)) == len(patients) else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of a class with fewer members than folds; the scores of a fold say so
        parts = kind(folds, shuffle=True, random_state=seed).split(among, labels, patients)
        return [np.sort(test) for _, test in parts]


def open_splits(options: Any, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Read, extract what is missing, split, and measure mean and deviation on the training part."""
    source = find_source(options, None if spec is None else spec["extraction"])
    cohort = source.cohort
    classes = sorted(set(cohort.labels)) if spec is None else spec["classes"]
    if len(classes) < 2:
        raise fail(
            source.where, f"all labels are {shown(classes[0])}; a classifier needs two classes"
        )
    width = source.bag(0).shape[1]
    if spec is not None and width != spec["width"]:
        raise fail(
            source.where, f"features have width {width}, the model was trained on {spec['width']}"
        )
    if whole:
        every = BagSet(source, range(len(cohort)), classes)
        return Splits(every, every, every, spec or DictSpec())
    parts = {
        name: BagSet(source, part, classes)
        for name, part in split(cohort, options.seed, source.where).items()
    }
    if options.class_weights:
        count = np.bincount(parts["train"].labels, minlength=len(classes)).clip(1)
        parts["train"].class_weights = torch.from_numpy(
            (len(parts["train"]) / len(classes) / count).astype(np.float32)
        )
    if spec is None:
        spec = {
            "input": {
                "bags": len(cohort),
                "patients": len(set(cohort.patients)),
                "features": width,
            },
            "classes": classes,
            "width": width,
            "extraction": source.settings,
            "mpp": options.mpp,
            "parts": {name: len(part) for name, part in parts.items()},
            **moments(parts["train"], options.standardise),
        }
    return Splits(parts["train"], parts["validation"], parts["test"], DictSpec(spec))


def moments(bags: BagSet, standardise: bool) -> dict[str, Any]:
    """Mean and deviation of all instances, each bag counted by its size; None where nothing is
    standardised.
    """
    if not standardise:
        return {"mean": None, "deviation": None}
    total, square, count = 0.0, 0.0, 0
    for k in range(len(bags)):
        x = bags[k][0].double()
        total, square, count = total + x.sum(0), square + x.square().sum(0), count + len(x)
    assert isinstance(total, Tensor)
    assert isinstance(square, Tensor)
    mean = total / count
    deviation = (square / count - mean.square()).clamp_min(0).sqrt()
    deviation = torch.where(deviation < 1e-6 * (1 + mean.abs()), 1.0, deviation)
    return {"mean": mean.float().tolist(), "deviation": deviation.float().tolist()}
