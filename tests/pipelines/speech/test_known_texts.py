"""Known texts: how many letters they have, and their shares of the windows of a recording."""

import numpy as np
import pytest

from headwise.pipelines.speech.known_texts import distribute, letters_of

TEXT = "And so, my fellow Americans: ask not what your country can do for you"


def test_letters_of_scripts_without_spaces_count_for_syllables():
    assert letters_of("a b-2, c!") == 4
    assert letters_of("今天 ok") == 8


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (["and so my fellow", "americans ask not", "what your country can do for you"],
         ["And so, my fellow", "Americans: ask not", "what your country can do for you"]),
        (["And so my fell oh", "", "a mechanics ask nod what", "your country can do for you"],
         ["And so, my fellow", "", "Americans: ask not what", "your country can do for you"]),
        (["and so my fellow Americans ask not what your country can do for you", "thank you"],
         [TEXT, ""]),
    ],
)  # fmt: skip
def test_each_window_has_the_words_that_were_heard_in_it(windows, expected):
    shares = distribute(TEXT, windows)
    assert shares.texts == expected
    assert shares.recognised > 0.7


def test_no_word_is_lost_whatever_was_heard():
    generator = np.random.default_rng(0)
    words = [f"w{k}" for k in generator.integers(0, 30, 400)]
    for _ in range(20):
        kept_words = [w if generator.random() < 0.6 else "x" for w in words]
        cuts = np.sort(generator.integers(0, 400, 5))
        windows = [" ".join(part) for part in np.split(np.array(kept_words), cuts)]
        shares = distribute(" ".join(words), windows)
        assert " ".join(text for text in shares.texts if text) == " ".join(words)


def test_a_text_of_which_nothing_was_heard_is_spread_evenly():
    for windows in (["", ""], ["x", "y"]):
        shares = distribute("one two three four", windows)
        assert " ".join(shares.texts) == "one two three four"
        assert shares.recognised == 0
        assert all(shares.texts)


def test_characters_are_words_in_chinese():
    shares = distribute("今天不是好天氣。", ["今天不是", "好天气"])
    assert shares.texts == ["今天不是", "好天氣。"]
