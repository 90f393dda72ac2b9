"""Options of a verb from words, files and values: one parser (tyro) checks everything.

A YAML file is flattened into options before the person's own; later ones win.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import partial
from numbers import Number
from pathlib import Path
from typing import TypeVar, cast

from ....base.errors import InputError, closest, one_line
from ....base.yaml_text import read_yaml
from ..compare_options import ComparisonOptions, check_comparison, comparison_class
from ..options import SAMPLE_PRESET, ExportOptions
from ..task import Task
from ..tune_options import check_tuning, tune_class
from .checks import check_least, flag, options_of_a_preset, options_of_a_run

Options = TypeVar("Options")

# Kinds of values; nests of them have a message of their own.
_KINDS = (str, os.PathLike, Number, date, type(None), list, tuple, Mapping)
HELP = ("-h", "--help")
# Words of the command line that cannot be names in Python.
SHORT = {"from": "from_run"}
# Messages of tyro in plainer words.
PLAINER = (
    (r"^(Parsing error|Value error|Invalid choice|Unrecognized options|Missing argument)\s*", ""),
    (
        r"^Error parsing (\S+): invalid literal for int\(\) with base 10: ",
        r"\1 needs a whole number, got ",
    ),
    (r"^Error parsing (\S+): could not convert string to float: ", r"\1 needs a number, got "),
    (
        r"^Error parsing (\S+): no type matching \{None\}\|INT could be .*? from \[(.*?)\]\..*",
        r"\1 needs a whole number, got \2",
    ),
    (
        r"^Error parsing (\S+): no type matching \{None\}\|FLOAT could be .*? from \[(.*?)\]\..*",
        r"\1 needs a number, got \2",
    ),
    (
        r"^Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]\s*$",
        r"\1 cannot hold \2; --help says what it takes",
    ),
    (r"^Missing value for argument '(\S+)'.*", r"\1 needs a value"),
    (r"^Unrecognized options: (.*\S)\s*$", r"\1 belongs to no option; --help lists them"),
)


def options_class(task: Task, verb: str) -> type:
    """The dataclass of a verb's options."""
    if verb in task.verbs:
        return task.verbs[verb].options
    return {
        "train": task.options,
        "evaluate": task.evaluate_options,
        "predict": task.predict_options,
        "export": ExportOptions,
        "tune": tune_class(task.options),
        "compare": comparison_class(task.options),
    }[verb]


def _class_of_call(
    task: Task, verb: str, arguments: Sequence[str], values: Mapping[str, object]
) -> type:
    """As `options_class`; with --vary the verb `compare` is the engine's for every task, also for
    those that have one of their own.
    """
    varies = "vary" in values or any(word.split("=")[0] == "--vary" for word in arguments)
    if verb == "compare" and varies:
        return comparison_class(task.options)
    return options_class(task, verb)


