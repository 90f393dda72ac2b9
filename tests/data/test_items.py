"""Missing labels, one item listed twice, exact copies."""

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.items import check_items, digest, join_copies, read_labels


@pytest.mark.parametrize(
    "word", ["", " ", "nan", "NaN", "None", "NA", "N/A", "null", "#N/A", "<NA>", "NaT", "?", None]
)
def test_a_missing_label_is_no_class(word: str | None) -> None:
    with pytest.raises(InputError, match=r"t.csv, row 2: .*no label; fill it"):
        read_labels("t.csv", ["a", word, "b"])
    with opened(["missing-labels"]) as account:
        assert read_labels("t.csv", ["a", word, "b"]) == ["a", "", "b"]
    assert "left out: 1 rows without a label (row 2)" in account.lines()


def test_numbers_are_compared_by_value() -> None:
    with opened() as account:
        assert read_labels("t.csv", ["1", "1.0", "0", "01"]) == ["1", "1", "0", "01"]
    assert "are one class" in account.lines()[0]
    assert read_labels("t.csv", ["1.0", "0.0"]) == ["1.0", "0.0"]
    assert read_labels("t.csv", ["1e400", "inf"]) == ["1e400", "inf"]


def test_classes_that_differ_by_case_only_are_named() -> None:
    with opened() as account:
        read_labels("t.csv", ["Sick", "well", "sick"])
    assert account.lines() == ["values: t.csv: the classes 'Sick' and 'sick' differ by case only"]


def test_an_item_with_two_labels_or_in_two_parts_is_refused() -> None:
    with pytest.raises(InputError, match=r"has the labels 'x' and 'y'.*--accept two-labels"):
        check_items("t.csv", "picture", ["a", "a"], ["x", "y"])
    for parts in ((), ("train", "train"), ("train", "test")):
        with pytest.raises(InputError, match=r"picture 'a' is listed more than once.*copies"):
            check_items("t.csv", "picture", ["a", "a"], ["x", "x"], parts)


def test_an_accepted_copy_is_used_once_in_each_part() -> None:
    with opened(["copies", "two-labels"]) as account:
        rows = check_items(
            "t.csv", "picture", ["a", "b", "a", "a"], list("xyxx"), ["train", "train", "train", ""]
        )
        assert rows == [0, 1, 3]
        assert check_items("t.csv", "picture", ["a", "a"], ["x", "y"]) == [0, 1]
    text = " ".join(account.lines())
    assert "1 pictures that are listed more than once (a)" in text
    assert "1 pictures with two labels (a)" in text


def test_copies_share_a_group() -> None:
    pixels = np.zeros((2, 3), np.uint8)
    digests = [digest(pixels), digest(pixels + 1), digest(pixels.copy()), digest(pixels.T)]
    assert len(set(digests)) == 3
    with opened() as account:
        groups = join_copies("t", "picture", list("abcd"), digests, [0, 1, 2, 3], list("xxxx"))
    assert groups == [0, 1, 0, 3]
    assert "1 exact copies" in account.lines()[0]
    with pytest.raises(InputError, match="exact copies with the labels 'x' and 'y'"):
        join_copies("t", "picture", list("ab"), ["1", "1"], [0, 1], ["x", "y"])
    with pytest.raises(InputError, match="exact copies in train and in test"):
        join_copies("t", "picture", list("ab"), ["1", "1"], [0, 1], ["x", "x"], ["train", "test"])


def test_classes_that_look_alike_are_named_by_what_cannot_be_seen() -> None:
    with opened() as account:
        labels = ["caf\u00e9", "Cafe\u0301", "tea", "tea\u200b", "milk"]
        assert read_labels("t.csv", labels) == labels
    lines = account.lines()[0]
    assert "'caf\\xe9' and 'Cafe\\u0301' differ in case, invisible" in lines
    assert "'tea' and 'tea\\u200b' differ" in lines
    assert "milk" not in lines


def test_letters_that_are_composed_in_two_ways_are_one_class() -> None:
    with opened() as account:
        assert read_labels("t.csv", ["cafe\u0301", "caf\u00e9"]) == ["caf\u00e9"] * 2
    assert account.lines() == ["values: t.csv: 'cafe\\u0301' and 'caf\\xe9' are one class"]
    assert read_labels("t.csv", ["cafe\u0301"]) == ["cafe\u0301"]
