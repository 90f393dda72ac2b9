"""The account: statements by topic, counted once, and doubts that are errors unless accepted."""

import pytest

from headwise.base.account import Account, accepts, doubt, note, opened
from headwise.base.errors import InputError


def test_statements_are_joined_by_topic_and_counted_once() -> None:
    with opened() as account:
        note("left out", "files of other kinds", ["a.txt", "b.txt"])
        note("read", "pictures", count=3)
        note("left out", "files of other kinds", ["b.txt", "c.txt", "d.txt"])
        note("read", "pictures", count=2)
    assert account.lines() == [
        "read: 3 pictures",
        "left out: 4 files of other kinds (a.txt, b.txt, c.txt, …)",
    ]
    assert account.to_json()[1]["names"] == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert account.lines(account.entries()[:1]) == account.lines()[1:]


def test_a_doubt_is_an_error_unless_it_is_accepted() -> None:
    with pytest.raises(InputError, match=r"a\.csv: x is listed twice; --accept copies goes on"):
        doubt("copies", "a.csv", "x is listed twice")
    with opened(["copies"]) as account:
        doubt("copies", "a.csv", "x is listed twice")
        assert accepts("copies")
        with pytest.raises(InputError, match="two-labels"):
            doubt("two-labels", "a.csv", "x is a and b")
    assert account.lines() == ["accepted: a.csv: x is listed twice"]
    assert not accepts("copies")


def test_without_an_account_nothing_is_noted_and_an_unknown_doubt_is_refused() -> None:
    note("read", "pictures", count=3)
    with pytest.raises(InputError, match="--accept all: there are copies"):
        Account(["all"])


def test_accounts_do_not_mix() -> None:
    with opened() as outer:
        note("read", "runs", count=1)
        with opened() as inner:
            note("read", "pictures", count=2)
        note("read", "tables", count=1)
    assert outer.lines() == ["read: 1 runs; 1 tables"]
    assert inner.lines() == ["read: 2 pictures"]
