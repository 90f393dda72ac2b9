"""Which values of which options `tune` tries and `compare` sets side by side: ranges and choices,
from a task, from --space or from --vary.

Nothing here imports torch.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from ...base.errors import InputError, closest
from .options import TrainOptions

if TYPE_CHECKING:
    from optuna import Trial

Value: TypeAlias = bool | int | float | str | None
_LOG_FROM = 10  # a range whose ends are this many times apart is searched on a logarithmic scale

# Options that say what is learned from, how the answers are compared, or how fast it goes: trials
# that differ in them could not be compared.
FIXED = frozenset(
    {
        "data", "accept", "run", "resume", "preset", "choose", "seed", "epochs", "max_steps", "nan",
        "precision", "accelerator", "devices", "nodes", "strategy", "workers", "checkpoint_every",
        "keep", "logger",
    }
)  # fmt: skip
# Options of training that the reading of data does not depend on.
_OF_TRAINING = frozenset(
    {
        "epochs", "max_steps", "patience", "batch_size", "accumulate", "lr", "schedule", "warmup",
        "weight_decay", "clip",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; whole ones where both ends are.

    log: whether the logarithm is searched evenly. reopens: whether the data is read again with
    other values, as for the length of a window.
    """

    low: int | float
    high: int | float
    log: bool = False
    reopens: bool = False

    def suggest(self, trial: Trial, name: str) -> Value:
        """The value that a trial of Optuna takes."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Value) -> bool:
        """Whether the value lies in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high

    def samples(self) -> tuple[Value, ...]:
        """Some of its values."""
        return (self.low, self.high)

    def words(self) -> str:
        """The range as --space takes it."""
        return f"{self.low:g}:{self.high:g}:{'log' if self.log else 'linear'}"


