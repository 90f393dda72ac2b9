"""The schema of an event log: which columns are ids, features, behaviour sequences and tasks.

```yaml
log: clicks.parquet             # file, folder or pattern; or give it with --data
join:                           # attributes of users or items, one row each
  - {table: users.csv, on: user_id}
  - {table: items.csv, on: item_id}
user: user_id
item: item_id
time: {column: timestamp, unit: s}          # s, ms, us, ns
categorical:                    # missing cells and unseen values have codes of their own
  user_id: {min_count: 1}       # rarer values count as unseen
  item_id: {}
  page: {hash: 10000}           # no vocabulary: a stable hash into so many codes
  zip_code: {prefix: 1}         # its first characters only
  genres: {split: " ", length: 6}           # several values in a cell, averaged
numeric:
  age: {buckets: 10}            # buckets of equal count on the training part
time_fields: [hour, weekday]    # of the time, in UTC
sequences:                      # what a user did before the second of the row
  liked: {of: item_id, where: {column: rating, at_least: 4}, length: 50}
  shown: {of: item_id, column: history, split: "|", length: 20}   # given in the table instead
tasks:
  like: {column: rating, at_least: 4}
  buy: {column: bought, only_where: {column: click}}        # counted on clicked rows only
split: {by: user, train: 0.8, validation: 0.1}              # by user (chronological), time or random; or column: part
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...base.errors import InputError, fail, nearest, shown

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
TIME_FIELDS = {"hour": 24, "weekday": 7, "month": 12}
COMPARISONS = ("equals", "at_least", "at_most")
BYTES_CAP = 1_000_000


@dataclass(frozen=True)
class Condition:
    """A yes-or-no question about a cell: column compared with a number or word; without one, a cell
    of 0 or 1.
    """

    column: str
    equals: float | str | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Categorical:
    """A field of names or ids. `side`: whose it is when lists are made for users ("user", "item" or
    "row").
    """

    column: str
    min_count: int = 1
    hash: int | None = None
    prefix: int | None = None
    split: str | None = None
    length: int = 8
    side: str = "row"


@dataclass(frozen=True)
class Numeric:
    """A field of numbers, cut into buckets of equal count."""

    column: str
    buckets: int = 10
    side: str = "row"


@dataclass(frozen=True)
class Sequence:
    """What came before a row, oldest first, as values of the field `of`, whose embeddings it
    shares.

    Either events of the log (`where`; without a condition, all of them) or a list that the table
    holds (`column`)."""

    of: str
    where: Condition | None = None
    column: str | None = None
    split: str = " "
    length: int = 50


@dataclass(frozen=True)
class Target:
    """A task: its label, and the rows on which it counts."""

    label: Condition
    only_where: Condition | None = None


@dataclass(frozen=True)
class Split:
    """How rows are parted: each user's in time, all in time, or by chance; the rest is the test
    part. Or by a column of the table that holds "train", "validation" or "test"."""

    by: str = "user"
    train: float = 0.8
    validation: float = 0.1
    column: str | None = None


@dataclass(frozen=True)
class Join:
    """A table with one row a user or item; `on` is the id's column there and in the log."""

    table: str
    on: str


@dataclass(frozen=True)
class Schema:
    """All of the above."""

    user: str
    item: str
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

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for the run; `schema_of` reads them back."""
        return asdict(self)

    @property
    def events(self) -> dict[str, Sequence]:
        """The sequences that are made from the log."""
        return {name: one for name, one in self.sequences.items() if one.column is None}

    @property
    def given(self) -> dict[str, Sequence]:
        """The sequences that the table holds."""
        return {name: one for name, one in self.sequences.items() if one.column is not None}

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields in their order."""
        return (*self.categorical, *self.numeric, *self.time_fields)


def read_schema(path: str | Path) -> Schema:
    """A schema from YAML (safe loader). `InputError` names the first key that does not fit, and the
    nearest.
    """
    file = Path(path)
    try:
        if file.stat().st_size > BYTES_CAP:
            raise fail(path, "too large for a schema")
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise fail(path, f"cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise fail(
            path, f"is not readable as YAML ({' '.join(str(error).split())[:160]})"
        ) from error
    return parse_schema(values, path)


