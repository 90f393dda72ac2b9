"""Names of groups as people write them."""

import pytest

from headwise.base.account import opened
from headwise.data.groups import read_groups


@pytest.mark.parametrize(
    ("first", "second"), [("1", "1.0"), ("p", " p "), ("Zo\u00eb", "Zoe\u0308"), ("2.0", "2")]
)
def test_two_ways_to_write_one_name_are_one_group(first: str, second: str) -> None:
    with opened() as account:
        names = read_groups("patient", [first, second, first])
    assert len(set(names)) == 1
    assert bool(account.lines()) == (first != second.strip())


@pytest.mark.parametrize(
    ("first", "second"),
    [("p1", "P1"), ("P-0", "P0"), ("01", "1"), ("p 1", "p  1"), ("p_1", "p1"), ("a", "a\u200b")],
)
def test_names_that_look_alike_are_said_and_stay(first: str, second: str) -> None:
    with opened() as account:
        assert read_groups("patient", [first, second, "q"]) == [first, second, "q"]
    assert account.lines()[0].startswith("groups: 1 patients whose names look alike, taken as diff")


def test_other_names_are_not_said_to_look_alike() -> None:
    names = ["1-12", "11-2", "-1", "1", "a1b", "ab1", "2020-01-02", "2020-10-2"]
    with opened() as account:
        assert read_groups("patient", names) == names
    assert not account.lines()


def test_words_in_place_of_a_name_name_nobody() -> None:
    with opened() as account:
        assert read_groups("speaker", ["anna", "Unknown", "-", None, "n/a"]) == ["anna", *4 * [""]]
    line = "groups: 2 words in place of a speaker name nobody, so each such item counts as its own"
    assert account.lines() == [f"{line} ('Unknown', '-')"]
