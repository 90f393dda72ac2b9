"""The account: statements by topic, counted once, and doubts that are errors unless accepted."""

import pytest

from headwise.base.account import Account, accepts, doubt, note, opened, part_of_account, recount
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


def test_what_lies_in_a_named_folder_is_called_as_in_there() -> None:
    with opened(homes=["/data", "/data/slides"]) as account:
        account.note("left out", "slides neither in /data/slides nor in /data/b", ["/data/a.png"])
        account.note("read", "files", ["/data/slides/b.png: cut", "/mnt/data/c.png", "/database/d"])
    assert account.lines() == [
        "read: 3 files (b.png: cut, /mnt/data/c.png, /database/d)",
        "left out: 1 slides neither in slides nor in b (a.png)",
    ]


def test_a_count_can_be_corrected() -> None:
    with opened() as account:
        note("read", "pictures", count=160)
        recount("read", "pictures", 40)
    assert account.lines() == ["read: 40 pictures"]


def test_counts_of_parts_add_up_and_their_names_are_joined() -> None:
    with opened(["links"], ["/home"]) as account:
        for count, name in ((2, "a"), (3, "b"), (1, "a")):
            with part_of_account():
                note("values", "empty texts", count=count)
                note("values", "empty texts", count=count - 1)
                note("columns", "not used", [f"/home/{name}"])
                assert accepts("links")
                assert not accepts("copies")
        note("values", "empty texts", count=4)
    assert account.lines() == ["columns: 2 not used (a, b)", "values: 6 empty texts"]


def test_what_a_part_noted_before_it_failed_is_noted() -> None:

    def fails() -> None:
        with part_of_account():
            note("read", "texts", count=2)
            doubt("copies", "t.csv", "a text is there twice")

    with opened() as account, pytest.raises(InputError):
        fails()
    assert account.lines() == ["read: 2 texts"]
    with part_of_account():
        note("read", "texts", count=2)  # without an account nothing happens
