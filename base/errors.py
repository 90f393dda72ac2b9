"""One-line messages for input that cannot be used.

`InputError` means that the input is at fault, not the program. The other functions word its line.
"""

import unicodedata
from collections.abc import Iterable

# Controls, formats (such as those that turn the direction), halves of pairs, ends of lines.
_CONTROLLING = ("Cc", "Cf", "Cs", "Zl", "Zp")


class InputError(ValueError):
    """An input (a file, a column, an option) cannot be used.

    The message is one line: what is wrong, where, and what to do. The command line prints it
    without a traceback and exits with code 2.
    """


def fail(where: object, what: str) -> InputError:
    """An `InputError` "where: what" on one line, whatever characters the file put into it."""
    return InputError(one_line(f"{where}: {what}"))


def one_line(text: object) -> str:
    """A text, or the message of an exception, with single blanks for all white space."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """A text for the terminal, in which characters that would control it are written as escapes.

    Names of files and columns come from others: they may hold sequences that rename the window,
    hide a line, start a new one or turn the direction of writing.

    >>> printable("a\x1b[2Kb")
    'a\\x1b[2Kb'
    """
    if text.isprintable():
        return text
    return "".join(repr(letter)[1:-1] if _controls(letter) else letter for letter in text)


def _controls(letter: str) -> bool:
    """Whether a character does something to a terminal other than being shown."""
    return not letter.isprintable() and unicodedata.category(letter) in _CONTROLLING


def reason(error: BaseException, limit: int = 160) -> str:
    """Why something failed, on one line of at most `limit` characters.

    The system's own words for an `OSError` (without the path, which the caller names); else the
    first paragraph of the message, or the name of the exception where it says nothing.
    """
    message = str(getattr(error, "strerror", None) or error).strip()
    text = one_line(message.split("\n\n")[0]) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(value: object) -> str:
    """A cell or name from a file, quoted and short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def closest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar of `names`, or None where none is similar enough.

    Names are compared as they are, then without regard to case. cutoff: from 0, which accepts any
    name, to 1, which accepts only equal ones.
    """
    import difflib  # only after a mistake: it takes a millisecond

    candidates = list(names)
    for fold in (str, str.lower):
        by_folded = {fold(candidate): candidate for candidate in reversed(candidates)}
        if close := difflib.get_close_matches(fold(name), by_folded, 1, cutoff):
            return by_folded[close[0]]
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """The hint "; did you mean 'x'?" for the closest of `names`, else all of them (up to forty)."""
    names = list(names)
    close = closest(name, names)
    if close is not None:
        return f"; did you mean {shown(close)}?"
    more = f", ... ({len(names)} in all)" if len(names) > 40 else ""
    listed = ", ".join(map(shown, names[:40])) + more
    return f"; it has {listed}" if names else ""
