"""docs/how-to/add-a-mechanism.md: its blocks pass the contract and run without a change."""

import inspect
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from headwise.models import attention
from headwise.models.attention import Mechanism

spec = spec_from_file_location("contract", Path(__file__).with_name("test_contract.py"))
assert spec is not None
assert spec.loader is not None
test_contract = module_from_spec(spec)
spec.loader.exec_module(test_contract)
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-mechanism.md"
FILE, ROW, CALL, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_file_and_the_row_pass_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("headwise.models.attention.averaging")
    module.__package__ = "headwise.models.attention"
    exec(compile(FILE, "averaging.py", "exec"), module.__dict__)
    module.Averaging.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = eval("{" + ROW + "}", {"Mechanism": Mechanism})
    monkeypatch.setitem(attention.ATTENTION, "averaging", row["averaging"])
    for options in ({}, *module.Averaging.variants):
        test_contract.test_any_number_of_tokens("averaging", options, 31)
        for name, check in list(vars(test_contract).items()):
            # The page's mechanism has no dropout, and any number of tokens is tried above.
            if not name.startswith("test_") or name == "test_dropout_is_off_in_evaluation":
                continue
            match list(inspect.signature(check).parameters):
                case ["name", "options"]:
                    check("averaging", options)
                case ["name", "options", "training"]:
                    check("averaging", options, training=False)
                    check("averaging", options, training=True)
    test_contract.test_every_row_is_complete()


def test_the_command_line_accepts_a_registered_mechanism(tmp_path: Path) -> None:
    outside = FILE.replace("from .base", "from headwise.models.attention.base")
    (tmp_path / "averaging.py").write_text(outside + CALL)
    (tmp_path / "run.py").write_text(SCRIPT)
    paths = [str(tmp_path), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "run.py"), *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    listed = run("list", "attention")
    assert re.search(r"^averaging +any tokens +O\(N D\^2\) +none +folklore$", listed.stdout, re.M)
    # The mechanism is accepted: the line is about the next option.
    refused = run("forecast", "train", "--attention", "averaging", "--data", "none.csv")
    assert refused.returncode == 2
    assert "none.csv" in refused.stderr, refused.stderr
