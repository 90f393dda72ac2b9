"""Counted terms against scikit-learn's own tokenisation and against plain formulas."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from headwise.data.texts.counting import CountedTerms, padded_rows, terms_of

TEXTS = ["the cat sat", "the cat ran off", "a dog sat", "the dog and the cat", ""]


def test_words_and_pairs_are_weighted_as_scikit_learn_does():
    own = CountedTerms.learn(TEXTS, pieces=False, most=100, least=1)
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+", lowercase=True
    )
    expected = vectorizer.fit_transform(TEXTS).toarray()
    places = [own.numbers[name] for name in vectorizer.get_feature_names_out()]
    assert sorted(places) == list(range(len(own.terms)))
    np.testing.assert_allclose(own.rows(TEXTS).toarray()[:, places], expected, atol=1e-6)


def test_pieces_of_words_are_those_of_scikit_learn():
    texts = ["a cat, at home", "it sat on catnip"]
    own = CountedTerms.learn(texts, pieces=True, most=1000, least=1)
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5))
    analyse = vectorizer.build_analyzer()
    for text in texts:
        plain = text.replace(",", "")
        pieces = [name for name, _ in terms_of(plain, pieces=True) if name.startswith("#")]
        assert sorted(pieces) == sorted(f"#{piece}" for piece in analyse(plain))
    assert "# cat" in own.terms


def test_terms_stand_at_their_characters():
    text = "The  Cat's café"
    terms = list(terms_of(text, pieces=False))
    assert [(name, [text[a:b] for a, b in spans]) for name, spans in terms] == [
        ("the", ["The"]),
        ("cat's", ["Cat's"]),
        ("the cat's", ["The", "Cat's"]),
        ("café", ["café"]),
        ("cat's café", ["Cat's", "café"]),
    ]


def test_places_name_each_time_that_a_known_term_occurs():
    own = CountedTerms(["cat", "the cat"], np.ones(2), False)
    assert own.places("the cat, Cat") == {0: [((4, 7),), ((9, 12),)], 1: [((0, 3), (4, 7))]}


def test_terms_in_too_few_texts_are_not_learned_and_the_most_frequent_are_taken():
    own = CountedTerms.learn(TEXTS, pieces=False, most=100)
    assert "ran" not in own.terms
    assert "cat" in own.terms
    few = CountedTerms.learn(TEXTS, pieces=False, most=2)
    assert sorted(few.terms) == ["cat", "the"]


def test_weights_are_the_inverse_frequency_in_texts():
    own = CountedTerms.learn(TEXTS, pieces=False, most=100)
    weight = own.weights[own.numbers["cat"]]
    assert weight == pytest.approx(np.log((1 + 5) / (1 + 3)) + 1)


def test_texts_without_words_are_refused():
    with pytest.raises(ValueError, match=r"vocabulary|no terms"):
        CountedTerms.learn(["...", "!?"], pieces=False, most=10)


def test_a_row_does_not_depend_on_the_others():
    own = CountedTerms.learn(TEXTS, pieces=True, most=100)
    together = own.rows(TEXTS).toarray()
    for row, text in enumerate(TEXTS):
        np.testing.assert_array_equal(own.rows([text]).toarray()[0], together[row])


def test_an_empty_text_has_no_terms_and_an_unknown_one_neither():
    own = CountedTerms.learn(TEXTS, pieces=False, most=100)
    assert own.rows(["", "zebra"]).nnz == 0


def test_padded_rows_hold_the_terms_of_each_text_and_zeros():
    rows = csr_matrix(np.array([[0, 2.0, 3.0], [0, 0, 0], [4.0, 0, 0]], np.float32))
    features, amounts = padded_rows(rows)
    assert features.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert amounts.tolist() == [[2, 3], [0, 0], [4, 0]]
    assert padded_rows(csr_matrix((2, 3), dtype=np.float32))[0].shape == (2, 1)
