"""Completion in shells: the script for bash is evaluated by bash."""

import shutil
import subprocess

import pytest

from headwise.pipelines.engine.command_line import completion


def complete(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    code = (
        f'{completion.bash()}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _headwise\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", code, "bash", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not answer.stderr
    return answer.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("fore",), ["forecast"]),
        (("comp",), ["completion"]),
        (("forecast", "tr"), ["train"]),
        (("forecast", "back"), ["backtest"]),
        (("forecast", "train", "--lookb"), ["--lookback"]),
        (("forecast", "train", "--no-mark"), ["--no-marks"]),
        (("forecast", "train", "--accelerator", "c"), ["cpu", "cuda"]),
        (("forecast", "train", "--split", ""), ["ratio", "ett", "pems"]),
        (("forecast", "train", "--data", "x"), []),
        (("completion", "z"), ["zsh"]),
        (("serve", "--ho"), ["--host"]),
        (("text", "top"), ["topics"]),
        (("text", "topics", ""), ["fit", "evaluate", "tasks", "agreement"]),
        (("text", "topics", "fit", "--leas"), ["--least-texts"]),
        (("text", "topics", "fit", "--method", ""), ["nmf", "kmeans"]),
        (("text", "topics", "agreement", "--merge"), ["--merge-sizes"]),
        (("text", "evaluate", "--run"), ["--run"]),
    ],
)
def test_bash_completes_words(words, expected) -> None:
    assert complete("headwise", *words) == expected


def test_zsh_and_fish_have_the_same_words() -> None:
    assert completion.bash().split("\n", 1)[1] in completion.zsh()
    assert "-l lookback" in completion.fish()
    least = next(line for line in completion.fish().splitlines() if "-l least-texts" in line)
    for word in ("text", "topics", "fit"):
        assert f"__fish_seen_subcommand_from {word};" in least
    runs = [line for line in completion.fish().splitlines() if line.endswith("-l run")]
    assert any("not __fish_seen_subcommand_from topics" in line for line in runs)
    for name, shell in completion.SHELLS.items():
        if shutil.which(name):
            command = [name, "-n"] if name != "fish" else [name, "--no-execute"]
            subprocess.run(command, input=shell(), text=True, check=True)


@pytest.mark.parametrize("words", [(), ("tcsh",), ("bash", "zsh")])
def test_another_shell_is_refused_with_those_that_are_known(words, headwise) -> None:
    assert headwise("completion", *words) == (
        2,
        ["headwise: completion: say which shell: bash, zsh, fish"],
    )
