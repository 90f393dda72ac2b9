"""Options that are paths: kept absolute in a run, so that it can be used from any folder."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....base.errors import InputError
from ..options import TrainOptions, TrainOptionsT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Options of trainings that name a file or folder; some of them have words, too.
PATHS = (
    "data", "schema", "from_run", "images", "depth", "masks", "groups", "lungs", "boxes", "body",
    "slides", "features", "tokenizer", "weights", "transformer_weights", "model", "general",
)  # fmt: skip
INPUTS = ("input", "query", "gallery")  # of predictions and searches
WORDS = ("pretrained", "random", "auto", "none", "scratch")


def with_absolute_paths(options: TrainOptionsT) -> TrainOptionsT:
    """The options with absolute paths. A word and a name of weights stay as they are."""
    values = asdict(options)
    changed = {name: _absolute(name, value) for name, value in values.items() if name in PATHS}
    return replace(options, **{k: v for k, v in changed.items() if v != values[k]})


def homes_of(options: DataclassInstance) -> list[str]:
    """The folders that options name by absolute paths, or that hold the files which they name."""
    homes = set[str]()
    for name, value in asdict(options).items():
        values = value if isinstance(value, list | tuple) else [value]
        for path in values if name in (*PATHS, *INPUTS) else ():
            if isinstance(path, str) and os.path.isabs(path):
                path = path.rstrip(os.sep)
                homes.add(path if os.path.isdir(path) else os.path.dirname(path))
    return sorted(homes - {"", os.sep})


def same_option(name: str, before: object, now: object) -> bool:
    """Whether an option has the same value as before, in a run that may hold a relative path."""
    return before == now or (
        name in PATHS and before is not None and _absolute(name, before) == _absolute(name, now)
    )


def _absolute(name: str, value: object) -> object:
    if isinstance(value, list | tuple):
        return type(value)(_absolute(name, part) for part in value)
    if not isinstance(value, str) or not value or value in WORDS:
        return value
    if name == "model":  # of most tasks it is the name of a kind of model
        return os.path.abspath(value) if Path(value, "config.json").is_file() else value
    return os.path.abspath(value) if name == "data" or Path(value).exists() else value


def as_typed(error: InputError, typed: TrainOptions, absolute: TrainOptions) -> InputError:
    """An error with the paths as they were typed."""
    text = str(error)
    for name in PATHS:
        paths, words = (_listed(getattr(options, name, None)) for options in (absolute, typed))
        for path, word in zip(paths, words):
            if path and word != path:
                text = text.replace(str(path), str(word))
    return InputError(text)


def _listed(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
