"""`headwise TASK VERB [config.yaml] [--options]`.

Tasks are light cards, and torch is imported only after all options have been understood, so help
and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....base.errors import InputError, one_line, printable
from ... import TASKS, load_task, summary_of
from ..task import Task
from .parsing import HELP, nearest_hint, options_class, parse, presets
from .python_api import comparison_verb, exit_code, python_verb, run_verb

__all__ = [
    "comparison_verb",
    "exit_code",
    "main",
    "options_class",
    "parse",
    "presets",
    "python_verb",
    "run_verb",
]

COMMON = {
    "train": "train, score on the test part, write predictions and a report",
    "evaluate": "score a trained run, on its test part or on other data",
    "predict": "predict for a file or folder: parquet out, resumable",
    "export": "write the model as one torch.export program (.pt2) or ONNX graph (.onnx)",
    "tune": "search for better options by their validation score (extra `tune`)",
    "compare": "settings with several seeds beside simpler models: paired differences, a picture",
}


PLAIN = {
    "list": "list attention|ffn|moe|kernels: what the core holds; --where: in which task",
    "data": "data list, data get NAME: public data sets; corpora of texts have options (--help)",
    "doctor": "what this machine has, what is missing and what installs it",
    "serve": "serve --run R: answer requests over HTTP with predictions",
    "completion": "completion bash|zsh|fish: a script that completes words in your shell",
    "new-task": "new-task NAME: the skeleton of a task, in a source checkout",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit code 0: done; 2: one line says what is wrong; 3: done, but some items
    failed.
    """
    # Large tensors come and go with every step, and each has to be mapped anew: in huge pages a
    # convolution of 256 x 256 pixels takes a quarter of the time. torch reads this once, later.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_run(words))
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:  # `headwise … | head`
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:  # before or after the training itself, which saves and stops
        sys.exit(130)
    except BaseException as error:
        if type(error).__name__ == "Stopped":
            sys.exit(128 + error.number)  # pyright: ignore[reportAttributeAccessIssue]
        raise


def _fail(message: str) -> None:
    print("headwise: " + printable(one_line(message)), file=sys.stderr)
    sys.exit(2)


def _run(words: list[str]) -> int:
    if not words or words[0] in (*HELP, "help"):
        print(_usage())
        return 0
    if words[0] in ("-V", "--version"):
        from .... import __version__

        print(f"headwise {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name in PLAIN:
        from . import listings

        return listings.run(name, rest)
    if rest and name not in TASKS and rest[0] in TASKS and name in _verbs(rest[0]):
        raise InputError(f"no task {name!r}; did you mean `headwise {rest[0]} {name}`?")
    task = load_task(_known(name, [*TASKS, *PLAIN], "task"))
    verbs = {**COMMON, **{verb: entry.summary for verb, entry in task.verbs.items()}}
    if not rest or rest[0] in HELP:
        print(_task_usage(task, verbs))
        return 0
    if group := _group_asked_for(rest, verbs):
        print(_task_usage(task, {verb: verbs[verb] for verb in group}, presets_too=False))
        return 0
    verb, rest = _split_verb(name, rest, list(verbs))
    config = None
    if rest and not rest[0].startswith("-"):
        config, rest = Path(rest[0]), rest[1:]
    options = parse(task, verb, rest, config=config)
    return exit_code(run_verb(task, verb, options))


def _verbs(task: str) -> list[str]:
    """The verbs of a task, and the first words of those of several."""
    verbs = [*COMMON, *load_task(task).verbs]
    return [*verbs, *(verb.split()[0] for verb in verbs)]


def _group_asked_for(words: Sequence[str], verbs: Mapping[str, str]) -> list[str]:
    """The verbs of several words that begin with the first of these words, where nothing but a
    question for help follows it; else none.
    """
    if words[0] in verbs or (words[1:] and words[1] not in HELP):
        return []
    return [verb for verb in verbs if verb.startswith(f"{words[0]} ")]


def _split_verb(task: str, words: list[str], verbs: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that words begin with, and the words after it; of several the longest.

    Raises `InputError` with the nearest verb where there is none.
    """
    for count in sorted({len(verb.split()) for verb in verbs}, reverse=True):
        verb = " ".join(words[:count])
        if verb in verbs:
            return verb, words[count:]
    group = [verb for verb in verbs if verb.startswith(f"{words[0]} ")]
    if group:
        _known(words[1], [verb.split(" ", 1)[1] for verb in group], f"verb of {task} {words[0]}")
    firsts = list(dict.fromkeys(verb.split()[0] for verb in verbs))
    _known(words[0], firsts, f"verb of {task}")
    raise AssertionError("unreachable: the first word is a verb, or no verb begins with it")


def _known(word: str, among: Sequence[str], what: str) -> str:
    if word in among:
        return word
    raise InputError(f"no {what} {word!r}{nearest_hint(word, among)}")


def _usage() -> str:
    rows = [f"  {name:<14}{summary_of(name)}" for name in TASKS]
    plain = [f"  {name:<14}{summary}" for name, summary in PLAIN.items()]
    return "\n".join(
        [
            "usage: headwise TASK VERB [config.yaml] [--options]",
            "",
            "tasks:",
            *rows,
            "",
            f"verbs: {', '.join(COMMON)} (`headwise TASK` lists all of a task)",
            "",
            "more:",
            *plain,
            "",
            "exit codes: 0 done; 2 a line says what is wrong; 3 done, but some items failed and "
            "are listed",
        ]
    )


def _task_usage(task: Task, verbs: Mapping[str, str], *, presets_too: bool = True) -> str:
    width = max(14, *(len(verb) + 2 for verb in verbs))
    rows = [f"  {verb:<{width}}{summary}" for verb, summary in verbs.items()]
    lines = [f"headwise {task.name}: {task.summary}", "", "verbs (each with --help):", *rows]
    if names := list(presets(task)) if presets_too else []:
        lines += ["", f"presets of train: {', '.join(names)}"]
    return "\n".join(lines)
