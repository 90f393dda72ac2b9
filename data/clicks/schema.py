"""The schema of a click log: which columns are ids, features, behaviour sequences and tasks.

`schema_file` documents its YAML form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...base.errors import InputError, fail, nearest, shown

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
TIME_FIELDS = {"hour": 24, "weekday": 7, "month": 12}


@dataclass(frozen=True)
class Condition:
    """A yes-or-no question about a cell: a column compared with a number or a word.

    Without either, the cell itself is 0 or 1.
    """

    column: str
    equals: float | str | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Categorical:
    """A field of names or ids.

    min_count  rarer values count as unseen
    hash       instead of a vocabulary: a stable hash into this many codes
    prefix     only this many characters at the beginning count
    split      the mark between several values in a cell; length: how many of them are used
    side       whose it is when lists are made for users: "user", "item" or "row"
    missing_words  whether NA, NaN, N/A, null and none mean a missing cell; else they are values
    """

    column: str
    min_count: int = 1
    hash: int | None = None
    prefix: int | None = None
    split: str | None = None
    length: int = 8
    side: str = "row"
    missing_words: bool = True


@dataclass(frozen=True)
class Numeric:
    """A field of numbers, cut into buckets of equal count.

    side     as in `Categorical`
    missing  numbers and words that mean a missing cell, such as -999
    """

    column: str
    buckets: int = 10
    side: str = "row"
    missing: tuple[float | str, ...] = ()


@dataclass(frozen=True)
class Sequence:
    """What came before a row, oldest first, as values of the field `of`, whose embeddings it
    shares.

    Either events of the log (`where`; all of them without a condition), or a list that the table
    holds (`column`, with the mark `split` between its values). At most the last `length` are used.
    filler: a value that only fills up lists of a fixed length; it is no event.
    """

    of: str
    where: Condition | None = None
    column: str | None = None
    split: str = " "
    length: int = 50
    filler: int | str | None = None


@dataclass(frozen=True)
class Target:
    """A task: its label, and the rows on which it counts."""

    label: Condition
    only_where: Condition | None = None


@dataclass(frozen=True)
class Split:
    """How rows are split: by "user" (each user's rows in time), by "time", or at "random".

    train, validation: shares of the rows; the rest is the test part. column: instead, a column of
    the table that holds "train", "validation" or "test".
    """

    by: str = "user"
    train: float = 0.8
    validation: float = 0.1
    column: str | None = None


@dataclass(frozen=True)
class Join:
    """A table with one row per user or item. on: the column of ids, in the table and in the log."""

    table: str
    on: str


@dataclass(frozen=True)
class Schema:
    """All that headwise needs to know of a log's columns.

    user, item: None for a plain table, whose rows are of no user, or of no item.
    """

    user: str | None
    item: str | None
    tasks: dict[str, Target]
    time: str | None = None
    unit: str = "s"
    categorical: dict[str, Categorical] = field(default_factory=dict)
    numeric: dict[str, Numeric] = field(default_factory=dict)
    time_fields: tuple[str, ...] = ()
    sequences: dict[str, Sequence] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    join: tuple[Join, ...] = ()
    log: str | None = None

    def as_dict(self) -> dict[str, object]:
        """The schema as JSON values, for the run; `schema_of` reads them back. Keys that came
        later are left out at their defaults, so that equal schemas are equal in all versions.
        """
        values = asdict(self)
        for field_values in values["categorical"].values():
            if field_values["missing_words"]:
                del field_values["missing_words"]
        for field_values in values["numeric"].values():
            if not field_values["missing"]:
                del field_values["missing"]
        for sequence in values["sequences"].values():
            if sequence["filler"] is None:
                del sequence["filler"]
        return values

    @property
    def id_columns(self) -> list[str]:
        """The columns of users and items, as far as there are."""
        return [column for column in (self.user, self.item) if column is not None]

    @property
    def events(self) -> dict[str, Sequence]:
        """The sequences that are made from the log."""
        return {name: s for name, s in self.sequences.items() if s.column is None}

    @property
    def listed(self) -> dict[str, Sequence]:
        """The sequences that the table holds as lists."""
        return {name: s for name, s in self.sequences.items() if s.column is not None}

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all fields in their order."""
        return (*self.categorical, *self.numeric, *self.time_fields)

    def column(self, name: str) -> str:
        """The table's column of a categorical or numeric field."""
        return (self.categorical.get(name) or self.numeric[name]).column

    def missing_words(self, column: str | None) -> bool:
        """Whether words such as NA mean a missing cell in a column of ids."""
        fields = self.categorical.values()
        return all(field.missing_words for field in fields if field.column == column)

    def width(self, name: str) -> int:
        """How many columns of codes a field has."""
        categorical = self.categorical.get(name)
        return categorical.length if categorical and categorical.split is not None else 1


def schema_of(values: Mapping[str, Any]) -> Schema:
    """The schema from the JSON values of a run (`Schema.as_dict`).

    Raises InputError where they do not fit.
    """

    def condition(values: Mapping[str, Any] | None) -> Condition | None:
        return None if values is None else Condition(**values)

    try:
        rest = {key: values[key] for key in ("user", "item", "time", "unit", "log")}
        return Schema(
            **rest,
            tasks={
                name: Target(Condition(**task["label"]), condition(task["only_where"]))
                for name, task in values["tasks"].items()
            },
            categorical={name: Categorical(**f) for name, f in values["categorical"].items()},
            numeric={
                name: Numeric(**{**f, "missing": tuple(f.get("missing", ()))})
                for name, f in values["numeric"].items()
            },
            time_fields=tuple(values["time_fields"]),
            sequences={
                name: Sequence(**{**sequence, "where": condition(sequence["where"])})
                for name, sequence in values["sequences"].items()
            },
            split=Split(**values["split"]),
            join=tuple(Join(**join) for join in values["join"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"the schema in spec.json does not fit ({error}); the file is damaged"
        raise InputError(problem) from None


def check_schema(schema: Schema, where: object) -> None:
    """Raise InputError for what does not go together."""
    if not schema.fields and not schema.sequences:
        raise fail(where, "names no field; put at least the ids under categorical")
    for name in schema.categorical:
        if name in schema.numeric:
            raise fail(where, f"{shown(name)} is both categorical and numeric; take one away")
    for name in schema.time_fields:
        if name not in TIME_FIELDS:
            hint = nearest(name, TIME_FIELDS)
            raise fail(where, f"time_fields: unknown {shown(name)}{hint}")
        if schema.time is None:
            raise fail(where, "time_fields need time")
    for name, sequence in schema.sequences.items():
        _check_sequence(schema, sequence, f"{where}: sequences: {name}")
    for name, categorical in schema.categorical.items():
        for key in ("min_count", "length", "hash", "prefix"):
            value = getattr(categorical, key)
            if value is not None and value < 1:
                raise fail(where, f"categorical: {name}: {key} must be at least 1")
    for name, numeric in schema.numeric.items():
        if not 2 <= numeric.buckets <= 10_000:
            raise fail(where, f"numeric: {name}: buckets must be 2 to 10000")
    for column in (*schema.categorical.values(), *schema.numeric.values()):
        if column.side not in ("user", "item", "row"):
            problem = f"side must be user, item or row, not {shown(column.side)}"
            raise fail(where, f"{column.column}: {problem}")
    for join in schema.join:
        if join.on not in schema.id_columns:
            problem = f"on must be the user's or item's id, not {shown(join.on)}"
            raise fail(where, f"join: {join.table}: {problem}")
    _check_split(schema, f"{where}: split")


def _check_sequence(schema: Schema, sequence: Sequence, where: object) -> None:
    if sequence.of not in schema.categorical:
        hint = nearest(sequence.of, schema.categorical)
        raise fail(where, f"of {shown(sequence.of)} is no categorical field{hint}")
    if schema.categorical[sequence.of].split is not None:
        raise fail(where, "of a field with several values in a cell; take one with one")
    if sequence.column is None and schema.time is None:
        raise fail(where, "needs time, or a column that holds the sequence")
    if sequence.column is None and schema.user is None:
        raise fail(where, "needs user, or a column that holds the sequence")
    if sequence.length < 1:
        raise fail(where, "length must be at least 1")


def _check_split(schema: Schema, where: object) -> None:
    split = schema.split
    if split.by not in ("user", "time", "random"):
        raise fail(where, f"by must be user, time or random, not {shown(split.by)}")
    if split.column is None and split.by != "random" and schema.time is None:
        raise fail(where, f"by {split.by} needs time; name it, or split by: random")
    if split.column is None and split.by == "user" and schema.user is None:
        raise fail(where, "by user needs a user; split by: time or random")
    train, validation = split.train, split.validation
    if not (0 < train < 1 and 0 < validation < 1 and train + validation < 1):
        problem = "train and validation must be shares that leave a rest for the test part"
        raise fail(where, problem)
