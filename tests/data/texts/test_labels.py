"""Labels as people write them: one, several in a cell, lists, columns of 1 and 0, numbers."""

import datetime

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.labels import (
    flags_as_labels,
    label_names,
    levels_of,
    note_missing,
    read_labels,
    refuse_label_as_feature,
)

WHERE = "t.csv: column 'label'"


def read(cells, goal=None, separator=None, accept=()):
    """The labels of cells, and the lines of the account."""
    with opened(accept) as account:
        labels = read_labels(WHERE, pl.Series("label", cells), goal, separator)
    return labels, " | ".join(account.lines())


def test_one_word_a_cell_is_a_class():
    labels, said = read(["good", " bad ", "good"])
    assert (labels.goal, labels.names) == ("class", [("good",), ("bad",), ("good",)])
    assert said == ""


@pytest.mark.parametrize("mark", ["|", ";", ","])
def test_a_mark_between_labels_that_recur_is_seen_and_said(mark):
    cells = [f"a{mark}b", f"b{mark} c", f"a{mark}c", "a", "b", f"a{mark}b{mark}c"]
    labels, said = read(cells)
    assert (labels.goal, labels.separator) == ("labels", mark)
    assert labels.names[:2] == [("a", "b"), ("b", "c")]
    assert f"'{mark}' stands between the labels" in said


def test_a_class_whose_name_holds_a_comma_stays_one():
    cells = ["Sales, retail", "Support", "Sales, retail", "Parts, spare"] * 5
    labels, _ = read(cells)
    assert labels.goal == "class"
    assert labels.names[0] == ("Sales, retail",)


def test_the_goal_keeps_cells_that_look_like_several_labels():
    cells = ["a,b", "b,c", "a,c", "a", "b", "c,a"]
    labels, _ = read(cells, goal="class")
    assert labels.names[0] == ("a,b",)


def test_a_separator_cuts_only_there():
    labels, _ = read(["x, y; z", "z"], separator=";")
    assert labels.names == [("x, y", "z"), ("z",)]


@pytest.mark.parametrize(
    "cells",
    [
        ['["a", "b"]', '["b"]', "[]", ""],
        ["['a', 'b']", "['b']", "[]", "nan"],
        [["a", "b"], ["b"], [], []],
    ],
    ids=["JSON", "Python", "a column of lists"],
)
def test_lists_in_cells_are_labels(cells):
    labels, said = read(cells)
    assert labels.names == [("a", "b"), ("b",), (), ()]
    assert labels.known.all()
    assert "2 texts with an empty cell of labels" in said


def test_labels_that_a_list_names_twice_count_once_and_numbers_are_names():
    labels, _ = read(["[1, 2, 2]", '[" a ", null]'])
    assert labels.names == [("1", "2"), ("a",)]


def test_a_row_without_a_list_has_no_label_and_is_not_known():
    labels, _ = read(pl.Series([["a"], None, []], dtype=pl.List(pl.String)))
    assert labels.known.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("cells", "goal", "reason"),
    [
        (['[["a"]]', '["b"]'], None, r"\['a'\] is no label"),
        ([["a"], ["b"]], "class", "holds lists of labels, which are no class"),
        ([{"a": 1}, {"a": 2}], None, r"holds Struct.*, no labels"),
        ([b"a", b"b"], None, "holds Binary, no labels"),
        (["1", "x", "3"], "number", "row 2: 'x' is no number"),
    ],
)
def test_what_is_no_label_is_refused_with_its_place(cells, goal, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read(cells, goal=goal)
    assert str(caught.value).startswith(WHERE)


def test_a_list_too_deep_for_json_is_a_class_and_no_crash():
    labels, _ = read(["[" * 100_000 + "]" * 100_000, "b"])
    assert labels.goal == "class"


@pytest.mark.parametrize("word", ["", "nan", "None", "NA", None])
def test_a_missing_class_is_refused_or_left_out(word):
    cells = ["a", "b", word, "a"]
    with pytest.raises(InputError, match=r"row 3.*no label.*--accept missing-labels"):
        read(cells)
    labels, said = read(cells, accept=["missing-labels"])
    assert labels.known.tolist() == [True, True, False, True]
    assert "1 rows without a label (row 3)" in said


def test_missing_words_among_several_labels_are_no_labels():
    labels, said = read(["a;b", "nan", "a", "b;a", "a;b", ""], separator=";")
    assert labels.names[1] == labels.names[5] == ()
    assert "2 texts with an empty cell" in said


@pytest.mark.parametrize(
    ("cells", "goal"),
    [
        ([1, 2, 3, 1, 2, 3], "class"),
        ([k / 7 for k in range(30)], "number"),
        (list(range(50)), "number"),
        ([True, False, True], "class"),
        ([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)], "class"),
    ],
    ids=["few whole numbers", "fractions", "many whole numbers", "true and false", "dates"],
)
def test_numbers_are_classes_where_they_are_few_and_whole(cells, goal):
    labels, said = read(cells)
    assert labels.goal == goal
    assert ("whose value is predicted" in said) == (goal == "number")


