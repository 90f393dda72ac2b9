"""The spec of a run: all that its model needs to meet new data again, saved as `spec.json`."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Self,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from ...base.errors import InputError, shown

JsonValue: TypeAlias = (
    "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
"""What JSON can hold."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of the specs of all pipelines.

    A subclass is a frozen dataclass whose fields are plain JSON (columns, scaling, frequency, ...),
    in the order in which they are written.
    """

    assets: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files in the run's `assets/`, by name: what is too large for the spec."""
    assets_folder: Path | None = field(default=None, metadata={"saved": False})
    """Where these files are, in a run that was opened."""

    def to_json(self) -> dict[str, JsonValue]:
        """The fields by name, as `spec.json` holds them; `assets` comes last, and only if there
        are some.
        """
        names = [
            f.name for f in fields(self) if f.metadata.get("saved", True) and f.name != "assets"
        ]
        values: dict[str, JsonValue] = {name: getattr(self, name) for name in names}
        if self.assets:
            values["assets"] = dict(self.assets)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, JsonValue], where: object = "spec.json") -> Self:
        """The spec that `to_json` wrote. Raises `InputError`, naming `where`, for a value that is
        missing or of another kind.
        """
        chosen: dict[str, Any] = {}
        hints = get_type_hints(cls)
        for f in fields(cls):
            if f.name in values and f.metadata.get("saved", True):
                if problem := misfit(values[f.name], hints[f.name], f.name):
                    raise InputError(f"{where}: {problem}; the file is damaged")
                chosen[f.name] = values[f.name]
            elif f.default is MISSING and f.default_factory is MISSING:
                raise InputError(f"{where}: holds no {f.name!r}; the file is damaged")
        return cls(**chosen)

    def with_assets(self, checksums: Mapping[str, str], folder: Path | None = None) -> Self:
        """A copy with the checksums of the run's assets and, once it is opened, their folder."""
        return replace(self, assets=checksums, assets_folder=folder)


def misfit(value: object, hint: object, name: str) -> str | None:
    """What is wrong with a value of JSON that should be of the type `hint`, None if nothing is.

    name: what to call the value. Numbers that are whole must be at least 0 and below 2^53, since
    all of them in specs are counts, sizes and places.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (NotRequired, Required, Annotated):
        return misfit(value, parts[0], name)
    if origin in (Union, types.UnionType):
        problems = [misfit(value, part, name) for part in parts]
        return None if None in problems else problems[0]
    if origin is Literal:
        return None if value in parts else f"{name} is {shown(value)}, not one of {parts}"
    if is_typeddict(hint) or origin in (dict, Mapping, collections.abc.Mapping):
        return _misfit_of_mapping(value, hint, name)
    if origin in (list, collections.abc.Sequence):
        if not isinstance(value, list):
            return f"{name} is {shown(value)}, not a list"
        problems = (misfit(item, parts[0], f"{name}[{k}]") for k, item in enumerate(value))
        return next(filter(None, problems), None)
    return _misfit_of_plain(value, hint, name)


def _misfit_of_mapping(value: object, hint: object, name: str) -> str | None:
    if not isinstance(value, dict):
        return f"{name} is {shown(value)}, not named values"
    if not is_typeddict(hint):
        problems = (misfit(item, get_args(hint)[1], f"{name}.{k}") for k, item in value.items())
        return next(filter(None, problems), None)
    hints = get_type_hints(hint)
    # Not __required_keys__: where annotations are texts, it does not know NotRequired.
    marked = get_type_hints(hint, include_extras=True)
    optional = {k for k, part in marked.items() if get_origin(part) is NotRequired}
    if missing := sorted(cast(Any, hint).__required_keys__ - optional - set(value)):
        return f"{name} holds no {missing[0]!r}"
    problems = (misfit(value[k], part, f"{name}.{k}") for k, part in hints.items() if k in value)
    return next(filter(None, problems), None)


def _misfit_of_plain(value: object, hint: object, name: str) -> str | None:
    kinds = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if hint is type(None):
        return None if value is None else f"{name} is {shown(value)}, not null"
    if hint not in kinds:
        return None  # any JSON
    fits = isinstance(value, (int, float) if hint is float else cast(type, hint))
    if not fits or (isinstance(value, bool) and hint is not bool):
        return f"{name} is {shown(value)}, not {kinds[cast(type, hint)]}"
    if hint is int and not 0 <= cast(int, value) < 2**53:
        return f"{name} is {shown(value)}, out of range"
    if hint is float and not -1.8e308 < cast(float, value) < 1.8e308:
        return f"{name} is {shown(value)}, out of range"
    return None
