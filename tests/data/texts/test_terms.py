"""Terms of texts in many scripts, and words of topics found in them."""

import pytest

from headwise.data.texts.terms import Vocabulary, document_counts, terms_of


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Cats, CATS and Straße!", ["cats", "cats", "and", "strasse"]),
        ("state-of-the-art new_york", ["state", "of", "the", "art", "new", "york"]),
        ("don't", ["don't"]),
        ("Москва и हिन्दी", ["москва", "и", "हिन्दी"]),
        ("人工知能", ["人工", "工知", "知能"]),
        ("東京 塔", ["東京", "塔"]),
        ("AI人工", ["ai", "人工"]),
        ("ﬁle 1999", ["file", "1999"]),
        (" \n\t…", []),
    ],
)
def test_terms_of_texts(text: str, terms: list[str]) -> None:
    assert terms_of(text) == terms


@pytest.mark.parametrize(
    ("word", "text", "places"),
    [
        ("York", "new york, York", [1, 2]),
        ("new_york", "In New York; new-york", [1, 3]),
        ("machine learning", "machine learning of a machine", [0]),
        ("知能", "人工知能", [2]),
        ("人工知能", "人工知能と人工", [0]),
        ("cat", "concatenate cats", []),
        ("C++", "c", [0]),
        ("!", "! !", []),
    ],
)
def test_words_of_topics_are_found(word: str, text: str, places: list[int]) -> None:
    found_at, codes, length = Vocabulary(["other", word]).find(terms_of(text))
    assert found_at.tolist() == places
    assert set(codes.tolist()) <= {1}
    assert length == len(terms_of(text))


def test_words_that_differ_in_writing_only_are_both_found() -> None:
    _, codes, _ = Vocabulary(["New York", "new_york"]).find(["new", "york"])
    assert codes.tolist() == [0, 1]


def test_a_term_counts_once_in_a_text() -> None:
    assert document_counts([["a", "a", "b"], ["a"]]) == {"a": 2, "b": 1}
