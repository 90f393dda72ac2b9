"""Texts that are on every machine: the prose of Python's own documentation, read from the
interpreter that runs.

It is under the licence of Python (PSF-2.0), and differs a little between its releases.
"""

from __future__ import annotations

import ast
import platform
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ...base.account import note
from ...base.errors import InputError

LICENCE = "PSF-2.0"
_TOPICS = "pydoc_data.topics"  # the reference of the language as a table of texts
# Modules of the standard library with much prose in their docstrings. They are not imported.
_MODULES = (
    "argparse", "asyncio.tasks", "collections", "configparser", "contextlib", "csv", "datetime",
    "difflib", "doctest", "email.header", "email.message", "email.policy", "fractions",
    "functools", "heapq", "http.cookiejar", "imaplib", "inspect", "ipaddress", "locale",
    "logging", "mailbox", "optparse", "os", "pathlib", "pickletools", "random", "shutil",
    "smtplib", "socket", "sqlite3.dbapi2", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "trace", "turtle", "typing", "unittest.case",
    "unittest.mock", "urllib.request", "uuid", "xml.dom.minidom", "zipfile",
)  # fmt: skip
_SHORTEST = 400  # characters of a text
_SHORTEST_PARAGRAPH, _LETTERS = 60, 0.9  # and the share of letters and blanks in one
_MARKS = re.compile(r"``?|\*\*?(?=\S)|(?<=\S)\*\*?|:(?:\w+:)+(?=`)")
SOURCE_CAP = 1 << 24  # bytes of a module


def builtin_texts() -> list[str]:
    """Texts of a few hundred to a few ten thousand characters, English, without code and tables;
    the account says what they are. Always in the same order under the same Python.

    Raises InputError where the interpreter came without its documentation.
    """
    texts = _texts()
    if not texts:
        raise InputError("this Python came without its documentation; name texts of your own")
    size = sum(map(len, texts))
    note(
        "assumed",
        f"no texts were named: {len(texts)} texts ({size:,} characters) of the documentation of "
        f"Python {platform.python_version()}, licence {LICENCE}",
    )
    return list(texts)


@cache
def _texts() -> tuple[str, ...]:
    texts = [prose_of(text) for text in (*_topics(), *map(_docstrings, _MODULES))]
    return tuple(dict.fromkeys(text for text in texts if len(text) >= _SHORTEST))


def prose_of(text: str) -> str:
    """The paragraphs of a text that are sentences, each on one line; without marks of reST.

    >>> prose_of("Title\\n=====\\n\\nIt ``returns`` the sum of all values in a list or a tuple.")
    'It returns the sum of all values in a list or a tuple.'
    """
    text = re.sub(r"(?<=\w)-\n[ \t]*(?=\w)", "-", text)  # a word that its line cut at a hyphen
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(_MARKS.sub("", part) for part in paragraphs if _is_prose(part))


def _is_prose(paragraph: str) -> bool:
    if len(paragraph) < _SHORTEST_PARAGRAPH or not paragraph.endswith((".", ":", "?", "!")):
        return False
    plain = sum(letter.isalpha() or letter in " ,.;:'`" for letter in paragraph)
    return plain >= _LETTERS * len(paragraph) and paragraph[0].isalpha() and paragraph[0].isupper()


def _topics() -> list[str]:
    """The texts of the reference of the language, by their names; none where it is missing."""
    tree = _source(_TOPICS)
    if tree is None:
        return []
    for statement in tree.body:
        targets = (
            statement.targets if isinstance(statement, ast.Assign) else
            [statement.target] if isinstance(statement, ast.AnnAssign) else []
        )  # fmt: skip
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        value = getattr(statement, "value", None)
        if named == ["topics"] and value is not None:
            table: dict[str, str] = ast.literal_eval(value)
            return [table[name] for name in sorted(table)]
    return []


def _docstrings(module: str) -> str:
    """All docstrings of a module in their order; "" where it is missing."""
    tree = _source(module)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (
        [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, documented)]
    )
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def _source(module: str) -> ast.Module | None:
    """A module of Python's own, parsed and not run; None where there is no source of it."""
    try:
        spec = find_spec(module)  # of "a.b" it imports a
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return None
        path = Path(spec.origin)
        if path.stat().st_size > SOURCE_CAP:
            return None
        return ast.parse(path.read_text(encoding="utf-8"))
    except (ImportError, OSError, ValueError, SyntaxError):
        return None
