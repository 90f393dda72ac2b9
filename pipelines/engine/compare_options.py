"""Options of the verb `compare`: those of the training of a task, and what differs between them.

Nothing here imports torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from functools import lru_cache
from typing import TypeVar, cast

from ...base.errors import InputError
from .options import TrainOptions
from .search_space import Value, parse_settings
from .tune_options import UNREAD, training_options

OptionsT = TypeVar("OptionsT", bound=TrainOptions)
AS_GIVEN = "as given"  # what the one setting is called where nothing is varied


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What is compared."""

    output: str
    """Folder for the trainings, the table, the picture and best.yaml. The same command goes on
    where it stopped; more --seeds and more values train only what is new.
    """
    vary: tuple[str, ...] = ()
    """Options that differ and their values, such as attention=star,softmax lr=1e-3,1e-4: every
    combination is a setting. Without it the options as they are, beside the simpler models.
    """
    seeds: int = 3
    """Trainings of each setting: seeds from --seed on. The parts of the data are those of --seed.
    """
    against: tuple[str, ...] = ()
    """Setting that the others are compared with, such as attention=star; by default the first.
    """
    processes: int = 1
    """Trainings at the same time, which share the cores of this machine."""


@dataclass(frozen=True)
class Setting:
    """Options that are trained with several seeds. changes: what differs from those given."""

    name: str
    changes: Mapping[str, Value]

    def of(self, options: OptionsT) -> OptionsT:
        """The options of this setting."""
        return cast(OptionsT, replace(options, **self.changes))


def comparison_options(options: type[OptionsT]) -> Callable[..., OptionsT]:
    """The class of the options of `compare` for a task, whose options of training these are."""
    return cast(Callable[..., OptionsT], comparison_class(options))


@lru_cache
def comparison_class(options: type[TrainOptions]) -> type:
    """As `comparison_options`, as a class."""
    groups = {"comparison": ("vary", "seeds", "against"), **getattr(options, "GROUPS", {})}
    text = (
        "Train settings of the options with several seeds each on the same parts, beside the "
        "simpler models: one table with paired differences and their intervals, and a picture."
    )
    return make_dataclass(
        options.__name__.removesuffix("Options") + "ComparisonOptions",
        [],
        bases=(ComparisonOptions, options),
        namespace={"__doc__": text, "__module__": __name__, "GROUPS": groups},
        frozen=True,
        kw_only=True,
    )


def settings_of(vary: Sequence[str], kind: type[TrainOptions]) -> list[Setting]:
    """Every combination of the values that --vary states, in their order.

    kind: the class of the options of training. Raises InputError as `parse_settings`.
    """
    varied = parse_settings(vary, kind)
    combinations = itertools.product(*(choices.values for choices in varied.values()))
    return [_setting(dict(zip(varied, values, strict=True))) for values in combinations]


def _setting(changes: Mapping[str, Value]) -> Setting:
    words = [f"{name}={_written(value)}" for name, value in changes.items()]
    return Setting(" ".join(words) or AS_GIVEN, changes)


def _written(value: Value) -> str:
    """A value as --vary takes it, with all digits: two settings may differ in the last."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def reference_of(
    against: Sequence[str], settings: Sequence[Setting], kind: type[TrainOptions]
) -> Setting:
    """The setting that --against names, the first one without it. Raises InputError where the words
    fit no setting, or several.
    """
    if not against:
        return settings[0]
    where = f"--against {' '.join(against)}"
    try:
        named = {name: choices.values for name, choices in parse_settings(against, kind).items()}
    except InputError as error:
        raise InputError(str(error).replace("--vary", "--against", 1)) from None
    fitting = [
        setting
        for setting in settings
        if all(values == (setting.changes.get(name, "?"),) for name, values in named.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(setting.name for setting in fitting or settings)
    fault = f"fits {len(fitting)} settings" if fitting else "is none of the settings"
    raise InputError(f"{where}: {fault}: {listed}")


def check_comparison(
    options: object, kind: type[OptionsT], check: Callable[[OptionsT], object]
) -> None:
    """Raise `InputError` for values of `compare` that no data can make right.

    options: those of the verb. kind: the class of the options of training; check: the check of
    those, which is made for every setting.
    """
    # Not above: the package command_line imports this module.
    from .command_line.checks import check_least, check_unread

    assert isinstance(options, ComparisonOptions)
    check_least(options, {"seeds": 1, "processes": 1})
    check_unread(options, UNREAD, "train; compare writes to --output and goes on by itself")
    settings = settings_of(options.vary, kind)
    reference_of(options.against, settings, kind)
    training = training_options(options, kind)
    for setting in settings:
        try:
            check(setting.of(training))
        except InputError as error:
            raise InputError(
                f"{setting.name}: {error}" if setting.changes else str(error)
            ) from None
