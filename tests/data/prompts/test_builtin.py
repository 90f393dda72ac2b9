"""Texts that come with Python: prose, always the same, and said in the account."""

import sys
from functools import cache

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.prompts import builtin
from headwise.data.prompts.builtin import builtin_texts, prose_of


def test_the_texts_are_prose_and_the_account_says_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("turtle", "pydoc_data.topics"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtin, "_texts", cache(builtin._texts.__wrapped__))
    with opened() as account:
        texts = builtin_texts()
    assert len(texts) >= 50
    assert sum(map(len, texts)) > 200_000
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert len(text) >= 400
        assert ">>>" not in text
        assert "\n\n\n" not in text
        assert all(len(part) >= 50 and part[0].isupper() for part in text.split("\n\n"))
    (said,) = [entry.what for entry in account.entries() if entry.topic == "assumed"]
    assert "documentation of Python 3." in said
    assert "licence PSF-2.0" in said
    assert builtin_texts() == texts
    assert not {"turtle", "pydoc_data.topics"} & set(sys.modules)  # read and not run


def test_headings_code_tables_and_marks_are_left_out() -> None:
    page = (
        'The "if" statement\n==================\n\n'
        "It is used for con-\nditional execution of **some** of the ``statements`` that follow.\n\n"
        "   >>> if x < y < z: print(x); print(y); print(z); print(x + y + z, file=out)\n\n"
        "+-------+-------+\n| Name  | What  |\n+-------+-------+\n\n"
        "short one.\n"
    )
    expected = "It is used for con-ditional execution of some of the statements that follow."
    assert prose_of(page) == expected


def test_a_python_without_its_documentation_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "_source", lambda _: None)
    monkeypatch.setattr(builtin, "_texts", builtin._texts.__wrapped__)
    with pytest.raises(InputError, match="came without its documentation; name texts of your own"):
        builtin_texts()
