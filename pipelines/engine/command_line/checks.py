"""Checks of option values that several tasks make. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from typing import TYPE_CHECKING

from ....base.errors import InputError, closest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_least(options: object, bounds: Mapping[str, int]) -> None:
    """Raise `InputError` for the first option below its bound; options that are None or not there
    are left alone.
    """
    for name, bound in bounds.items():
        value = getattr(options, name, None)
        if value is not None and value < bound:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least {bound}")


_STORED: ContextVar[bool] = ContextVar("stored", default=False)


@contextmanager
def stored_options() -> Iterator[None]:
    """Within it, options that nothing reads are no error: a run that has them is opened."""
    token = _STORED.set(True)
    try:
        yield
    finally:
        _STORED.reset(token)


def check_unread(options: DataclassInstance, names: Collection[str], reader: str) -> None:
    """Raise `InputError` for the first of these options that is not at its default: nothing would
    read it. reader: what does read it, in words that follow "is read by".
    """
    if _STORED.get():
        return
    defaults = {field.name: field.default for field in fields(options)}
    for name in names:
        value = getattr(options, name)
        if value != defaults[name]:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: is read by {reader}; leave it out")


def check_attention(name: str, *, fits: Collection[str], why: str, optional: bool = False) -> None:
    """Raise `InputError` where --attention names no mechanism that `fits` such tokens (as in the
    core's table).

    why: what the message says about a mechanism that does not fit; optional: "none" is a choice,
    too, and aliases are not listed.
    """
    if optional and name == "none":
        return
    from ....models.attention import ALIASES, ATTENTION

    fitting = [mechanism for mechanism, row in ATTENTION.items() if row.fits in fits]
    listed = ("none", *fitting) if optional else (*fitting, *ALIASES)
    check_mechanism("--attention", name, fitting, why=why, listed=listed)


def check_mechanism(
    option: str,
    name: str,
    fitting: Collection[str],
    *,
    why: str,
    listed: Collection[str] | None = None,
) -> None:
    """Raise `InputError` where the option names no mechanism of those that are fitting.

    why: what the message says about other mechanisms; listed: the choices that it prints, by
    default those that are fitting.
    """
    from ....models.attention import ALIASES, ATTENTION

    if ALIASES.get(name, name) in fitting:
        return
    choices = fitting if listed is None else listed
    near = None if name in ATTENTION else closest(name, choices)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(choices)}"
    raise InputError(f"{option} {name}: {why if name in ATTENTION else 'unknown'}; {hint}")
