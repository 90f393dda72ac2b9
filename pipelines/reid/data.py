"""Sets of pictures as data sets: their parts, their labels, batches of identities.

Labels of the training part are the places of `ReidSpec.classes`. In a search, identities of the
other parts are numbered from 1, because they are other people; junk is -1 and distractors are 0, as
in the protocol of Market-1501.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

import numpy as np

from ...base.account import doubt, note
from ...base.errors import fail, nearest, shown
from ...data.formats.tables import require_columns
from ...data.items import join_copies
from ...data.parts import called_like_parts
from ...data.persons.persons import PictureSet, read_picture_set
from ..engine.command_line.checks import check_unread
from ..engine.pipeline import Member, Splits
from ..engine.spec import Spec
from ..engine.subsets import Subsets, Taken, own_or_shares, take_groups
from ..engine.training.order import mix
from .option_rules import OF_CLASSES, check_batch_size
from .options import ReidOptions
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
    backbone: str = ""
    """Model of timm that the weights decided, or "scratch"; "": the one of the options."""
    counts: list[int] = field(default_factory=list)
    """Pictures of the training part of each class; none of a search, and of an older run."""

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
    pictures = read_picture_set(
        str(options.data), options.layout, images=options.images, columns=options.columns
    )
    height, width = options.size
    size = round(height * options.enlarge), round(width * options.enlarge)
    if as_test and spec is not None:
        pictures = pictures.of(rows_to_score(pictures).tolist())
    source = PictureSource(pictures, size).readable()
    pictures = source.pictures
    if options.model == "cca":
        return _open_attributes(options, spec, source, as_test)
    if unused := [name for name in pictures.attributes if not called_like_parts(name)]:
        note("columns", "not used", unused)  # of the others it was said that they are no parts
    goal = goal_of(options, pictures) if spec is None else spec.goal
    if as_test and spec is not None:
        rows = rows_to_score(pictures)
        part = _labelled(source, rows, goal, spec.classes)
        members = [Member(pictures.paths[row]) for row in rows]
        return Splits(part, part, part, spec, members={"test": members})
    if goal == "search":
        check_unread(options, ("imbalance",), OF_CLASSES)
    rows = split_rows(options, source, goal)
    if goal == "search":
        refuse_known_people(pictures, rows)
    if spec is None:
        spec = _spec(options, pictures, goal, rows)
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
    test = _labelled(source, rows.test, goal, spec.classes)
    return Splits(train, validation, test, spec, members=_members(pictures, rows))


def _members(pictures: PictureSet, rows: Subsets) -> dict[str, list[Member]]:
    """The items of each part, by which a prediction knows them again."""
    return {
        part: [Member(pictures.paths[row]) for row in chosen]
        for part, chosen in rows._asdict().items()
    }


def refuse_known_people(pictures: PictureSet, rows: Subsets) -> None:
    """Raise `InputError` where identities of the test part are trained on (the doubt "copies"): a
    search is scored on others.
    """
    nobody = pictures.junk | pictures.distractor
    trained_on = {pictures.identities[row] for row in np.concatenate([rows.train, rows.validation])}
    tested = {pictures.identities[row] for row in rows.test if not nobody[row]}
    if both := sorted(trained_on & tested):
        more = f", and so are {len(both) - 1:,} others" if both[1:] else ""
        what = f"identity {shown(both[0])} is in the training and in the test part{more}"
        cure = "a search is scored on others; give each identity one part, or say --goal classes"
        doubt("copies", pictures.where, f"{what}; {cure}")
        note("items", "identities in the training and in the test part", both)


def _spec(options: ReidOptions, pictures: PictureSet, goal: Goal, rows: Subsets) -> ReidSpec:
    trained = [pictures.identities[row] for row in rows.train]
    classes = sorted(set(trained))
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
        counts=[trained.count(name) for name in classes] if goal == "classes" else [],
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


Unit = Literal["search", "classes", "any"]
_NOUN = {"search": "identities", "classes": "pictures of each class", "any": "pictures"}


def split_rows(options: ReidOptions, source: PictureSource, unit: Unit) -> Subsets:
    """Rows of the three parts: the data's own, else random shares; junk and distractors are not
    trained on. Exact copies share a part.

    unit: what a share is of: of the identities ("search"), of the pictures of each class
    ("classes"), or of all pictures ("any").

    Raises `InputError` for copies in two parts of the data, and for copies with two identities.
    """
    pictures = source.pictures
    parts = ["test" if part in ("query", "gallery") else part for part in pictures.parts]
    if any(parts) and "test" not in parts:
        cure = "name them test, or query and gallery"
        raise fail(pictures.where, f"has no pictures to test by; {cure}")
    groups = join_copies_of(source, unit, parts)
    generator = np.random.default_rng(mix(options.seed, 3))
    nobody = pictures.junk | pictures.distractor

    def take_share(rows: np.ndarray, share: float, part: str) -> Taken:
        rows = rows if part == "test" else rows[~nobody[rows]]
        if not share:
            return rows[:0], rows
        what = f"the {part} part is a share of the {_NOUN[unit]}"
        note("groups", f"{what}; exact copies stay together")
        if unit == "search":
            return _take_identities(pictures, rows, share, generator, groups[rows])
        identities = pictures.identities if unit == "classes" else [""] * len(pictures)
        classes = np.array([identities[row] for row in rows])
        return _take_of_each(classes, rows, share, generator, groups[rows])

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


def join_copies_of(source: PictureSource, unit: Unit, parts: Sequence[str]) -> np.ndarray:
    """What must not be in two parts, for each picture, (n,): its identity in a search, else the
    picture itself; those of exact copies are joined.

    parts: of each picture, train, validation, test or "". Raises `InputError` as `split_rows`.
    """
    pictures = source.pictures
    digests = source.digests()
    groups = list(pictures.identities) if unit == "search" else list(map(str, range(len(pictures))))
    people = np.flatnonzero(~(pictures.junk | pictures.distractor)).tolist()
    identities = [] if unit == "any" else [pictures.identities[row] for row in people]
    joined = join_copies(
        pictures.where,
        "picture",
        [pictures.names[row] for row in people],
        [digests[row] for row in people],
        [groups[row] for row in people],
        identities,
        [parts[row] for row in people],
    )
    for row, group in zip(people, joined, strict=True):
        groups[row] = group
    asked = {digests[row] for row in pictures.rows("query")}
    if easy := [pictures.names[r] for r in pictures.rows("gallery") if digests[r] in asked]:
        note("items", "pictures of the gallery that are exact copies of a query", easy)
    return np.array(groups)


def _take_identities(
    pictures: PictureSet,
    rows: np.ndarray,
    share: float,
    generator: np.random.Generator,
    groups: np.ndarray,
) -> Taken:
    """A share of the identities; junk and distractors go with them: they make the search harder.

    groups: of each of the rows.
    """
    nobody = (pictures.junk | pictures.distractor)[rows]
    people = rows[~nobody]
    taken, _ = take_groups(people, groups[~nobody], share, generator, remaining=2)
    if not len(taken):
        count = len(np.unique(groups))
        raise fail(pictures.where, f"{count} identities are too few to set a share of them aside")
    chosen = nobody | np.isin(groups, groups[np.isin(rows, taken)])
    return rows[chosen], rows[~chosen]


def _take_of_each(
    classes: np.ndarray,
    rows: np.ndarray,
    share: float,
    generator: np.random.Generator,
    groups: np.ndarray,
) -> Taken:
    """A share of the pictures of each class, of which at least one remains; groups stay together.

    classes, groups: of each of the rows.
    """
    chosen = np.zeros(len(rows), bool)
    _, group = np.unique(groups, return_inverse=True)
    places = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    for name in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == name))
        count = min(round(share * len(members)), len(members) - 1)
        taken = int(chosen[members].sum())
        for member in members:
            if taken >= count:
                break
            copies = places[group[member]]
            size = int((classes[copies] == name).sum())
            if not chosen[member] and taken + size < len(members):
                chosen[copies] = True
                taken += size
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
    if unused := [name for name in pictures.attributes if name not in names]:
        note("columns", "not used", unused)
    samples = _samples_of_attributes(source, names)
    if as_test and spec is not None:
        to_score = rows_to_score(pictures)
        part = _without_cameras(Pictures(source, *samples(to_score)))
        members = [Member(pictures.paths[row]) for row in to_score]
        return Splits(part, part, part, spec, members={"test": members})
    # Attributes are of kinds of things, not of a single one: any picture may be in any part.
    rows = split_rows(options, source, "any")
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
    return Splits(train, validation, test, spec, members=_members(pictures, rows))


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
