"""Sets of pictures as data sets: their parts, their labels, batches of identities.

Labels of the training part are the places of `ReidSpec.classes`. In a search, identities of the
other parts are numbered from 1, because they are other people; junk is -1 and distractors are 0, as
in the protocol of Market-1501.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

import numpy as np

from ...base.errors import fail, nearest, shown
from ...data.formats.tables import require_columns
from ...data.persons.persons import PictureSet, read_picture_set
from ..engine.pipeline import Splits
from ..engine.spec import Spec
from ..engine.subsets import Subsets, Taken, own_or_shares, take_groups
from ..engine.training.order import mix
from .options import ReidOptions, check_batch_size
from .pictures import DISTRACTOR, JUNK, IdentityPictures, Pictures, PictureSource, Size

CLASS_LAYOUTS = ("cub200", "cars", "aircraft")
Goal = Literal["search", "classes"]


class InputFacts(TypedDict):
    """The pictures of the data, and the height and width in pixels that the model takes."""

    pictures: int
    identities: NotRequired[int]
    size: list[int]


@dataclass(frozen=True, kw_only=True)
class ReidSpec(Spec):
    """What a model needs to meet new pictures."""

    input: InputFacts
    goal: Goal
    classes: list[str]
    layout: str
    attributes: list[str]
    cameras: bool
    """Whether the data names cameras."""
    parts: Mapping[str, int]
    """Number of pictures of each part."""

    @property
    def size(self) -> Size:
        """Height and width of the model's pictures in pixels."""
        height, width = self.input["size"]
        return height, width


def open_pictures(
    options: ReidOptions, spec: ReidSpec | None = None, *, as_test: bool = False
) -> Splits[ReidSpec, Pictures]:
    """List the pictures, decide between searching and naming classes, split them.

    spec: of the run that the data is scored or exported with. as_test: all parts are the pictures
    that are scored of other data; needs a spec. Raises `InputError` for data that cannot be used.
    """
    pictures = read_picture_set(str(options.data), options.layout, images=options.images)
    height, width = options.size
    size = round(height * options.enlarge), round(width * options.enlarge)
    source = PictureSource(pictures, size)
    if options.model == "cca":
        return _open_attributes(options, spec, source, as_test)
    goal = goal_of(options, pictures) if spec is None else spec.goal
    if as_test and spec is not None:
        rows = rows_to_score(pictures)
        part = _labelled(source, rows, goal, spec.classes)
        return Splits(part, part, part, spec)
    rows = split_rows(options, pictures, goal)
    if spec is None:
        classes = sorted({pictures.identities[row] for row in rows.train})
        spec = _spec(options, pictures, goal, rows, classes=classes)
    if len(spec.classes) < 2:
        what = f"{len(spec.classes)} identity in the training part; learning needs two"
        raise fail(pictures.where, what)
    train = _by_class(source, rows.train, spec.classes)
    if options.triplet == "yes" or (options.triplet == "auto" and goal == "search"):
        check_batch_size(options)
        train = IdentityPictures(
            source, rows.train, train.labels, per_identity=options.per_identity
        )
    validation = _labelled(source, rows.validation, goal, spec.classes)
    return Splits(train, validation, _labelled(source, rows.test, goal, spec.classes), spec)


def _spec(
    options: ReidOptions, pictures: PictureSet, goal: Goal, rows: Subsets, *, classes: list[str]
) -> ReidSpec:
    facts: InputFacts = {
        "pictures": len(pictures.paths),
        "identities": len(set(pictures.identities)),
        "size": list(options.size),
    }
    return ReidSpec(
        input=facts,
        goal=goal,
        classes=classes,
        layout=pictures.layout,
        attributes=[],
        cameras=pictures.cameras is not None,
        parts=rows.sizes(),
    )


def goal_of(options: ReidOptions, pictures: PictureSet) -> Goal:
    """Whether to search for identities or to name classes: by the option, else by the data."""
    if options.goal != "auto":
        return options.goal
    if options.model == "cca":
        return "search"
    if pictures.layout in CLASS_LAYOUTS:
        return "classes"
    train, test = pictures.rows("train"), pictures.rows("test")
    if not len(train) or not len(test):
        return "search"
    known = {pictures.identities[row] for row in train}
    return "classes" if {pictures.identities[row] for row in test} <= known else "search"


def rows_to_score(pictures: PictureSet) -> np.ndarray:
    """What is scored of data that is not the run's own: its test part, or all if it has none."""
    for parts in (("query", "gallery"), ("test",)):
        if len(rows := pictures.rows(*parts)):
            return rows
    return pictures.rows()


def split_rows(options: ReidOptions, pictures: PictureSet, unit: Goal | Literal["any"]) -> Subsets:
    """Rows of the three parts: the data's own, else random shares; junk and distractors are not
    trained on.

    unit: what a share is of: of the identities ("search"), of the pictures of each class
    ("classes"), or of all pictures ("any").
    """
    parts = ["test" if part in ("query", "gallery") else part for part in pictures.parts]
    if any(parts) and "test" not in parts:
        cure = "name them test, or query and gallery"
        raise fail(pictures.where, f"has no pictures to test by; {cure}")
    generator = np.random.default_rng(mix(options.seed, 3))
    nobody = pictures.junk | pictures.distractor
    take = {"search": _take_identities, "classes": _take_of_each_class, "any": _take_pictures}[unit]

    def take_share(rows: np.ndarray, share: float, part: str) -> Taken:
        rows = rows if part == "test" else rows[~nobody[rows]]
        return take(pictures, rows, share, generator) if share else (rows[:0], rows)

    train, validation, test = own_or_shares(
        pictures.where,
        parts,
        take_share,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="pictures",
        validation_needed=False,
    )
    return Subsets(train[~nobody[train]], validation, test)


