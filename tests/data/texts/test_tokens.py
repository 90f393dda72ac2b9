"""Tokens stand for characters of the text as it came; windows hold all of them."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.data.texts.tokens import (
    Encoded,
    SubwordTokenizer,
    batch_of,
    tokenizer_from_json,
    unigram_tokenizer,
    windows,
)
from headwise.data.texts.words import NUMBER, UNKNOWN, WordTokenizer, word_key, word_spans
from headwise.tests.text_files import PIECES, word_pieces

TEXTS = st.text(
    st.one_of(
        st.sampled_from("aàbcAB 019.,'’-[]\n\t\u0301\u200d\u4e2d\u65e5かなกำעﷺé½ﬁﬀ🙂👩🏽‍💻▁\x01"),
        st.characters(),
    ),
    max_size=40,
)


def pieces(prefix: str = "query: ") -> SubwordTokenizer:
    return unigram_tokenizer(
        PIECES,
        [-float(k) for k in range(len(PIECES))],
        begin=0,
        end=2,
        padding=1,
        unknown=3,
        replacements={9: " ", 0xBD: "1⁄2", 0xFB01: "fi"},
        prefix=prefix,
    )


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.fixture(scope="module")
def subwords() -> list[SubwordTokenizer]:
    return [SubwordTokenizer(word_pieces()), pieces(), pieces("")]


class TestWords:
    """Our own words, whose vocabulary comes from the training texts."""

    def test_words_numbers_and_symbols_of_any_script(self) -> None:
        cases = {
            "The cat's 2nd mat, 1,250.50 - no. 7!": [
                "The", "cat's", "2nd", "mat", "1,250.50", "no", "7",
            ],
            "cafe\u0301 naïve": ["cafe\u0301", "naïve"],
            "日本語のABC文": ["日", "本", "語", "の", "ABC", "文"],
            "مرحبا بالعالم": ["مرحبا", "بالعالم"],
            "हिन्दी में": ["हिन्दी", "में"],
            "ok👩🏽‍💻🙂": ["ok", "👩🏽‍💻", "🙂"],
            "می\u200cخواهم": ["می\u200cخواهم"],
            "snake_case 3.5kg 1️⃣": ["snake", "case", "3", "5kg", "1️⃣"],
            "": [],
            " ,;\n": [],
        }  # fmt: skip
        assert {text: words_of(text) for text in cases} == cases

    @given(TEXTS)
    def test_every_letter_and_digit_is_in_one_word(self, text: str) -> None:
        spans = list(word_spans(text))
        covered = [place for start, end in spans for place in range(start, end)]
        assert len(covered) == len(set(covered))
        assert covered == sorted(covered)
        outside = set(range(len(text))) - set(covered)
        assert not [text[place] for place in outside if text[place].isalnum()]

    @given(st.lists(TEXTS, min_size=1, max_size=4))
    def test_a_known_word_is_what_the_text_has_at_its_offsets(self, texts: list[str]) -> None:
        tokenizer = WordTokenizer.learn(texts, least=1)
        for text, tokens in zip(texts, tokenizer.encode(texts), strict=True):
            for place, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
                assert word_key(text[start:end]) == tokenizer.words[place - 3]

    def test_case_and_ways_to_write_an_accent_are_one_word(self) -> None:
        tokenizer = WordTokenizer.learn(["Straße CAFÉ"], least=1)
        tokens = tokenizer.encode(["STRASSE cafe\u0301 other 17 17th"])[0]
        assert tokenizer.words == ["café", "strasse"]
        assert tokens.ids.tolist() == [4, 3, UNKNOWN, NUMBER, UNKNOWN]

    def test_the_vocabulary_is_the_words_in_most_texts_and_ties_go_by_the_alphabet(self) -> None:
        texts = ["b b b b", "a c", "c a", "d c"]
        assert WordTokenizer.learn(texts).words == ["c", "a"]
        assert WordTokenizer.learn(texts, least=1, most=3).words == ["c", "a", "b"]
        assert WordTokenizer.learn(iter(()), least=1).size == 3
        with pytest.raises(ValueError, match="twice"):
            WordTokenizer(["a", "a"])


class TestSubwords:
    """Published tokenizers."""

    @given(TEXTS)
    def test_offsets_are_in_order_and_within_the_text(
        self, subwords: list[SubwordTokenizer], text: str
    ) -> None:
        for tokenizer in subwords:
            tokens = tokenizer.encode([text])[0]
            first, last = len(tokenizer.begin), len(tokens.ids) - len(tokenizer.end)
            assert tokens.ids[:first].tolist() == list(tokenizer.begin)
            assert tokens.ids[last:].tolist() == list(tokenizer.end)
            assert not tokens.offsets[:first].any()
            assert not tokens.offsets[last:].any()
            offsets = tokens.offsets[first:last]
            assert (np.diff(offsets, axis=0) >= 0).all()
            assert (offsets[:, 0] <= offsets[:, 1]).all()
            assert offsets.max(initial=0) <= len(text)
            assert tokens.ids.max() < tokenizer.size
            letters = {place for start, end in offsets for place in range(start, end)}
            for place in set(range(len(text))) - letters:
                # The rest is what a normaliser drops: spaces, controls, accents.
                assert unicodedata.category(text[place])[0] in "ZCM" or text[place] == "▁"

    def test_a_token_is_at_its_word_without_the_space(self) -> None:
        text = "The CATS\t sat. 🙂"
        tokens = SubwordTokenizer(word_pieces()).encode([text])[0]
        assert [text[start:end] for start, end in tokens.offsets] == [
            "", "The", "CAT", "S", "sat", ".", "🙂", "",
        ]  # fmt: skip
        assert tokens.ids.tolist() == [2, 6, 4, 7, 5, 9, 1, 3]
        text = "the \t cats ½b"
        tokens = pieces().encode([text])[0]
        assert [text[start:end] for start, end in tokens.offsets[3:-1]] == [
            "the", "", "cat", "s", "", "½", "b",
        ]  # fmt: skip

    def test_a_text_that_looks_like_a_special_token_is_text(self) -> None:
        tokens = SubwordTokenizer(word_pieces()).encode(["[SEP] cat"])[0]
        assert tokens.ids.tolist() == [2, 10, 1, 11, 4, 3]
        tokens = pieces("").encode(["</s><pad>"])[0]
        assert tokens.ids.tolist() == [0, 4, 3, 8 + 1, 3, 2]

    def test_neither_cuts_nor_pads(self) -> None:
        tokenizer = SubwordTokenizer(word_pieces())
        assert len(tokenizer.encode(["cat " * 50])[0].ids) == 52
        assert len(tokenizer.encode([""])[0].ids) == 2

    def test_the_prefix_is_before_every_text_and_has_no_characters(self) -> None:
        tokenizer = pieces()
        assert tokenizer.begin == (0, 5, 6)
        with_prefix, plain = tokenizer.encode(["the cats"])[0], pieces("").encode(["the cats"])[0]
        written = pieces("").encode(["query: the cats"])[0]
        assert with_prefix.ids.tolist() == written.ids.tolist()
        assert with_prefix.offsets[3:].tolist() == plain.offsets[1:].tolist()

    def test_half_a_character_is_read_as_an_unknown_one(self) -> None:
        for tokenizer in (SubwordTokenizer(word_pieces()), pieces()):
            tokens = tokenizer.encode(["the \ud800cat"])[0]
            assert tokens.offsets.max() == 8

    def test_what_is_no_tokenizer_is_one_line(self) -> None:
        for content in ("", "{}", "words", '{"model": 3}'):
            with pytest.raises(ValueError, match="not a tokenizer") as caught:
                SubwordTokenizer(content)
            assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="no vocabulary"):
            unigram_tokenizer(["a"], [0.0], begin=0, end=1, padding=0, unknown=0, replacements={})


@pytest.mark.parametrize(
    "tokenizer",
    [pieces(), SubwordTokenizer(word_pieces(), special=False), WordTokenizer(["cat", "の"])],
    ids=["unigram", "wordpiece", "words"],
)
def test_a_stored_tokenizer_gives_the_same_tokens(tokenizer) -> None:
    again = tokenizer_from_json(tokenizer.to_json())
    facts = ("size", "padding", "begin", "end")
    assert [getattr(again, name) for name in facts] == [getattr(tokenizer, name) for name in facts]
    for text in ("the ½ cats \u0301 の", "", "</s> [SEP]"):
        for ours, theirs in zip(*(t.encode([text])[0] for t in (tokenizer, again)), strict=True):
            assert ours.tolist() == theirs.tolist()


def test_what_stores_no_tokenizer_is_one_line() -> None:
    for content in ("", "[]", "{}", '{"kind": "words", "words": [1]}', '{"kind": "subwords"}'):
        with pytest.raises(ValueError, match="not a stored tokenizer") as caught:
            tokenizer_from_json(content)
        assert "\n" not in str(caught.value)


class TestWindows:
    """Parts of a long text."""

    @given(st.integers(0, 30), st.integers(3, 12), st.integers(0, 8))
    def test_windows_hold_all_tokens_and_are_full(self, length: int, most: int, overlap: int):
        tokenizer = SubwordTokenizer(word_pieces())
        text = "cat " * length
        tokens = tokenizer.encode([text])[0]
        if overlap >= most - 2:
            with pytest.raises(ValueError, match="overlap"):
                list(windows(tokens, most, overlap, tokenizer))
            return
        parts = list(windows(tokens, most, overlap, tokenizer))
        seen: list[int] = []
        for part in parts:
            assert len(part.tokens.ids) == min(most, length + 2)
            assert (part.tokens.ids[0], part.tokens.ids[-1]) == (2, 3)
            inner = part.tokens.offsets[1:-1]
            if length:
                assert (part.start, part.end) == (inner[0, 0], inner[-1, 1])
            seen.extend(place for place in inner[:, 0].tolist() if place not in seen)
        assert seen == [4 * k for k in range(length)]
        for before, after in itertools.pairwise(parts[:-1]):
            assert len({*before.tokens.offsets[1:-1, 0]} & {*after.tokens.offsets[1:-1, 0]}) == (
                overlap
            )

    def test_a_window_without_room_is_refused(self) -> None:
        tokenizer = WordTokenizer(["a"])
        tokens = tokenizer.encode(["a a a"])[0]
        with pytest.raises(ValueError, match="room for 0"):
            list(windows(tokens, 0, 0, tokenizer))


def test_a_batch_is_filled_up_at_the_end() -> None:
    rows = [Encoded(np.array(ids, np.int64), np.zeros((len(ids), 2), int)) for ids in ([5, 6], [])]
    ids, mask = batch_of(rows, 9)
    assert ids.tolist() == [[5, 6], [9, 9]]
    assert mask.tolist() == [[True, True], [False, False]]
    ids, mask = batch_of([], 9)
    assert ids.shape == mask.shape == (0, 0)
    assert ids.dtype == np.int64