def _gathered(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Words in which each of these options is there once, with the values of all its places."""
    kept, values, current = list[str](), dict[str, list[str]](), None
    for word in arguments:
        head, mark, text = word.partition("=")
        if word.startswith("--"):
            current = head if head in options else None
            if current is not None:
                values.setdefault(current, []).extend([text] if mark else [])
        elif current is not None:
            values[current].append(word)
        if current is None:
            kept.append(word)
    return kept + [word for option, among in values.items() for word in (option, *among)]


def parse(
    task: Task,
    verb: str,
    arguments: Sequence[str],
    *,
    config: Path | None = None,
    values: Mapping[str, object] | None = None,
) -> object:
    """Options of a verb, of the class that `options_class` gives.

    Defaults come first, then the preset, then `config`, then `values` and `arguments`. Raises
    `InputError` with the nearest name for a misspelt option or key, and for a value of the wrong
    kind.
    """
    stored = read_config(config) if config else {}
    kind = _class_of_call(task, verb, arguments, {**stored, **(values or {})})
    names = [f.name for f in dataclasses.fields(kind)]
    prog = f"{task.name} {verb}"
    words = _gathered(arguments, ("--vary", "--against", "--space"))
    call = flatten(values or {}, names, "Python call") + _checked(words, names, prog)
    from_file = flatten(stored, names, str(config))
    if verb == "train" and "--resume" in call and (run := _value(call, "run")):
        # A resumed run goes on with its own options; those of the call must agree, which `train`
        # checks.
        saved = Path(run) / "config.yaml"
        if not saved.is_file():
            raise InputError(f"{run}: no run to resume (it has no config.yaml)")
        from_file = flatten(read_config(saved), names, str(saved))
        with options_of_a_run():
            return _checked_values(task, _tyro(kind, from_file + call, prog))
    preset = _value(call, "preset") or stored.get("preset")
    if preset is None and verb == "train" and not (_value(call, "data") or stored.get("data")):
        preset = SAMPLE_PRESET if SAMPLE_PRESET in presets(task) else None
    chosen: Mapping[str, object] = {}
    if preset is not None and "preset" in names:
        chosen = preset_options(task, str(preset), _value(call, "horizon") or stored.get("horizon"))
        flags = flatten({"preset": preset, **chosen}, names, f"preset {preset}")
        # A preset named in the call changes what the file says; one named in the file is its
        # ground.
        from_file = from_file + flags if _value(call, "preset") else flags + from_file
    try:
        with options_of_a_preset(chosen):
            return _checked_values(task, _tyro(kind, from_file + call, prog))
    except InputError as error:
        if config is None or str(config) in str(error):
            raise
        raise InputError(
            f"{error} (given, or in {config})" if call else f"{config}: {error}"
        ) from None


def parse_plain(
    kind: type[Options],
    word: str,
    arguments: Sequence[str],
    values: Mapping[str, object] | None = None,
) -> Options:
    """Options of a word of the command line that belongs to no task."""
    names = [f.name for f in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    words = flatten(values or {}, names, "Python call") + _checked(list(arguments), names, word)
    return _tyro(kind, words, word)


def _checked_values(task: Task, options: Options) -> Options:
    """The options; `InputError` for a value out of its range."""
    _check_numbers(options)
    if isinstance(options, ComparisonOptions):
        # What is trained are the settings: what one of them lacks, another may bring.
        check_comparison(options, task.options, partial(_checked_values, task))
        return options
    task.check(options)
    check_tuning(options, task.options)
    return options


def _check_numbers(options: object) -> None:
    """Raise `InputError` for a number of the options that all tasks share out of its range."""
    least = {
        "epochs": 1,
        "patience": 1,
        "batch_size": 1,
        "accumulate": 1,
        "devices": 1,
        "nodes": 1,
        "max_steps": 1,
        "workers": 0,
        "warmup": 0,
        "checkpoint_every": 0,
        "keep": 1,
        "shard_size": 1,
        "processes": 1,
        "seed": 0,
    }
    check_least(options, least)
    for name in ("lr", "clip"):
        value = getattr(options, name, None)
        # Larger ones overflow float32 inside the optimiser.
        if value is not None and not 0 < value <= 1e30:
            raise InputError(f"--{name} {value}: must be a positive number, 1e30 at most")
    for name in ("weight_decay", "tolerance"):
        value = getattr(options, name, None)
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{flag(name)} {value}: must be 0 or more")


def _tyro(kind: type[Options], arguments: list[str], prog: str) -> Options:
    """The options that tyro reads from words; its messages become one line."""
    if "--help" in arguments:
        from .option_help import help_page

        print(help_page(kind, prog))
        raise SystemExit(0)
    import contextlib
    import io

    import tyro

    used = {word.split("=")[0].replace("_", "-") for word in arguments}
    if missing := [name for name in _needed(kind) if name not in used]:
        raise InputError(f"{prog}: needs {' and '.join(missing)}; --help says what it is")
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(kind, args=arguments, prog=f"headwise {prog}", description=kind.__doc__)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = one_line(re.sub(r"[│╭╮╰╯─]|\x1b\[[0-9;]*m", " ", messages.getvalue()))
        text = re.split(r"Argument helptext|For full helptext", text)[0]
        for pattern, plain in PLAINER:
            text = re.sub(pattern, plain, text)
        raise InputError(f"{prog}: {text.strip()}") from None


def _needed(kind: type) -> list[str]:
    """The options that have no default."""
    missing = dataclasses.MISSING
    return [
        flag(field.name)
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    ]


def _checked(arguments: list[str], names: list[str], prog: str) -> list[str]:
    """Every word that looks like an option must be one; tyro would say the same in a box of ten
    lines.
    """
    arguments = [_long(word) for word in arguments]
    for word in arguments:
        if not word.startswith("--") or word == "--help":
            continue
        name = word[2:].split("=")[0].replace("-", "_")
        if name not in names and name.removeprefix("no_") not in names:
            raise InputError(
                f"{prog}: no option --{word[2:].split('=')[0]}{nearest_hint(name, names, '--')}"
            )
    return arguments


def _long(word: str) -> str:
    """An option's word with the name that its dataclass has."""
    if word in HELP:
        return "--help"
    name, mark, value = word.partition("=")
    short = name.removeprefix("--")
    return (
        f"{flag(SHORT[short])}{mark}{value}" if name.startswith("--") and short in SHORT else word
    )


def nearest_hint(word: str, among: Sequence[str], prefix: str = "") -> str:
    """The hint "; did you mean x?" for the closest name, else what the names are."""
    close = closest(word, among, 0.5)
    if close is not None:
        shown = close.replace("_", "-") if prefix == "--" else close
        return f"; did you mean {prefix}{shown}?"
    return (
        "; --help lists them"
        if prefix == "--" or len(among) > 40
        else f"; there are: {', '.join(among)}"
    )


def _value(arguments: Sequence[str], name: str) -> str | None:
    """The value that flattened arguments give an option, the last one winning."""
    value = None
    for index, word in enumerate(arguments):
        if word.replace("_", "-") == f"--{name}" and index + 1 < len(arguments):
            value = arguments[index + 1]
        elif word.startswith(f"--{name}="):
            value = word.split("=", 1)[1]
    return value


def flatten(values: Mapping[str, object], names: Sequence[str], where: str) -> list[str]:
    """Named values as command line words; nested mappings are joined by an underscore. Raises
    `InputError` for an unknown name, and for one that is there in two spellings.
    """
    return _flatten(values, names, where, set())


def _flatten(
    values: Mapping[str, object], names: Sequence[str], where: str, taken: set[str]
) -> list[str]:
    words: list[str] = []
    for key, value in values.items():
        key = SHORT.get(str(key), str(key).replace("-", "_"))
        if isinstance(value, Mapping) and any(name.startswith(f"{key}_") for name in names):
            inner = {f"{key}_{name}": item for name, item in value.items()}
            words += _flatten(inner, names, where, taken)
            continue
        if key not in names:
            raise InputError(f"{where}: no option {key!r}{nearest_hint(key, names)}")
        if key in taken:
            raise InputError(f"{where}: {key} is there twice; leave one of them out")
        taken.add(key)
        flag = key.replace("_", "-")
        _check_kind(value, f"{where}: {key}")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple) and not any(
            isinstance(item, list | tuple | Mapping) for item in value
        ):
            words += [f"--{flag}", *map(str, value)]
        elif isinstance(value, list | tuple | Mapping):
            raise InputError(
                f"{where}: {key} should be a value or a list of values, not a nest of them"
            )
        else:
            words += [
                f"--{flag}",
                os.fspath(value) if isinstance(value, os.PathLike) else str(value),
            ]
    return words