def schema_of(values: Mapping[str, Any]) -> Schema:
    """The schema that a run keeps (`Schema.as_dict`)."""

    def condition(one: Mapping[str, Any] | None) -> Condition | None:
        return None if one is None else Condition(**one)

    try:
        rest = {key: values[key] for key in ("user", "item", "time", "unit", "log")}
        return Schema(
            **rest,
            tasks={
                name: Target(Condition(**one["label"]), condition(one["only_where"]))
                for name, one in values["tasks"].items()
            },
            categorical={name: Categorical(**one) for name, one in values["categorical"].items()},
            numeric={name: Numeric(**one) for name, one in values["numeric"].items()},
            time_fields=tuple(values["time_fields"]),
            sequences={
                name: Sequence(**{**one, "where": condition(one["where"])})
                for name, one in values["sequences"].items()
            },
            split=Split(**values["split"]),
            join=tuple(Join(**one) for one in values["join"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the schema in spec.json does not fit ({error}); the file is damaged"
        ) from None


def parse_schema(values: Any, where: object) -> Schema:
    """A schema from the values of its YAML."""
    allowed = (
        "log",
        "join",
        "user",
        "item",
        "time",
        "categorical",
        "numeric",
        "time_fields",
        "sequences",
        "tasks",
        "split",
    )
    values = _mapping(values, where, allowed)
    for needed in ("user", "item", "tasks"):
        if not values.get(needed):
            raise fail(where, f"has no {needed!r}; every schema names user, item and tasks")
    time = values.get("time")
    time = (
        {"column": time}
        if isinstance(time, str)
        else _mapping(time or {}, f"{where}: time", ("column", "unit"))
    )
    if time and time.get("unit", "s") not in UNITS:
        raise fail(where, f"time: unknown unit {shown(time['unit'])}; there are {', '.join(UNITS)}")
    schema = Schema(
        user=_text(values["user"], f"{where}: user"),
        item=_text(values["item"], f"{where}: item"),
        tasks={
            name: _target(one, f"{where}: tasks: {name}")
            for name, one in _named(values, "tasks", where)
        },
        time=_text(time["column"], f"{where}: time") if time else None,
        unit=time.get("unit", "s"),
        categorical={
            name: _plain(
                Categorical,
                {"column": name, **_mapping(one or {}, f"{where}: categorical: {name}")},
                f"{where}: categorical: {name}",
            )
            for name, one in _named(values, "categorical", where)
        },
        numeric={
            name: _plain(
                Numeric,
                {"column": name, **_mapping(one or {}, f"{where}: numeric: {name}")},
                f"{where}: numeric: {name}",
            )
            for name, one in _named(values, "numeric", where)
        },
        time_fields=tuple(_list(values.get("time_fields"), f"{where}: time_fields")),
        sequences={
            name: _sequence(one, f"{where}: sequences: {name}")
            for name, one in _named(values, "sequences", where)
        },
        split=_plain(
            Split, _mapping(values.get("split") or {}, f"{where}: split"), f"{where}: split"
        ),
        join=tuple(
            _plain(Join, _with_on(one), f"{where}: join")
            for one in _list(values.get("join"), f"{where}: join")
        ),
        log=None if values.get("log") is None else _text(values["log"], f"{where}: log"),
    )
    check_schema(schema, where)
    return schema


def check_schema(schema: Schema, where: object) -> None:
    """Raise `InputError` for what does not go together."""
    if not schema.fields and not schema.sequences:
        raise fail(where, "names no field; put at least the ids under categorical")
    twice = [name for name in schema.categorical if name in schema.numeric]
    if twice:
        raise fail(where, f"{shown(twice[0])} is both categorical and numeric; take one away")
    for name in schema.time_fields:
        if name not in TIME_FIELDS:
            raise fail(
                where, f"time_fields: unknown {shown(name)}{nearest(str(name), TIME_FIELDS)}"
            )
        if schema.time is None:
            raise fail(where, "time_fields need time")
    for name, one in schema.sequences.items():
        if one.of not in schema.categorical:
            raise fail(
                where,
                f"sequences: {name}: of {shown(one.of)} is no categorical field"
                f"{nearest(one.of, schema.categorical)}",
            )
        if schema.categorical[one.of].split is not None:
            raise fail(
                where,
                f"sequences: {name}: of a field with several values in a cell; take one with one",
            )
        if one.column is None and schema.time is None:
            raise fail(where, f"sequences: {name}: needs time, or a column that holds the sequence")
        if one.length < 1:
            raise fail(where, f"sequences: {name}: length must be at least 1")
    for name, one in schema.categorical.items():
        for key in ("min_count", "length", "hash", "prefix"):
            value = getattr(one, key)
            if value is not None and value < 1:
                raise fail(where, f"categorical: {name}: {key} must be at least 1")
    for name, one in schema.numeric.items():
        if not 2 <= one.buckets <= 10_000:
            raise fail(where, f"numeric: {name}: buckets must be 2 to 10000")
    for one in (*schema.categorical.values(), *schema.numeric.values()):
        if one.side not in ("user", "item", "row"):
            raise fail(
                where, f"{one.column}: side must be user, item or row, not {shown(one.side)}"
            )
    for one in schema.join:
        if one.on not in (schema.user, schema.item):
            raise fail(
                where, f"join: {one.table}: on must be the user's or item's id, not {shown(one.on)}"
            )
    split = schema.split
    if split.by not in ("user", "time", "random"):
        raise fail(where, f"split: by must be user, time or random, not {shown(split.by)}")
    if split.column is None and split.by != "random" and schema.time is None:
        raise fail(where, f"split: by {split.by} needs time; name it, or split by: random")
    if not (
        0 < split.train < 1 and 0 < split.validation < 1 and split.train + split.validation < 1
    ):
        raise fail(
            where, "split: train and validation must be shares that leave a rest for the test part"
        )


def _mapping(values: Any, where: object, allowed: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise fail(where, f"should hold names and values, holds {shown(values)}")
    for key in values:
        if allowed is not None and key not in allowed:
            raise fail(where, f"no key {shown(key)}{nearest(str(key), allowed)}")
    return {str(key): value for key, value in values.items()}


def _with_on(values: Any) -> Any:
    """A key `on`, which YAML 1.1 reads as true, as it was written."""
    return (
        {"on" if key is True else key: one for key, one in values.items()}
        if isinstance(values, Mapping)
        else values
    )


def _named(values: Mapping[str, Any], key: str, where: object) -> list[tuple[str, Any]]:
    part = values.get(key) or {}
    if isinstance(part, list):
        part = dict.fromkeys(part)
    return list(_mapping(part, f"{where}: {key}").items())


def _list(values: Any, where: object) -> list[Any]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise fail(where, f"should be a list, is {shown(values)}")
    return values


def _text(value: Any, where: object) -> str:
    if not isinstance(value, str) or not value:
        raise fail(where, f"should be the name of a column, is {shown(value)}")
    return value


def _plain(kind: type, values: Any, where: object) -> Any:
    """A dataclass of plain values; types are checked by the annotations."""
    values = _mapping(values, where, list(kind.__dataclass_fields__))
    accepted = {
        "str": str,
        "int": int,
        "float": (int, float),
        "int | None": (int, type(None)),
        "str | None": (str, type(None)),
        "float | None": (int, float, type(None)),
        "float | str | None": (int, float, str, type(None)),
    }
    for key, value in values.items():
        wanted = kind.__dataclass_fields__[key].type
        if wanted in accepted and (
            not isinstance(value, accepted[wanted]) or isinstance(value, bool)
        ):
            raise fail(where, f"{key} should be {wanted.replace(' | None', '')}, is {shown(value)}")
    try:
        return kind(**values)
    except TypeError:
        needed = [
            key
            for key, one in kind.__dataclass_fields__.items()
            if one.default is one.default_factory
        ]
        raise fail(
            where, f"needs {' and '.join(key for key in needed if key not in values)}"
        ) from None


def _condition(values: Any, where: object) -> Condition:
    if isinstance(values, str):
        values = {"column": values}
    values = {k: int(v) if isinstance(v, bool) else v for k, v in _mapping(values, where).items()}
    one = _plain(Condition, values, where)
    if sum(getattr(one, name) is not None for name in COMPARISONS) > 1:
        raise fail(where, f"give one of {', '.join(COMPARISONS)}")
    return one


def _sequence(values: Any, where: object) -> Sequence:
    values = _mapping(values, where, list(Sequence.__dataclass_fields__))
    if "of" not in values:
        raise fail(where, "needs of: the field whose values it holds")
    if values.get("where") is not None and values.get("column") is not None:
        raise fail(
            where, "give where (events of the log) or column (a list in the table), not both"
        )
    met = values.pop("where", None)
    one = _plain(Sequence, values, where)
    return (
        one
        if met is None
        else Sequence(one.of, _condition(met, f"{where}: where"), None, one.split, one.length)
    )


def _target(values: Any, where: object) -> Target:
    if isinstance(values, str):
        return Target(Condition(values))
    values = _mapping(values, where, ("column", *COMPARISONS, "only_where"))
    met = values.pop("only_where", None)
    if "column" not in values:
        raise fail(where, "needs column")
    return Target(
        _condition(values, where), None if met is None else _condition(met, f"{where}: only_where")
    )
