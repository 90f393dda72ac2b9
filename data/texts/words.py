"""Words as tokens, with a vocabulary that is learned from the training texts."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from .tokens import Encoded

PADDING, UNKNOWN, NUMBER = 0, 1, 2
WORDS_FROM = 3  # the id of the vocabulary's first word
# Scripts that put no space between words: each character, with its marks, is a token.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_JOINERS = "\u200c\u200d"  # within words of Persian and Indic scripts, and within emoji


class WordTokenizer:
    """Words, numbers and symbols of any script; in scripts without spaces, single characters.

    Words that differ in case or in how an accent is written are one (Unicode's NFKC and case
    folding). A number that is not in the vocabulary is `NUMBER`, any other word `UNKNOWN`.
    Punctuation is no token; an emoji is one, with its modifiers.

    words: the vocabulary, as `word_key` writes them; their ids begin at `WORDS_FROM`.
    """

    padding = PADDING
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._places = {word: place for place, word in enumerate(self.words, WORDS_FROM)}
        if len(self._places) < len(self.words):
            raise ValueError("WordTokenizer: a word is in the vocabulary twice")
        self.size = WORDS_FROM + len(self.words)

    @classmethod
    def learn(cls, texts: Iterable[str], *, most: int = 30_000, least: int = 2) -> WordTokenizer:
        """The vocabulary of some texts: the `most` words that are in the most texts, of those in at
        least `least`; ties in the order of the alphabet.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update({word_key(text[start:end]) for start, end in word_spans(text)})
        frequent = [word for word, count in counts.items() if count >= least]
        return cls(sorted(frequent, key=lambda word: (-counts[word], word))[:most])

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The words of some texts."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Encoded:
        spans = list(word_spans(text))
        ids = [self._place(word_key(text[start:end])) for start, end in spans]
        return Encoded(
            np.array(ids, dtype=np.int64), np.array(spans, dtype=np.int64).reshape(-1, 2)
        )

    def _place(self, word: str) -> int:
        number = word.replace(",", "").replace(".", "").isdecimal()
        return self._places.get(word, NUMBER if number else UNKNOWN)

    def to_json(self) -> str:
        """All that `tokenizer_from_json` needs."""
        return json.dumps({"kind": "words", "words": self.words}, ensure_ascii=False)

    @staticmethod
    def from_stored(stored: Mapping[str, object]) -> WordTokenizer:
        """The tokenizer that wrote this. Raises ValueError for what none wrote."""
        words = stored["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("words must be a list of texts")
        return WordTokenizer(words)


def word_key(word: str) -> str:
    """What is the same of all ways to write a word."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())


def in_unspaced_script(letter: str) -> bool:
    """Whether a character is of a script that puts no space between words."""
    return _unspaced_letter().match(letter) is not None


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """First character of each word, number and symbol, and the one behind its last."""
    for match in _pattern().finditer(text):
        yield match.span()


@lru_cache
def _unspaced_letter() -> re.Pattern[str]:
    return re.compile(f"[{_UNSPACED}]")


@lru_cache
def _pattern() -> re.Pattern[str]:
    """Words and symbols. `\\w` has no combining marks, without which words of most scripts of
    India, and any with an accent of its own, would be cut.
    """
    marks, symbols = _characters("Mn", "Mc", "Me"), _characters("So")
    letter = rf"[^\W_{_UNSPACED}]"
    follow = rf"[{marks}{_JOINERS}]*"
    word = rf"(?:{letter}{follow})+(?:['’](?:{letter}{follow})+)*"
    number = rf"\d+(?:[.,]\d+)*(?![\d{marks}]|{letter})"
    single = rf"[{_UNSPACED}]{follow}"
    modified = rf"[{symbols}][{marks}\U0001f3fb-\U0001f3ff]*"
    emoji = rf"{modified}(?:\u200d{modified})*"
    return re.compile("|".join([number, word, single, emoji]))


def _characters(*categories: str) -> str:
    """Ranges, as in a regular expression, of all characters of some categories of Unicode."""
    ranges: list[list[int]] = []
    for code in range(0xA0, sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in categories:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
