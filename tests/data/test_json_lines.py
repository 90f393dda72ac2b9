"""Rows that come as lines of JSON."""

import pytest

from headwise.base.errors import InputError
from headwise.data.json_lines import are_json_lines, rows_of_json_lines


@pytest.mark.parametrize(
    ("lines", "are"),
    [
        (['{"text": "a"}'], True),
        (["", "  ", ' {"text": "a"}'], True),
        (["{name}, hello"], False),
        (["[1]"], False),
        (["a"], False),
        (["", ""], False),
        ([], False),
        (["{" * 100_000], False),
    ],
)
def test_the_first_line_that_is_not_blank_tells(lines, are):
    assert are_json_lines(lines) == are


def test_lines_and_rows_have_the_same_numbers():
    frame = rows_of_json_lines("in", ['{"text": "a", "n": 1}', "", '{"text": "b", "m": [1, "é"]}'])
    assert frame["text"].to_list() == ["a", None, "b"]
    assert frame["n"].to_list() == ["1", None, None]
    assert frame["m"].to_list() == [None, None, '[1, "é"]']


def test_cells_of_several_types_in_one_column_are_all_text():
    frame = rows_of_json_lines("in", ['{"x": 1}', '{"x": "a"}', '{"x": true}', '{"x": 1.5}'])
    assert frame["x"].to_list() == ["1", "a", "true", "1.5"]


def test_halves_of_characters_are_replaced():
    assert "\ufffd" in rows_of_json_lines("in", ['{"x": "\\ud800 a"}'])["x"][0]


@pytest.mark.parametrize("line", ["{", "[1]", "3", "a"])
def test_a_line_that_is_no_object_is_named(line):
    with pytest.raises(InputError, match=r"in, line 1026: .* is no JSON object"):
        rows_of_json_lines("in", ['{"x": 1}', line], 1024)


def test_a_name_twice_in_a_line_is_refused():
    with pytest.raises(InputError, match=r"in, line 2: column 'x' appears more than once"):
        rows_of_json_lines("in", ['{"x": {"x": 1}}', '{"x": 1, "y": 2, "x": 3}'])