def _check_kind(value: object, where: str) -> None:
    """Raise `InputError` for a value that is no option, such as a table: its text may have a
    thousand lines.
    """
    for item in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(item, _KINDS):
            raise InputError(
                f"{where} should be a plain value or a path, not a {type(item).__name__}"
            )


def read_config(path: Path) -> dict[str, object]:
    """A YAML file of options; see `base.yaml_text` for what of YAML is read."""
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: should hold options as `name: value`, holds a {type(values).__name__}"
        )
    return values


def presets(task: Task) -> dict[str, Mapping[str, object]]:
    """The task's named sets of options."""
    path = Path(__file__).parents[2] / task.name / "presets.yaml"
    return cast(dict[str, Mapping[str, object]], read_config(path)) if path.exists() else {}


def preset_options(task: Task, name: str, horizon: object) -> dict[str, object]:
    """Options of a preset; its `at_horizon` part holds those that differ at some horizons."""
    among = presets(task)
    if name not in among:
        raise InputError(f"no preset {name!r} of {task.name}{nearest_hint(name, list(among))}")
    chosen = dict(among[name])
    special = cast(Mapping[object, Mapping[str, object]], chosen.pop("at_horizon", {}))
    for horizons, values in special.items():
        if horizon is not None and str(horizon) in str(horizons).replace(" ", "").split(","):
            chosen.update(values)
    return chosen
