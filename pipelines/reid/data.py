"""Sets of pictures as data sets: which part they belong to, which labels they have, batches of
identities.

Labels of the training part are the places of `spec["classes"]`. Where identities are searched for,
those of other parts are numbered from 1, as their people are others; junk is -1 and distractors are
0, as in the protocol of Market-1501."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, fail, nearest, shown
from ...data.formats.pictures import read_picture
from ...data.formats.tables import require_columns
from ...data.persons.persons import PictureSet, read_picture_set
from ..engine.pipeline import Splits
from ..engine.spec import DictSpec
from ..engine.training.order import mix
from .augment import normalise
from .sampling import count_batches, identity_batches

HELD_BYTES = (
    2 << 30
)  # pictures kept in memory, a byte a channel and pixel; others are read again each time
JUNK, DISTRACTOR = -1, 0
CLASS_LAYOUTS = ("cub200", "cars", "aircraft")


@dataclass
class Source:
    """A set of pictures, read at one size (height, width) in pixels."""

    pictures: PictureSet
    size: tuple[int, int]
    held: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.most = HELD_BYTES // (3 * self.size[0] * self.size[1])

    def picture(self, row: int) -> Tensor:
        """uint8 (3, Y, X)."""
        found = self.held.get(row)
        if found is None:
            found = torch.from_numpy(read_picture(self.pictures.paths[row], self.size))
            if len(self.held) < self.most:
                self.held[row] = found
        return found


class Pictures:
    """Some pictures of a source with their labels; a picture may stand in it once for each
    condition it is seen under.

    rows: places in the source; labels and conditions: int64, one a sample.
    """

    triplet = False

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        labels: np.ndarray,
        conditions: np.ndarray | None = None,
    ):
        self.source, self.rows, self.labels = (
            source,
            np.asarray(rows, np.int64),
            np.asarray(labels, np.int64),
        )
        self.conditions = np.zeros(len(self.rows), np.int64) if conditions is None else conditions
        given = source.pictures.cameras
        named = [] if given is None else [given[row] for row in self.rows]
        self.cameras = (
            None if given is None else np.unique(named, return_inverse=True)[1].reshape(-1)
        )
        parts = np.array([source.pictures.parts[row] for row in self.rows], dtype=object)
        # Places of those that ask and those that are asked; without them each picture asks all
        # others.
        self.query, self.gallery = (
            np.flatnonzero(parts == "query"),
            np.flatnonzero(parts == "gallery"),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "image": self.source.picture(int(self.rows[index])),
            "label": torch.tensor(self.labels[index]),
            "condition": torch.tensor(self.conditions[index]),
            "camera": torch.tensor(-1 if self.cameras is None else int(self.cameras[index])),
            "triplet": torch.tensor(self.triplet),
            "index": torch.tensor(index),
        }

    @property
    def ranked(self) -> bool:
        """Whether the data says which pictures ask and which are asked."""
        return len(self.query) > 0 and len(self.gallery) > 0

    def names(self) -> list[str]:
        """The names of the pictures."""
        return [self.source.pictures.names[row] for row in self.rows]


class IdentityPictures(Pictures):
    """A training part that draws its own batches: identities, several pictures of each, of one
    condition.
    """

    triplet = True

    def __init__(self, *given: Any, per_identity: int) -> None:
        super().__init__(*given)
        self.each = per_identity
        self.groups = [np.flatnonzero(self.conditions == one) for one in np.unique(self.conditions)]

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return sum(
            count_batches(self.labels[own], batch_size // self.each, self.each)
            for own in self.groups
        )

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """An epoch of batches, each int64 (identities, pictures of each)."""
        generator = np.random.default_rng(mix(seed, epoch, 1))
        found = [
            own[batch]
            for own in self.groups
            for batch in identity_batches(
                self.labels[own], batch_size // self.each, self.each, generator
            )
        ]
        return (
            [found[k] for k in generator.permutation(len(found))] if len(self.groups) > 1 else found
        )


def open_splits(options: Any, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Read the list of pictures, decide between searching and naming classes, part it."""
    pictures = read_picture_set(options.data, options.layout, images=options.images)
    size = (round(options.size[0] * options.enlarge), round(options.size[1] * options.enlarge))
    source = Source(pictures, size)
    goal = spec["goal"] if spec is not None else goal_of(options, pictures)
    if options.model == "cca":
        return _conditional(options, spec, whole, source)
    if whole:
        everything = _everything(pictures)
        part = (_named if goal == "classes" else _numbered)(
            source, everything, (spec or DictSpec()).get("classes", [])
        )
        return Splits(part, part, part, spec or DictSpec())
    train, validation, test = _parts(options, pictures, goal)
    classes = (
        sorted({pictures.identities[row] for row in train}) if spec is None else spec["classes"]
    )
    if len(classes) < 2:
        raise fail(
            pictures.where, f"{len(classes)} identity in the training part; learning needs two"
        )
    learned = _named(source, train, classes)
    triplet = options.triplet == "yes" or (options.triplet == "auto" and goal == "search")
    if triplet:
        if options.batch_size % options.per_identity:
            raise InputError(
                f"--batch-size {options.batch_size}: must be a multiple of --per-identity {options.per_identity}"
            )
        learned = IdentityPictures(source, train, learned.labels, per_identity=options.per_identity)
    other = _named if goal == "classes" else _numbered
    rest = other(source, validation, classes), other(source, test, classes)
    if spec is None:
        spec = {
            "input": {
                "pictures": len(pictures.paths),
                "identities": len(set(pictures.identities)),
                "size": list(options.size),
            },
            "goal": goal,
            "classes": classes,
            "layout": pictures.layout,
            "attributes": [],
            "cameras": pictures.cameras is not None,
            "parts": {"train": len(train), "validation": len(validation), "test": len(test)},
        }
    return Splits(learned, rest[0], rest[1], DictSpec(spec))


