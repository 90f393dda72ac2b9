"""Known text: whether it can have been said in a recording, and where in a long one.

A text that is longer than the model's window is distributed over windows, as whoever corrects
subtitles would: each window is transcribed, and the words of the text lie where the same words were
heard. Words between two of these lie between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

from ...data.speech.writing import has_no_spaces, split_words
from ..metrics.alignment import plain

IMPOSSIBLE_RATE, FAST_RATE = 60.0, 30.0  # letters per second
SYLLABLE = 3  # letters that a character of a script without spaces counts for
FITTING = -3.0  # mean log-probability of a token below which a text hardly fits
RECOGNISED = 0.3  # share of the words of a long text that should be heard


def letters_of(text: str) -> int:
    """How many letters and digits a text has; a Chinese character, say, counts for three."""
    letters = [letter for letter in text if letter.isalnum()]
    return sum(SYLLABLE if has_no_spaces(letter) else 1 for letter in letters)


class Distributed(NamedTuple):
    """The part of a text that each window holds, "" for none; and the share of the words of the
    text that were heard as they stand there.
    """

    texts: list[str]
    recognised: float


def distribute(text: str, window_texts: Sequence[str]) -> Distributed:
    """A known text over windows, in order.

    window_texts: what was heard in each window. Where hardly anything agrees, words lie as far in
    the text as in what was heard.
    """
    words = split_words(text)
    spoken_words, window_of = _words_of(window_texts)
    names = [plain(text[first:last]) or text[first:last] for first, last in words]
    places = _places(names, spoken_words)
    matched = int(np.isfinite(places).sum())
    windows = _windows(places, np.array(window_of), len(window_texts))
    texts = []
    for window in range(len(window_texts)):
        rows = np.flatnonzero(windows == window)
        texts.append(text[words[rows[0]][0] : words[rows[-1]][1]] if len(rows) else "")
    return Distributed(texts, matched / max(1, len(words)))


def _words_of(window_texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The words that were heard, as they are compared, and the window of each."""
    words: list[str] = []
    windows: list[int] = []
    for window, text in enumerate(window_texts):
        for first, last in split_words(text):
            words.append(plain(text[first:last]) or text[first:last])
            windows.append(window)
    return words, windows


def _places(words: Sequence[str], spoken_words: Sequence[str]) -> np.ndarray:
    """For each word the place of the same word among those that were heard, NaN where there is
    none; the places rise.
    """
    places = np.full(len(words), np.nan)
    matcher = SequenceMatcher(None, words, spoken_words, autojunk=False)
    for block in matcher.get_matching_blocks():
        places[block.a : block.a + block.size] = np.arange(block.b, block.b + block.size)
    return places


def _windows(places: np.ndarray, window_of: np.ndarray, count: int) -> np.ndarray:
    """The window of each word, int64, which never falls; unmatched words lie evenly between their
    neighbours.
    """
    number, total = len(places), len(window_of)
    if not total:  # nothing was heard: evenly over the windows
        return np.arange(number) * count // max(1, number)
    known = np.flatnonzero(np.isfinite(places))
    rows = np.concatenate([[-1], known, [number]])
    values = np.concatenate([[-1.0], places[known], [float(total)]])
    filled = np.interp(np.arange(number), rows, values)
    return window_of[np.clip(np.round(filled), 0, total - 1).astype(int)]
