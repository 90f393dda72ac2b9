"""Checks of option values that several tasks make. Nothing here imports torch."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import Field, fields

from ....base.errors import InputError, closest


def flag(name: str) -> str:
    """The option of a field: "--batch-size" of batch_size."""
    return "--" + name.replace("_", "-")


def check_shares(options: object, names: Collection[str]) -> None:
    """Raise `InputError` for the first of these options that is not in [0, 1); those that are not
    there are left alone.
    """
    for name in names:
        value = getattr(options, name, 0)
        if not 0 <= value < 1:
            raise InputError(f"{flag(name)} {value}: must be in [0, 1)")


def check_least(options: object, bounds: Mapping[str, int]) -> None:
    """Raise `InputError` for the first option below its bound; options that are None or not there
    are left alone.
    """
    for name, bound in bounds.items():
        value = getattr(options, name, None)
        if value is not None and value < bound:
            raise InputError(f"{flag(name)} {value}: must be at least {bound}")


_of_a_run: ContextVar[bool] = ContextVar("of_a_run", default=False)
_of_a_preset: ContextVar[Mapping[str, object] | None] = ContextVar("of_a_preset", default=None)


@contextmanager
def options_of_a_run() -> Iterator[None]:
    """Options checked within are those of a run that exists: versions before this one took options
    that the model does not read, and their runs must still open.
    """
    token = _of_a_run.set(True)
    try:
        yield
    finally:
        _of_a_run.reset(token)


def is_of_a_run() -> bool:
    """Whether the options that are checked are those of a run that exists."""
    return _of_a_run.get()


@contextmanager
def options_of_a_preset(values: Mapping[str, object]) -> Iterator[None]:
    """Options checked within may have these values, which their preset gives: nobody asked for one
    of them by its name, so that nothing has to read it.
    """
    token = _of_a_preset.set(values)
    try:
        yield
    finally:
        _of_a_preset.reset(token)


def changed_options(options: object) -> list[str]:
    """Names of the options that have neither their default nor the value of the preset."""
    preset = _of_a_preset.get() or {}
    return [
        option.name
        for option in _fields(options)
        if getattr(options, option.name) not in (option.default, _plain(preset, option))
    ]


def _fields(options: object) -> tuple[Field[object], ...]:
    return fields(options)  # pyright: ignore[reportArgumentType]


def _plain(preset: Mapping[str, object], option: Field[object]) -> object:
    value = preset.get(option.name, option.default)
    return tuple(value) if isinstance(value, list) else value


def refuse_unread(
    options: object, readers: Mapping[str, Collection[str]], models: Collection[str]
) -> None:
    """Raise `InputError` for an option with another value than its default that none of the chosen
    models reads.

    readers: by option, the models that read it; options that all models read are not in it.
    """
    if _of_a_run.get():
        return
    for name in changed_options(options):
        reading = readers.get(name)
        if reading is None or any(model in reading for model in models):
            continue
        chosen = f"--model {' or '.join(models)}"
        raise InputError(
            f"{_switch(options, name)}: is not read by {chosen}, but by {', '.join(reading)}"
        )


def check_unread(options: object, names: Collection[str], reader: str) -> None:
    """Raise `InputError` for the first of these options that was changed: nothing would read it.

    reader: what does read it, in words that follow "is read by".
    """
    if _of_a_run.get():
        return
    changed = changed_options(options)
    for name in names:
        if name in changed:
            raise InputError(f"{_switch(options, name)}: is read by {reader}; leave it out")


def _switch(options: object, name: str) -> str:
    """The option as it was given: "--no-pwca" of pwca where that is false."""
    return f"--no-{flag(name)[2:]}" if getattr(options, name) is False else flag(name)


def check_attention(
    name: str, *, fits: Collection[str], why: str, others: Collection[str] = ()
) -> None:
    """Raise `InputError` where --attention names no mechanism that `fits` such tokens (as in the
    core's table).

    why: what the message says about a mechanism that does not fit; others: choices besides
    mechanisms, such as "none"; with them aliases are not listed.
    """
    if name in others:
        return
    from ....models.attention import ALIASES

    fitting = fitting_mechanisms(fits)
    listed = (*others, *fitting) if others else (*fitting, *ALIASES)
    check_mechanism("--attention", name, fitting, why=why, listed=listed)


def fitting_mechanisms(fits: Collection[str]) -> list[str]:
    """The mechanisms of the core's table that fit such tokens."""
    from ....models.attention import ATTENTION

    return [mechanism for mechanism, row in ATTENTION.items() if row.fits in fits]


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
