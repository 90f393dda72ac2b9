"""Options of the mechanism that `--attention` names. torch is imported only where there are any."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast, get_type_hints

from ...base.errors import InputError, closest
from .command_line.checks import check_attention
from .command_line.option_help import kind_of
from .options import MixingOptions
from .search_space import kinds_of, value_of, written

# What the place of a mechanism in a model decides.
DECIDED = frozenset({"width", "heads", "causal", "sequence", "inner"})


def options_of_mechanism(name: str) -> dict[str, tuple[object, object]]:
    """The type and the default of each option of a mechanism that `--attention-options` takes.
    Raises InputError for an unknown name.
    """
    from ...models.attention import ALIASES, ATTENTION, attention_class

    cls = attention_class(name)
    hints = get_type_hints(cls.__init__)
    of_row = ATTENTION[ALIASES.get(name, name)].options
    parameters = inspect.signature(cast("Callable[..., object]", cls)).parameters
    return {
        option: (hints.get(option, str), of_row.get(option, parameter.default))
        for option, parameter in parameters.items()
        if option not in DECIDED
    }


def parse_mechanism_options(
    name: str, words: Sequence[str], elsewhere: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Options of a mechanism from words such as "active=2" and "router=query-norm".

    elsewhere: options of the mechanism that the task sets by an option of its own, and that one.
    Raises InputError, on one line, for a word that is none, an unknown name (the message has the
    nearest) and a value of another type.
    """
    if not words:
        return {}
    known, options = options_of_mechanism(name), dict[str, object]()
    for word in words:
        where = f"--attention-options {word}"
        option, mark, text = (part.strip() for part in word.partition("="))
        option = option.replace("-", "_")
        if not mark or not text:
            raise InputError(f"{where}: should be name=value")
        if elsewhere and option in elsewhere:
            raise InputError(f"{where}: is set by {elsewhere[option]}")
        if option in DECIDED:
            raise InputError(f"{where}: {option} follows from the model; leave it out")
        if option not in known:
            near = closest(option, known, 0.5)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(known) or 'none'}"
            raise InputError(f"{where}: {name} has no option {option!r}; {hint}")
        if option in options:
            raise InputError(f"--attention-options: {option} is there twice; leave one of them out")
        options[option] = value_of(text, kinds_of(known[option][0]), where)
    return options


def check_mixing(
    options: MixingOptions,
    *,
    fits: Collection[str],
    why: str,
    others: Collection[str] = (),
    elsewhere: Mapping[str, str] | None = None,
) -> None:
    """Raise `InputError` for a mechanism that does not fit the tokens of a task, as
    `check_attention` does, and for options that it does not have.

    others: what `--attention` may be besides mechanisms, which has no options; elsewhere: of
    `parse_mechanism_options`.
    """
    check_attention(options.attention, fits=fits, why=why, others=others)
    if options.attention in others and options.attention_options:
        raise InputError(
            f"--attention-options: are read by a mechanism of `headwise list attention`, not by "
            f"--attention {options.attention}; leave them out"
        )
    parse_mechanism_options(options.attention, options.attention_options, elsewhere)


def mechanism_options(options: MixingOptions) -> dict[str, object]:
    """The options of the mechanism that these options of a training give."""
    return parse_mechanism_options(options.attention, options.attention_options)


def option_lines(name: str) -> list[str]:
    """What `headwise list attention NAME` prints: what the mechanism is, and its options."""
    from ...models.attention import ALIASES, ATTENTION, attention_class

    summary = " ".join((attention_class(name).__doc__ or "").split("\n\n")[0].split())
    row, options = ATTENTION[ALIASES.get(name, name)], options_of_mechanism(name)
    lines = [f"{name}: {summary}", f"fits {row.fits}; cost {row.cost}; {row.paper}", ""]
    if not options:
        return [*lines, "no options of --attention-options"]
    heads = {option: f"{option}={kind_of(hint)}" for option, (hint, _) in options.items()}
    width = max(map(len, heads.values()))
    shown = (
        f"  {heads[option]:<{width}}  (default: {written(default)})"
        for option, (_, default) in options.items()
    )
    return [*lines, "options of --attention-options:", *shown]
