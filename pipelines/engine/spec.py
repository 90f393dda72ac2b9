"""The spec of a run: all that its model needs to meet new data again, saved as `spec.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

from ...base.errors import InputError

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
        missing.
        """
        chosen: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in values:
                chosen[f.name] = values[f.name]
            elif f.default is MISSING and f.default_factory is MISSING:
                raise InputError(f"{where}: holds no {f.name!r}; the file is damaged")
        return cls(**chosen)

    def with_assets(self, checksums: Mapping[str, str], folder: Path | None = None) -> Self:
        """A copy with the checksums of the run's assets and, once it is opened, their folder."""
        return replace(self, assets=checksums, assets_folder=folder)
