"""Checks of option values that several tasks make. Nothing here imports torch."""

from collections.abc import Collection, Mapping
from typing import Any

from ....base.errors import InputError


def check_least(options: Any, bounds: Mapping[str, int]) -> None:
    """Raise `InputError` for the first option below its bound; options that are None or not there
    are left alone.
    """
    for name, bound in bounds.items():
        value = getattr(options, name, None)
        if value is not None and value < bound:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least {bound}")


def check_attention(name: str, *, fits: Collection[str], why: str, none: bool = False) -> None:
    """Raise `InputError` where --attention names no mechanism that `fits` such tokens (as in the
    core's table).

    why: what is said of a mechanism that does not fit; none: "none" is a choice, too, and aliases
    are not listed."""
    if none and name == "none":
        return
    from ....models.attention import ALIASES, ATTENTION

    fitting = [one for one, row in ATTENTION.items() if row.fits in fits]
    if ALIASES.get(name, name) in fitting:
        return
    listed = ("none", *fitting) if none else (*fitting, *ALIASES)
    said = why if name in ATTENTION else "unknown"
    raise InputError(f"--attention {name}: {said}; there are {', '.join(listed)}")