@dataclass(frozen=True)
class Choices:
    """A few values; see `Range`."""

    values: tuple[Value, ...]
    reopens: bool = False

    def suggest(self, trial: Trial, name: str) -> Value:
        """The value that a trial of Optuna takes."""
        return trial.suggest_categorical(name, self.values)

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        return value in self.values

    def samples(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def words(self) -> str:
        """The values as --space takes them."""
        return ",".join(written(value) for value in self.values)


Searched: TypeAlias = Range | Choices
Space: TypeAlias = Mapping[str, Searched]


def written(value: object) -> str:
    """A value as --space takes it and as tables show it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shared_space(options: TrainOptions) -> dict[str, Searched]:
    """The options of training that every task searches, around the values of these options."""
    size = options.batch_size
    decays = sorted({0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, options.weight_decay})
    sizes = sorted({max(1, size // 2), size, 2 * size, 4 if size == 1 else size})
    return {
        "lr": Range(options.lr / 10, options.lr * 10, log=True),
        "batch_size": Choices(tuple(sizes)),
        "weight_decay": Choices(tuple(decays)),
    }


def reopens(space: Space, options: type[TrainOptions]) -> bool:
    """Whether the data has to be read again for every trial."""
    return bool(reopening(space, options))


def reopening(names: Iterable[str], options: type[TrainOptions]) -> list[str]:
    """Those of the options with other values of which the data has to be read again."""
    declared = declared_space(options)
    return [
        name
        for name in names
        if (declared[name].reopens if name in declared else name not in _OF_TRAINING)
    ]


def declared_space(options: type[TrainOptions]) -> Space:
    """What a task searches besides the options of training: `SEARCH` of its options class."""
    return getattr(options, "SEARCH", {})


def parse_space(words: Sequence[str], options: type[TrainOptions]) -> dict[str, Searched]:
    """The space that --space states: `lr=1e-4:1e-2`, `layers=1:4`, `width=64,128`, `marks=on,off`;
    a third word of a range, log or linear, says how it is searched.

    options: the class of the options of training. Raises InputError, on one line, for a word that
    is none of these, an unknown name, and values that the option cannot have.
    """
    space = dict[str, Searched]()
    fixed = FIXED | data_options(options) - declared_space(options).keys()
    for word in words:
        where = f"--space {word}"
        name, text = _named(word, where, "name=low:high or name=value,value", options)
        if name in fixed:
            raise InputError(f"{where}: {name} is the same for all trials")
        if name in space:
            raise InputError(f"--space: {name} is there twice; leave one of them out")
        space[name] = _searched(text, get_type_hints(options)[name], where)
    return space


def parse_settings(words: Sequence[str], options: type[TrainOptions]) -> dict[str, Choices]:
    """The values that --vary states: `attention=star,softmax`, `lr=1e-3,1e-4`, `normalise=on,off`.

    options: the class of the options of training. Raises InputError as `parse_space`, and for a
    range, which names no values.
    """
    settings = dict[str, Choices]()
    free = {"epochs", "max_steps", *declared_space(options), *getattr(options, "SAME_ROWS", ())}
    fixed = (FIXED | data_options(options)) - free
    for word in words:
        where = f"--vary {word}"
        name, text = _named(word, where, "name=value,value", options)
        if name == "seed":
            raise InputError(f"{where}: all settings are trained with the same seeds, see --seeds")
        if name in fixed:
            raise InputError(f"{where}: {name} is the same for all settings")
        if name in settings:
            raise InputError(f"--vary: {name} is there twice; leave one of them out")
        searched = _searched(text, get_type_hints(options)[name], where)
        if isinstance(searched, Range):
            raise InputError(f"{where}: a range names no values; write them as {name}=value,value")
        settings[name] = searched
    return settings


def data_options(options: type[TrainOptions]) -> frozenset[str]:
    """The options by which the data is read."""
    groups: Mapping[str, tuple[str, ...]] = getattr(options, "GROUPS", {})
    return frozenset(groups.get("data", ()))


def _named(word: str, where: str, form: str, options: type[TrainOptions]) -> tuple[str, str]:
    """The name of the option and the text of its values in a word such as "width=64,128"."""
    name, mark, text = word.partition("=")
    name, text = name.strip().removeprefix("--").replace("-", "_"), text.strip()
    if not mark or not text:
        raise InputError(f"{where}: should be {form}")
    names = [field.name for field in fields(options)]
    if name not in names:
        near = closest(name, names, 0.5)
        hint = f"did you mean {near}?" if near else "train --help lists them"
        raise InputError(f"{where}: no option {name!r}; {hint}")
    return name, text


def _searched(text: str, hint: object, where: str) -> Searched:
    """A range or choices from text, for an option of a type."""
    kinds = kinds_of(hint)
    if any(get_origin(kind) is tuple for kind in kinds):
        raise InputError(f"{where}: is a list of values; numbers, words and switches are searched")
    if ":" in text and (float in kinds or int in kinds):
        return _range(text, whole=float not in kinds, where=where)
    values = tuple(value_of(word.strip(), kinds, where) for word in text.split(","))
    if len(set(values)) < len(values):
        raise InputError(f"{where}: names a value twice")
    return Choices(values)


def _range(text: str, *, whole: bool, where: str) -> Range:
    low_text, high_text, *scale = text.split(":")
    low, high = (
        value_of(part, (int if whole else float,), where) for part in (low_text, high_text)
    )
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if len(scale) > 1 or (scale and scale[0] not in ("log", "linear")):
        raise InputError(f"{where}: the third word of a range is log or linear")
    if not low < high:
        raise InputError(f"{where}: the first number must be smaller than the second")
    log = scale[0] == "log" if scale else low > 0 and high >= _LOG_FROM * low
    if log and low <= 0:
        raise InputError(f"{where}: a logarithmic range must begin above 0")
    return Range(low, high, log)


def kinds_of(hint: object) -> tuple[object, ...]:
    """The types that a type is one of."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def value_of(word: str, kinds: Sequence[object], where: str) -> Value:
    """A value of an option, whose type is one of `kinds`, from text. Raises InputError, which
    begins with `where`, for a word that is none.
    """
    if type(None) in kinds and word == "none":
        return None
    for kind in kinds:
        if get_origin(kind) is Literal and word in map(str, get_args(kind)):
            return next(value for value in get_args(kind) if str(value) == word)
    if bool in kinds:
        if word in ("on", "true", "yes", "off", "false", "no"):
            return word in ("on", "true", "yes")
        raise InputError(f"{where}: {word!r} should be on or off")
    for kind in (int, float):
        if kind in kinds:
            try:
                number = kind(word)
            except ValueError:
                continue
            if math.isfinite(number):
                return number
    if str in kinds and word:
        return word
    choices = [str(v) for kind in kinds if get_origin(kind) is Literal for v in get_args(kind)]
    if choices:
        raise InputError(f"{where}: {word!r} should be one of {', '.join(choices)}")
    what = "a number" if float in kinds else "a whole number" if int in kinds else "a value"
    raise InputError(f"{where}: {word!r} should be {what}")