def test_categories_of_pandas_are_read_as_their_words():
    labels, _ = read(pl.Series(["a", "b", "a"], dtype=pl.Categorical))
    assert labels.names == [("a",), ("b",), ("a",)]


def test_whole_numbers_are_named_without_a_point_beside_those_with_one():
    labels, said = read(["1", "1.0", "2"], goal="class")
    assert [row[0] for row in labels.names if row] == ["1", "1", "2"]
    assert "are one class" in said


def test_a_missing_number_is_not_known():
    labels, _ = read(["1.5", "", "2.5"], goal="number")
    assert labels.known.tolist() == [True, False, True]
    with pytest.raises(InputError, match=r"row 2.*has no label.*--accept missing-labels"):
        note_missing(WHERE, labels.known)
    with opened(["missing-labels"]) as account:
        note_missing(WHERE, labels.known)
    assert "1 rows without a label (row 2)" in " ".join(account.lines())


def test_columns_of_1_and_0_are_labels():
    table = pl.DataFrame({"x": ["1", "0", "true"], "y": [1.0, None, 0.0], "z": [False, True, True]})
    with opened() as account:
        labels = flags_as_labels("t.csv", table)
    assert labels.names == [("x", "y"), ("z",), ("x", "z")]
    assert "1 columns of labels with empty cells, which are taken as 0 (y)" in " ".join(
        account.lines()
    )


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["1", "2"], "column 'x', row 2: is '2', not 1 or 0"),
        ([[1], [0]], r"column 'x': holds List\(Int64\)"),
    ],
)
def test_columns_of_something_else_are_refused(cells, reason):
    with pytest.raises(InputError, match=reason):
        flags_as_labels("t.csv", pl.DataFrame({"x": cells}))


def test_labels_that_are_too_rare_are_named():
    rows = [("a", "b"), ("a",), ("a", "c"), ("b",), ()]
    with opened() as account:
        assert label_names("t.csv", rows, "labels", 2) == ["a", "b"]
    assert "fewer than 2 texts of the training part have (--least) (c)" in " ".join(account.lines())


def test_labels_that_differ_by_case_alone_are_two_and_named():
    with opened() as account:
        assert label_names("t.csv", [("Bug",), ("bug",)], "labels", 1) == ["Bug", "bug"]
    assert "(Bug, bug)" in " ".join(account.lines())


@pytest.mark.parametrize(
    ("rows", "goal", "reason"),
    [
        ([("a",)] * 5, "class", "has the label 'a'; two classes are needed"),
        ([(), ("a",)], "labels", "no label is on 2 texts"),
        ([(f"t{k}",) for k in range(60)], "class", "60 different labels on 60 texts"),
    ],
    ids=["one class", "no label often enough", "a column of texts"],
)
def test_a_column_that_nothing_is_learned_from_is_refused(rows, goal, reason):
    with pytest.raises(InputError, match=reason):
        label_names("t.csv", rows, goal, 2 if goal == "labels" else 1)


@pytest.mark.parametrize(
    ("names", "mark"),
    [
        (["a::x", "a::y", "b::x"], "::"),
        (["a > x", "a > y"], " > "),
        (["a/x", "a/y", "b/z"], "/"),
        (["km/h", "dollar/ounce"], ""),
        (["a::x", "b", "c", "d"], ""),
        (["::x", "y::"], ""),
    ],
)
def test_levels_of_labels_are_seen_where_nearly_all_have_them(names, mark):
    assert levels_of(names) == mark


@pytest.mark.parametrize(
    ("column", "refused"),
    [
        (["Good", "BAD", "good", "bad", "good", "bad"], True),
        ([1, 0, 1, 0, 1, 0], True),
        ([1, 0, 1, 0, 1, 1], False),
        ([1.5, 2.5, 3.5, 4.5, 5.5, 6.5], False),
    ],
    ids=["other case", "a code of the label", "another column", "all different"],
)
def test_a_column_of_the_table_that_says_the_label_is_refused(column, refused):
    frame = pl.DataFrame({"label": ["good", "bad"] * 3, "hint": column})
    with opened(["label-as-feature"]) as account:
        refuse_label_as_feature("t.csv", frame, ["label"], ["hint"])
    assert ("--table hint: says the same as the labels" in " ".join(account.lines())) == refused
    if refused:
        with pytest.raises(InputError, match="--accept label-as-feature"):
            refuse_label_as_feature("t.csv", frame, ["label"], ["hint"])


def test_the_numbers_of_a_goal_are_read_with_their_decimal_comma():
    labels, _ = read(["1,5", "2,25", "1.000,5"], goal="number")
    np.testing.assert_allclose(labels.numbers, [1.5, 2.25, 1000.5])
