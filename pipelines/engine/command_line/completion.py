"""Scripts by which shells complete the words of `headwise`: tasks, verbs, options and choices.

The words are written into the script, so that the shell does not start Python for each key.
"""

from __future__ import annotations

import dataclasses
import shlex
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Union, get_args, get_origin, get_type_hints

from ... import TASKS, load_task
from ..serving.options import ServeOptions
from . import COMMON, PLAIN
from .checks import flag
from .parsing import options_class, presets

_PLAIN_WORDS: Mapping[str, tuple[str, ...]] = {
    "list": ("attention", "ffn", "moe", "kernels", "--where"),
    "data": ("list", "get"),
    "completion": ("bash", "zsh", "fish"),
}


def _first_words() -> list[str]:
    return [*TASKS, *PLAIN]


def _second_words() -> Iterator[tuple[str, list[str]]]:
    """The words after each first word."""
    for name in TASKS:
        verbs = [*COMMON, *load_task(name).verbs]
        yield name, list(dict.fromkeys(verb.split()[0] for verb in verbs))
    for name, words in _PLAIN_WORDS.items():
        yield name, list(words)
    yield "serve", [flag(f.name) for f in dataclasses.fields(ServeOptions)]


def _third_words() -> dict[tuple[str, str], list[str]]:
    """The words after a task and the first word of verbs that have two."""
    words: dict[tuple[str, str], list[str]] = {}
    for name in TASKS:
        for verb in load_task(name).verbs:
            first, _, second = verb.partition(" ")
            if second:
                words.setdefault((name, first), []).append(second)
    return words


def _options() -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    """The options of each task and verb, with the choices of their values."""
    for name in TASKS:
        task = load_task(name)
        for verb in (*COMMON, *task.verbs):
            kind = options_class(task, verb)
            hints = get_type_hints(kind)
            options: dict[str, list[str]] = {"--help": []}
            for f in dataclasses.fields(kind):
                options[flag(f.name)] = _choices(hints[f.name])
                if hints[f.name] is bool:
                    options[f"--no-{flag(f.name)[2:]}"] = []
            if verb == "compare":  # also where the task has one of its own
                options.setdefault("--vary", [])
            if "--preset" in options:
                options["--preset"] = list(presets(task))
            yield name, verb, options


def _choices(hint: object) -> list[str]:
    """The values that a type names."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return [word for part in get_args(hint) for word in _choices(part)]
    return []


def bash() -> str:
    """The script for bash; other words are completed as names of files."""
    seconds = "\n".join(
        f"      {name}) words={shlex.quote(' '.join(words))} ;;" for name, words in _second_words()
    )
    thirds, longer = [], []
    for (task, first), words in _third_words().items():
        thirds.append(f'      "{task} {first}") words={shlex.quote(" ".join(words))} ;;')
        longer.append(f'    "{task} {first}") verb="$verb ${{COMP_WORDS[3]}}" ;;')
    values, options = [], []
    for task, verb, by_option in _options():
        options.append(f'      "{task} {verb}") words="{" ".join(by_option)}" ;;')
        values += [
            f'    "{task} {verb} {option}") words={shlex.quote(" ".join(words))} ;;'
            for option, words in by_option.items()
            if words
        ]
    return f"""# Completion of headwise for bash: source <(headwise completion bash)
_headwise() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  local verb="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{" ".join(_first_words())}"
  elif [ "$COMP_CWORD" -eq 2 ] || [ "${{COMP_WORDS[1]}}" = serve ]; then
    case "${{COMP_WORDS[1]}}" in
{seconds}
    esac
  elif [ "$COMP_CWORD" -eq 3 ] && [ "${{current#-}}" = "$current" ]; then
    case "$verb" in
{chr(10).join(thirds)}
    esac
  fi
  case "$verb" in
{chr(10).join(longer)}
  esac
  if [ "$COMP_CWORD" -gt 2 ] && [ -z "$words" ] && [ "${{COMP_WORDS[1]}}" != serve ]; then
    case "$verb $before" in
{chr(10).join(values)}
    esac
    if [ -z "$words" ] && [ "${{current#-}}" != "$current" ]; then
      case "$verb" in
{chr(10).join(options)}
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _headwise headwise"""


def zsh() -> str:
    """The script for zsh, which reads those of bash."""
    return (
        "# Completion of headwise for zsh: source <(headwise completion zsh)\n"
        "autoload -U +X compinit && compinit\n"
        "autoload -U +X bashcompinit && bashcompinit\n" + bash().split("\n", 1)[1]
    )


def fish() -> str:
    """The script for fish."""
    lines = ["# Completion of headwise for fish: headwise completion fish | source"]
    first = " ".join(_first_words())
    lines.append(f"complete -c headwise -f -n __fish_use_subcommand -a {shlex.quote(first)}")
    for name, words in _second_words():
        condition = f"__fish_seen_subcommand_from {name}; and test (count (commandline -opc)) -eq 2"
        lines.append(f"complete -c headwise -f -n '{condition}' -a {shlex.quote(' '.join(words))}")
    for (task, first), words in _third_words().items():
        seen = f"__fish_seen_subcommand_from {task}; and __fish_seen_subcommand_from {first}"
        condition = f"{seen}; and test (count (commandline -opc)) -eq 3"
        lines.append(f"complete -c headwise -f -n '{condition}' -a {shlex.quote(' '.join(words))}")
    for task, verb, by_option in _options():
        condition = "; and ".join(
            [
                *(f"__fish_seen_subcommand_from {word}" for word in (task, *verb.split())),
                *_other_fish_verbs(task, verb),
                f"test (count (commandline -opc)) -gt {1 + len(verb.split())}",
            ]
        )
        for option, words in by_option.items():
            values = f" -x -a {shlex.quote(' '.join(words))}" if words else ""
            lines.append(f"complete -c headwise -n '{condition}' -l {option[2:]}{values}")
    return "\n".join(lines)


def _other_fish_verbs(task: str, verb: str) -> list[str]:
    """Conditions that keep a verb of a single word from being taken for the last of two."""
    firsts = [
        first for (name, first), words in _third_words().items() if name == task and verb in words
    ]
    return [f"not __fish_seen_subcommand_from {first}" for first in firsts]


SHELLS: Mapping[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
