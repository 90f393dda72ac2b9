"""Words of a text, and how what is said of its tokens and counted terms is shared among them.

Shapes: W words, N tokens, F counted terms of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from ....data.texts.counting import Span
from ....data.texts.words import word_spans

STRETCH = 256  # words of a stretch, of a text that no network reads window by window


class WordShares(NamedTuple):
    """spans: int64 (W, 2), first character of each word and the one behind its last, none of which
    overlap; shares: (W, N + F), which part of each token and term is a word's; a column sums to 1,
    or is empty; alone: bool (N + F,), those that are empty, of tokens that stand for no characters.
    """

    spans: np.ndarray
    shares: csr_matrix
    alone: np.ndarray


class Stretch(NamedTuple):
    """A part of a long text: its characters, and whether the network reads it."""

    start: int
    end: int
    is_read: bool


def share_words(
    text: str,
    offsets: np.ndarray,
    features: Sequence[int],
    places: Mapping[int, Sequence[tuple[Span, ...]]],
) -> WordShares:
    """Words of a text and what is theirs.

    A token belongs to the words whose characters it covers, each by its number of them; a symbol
    that is in no word, such as punctuation, becomes a word of its own. A counted term is divided
    over its places, and there over its words.

    offsets: (N, 2), of the tokens; features: (F,), numbers of the counted terms; places: of each.
    """
    words = np.array(list(word_spans(text)), np.int64).reshape(-1, 2)
    spans = _with_symbols(words, offsets)
    columns: list[int] = []
    rows: list[int] = []
    shares: list[float] = []
    for token, (start, end) in enumerate(offsets.tolist()):
        if start >= end:
            continue
        covered = _covered(spans, start, end)
        lengths = np.minimum(end, spans[covered, 1]) - np.maximum(start, spans[covered, 0])
        rows += covered.tolist()
        columns += [token] * len(covered)
        shares += (lengths / lengths.sum()).tolist()
    row_of = {start: row for row, start in enumerate(spans[:, 0].tolist())}
    for column, feature in enumerate(features, len(offsets)):
        occurrences = places[feature]
        for occurrence in occurrences:
            for start, _ in occurrence:
                rows.append(row_of[start])
                columns.append(column)
                shares.append(1 / (len(occurrences) * len(occurrence)))
    count = len(offsets) + len(features)
    alone = np.ones(count, bool)
    alone[columns] = False
    shared = csr_matrix((shares, (rows, columns)), shape=(len(spans), count))
    return WordShares(spans, shared, alone)


def _covered(spans: np.ndarray, start: int, end: int) -> np.ndarray:
    """Places of the spans that have characters between start and end."""
    first = int(np.searchsorted(spans[:, 1], start, "right"))
    return np.arange(first, int(np.searchsorted(spans[:, 0], end, "left")))


def _with_symbols(words: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Words, and between them the tokens that cover no word; those that overlap are one."""
    symbols: list[list[int]] = []
    for start, end in sorted(map(tuple, offsets.tolist())):
        if start >= end or len(_covered(words, start, end)):
            continue
        if symbols and start < symbols[-1][1]:
            symbols[-1][1] = max(symbols[-1][1], end)
        else:
            symbols.append([start, end])
    spans = np.concatenate([words, np.array(symbols, np.int64).reshape(-1, 2)])
    return spans[np.argsort(spans[:, 0], kind="stable")]


def stretches(text: str, spans: np.ndarray, offsets: np.ndarray, window: int) -> list[Stretch]:
    """The windows in which the network reads a text, and what is behind the last; of a text without
    tokens, stretches of 256 words. [] for a text that has a single one.

    offsets: (N, 2); window: tokens.
    """
    if not len(offsets):
        starts = spans[::STRETCH, 0].tolist()
        ends = [*starts[1:], len(text)]
        parts = [Stretch(a, b, True) for a, b in zip([0, *starts[1:]], ends, strict=True)]
        return parts if len(parts) > 1 else []
    parts = []
    for first in range(0, len(offsets), window):
        part = offsets[first : first + window]
        part = part[part[:, 0] < part[:, 1]]
        if len(part):
            parts.append(Stretch(int(part[:, 0].min()), int(part[:, 1].max()), True))
    # Each goes on to where the next begins, so that all words are in one.
    ends = [part.start for part in parts[1:]] + [parts[-1].end] if parts else []
    parts = [Stretch(part.start, end, True) for part, end in zip(parts, ends, strict=True)]
    if parts:
        parts[0] = parts[0]._replace(start=0)
        if len(spans) and spans[-1, 0] >= parts[-1].end:
            parts.append(Stretch(parts[-1].end, len(text), False))
        else:
            parts[-1] = parts[-1]._replace(end=len(text))
    return parts if len(parts) > 1 else []
