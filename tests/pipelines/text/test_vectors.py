"""Vectors of texts beside their counted terms: about the mean of the training, kept on disk."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headwise.data.texts.words import WordTokenizer
from headwise.models.text.encoder import StaticEncoder
from headwise.pipelines.text import vectors
from headwise.pipelines.text.vectors import LENGTH, learn_vectors, text_vectors, vector_rows

TEXTS = ["paper jam", "the screen", "jam the paper", "screen screen", "", "vpn"]


@pytest.fixture
def encoder(monkeypatch, tmp_path) -> StaticEncoder:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    tokenizer = WordTokenizer.learn(TEXTS, least=1)
    torch.manual_seed(0)
    made = StaticEncoder(tokenizer.size, 6)
    opened = SimpleNamespace(encoder=made, tokenizer=tokenizer, width=6, most_tokens=None)
    monkeypatch.setattr(vectors, "_opened", lambda _: opened)
    return made


def test_a_vector_is_the_mean_of_its_words_of_length_one(encoder) -> None:
    values = text_vectors("any", TEXTS)
    words = encoder.words.weight.detach().numpy()
    place = {word: k for k, word in enumerate(WordTokenizer.learn(TEXTS, least=1).words, 3)}
    mean = (words[place["paper"]] + words[place["jam"]]) / 2
    np.testing.assert_allclose(values[0], mean / np.linalg.norm(mean), rtol=1e-5)
    assert not values[4].any()  # an empty text


def test_those_of_the_training_part_have_the_mean_0_and_the_length_of_counted_terms(encoder):
    facts = learn_vectors("any", TEXTS[:4])
    rows = vector_rows(facts, TEXTS[:4])
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    assert np.linalg.norm(rows, axis=1).mean() == pytest.approx(LENGTH, rel=1e-4)


def test_a_vector_is_computed_once(encoder) -> None:
    first = text_vectors("any", TEXTS)
    torch.nn.init.zeros_(encoder.words.weight)
    np.testing.assert_array_equal(text_vectors("any", TEXTS), first)
    assert not np.array_equal(text_vectors("another", TEXTS), first)
