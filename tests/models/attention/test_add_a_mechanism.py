"""docs/add-a-mechanism.md: its file and its line, as they stand, pass the contract."""

import re
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
PAGE = Path(__file__).parents[3] / "docs" / "add-a-mechanism.md"


def test_the_page_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    file, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = ModuleType("headwise.models.attention.averaging")
    module.__package__ = "headwise.models.attention"
    exec(compile(file, "averaging.py", "exec"), module.__dict__)
    module.Averaging.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = eval("{" + line + "}", {"Mechanism": Mechanism})
    monkeypatch.setitem(attention.ATTENTION, "averaging", row["averaging"])
    for options in ({}, *module.Averaging.variants):
        test_contract.test_any_number_of_tokens("averaging", options, 31)
        for name, check in list(vars(test_contract).items()):
            if name.startswith("test_") and name not in (
                "test_any_number_of_tokens",
                "test_every_row_is_whole",
            ):
                check("averaging", options)
    test_contract.test_every_row_is_whole()
