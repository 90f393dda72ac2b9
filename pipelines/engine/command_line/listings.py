"""The plain words of the command line: list, data, doctor, serve, completion, new-task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....base.errors import InputError
from .corpus_options import parse_corpus_options
from .parsing import HELP, nearest_hint, parse_plain
from .where import NETWORKS, columns, where_lines

USAGE = {
    "list": """usage: headwise list attention|ffn|moe|kernels

Print what the core holds, one line each.

  list attention NAME      options of a mechanism
  list attention --where   which mechanism fits which model of each task
  list ffn --where         the same for feed-forward networks""",
    "data": """usage: headwise data list
       headwise data get NAME

Print the public data sets and pretrained weights, or fetch one into the cache, check it, and print
its path. `data get NAME --help` says more about one of them.""",
    "doctor": """usage: headwise doctor

Print the versions of what Headwise uses, the devices and kernels of this machine, and which extras
are missing and what installs them.""",
    "completion": """usage: headwise completion bash|zsh|fish

Print a script that completes words of the command line, such as
`headwise completion bash > ~/.local/share/bash-completion/completions/headwise`.""",
    "new-task": """usage: headwise new-task NAME

Write the files of a new task, in a source checkout, and print their paths.""",
}


def run(word: str, rest: Sequence[str]) -> int:
    """Carry out a word."""
    if word == "serve":
        return _serve(rest)
    if any(argument in HELP for argument in rest[:2]):
        print("\n".join([USAGE[word], *(_data_set_names() if word == "data" else [])]))
        return 0
    if word == "doctor":
        from .machine import doctor

        if rest:
            raise InputError(f"doctor: has no option {rest[0]}")
        print("\n".join(doctor()))
        return 0
    if word == "completion":
        return _completion(rest)
    if word == "list":
        return _list(rest)
    if word == "new-task":
        return _new_task(rest)
    return _data(rest)


def _list(rest: Sequence[str]) -> int:
    from ....kernels import KERNELS
    from ....models.attention import ATTENTION
    from ....models.moe import MOE

    rows = [(name, row.fits, row.cost, row.kernel, row.paper) for name, row in ATTENTION.items()]
    tables = {
        "attention": [("name", "fits", "cost", "kernel", "paper"), *rows],
        "ffn": [("name", "what"), *NETWORKS.items()],
        "moe": [("name", "what"), *((name, row.summary) for name, row in MOE.items())],
        "kernels": [(name, kernel.summary) for name, kernel in KERNELS.items()],
    }
    if not rest:
        raise InputError(f"list: say which of {', '.join(tables)}")
    table, further = rest[0], list(rest[1:])
    if table not in tables:
        raise InputError(f"list {table}: unknown{nearest_hint(table, list(tables))}")
    lines = _list_further(table, further) if further else columns(tables[table])
    print("\n".join(lines) or "none yet")
    return 0


def _list_further(table: str, further: Sequence[str]) -> list[str]:
    """What `list TABLE WORD` prints."""
    if further == ["--where"] and table in ("attention", "ffn"):
        return where_lines(table)
    if table == "attention" and len(further) == 1 and not further[0].startswith("-"):
        from ..mechanisms import option_lines

        return option_lines(further[0])
    word = " ".join(further)
    raise InputError(
        f"list {table} {word}: unknown; there are `list attention NAME`, `list attention --where` "
        "and `list ffn --where`"
    )


def _serve(rest: Sequence[str]) -> int:
    from ..serving.options import ServeOptions, check

    options = parse_plain(ServeOptions, "serve", rest)
    check(options)
    from ..serving.server import serve

    serve(options)
    return 0


def _completion(rest: Sequence[str]) -> int:
    from .completion import SHELLS

    if len(rest) != 1 or rest[0] not in SHELLS:
        raise InputError(f"completion: say which shell: {', '.join(SHELLS)}")
    print(SHELLS[rest[0]]())
    return 0


def _new_task(rest: Sequence[str]) -> int:
    from ..new_task import new_task

    if len(rest) != 1:
        raise InputError("new-task: say the name of the task, such as `new-task grading`")
    root = Path(__file__).resolve().parents[3]
    for path in new_task(rest[0], root):
        print(path.relative_to(root))
    print(f"next: make {rest[0]}; pytest tests/contract tests/pipelines/{rest[0]} -k {rest[0]}")
    return 0


def _data_set_names() -> list[str]:
    """Lines with the names that `data get` takes, by task."""
    from ....data import catalogue

    names: dict[str, list[str]] = {}
    for entry in (*catalogue.DATASETS, *catalogue.CORPORA):
        names.setdefault(entry.task, []).append(entry.name)
    return ["", *(f"  {task:<12}{', '.join(entries)}" for task, entries in names.items())]


def _data(rest: Sequence[str]) -> int:
    if list(rest) != ["list"] and not (len(rest) >= 2 and rest[0] == "get"):
        raise InputError("data: say `list`, or `get NAME`")
    from ....data import catalogue

    if rest[0] == "list":
        for entry in (*catalogue.DATASETS, *catalogue.CORPORA):
            print(f"{entry.name:<20}{entry.task:<10}{entry.what}")
            print(f"{'':<30}licence: {entry.licence}; checked by: {entry.checked_by}")
        return 0
    from .terminal import say

    entry = catalogue.find_dataset(rest[1])
    if rest[2:] and rest[2] in HELP and not isinstance(entry, catalogue.Corpus):
        option = "option: --accept-terms, once you have read them" if entry.terms else "no options"
        print(f"usage: headwise data get {entry.name}\n\n{entry.what}; from {entry.url}")
        print(f"licence: {entry.licence}; cite: {entry.citation}\n{option}")
        return 0
    accepted = bool(entry.terms) and list(rest[2:]) == ["--accept-terms"]
    if accepted:
        rest = rest[:2]
    if entry.terms and rest[2:]:
        raise InputError(f"data get {entry.name}: has one option, --accept-terms")
    if rest[2:] and not isinstance(entry, catalogue.Corpus):
        raise InputError(f"data get {entry.name}: is fetched as it is, without options")
    asked = parse_corpus_options(entry, rest[2:])
    say(f"{entry.name}: {entry.what}; from {entry.url}")
    say(f"licence: {entry.licence}; cite: {entry.citation}")
    if isinstance(entry, catalogue.Corpus):
        from ....data.catalogue.corpora.building import get_corpus

        languages, files = asked.language_names, asked.from_files
        print(get_corpus(entry, languages=languages, files=files, say=say))
    elif entry.task == "pictures":
        from ..weights import published_file

        print(published_file(entry.name))
    elif entry.task == "language":
        from ..language_models import language_model_folder

        print(language_model_folder(entry.name, accept_terms=accepted))
    else:
        print(catalogue.get_dataset(entry))
    return 0
