"""Letters of other scripts in figures."""

from headwise.pipelines.figures.fonts import BOX, USUAL, boxed, fonts_with


def test_usual_letters_need_the_usual_font_alone() -> None:
    assert fonts_with(["naïve", "Москва", BOX]) == ([USUAL], set())
    assert fonts_with([]) == ([USUAL], set())


def test_letters_that_no_font_has_are_boxes() -> None:
    letter = "\U0010fffd"  # of private use
    families, missing = fonts_with([f"a{letter}"])
    assert families == [USUAL]
    assert missing == {letter}
    assert boxed(f"a{letter}b", missing) == f"a{BOX}b"
