"""Texts with names of special tokens, and in scripts without spaces between words."""

from itertools import pairwise

import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from headwise.data.speech.tokens import END, START, train_tokens
from headwise.data.speech.transcripts import Segment, Word, format_transcript
from headwise.data.speech.writing import joined, split_words


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_names_of_special_tokens_in_a_text_are_text(kind):
    text = f"one {END} two {START}{END} a"
    tokens = train_tokens([text], kind, 300)
    ids = tokens.encode(text)
    assert tokens.end not in ids
    assert tokens.decode(ids) == text
    assert " ".join(word for word, _, _ in tokens.words(ids)) == text


def test_words_of_scripts_without_spaces_are_their_letters():
    text = "今天OK吗？ 好 yes コーヒー สวัสดี"
    tokens = train_tokens([text], "characters")
    words = [word for word, _, _ in tokens.words(tokens.encode(text))]
    assert words == ["今", "天", "OK", "吗？", "好", "yes", "コー", "ヒー", "ส", "วั", "ส", "ดี"]
    assert [text[first:last] for first, last in split_words(text)] == words
    spans = [span for _, *span in tokens.words(tokens.encode(text))]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_subtitles_put_no_spaces_where_there_are_none():
    words = tuple(
        Word(text, k / 2, k / 2 + 0.4) for k, text in enumerate(["今", "天，", "OK", "好"])
    )
    segment = Segment(0.0, 2.0, "今天，OK好", words)
    assert "今天，OK好\n" in format_transcript("srt", "a.wav", 2.0, [segment])
    assert (joined("one", "two"), joined("", "b"), joined("a", "")) == ("one two", "b", "a")
