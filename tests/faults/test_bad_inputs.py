"""Bad inputs through the whole command line: one line that says what, where and what to do; exit code 2.

Each case runs in a folder of its own. Nothing is left there that the case did not bring, and no case may make the
folder `unpickled`, which is what the pickles and YAML tags among them would do if anything executed them.
"""

import re
from pathlib import Path

import pytest

from headwise.tests.faults.bad_data import DATA, write
from headwise.tests.faults.bad_options import OPTIONS, YAML

SMALL = "--horizon 4 --lookback 8 --width 8 --core 4 --feedforward 8 --layers 1 --max-steps 2 --epochs 1"


@pytest.fixture
def refused(headwise, tmp_path, monkeypatch):
    """Run a command in `tmp_path` and check what every refusal must be; returns the message."""
    monkeypatch.chdir(tmp_path)

    def check(command: str, words: str, code: int = 2) -> str:
        before = everything(tmp_path)
        found, lines = headwise(*command.split())
        said = "\n".join(lines)
        assert found == code, said
        assert "Traceback" not in said
        assert not (tmp_path / "unpickled").exists()
        if code == 2:
            assert len(lines) == 1, said
            assert lines[0].startswith("headwise: ")
            assert everything(tmp_path) == before, "something was left behind"
        message = lines[-1].removeprefix("headwise: ").strip()
        assert len(message) < 400
        assert re.search(words, message), message
        typed = [word.split("=")[0] for word in command.split() if len(word) > 2]
        assert any(word in message for word in typed) or re.search("--[a-z]", message), f"names nothing: {message}"
        print("SAID", message)
        return message

    return check


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name not in (".lock", "__pycache__")}


@pytest.mark.parametrize("case", DATA)
def test_data_is_refused(case, refused, tmp_path, monkeypatch):
    file, content, options, words = DATA[case]
    for module in ("tables", "cells"):
        monkeypatch.setattr(f"headwise.data.{module}.UNPACKED_CAP", 2 << 20)
    write(tmp_path / file, content)
    refused(f"forecast train --data {file} --run run {SMALL} {options}", words)


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_refused(case, refused):
    refused(*OPTIONS[case])


@pytest.mark.parametrize("case", YAML)
def test_yaml_is_refused(case, refused, tmp_path):
    content, words = YAML[case]
    write(tmp_path / "c.yaml", content)
    refused("forecast train c.yaml --run run", words)


def test_what_only_looks_bad_is_taken(tmp_path):
    from headwise.pipelines import load_task
    from headwise.pipelines.engine.command_line import parse

    (tmp_path / "c.yaml").write_text("lr: 1e-3\nclip: null\nbatch: {size: 4}\n")
    options = parse(load_task("forecast"), "train", [], config=tmp_path / "c.yaml")
    assert (options.lr, options.clip, options.batch_size) == (1e-3, None, 4)
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert parse(load_task("forecast"), "train", [], config=tmp_path / "c.yaml").epochs == 20