def _take_identities(
    pictures: PictureSet, rows: np.ndarray, share: float, generator: np.random.Generator
) -> Taken:
    """A share of the identities; junk and distractors go with them: they make the search harder."""
    names = np.array([pictures.identities[row] for row in rows])
    nobody = (pictures.junk | pictures.distractor)[rows]
    people = rows[~nobody]
    taken, _ = take_groups(people, names[~nobody], share, generator, remaining=2)
    if not len(taken):
        count = len(np.unique(names))
        raise fail(pictures.where, f"{count} identities are too few to set a share of them aside")
    chosen = nobody | np.isin(names, names[np.isin(rows, taken)])
    return rows[chosen], rows[~chosen]


def _take_of_each_class(
    pictures: PictureSet, rows: np.ndarray, share: float, generator: np.random.Generator
) -> Taken:
    """A share of the pictures of each class, of which at least one remains."""
    return _take_of_each(
        np.array([pictures.identities[row] for row in rows]), rows, share, generator
    )


def _take_pictures(
    pictures: PictureSet, rows: np.ndarray, share: float, generator: np.random.Generator
) -> Taken:
    """A share of all pictures, of which at least one remains."""
    return _take_of_each(np.zeros(len(rows)), rows, share, generator)


def _take_of_each(
    classes: np.ndarray, rows: np.ndarray, share: float, generator: np.random.Generator
) -> Taken:
    chosen = np.zeros(len(rows), bool)
    for name in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == name))
        chosen[members[: min(round(share * len(members)), len(members) - 1)]] = True
    return rows[chosen], rows[~chosen]


def _labelled(
    source: PictureSource, rows: np.ndarray, goal: Goal, classes: Sequence[str]
) -> Pictures:
    """Pictures to be scored."""
    return _by_class(source, rows, classes) if goal == "classes" else _by_number(source, rows)


def _by_class(source: PictureSource, rows: np.ndarray, classes: Sequence[str]) -> Pictures:
    """Pictures with the classes of the run as labels."""
    number = {name: place for place, name in enumerate(classes)}
    names = [source.pictures.identities[row] for row in rows]
    if unknown := sorted(set(names) - set(classes)):
        hint = nearest(unknown[0], classes)
        raise fail(source.pictures.where, f"class {shown(unknown[0])} is none of the model's{hint}")
    return Pictures(source, rows, np.array([number[name] for name in names], np.int64))


def _by_number(source: PictureSource, rows: np.ndarray) -> Pictures:
    """Pictures with labels from 1 in the order of the names; -1 of junk, 0 of distractors."""
    names = np.array([source.pictures.identities[row] for row in rows], dtype=str)
    labels = np.unique(names, return_inverse=True)[1].reshape(-1) + 1
    labels[source.pictures.junk[rows]] = JUNK
    labels[source.pictures.distractor[rows]] = DISTRACTOR
    return Pictures(source, rows, labels)


def _open_attributes(
    options: ReidOptions, spec: ReidSpec | None, source: PictureSource, as_test: bool
) -> Splits[ReidSpec, Pictures]:
    """One sample for each known attribute of each picture; labels are the values, numbered from 1
    over all attributes."""
    pictures = source.pictures
    names = list(options.attributes or pictures.attributes) if spec is None else spec.attributes
    require_columns(pictures.where, names, list(pictures.attributes))
    if not names:
        cure = "give a table with them"
        what = f"has no attributes, and --model cca learns a space for each; {cure}"
        raise fail(pictures.where, what)
    samples = _samples_of_attributes(source, names)
    if as_test and spec is not None:
        part = _without_cameras(Pictures(source, *samples(rows_to_score(pictures))))
        return Splits(part, part, part, spec)
    # Attributes are of kinds of things, not of a single one: any picture may be in any part.
    rows = split_rows(options, pictures, "any")
    if spec is None:
        facts: InputFacts = {"pictures": len(pictures.paths), "size": list(options.size)}
        spec = ReidSpec(
            input=facts,
            goal="search",
            classes=[],
            layout=pictures.layout,
            attributes=names,
            cameras=False,
            parts=rows.sizes(),
        )
    train = IdentityPictures(source, *samples(rows.train), per_identity=options.per_identity)
    validation, test = (Pictures(source, *samples(part)) for part in (rows.validation, rows.test))
    for part in (train, validation, test):
        _without_cameras(part)
    return Splits(train, validation, test, spec)


def _samples_of_attributes(
    source: PictureSource, names: Sequence[str]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A function from rows to rows, labels and conditions of their samples, each (n,)."""
    values = source.pictures.attributes
    known = sorted({(name, value) for name in names for value in values[name] if value is not None})
    code = {key: number for number, key in enumerate(known, 1)}

    def samples(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = [
            (row, code[name, value], condition)
            for condition, name in enumerate(names)
            for row in rows.tolist()
            if (value := values[name][row]) is not None
        ]
        columns = np.array(table, np.int64).reshape(-1, 3).T
        return columns[0], columns[1], columns[2]

    return samples


def _without_cameras(part: Pictures) -> Pictures:
    part.cameras = None  # a colour is the same colour to every camera
    return part
