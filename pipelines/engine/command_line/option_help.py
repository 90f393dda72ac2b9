"""What each option means: for `--help`, for Python's `help()` and for the reference pages.

The text of an option is the docstring below its field; this file reads it from the source.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

from ... import TASKS
from ..options import SHARED_GROUPS, MixingOptions
from .checks import flag

# A field of a dataclass with its docstring, as the source has them.
FIELD = re.compile(
    r'^    (\w+): [^\n]*(?:\n        [^\n]*|\n    [)\]}][^\n]*)*\n    """(.*?)"""', re.M | re.S
)
CLASS = re.compile(r"^class (\w+)", re.M)


@functools.cache
def _texts_of_module(name: str) -> dict[str, dict[str, str]]:
    """Option texts of the classes of a module: {class: {option: text}}."""
    source = Path(str(sys.modules[name].__file__)).read_text(encoding="utf-8")
    starts = [*CLASS.finditer(source)]
    ends = [match.start() for match in starts[1:]] + [len(source)]
    return {
        match[1]: {
            field[1]: " ".join(field[2].split())
            for field in FIELD.finditer(source, match.start(), end)
        }
        for match, end in zip(starts, ends, strict=True)
    }


def option_texts(options: type) -> dict[str, str]:
    """What each option of a dataclass means, in the order of its fields."""
    texts: dict[str, str] = {}
    for base in reversed(options.__mro__[:-1]):
        texts |= _texts_of_module(base.__module__).get(base.__name__, {})
    return {f.name: texts.get(f.name, "") for f in dataclasses.fields(options)}


def option_groups(options: type) -> dict[str, list[str]]:
    """Names of the options by group: the task's own groups first, then those that all verbs share.

    An options class names its own groups in `GROUPS`, a mapping of a title to names.
    """
    groups: Mapping[str, tuple[str, ...]] = getattr(options, "GROUPS", {})
    names = [f.name for f in dataclasses.fields(options)]
    titles = {name: title for title, members in SHARED_GROUPS.items() for name in members}
    titles |= {name: title for title, members in groups.items() for name in members}
    order = list(dict.fromkeys(["", "data", *groups, *SHARED_GROUPS]))
    by_title = {title: [name for name in names if titles.get(name, "") == title] for title in order}
    return {title or "options": members for title, members in by_title.items() if members}


def kind_of(hint: object) -> str:
    """How the value of an option is written: INT, NUMBER, TEXT, {a,b}, "INT INT", "TEXT ..."."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return "|".join(kind_of(part) for part in parts if part is not type(None))
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"{kind_of(parts[0])} ..."
        return " ".join(kind_of(part) for part in parts)
    names: dict[object, str] = {int: "INT", float: "NUMBER", str: "TEXT", bool: ""}
    return names.get(hint, getattr(hint, "__name__", str(hint)).upper())


def default_of(field: dataclasses.Field[object]) -> str:
    """The default as a person would type it; "required" if there is none."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        value = field.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _mechanisms(options: type, name: str, prog: str) -> str:
    """The names of the mechanisms, for the option that takes one."""
    if name != "attention" or not issubclass(options, MixingOptions):
        return ""
    from ... import load_task
    from .where import taken_by

    return f" Mechanisms: {', '.join(taken_by(load_task(prog.split()[0]), 'attention'))}."


def help_page(options: type, prog: str) -> str:
    """The page that `--help` prints: all options of a verb, in groups."""
    width = min(100, max(60, shutil.get_terminal_size().columns))
    texts, hints = option_texts(options), get_type_hints(options)
    fields = {f.name: f for f in dataclasses.fields(options)}
    config = "[config.yaml] " if prog.split()[0] in TASKS else ""
    lines = [f"usage: headwise {prog} {config}[--options]", ""]
    lines += textwrap.wrap(" ".join((options.__doc__ or "").split()), width)
    for title, names in option_groups(options).items():
        lines += ["", f"{title}:"]
        for name in names:
            switch = hints[name] is bool
            head = (
                f"{flag(name)}, --no-{flag(name)[2:]}"
                if switch
                else f"{flag(name)} {kind_of(hints[name])}"
            )
            default = default_of(fields[name])
            shown = default if default == "required" else f"default: {default}"
            text = f"{texts[name]}{_mechanisms(options, name, prog)} ({shown})"
            lines += [
                f"  {head}",
                *textwrap.wrap(text, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6),
            ]
    return "\n".join(lines)
