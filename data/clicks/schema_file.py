"""The schema of a click log as a YAML file.

```yaml
log: clicks.parquet             # file, folder or pattern; or give it with --data
join:                           # attributes of users or items, one row per id
  - {table: users.csv, on: user_id}
  - {table: items.csv, on: item_id}
user: user_id                   # null for a table whose rows are of no user; item: the same
item: item_id
time: {column: timestamp, unit: s}          # s, ms, us, ns
categorical:                    # missing cells and unseen values have codes of their own
  user_id: {min_count: 1}       # rarer values count as unseen
  item_id: {}
  page: {hash: 10000}           # no vocabulary: a stable hash into so many codes
  zip_code: {prefix: 1}         # its first characters only
  genres: {split: " ", length: 6}           # several values in a cell, averaged
  country: {missing_words: false}           # NA and null are values, not missing cells
numeric:
  age: {buckets: 10}            # buckets of equal count on the training part
  income: {missing: [-999, -1]} # numbers (or words) that mean a missing cell
time_fields: [hour, weekday]    # of the time, in UTC
sequences:                      # what a user did before the second of the row
  liked: {of: item_id, where: {column: rating, at_least: 4}, length: 50}
  shown: {of: item_id, column: history, split: "|", length: 20}   # listed in the table
  padded: {of: item_id, column: last_30, filler: 0}               # 0 only fills up the lists
tasks:
  like: {column: rating, at_least: 4}
  buy: {column: bought, only_where: {column: click}}        # counted on clicked rows only
split: {by: user, train: 0.8, validation: 0.1}  # by user (in time), time, random; or column: part
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TypeVar

from ...base.errors import fail, nearest, reason, shown
from ...base.yaml_text import read_yaml
from .schema import (
    UNITS,
    Categorical,
    Condition,
    Join,
    Numeric,
    Schema,
    Sequence,
    Split,
    Target,
    check_schema,
)

COMPARISONS = ("equals", "at_least", "at_most")
GAP = "TODO"  # in place of a column that `headwise ranking schema` could not guess
KEYS = (
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
# The types of YAML that fit the annotation of a field.
ACCEPTED: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "float | None": (int, float, type(None)),
    "float | str | None": (int, float, str, type(None)),
    "int | str | None": (int, str, type(None)),
}
_Part = TypeVar("_Part", Categorical, Condition, Join, Numeric, Sequence, Split)


def read_schema(path: str | Path) -> Schema:
    """A schema from YAML (safe loader).

    Raises InputError, with the first key that does not fit and the nearest one that would.
    """
    try:
        values = read_yaml(Path(path))
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    return parse_schema(values, path)


def parse_schema(values: object, where: object) -> Schema:
    """A schema from the values of its YAML. Raises InputError as `read_schema` does."""
    keys = _mapping(values, where, KEYS)
    for needed in ("user", "item", "tasks"):
        plain = needed != "tasks" and needed in keys and keys[needed] is None
        if not keys.get(needed) and not plain:
            problem = f"has no {needed!r}; every schema names user, item and tasks"
            raise fail(where, f"{problem} (user: null, item: null: a table without them)")
    _check_gaps(keys, where)
    column, unit = _time(keys.get("time"), f"{where}: time")
    schema = Schema(
        user=None if keys["user"] is None else _text(keys["user"], f"{where}: user"),
        item=None if keys["item"] is None else _text(keys["item"], f"{where}: item"),
        tasks={name: _target(task, at) for name, task, at in _named(keys, "tasks", where)},
        time=column,
        unit=unit,
        categorical={
            name: _plain(Categorical, {"column": name, **_mapping(field or {}, at)}, at)
            for name, field, at in _named(keys, "categorical", where)
        },
        numeric={
            name: _plain(Numeric, {"column": name, **_with_missing(field, at)}, at)
            for name, field, at in _named(keys, "numeric", where)
        },
        time_fields=tuple(map(str, _list(keys.get("time_fields"), f"{where}: time_fields"))),
        sequences={
            name: _sequence(sequence, at) for name, sequence, at in _named(keys, "sequences", where)
        },
        split=_plain(Split, keys.get("split") or {}, f"{where}: split"),
        join=tuple(
            _plain(Join, _with_on(join), f"{where}: join")
            for join in _list(keys.get("join"), f"{where}: join")
        ),
        log=None if keys.get("log") is None else _text(keys["log"], f"{where}: log"),
    )
    check_schema(schema, where)
    return schema


def _check_gaps(keys: Mapping[str, object], where: object) -> None:
    """Raise InputError for a gap of a draft that is not filled yet."""
    gaps = [name for name in ("user", "item") if keys[name] == GAP]
    for name, task, _ in _named(keys, "tasks", where):
        column = task.get("column") if isinstance(task, Mapping) else task
        gaps += [f"task {name}"] if column == GAP else []
    if gaps:
        listed = " and the ".join(gaps)
        raise fail(where, f"the {listed} is still a gap ({GAP}); put the name of a column there")


def _time(values: object, where: object) -> tuple[str | None, str]:
    if isinstance(values, str):
        return values, "s"
    time = _mapping(values or {}, where, ("column", "unit"))
    if not time:
        return None, "s"
    unit = time.get("unit", "s")
    if not isinstance(unit, str) or unit not in UNITS:
        raise fail(where, f"unknown unit {shown(unit)}; there are {', '.join(UNITS)}")
    return _text(time.get("column"), where), unit


def _mapping(
    values: object, where: object, allowed: Iterable[str] | None = None
) -> dict[str, object]:
    if not isinstance(values, Mapping):
        raise fail(where, f"should hold names and values, holds {shown(values)}")
    for key in values:
        if allowed is not None and key not in allowed:
            raise fail(where, f"no key {shown(key)}{nearest(str(key), allowed)}")
    return {str(key): value for key, value in values.items()}


def _with_on(values: object) -> object:
    """A key `on`, which YAML 1.1 reads as true, as it was written."""
    if not isinstance(values, Mapping):
        return values
    return {"on" if key is True else key: value for key, value in values.items()}


def _with_missing(field: object, where: object) -> dict[str, object]:
    """The keys of a numeric field; `missing` may be one number or word, or a list of them."""
    keys = _mapping(field or {}, where)
    if "missing" in keys:
        words = keys["missing"] if isinstance(keys["missing"], list) else [keys["missing"]]
        if any(isinstance(word, bool) or not isinstance(word, int | float | str) for word in words):
            raise fail(where, f"missing should be numbers or words, is {shown(keys['missing'])}")
        keys["missing"] = tuple(words)
    return keys


def _named(keys: Mapping[str, object], key: str, where: object) -> list[tuple[str, object, str]]:
    """Name, values and place of each entry under a key; a list names entries without values."""
    part, place = keys.get(key) or {}, f"{where}: {key}"
    if isinstance(part, list):
        part = dict.fromkeys(part)
    return [(name, values, f"{place}: {name}") for name, values in _mapping(part, place).items()]


def _list(values: object, where: object) -> list[object]:
    if values is None:
        return []
    if not isinstance(values, list):
        raise fail(where, f"should be a list, is {shown(values)}")
    return values


def _text(value: object, where: object) -> str:
    if not isinstance(value, str) or not value:
        raise fail(where, f"should be the name of a column, is {shown(value)}")
    return value


def _plain(kind: type[_Part], values: object, where: object) -> _Part:
    """A dataclass of plain values, whose types are checked by its annotations."""
    members = {member.name: member for member in fields(kind)}
    plain = _mapping(values, where, list(members))
    for key, value in plain.items():
        annotation = str(members[key].type)
        fits = isinstance(value, ACCEPTED.get(annotation, object)) and (
            annotation == "bool" or not isinstance(value, bool)
        )
        if annotation in ACCEPTED and not fits:
            name = "true or false" if annotation == "bool" else annotation.replace(" | None", "")
            raise fail(where, f"{key} should be {name}, is {shown(value)}")
    needed = [key for key, m in members.items() if m.default is m.default_factory is MISSING]
    if missing := [key for key in needed if key not in plain]:
        raise fail(where, f"needs {' and '.join(missing)}")
    return kind(**plain)  # type: ignore[arg-type]  (checked above)


def _condition(values: object, where: object) -> Condition:
    keys = _mapping({"column": values} if isinstance(values, str) else values, where)
    keys = {key: int(v) if isinstance(v, bool) else v for key, v in keys.items()}
    condition = _plain(Condition, keys, where)
    if sum(getattr(condition, name) is not None for name in COMPARISONS) > 1:
        raise fail(where, f"give one of {', '.join(COMPARISONS)}")
    return condition


def _sequence(values: object, where: object) -> Sequence:
    keys = _mapping(values, where, [member.name for member in fields(Sequence)])
    if "of" not in keys:
        raise fail(where, "needs of: the field whose values it holds")
    if keys.get("where") is not None and keys.get("column") is not None:
        raise fail(
            where, "give where (events of the log) or column (a list in the table), not both"
        )
    condition = keys.pop("where", None)
    sequence = _plain(Sequence, keys, where)
    if condition is None:
        return sequence
    return replace(sequence, where=_condition(condition, f"{where}: where"))


def _target(values: object, where: object) -> Target:
    if isinstance(values, str):
        return Target(Condition(values))
    keys = _mapping(values, where, ("column", *COMPARISONS, "only_where"))
    only_where = keys.pop("only_where", None)
    if "column" not in keys:
        raise fail(where, "needs column")
    condition = None if only_where is None else _condition(only_where, f"{where}: only_where")
    return Target(_condition(keys, where), condition)
