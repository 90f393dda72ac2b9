"""Messages for people: on one line, short, and with the nearest name."""

import pytest

from headwise.base.errors import closest, fail, nearest, printable, reason, shown


def test_a_message_is_one_line_whatever_a_file_put_into_it() -> None:
    assert str(fail("a\nb.csv", "holds\t'x\r\ny'")) == "a b.csv: holds 'x y'"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad \n cell"), "bad cell"),
        (ValueError("what is wrong\n\nYou might want to try: ..."), "what is wrong"),
        (FileNotFoundError(2, "No such file or directory", "/a/b"), "No such file or directory"),
        (EOFError(), "EOFError"),
        (ValueError("x" * 200), "x" * 159 + "…"),
    ],
)
def test_the_reason_of_an_exception_is_its_first_paragraph(error: Exception, line: str) -> None:
    assert reason(error) == line


def test_cells_are_quoted_and_cut() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 100)) == 60


def test_the_nearest_name_is_found_by_letters_then_without_case() -> None:
    assert closest("Dat", ["data", "DATA", "dat"]) == "dat"
    assert closest("DATE", ["date", "time"]) == "date"
    assert closest("zzz", ["date", "time"]) is None
    assert nearest("tine", ["date", "time"]) == "; did you mean 'time'?"
    assert nearest("zzz", ["date", "time"]) == "; it has 'date', 'time'"
    assert nearest("zzz", []) == ""


def test_what_would_control_a_terminal_is_escaped() -> None:
    assert printable("plain é 日本") == "plain é 日本"
    assert printable("a\x1b]0;title\x07\nb\u202ec\x9b") == r"a\x1b]0;title\x07\nb\u202ec\x9b"


def test_up_to_forty_names_are_listed() -> None:
    names = [f"set{k:02d}" for k in range(50)]
    assert nearest("zzz", names[:13]).count("set") == 13
    assert nearest("zzz", names).endswith("'set39', ... (50 in all)")