def goal_of(options: Any, pictures: PictureSet) -> str:
    """Whether to search for identities or to name classes: as asked, else by the data."""
    if options.goal != "auto":
        return options.goal
    if options.model == "cca" or pictures.layout in CLASS_LAYOUTS:
        return "classes" if options.model != "cca" else "search"
    train, test = pictures.rows("train"), pictures.rows("test")
    if not len(train) or not len(test):
        return "search"
    known = {pictures.identities[row] for row in train}
    return "classes" if {pictures.identities[row] for row in test} <= known else "search"


def _everything(pictures: PictureSet) -> np.ndarray:
    """What is scored of data that is not the run's own: its test part, else all."""
    for parts in (("query", "gallery"), ("test",)):
        if len(found := pictures.rows(*parts)):
            return found
    return pictures.rows()


def _parts(
    options: Any, pictures: PictureSet, goal: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the three parts: the data's own, else shares of the identities (search), of each
    one's pictures (classes), or of all pictures."""
    generator = np.random.default_rng(mix(options.seed, 3))
    train, test = pictures.rows("train"), pictures.rows("query", "gallery", "test")
    validation = pictures.rows("validation")
    if not len(train) and not len(test) and not len(validation):
        every = pictures.rows("")
        test, train = _share(pictures, every, options.test_share, goal, generator)
        if not options.test_share or not len(test):
            raise fail(
                pictures.where,
                f"has no test part, and --test-share {options.test_share} leaves none of it",
            )
    if not len(train):
        raise fail(
            pictures.where, "has no pictures to train on; `evaluate --data` scores such a folder"
        )
    if not len(test):
        raise fail(
            pictures.where, "has no pictures to test by; name them test, or query and gallery"
        )
    train = train[~(pictures.junk | pictures.distractor)[train]]
    if not len(validation) and options.validation_share:
        validation, train = _share(pictures, train, options.validation_share, goal, generator)
        if not len(validation):
            raise fail(
                pictures.where,
                f"--validation-share {options.validation_share} leaves nothing; raise it, or "
                "give 0 to train on all",
            )
    return train, validation, test


def _share(
    pictures: PictureSet, rows: np.ndarray, share: float, goal: str, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(taken, left): a share of the identities, or of the pictures of each class; at least one is
    left of each.
    """
    if not share:
        return rows[:0], rows
    names, codes = np.unique([pictures.identities[row] for row in rows], return_inverse=True)
    if goal == "pictures":
        names, codes = names[:1], np.zeros_like(codes)
    if goal == "search":
        regular = np.unique(codes[~(pictures.junk | pictures.distractor)[rows]])
        count = min(max(1, round(share * len(regular))), len(regular) - 2)
        if count < 1:
            raise fail(
                pictures.where, f"{len(names)} identities are too few to keep a share of them apart"
            )
        chosen = generator.permutation(regular)[:count]
        # Junk and distractors are nobody's: they go where they make the search harder.
        taken = np.isin(codes, chosen) | (pictures.junk | pictures.distractor)[rows]
        return rows[taken], rows[~taken]
    taken = np.zeros(len(rows), bool)
    for one in range(len(names)):
        own = generator.permutation(np.flatnonzero(codes == one))
        taken[own[: min(round(share * len(own)), len(own) - 1)]] = True
    return rows[taken], rows[~taken]


def _named(source: Source, rows: np.ndarray, classes: Sequence[str]) -> Pictures:
    """Labels by the classes of the run."""
    number = {name: k for k, name in enumerate(classes)}
    given = [source.pictures.identities[row] for row in rows]
    if unknown := sorted(set(given) - set(classes)):
        close = nearest(unknown[0], classes)
        raise fail(
            source.pictures.where, f"class {shown(unknown[0])} is none of the model's{close}"
        )
    return Pictures(source, rows, np.array([number[name] for name in given], np.int64))


def _numbered(source: Source, rows: np.ndarray, classes: Sequence[str]) -> Pictures:
    """Labels by the order of the names, from 1; -1 of junk, 0 of distractors."""
    names = [source.pictures.identities[row] for row in rows]
    codes = (
        np.unique(names, return_inverse=True)[1].reshape(-1) + 1
        if len(names)
        else np.zeros(0, np.int64)
    )
    codes[source.pictures.junk[rows]] = JUNK
    codes[source.pictures.distractor[rows]] = DISTRACTOR
    return Pictures(source, rows, codes)


def _conditional(options: Any, spec: dict[str, Any] | None, whole: bool, source: Source) -> Splits:
    """A sample for each picture and attribute that is known of it; labels are values, from 1, apart
    for each attribute.
    """
    pictures = source.pictures
    names = list(options.attributes or pictures.attributes) if spec is None else spec["attributes"]
    require_columns(pictures.where, names, list(pictures.attributes))
    if not names:
        raise fail(
            pictures.where,
            "has no attributes, and --model cca learns a space for each; give a table with them",
        )
    code = {
        key: k
        for k, key in enumerate(
            sorted({(a, v) for a in names for v in pictures.attributes[a] if v is not None}), 1
        )
    }

    def seen(rows: np.ndarray, kind: type[Pictures] = Pictures, **more: Any) -> Pictures:
        found = [
            (row, code[name, value], place)
            for place, name in enumerate(names)
            for row in rows.tolist()
            if (value := pictures.attributes[name][row]) is not None
        ]
        which, labels, conditions = (
            np.array(one, np.int64) for one in (zip(*found) if found else ((), (), ()))
        )
        part = kind(source, which, labels, conditions, **more)
        part.cameras = None  # a colour is the same colour to every camera
        return part

    if whole:
        part = seen(_everything(pictures))
        return Splits(part, part, part, spec or DictSpec())
    # Attributes are of kinds of things, not of one: any picture may be in any part.
    train, validation, test = _parts(options, pictures, "pictures")
    if spec is None:
        spec = {
            "input": {"pictures": len(pictures.paths), "size": list(options.size)},
            "goal": "search",
            "classes": [],
            "layout": pictures.layout,
            "attributes": names,
            "cameras": False,
            "parts": {"train": len(train), "validation": len(validation), "test": len(test)},
        }
    learned = seen(train, IdentityPictures, per_identity=options.per_identity)
    return Splits(learned, seen(validation), seen(test), DictSpec(spec))


def example(splits: Splits) -> tuple[tuple[Any, ...], Any]:
    """Two normalised pictures of the test part, their number free, for export."""
    part = splits.test
    images = torch.stack([part[min(k, len(part) - 1)]["image"] for k in range(2)])
    return (normalise(images, tuple(splits.spec["input"]["size"])),), (
        {0: torch.export.Dim("pictures", min=1)},
    )
