"""Texts as tokens: ids, and the characters of the text that each of them stands for.

Offsets count characters of the text as it came, not of what a tokenizer makes of it: so a
contribution of a token can be shown at its place. Special tokens (start, end, a prefix such as
"query: ") stand for no characters; their offset is (0, 0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ...base.errors import reason

# Halves of characters, which JSON can name and UTF-8 cannot hold; the tokenizers refuse them.
CONTROL, UNASSIGNED = "\x01", "\u0378"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Encoded(NamedTuple):
    """Tokens of a text.

    ids: int64 (N,); offsets: int64 (N, 2), first character and the one behind the last, (0, 0) of
    special tokens.
    """

    ids: np.ndarray
    offsets: np.ndarray


class Tokenizer(Protocol):
    """What all tokenizers have.

    size: ids are below it; padding: the id that fills up a batch; begin, end: the special ids that
    surround the tokens of any text.
    """

    size: int
    padding: int
    begin: tuple[int, ...]
    end: tuple[int, ...]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The tokens of some texts, of any length; special ones included."""
        ...

    def to_json(self) -> str:
        """All that `tokenizer_from_json` needs."""
        ...


class Window(NamedTuple):
    """A part of a text: its tokens, special ones included, whose offsets are those in the whole
    text; start and end: the characters that it spans.
    """

    tokens: Encoded
    start: int
    end: int


def windows(tokens: Encoded, most: int, overlap: int, tokenizer: Tokenizer) -> Iterator[Window]:
    """Parts of at most `most` tokens, special ones included, that together hold all of a text.

    tokens: as `tokenizer` encoded them; overlap: tokens that a part shares with the next; the last
    part begins where it is as long as the others, so it may share more. A text without tokens has
    one window.

    Raises ValueError where no token would fit, or the windows would not advance.
    """
    first, last = len(tokenizer.begin), len(tokens.ids) - len(tokenizer.end)
    room = most - first - len(tokenizer.end)
    if room < 1 or not 0 <= overlap < room:
        raise ValueError(
            f"windows of {most} tokens have room for {max(0, room)} of the text, and an overlap of "
            f"{overlap} needs more than that"
        )
    start = first
    while True:
        stop = min(start + room, last)
        start = max(first, stop - room)
        yield _window(tokens, first, start, stop, last)
        if stop >= last:
            return
        start = stop - overlap


def _window(tokens: Encoded, first: int, start: int, stop: int, last: int) -> Window:
    parts = (slice(0, first), slice(start, stop), slice(last, None))
    offsets = tokens.offsets[start:stop]
    return Window(
        Encoded(*(np.concatenate([column[part] for part in parts]) for column in tokens)),
        int(offsets[0, 0]) if len(offsets) else 0,
        int(offsets[:, 1].max()) if len(offsets) else 0,
    )


def batch_of(tokens: Sequence[Encoded], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Some texts as one array: ids int64 (B, N), filled up at the end, and which of them are
    tokens, bool (B, N).
    """
    lengths = np.array([len(row.ids) for row in tokens], dtype=np.int64)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.full(mask.shape, padding, dtype=np.int64)
    if len(tokens):
        ids[mask] = np.concatenate([row.ids for row in tokens])
    return ids, mask


class SubwordTokenizer:
    """A published tokenizer in the format of the library tokenizers (tokenizer.json): WordPiece,
    Unigram, BPE.

    content: the file's text. Its cutting and padding are switched off. What looks like a special
    token in a text, such as "[SEP]", is read as the text it is.

    prefix: a word that the model expects before all texts, such as "query: "; special: whether the
    tokens of the start and end are added; padding: id that fills up a batch, by default that of the
    vocabulary, or 0 where it has none; replacements: characters that are replaced before the
    library sees them, by the number of the character; runs of spaces then become one, and those at
    both ends go.

    Raises ValueError for a content that is none.
    """

    def __init__(
        self,
        content: str,
        *,
        prefix: str = "",
        special: bool = True,
        padding: int | None = None,
        replacements: Mapping[int, str] | None = None,
    ) -> None:
        import tokenizers

        try:
            self._library = tokenizers.Tokenizer.from_str(content)
            self._library.no_padding()
            self._library.no_truncation()
            self._library.encode_special_tokens = True
            # Fails now, not in the middle of a table, where there is no token for what is unknown.
            self._library.encode(UNASSIGNED)
            empty = self._library.encode(prefix.strip(), add_special_tokens=special)
            marked = self._library.encode("a", add_special_tokens=special).special_tokens_mask
        except Exception as error:  # the library raises the bare class
            raise ValueError(f"not a tokenizer ({reason(error, 120)})") from None
        self.prefix, self.special, self.replacements = prefix, special, replacements
        self.size = self._library.get_vocab_size(with_added_tokens=True)
        known = (padding, *map(self._library.token_to_id, ("[PAD]", "<pad>")))
        self.padding = next((place for place in known if place is not None), 0)
        # The prefix stands between the special tokens of the start and those of the end.
        middle = [k for k, flag in enumerate(empty.special_tokens_mask) if not flag]
        behind = middle[-1] + 1 if middle else [*marked, 0].index(0)
        self.begin, self.end = tuple(empty.ids[:behind]), tuple(empty.ids[behind:])

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The tokens of some texts; a token is at its characters, without the space before it."""
        cleaned = [_SURROGATES.sub("\ufffd", text) for text in texts]
        places: Sequence[np.ndarray | None] = [None] * len(cleaned)
        if self.replacements is not None:
            pairs = [_replaced(text, self.replacements) for text in cleaned]
            inputs, places = [text for text, _ in pairs], [place for _, place in pairs]
        else:
            inputs = cleaned
        rows = self._library.encode_batch(inputs, add_special_tokens=False)
        return [
            self._surrounded(row.ids, _without_spaces(row.offsets, text, place))
            for row, text, place in zip(rows, cleaned, places, strict=True)
        ]

    def _surrounded(self, ids: list[int], offsets: np.ndarray) -> Encoded:
        before, behind = len(self.begin), len(self.end)
        return Encoded(
            np.array([*self.begin, *ids, *self.end], dtype=np.int64),
            np.pad(offsets, ((before, behind), (0, 0))),
        )

    def to_json(self) -> str:
        """All that `tokenizer_from_json` needs."""
        replacements = self.replacements and {str(k): v for k, v in self.replacements.items()}
        return json.dumps(
            {
                "kind": "subwords",
                "prefix": self.prefix,
                "special": self.special,
                "padding": self.padding,
                "replacements": replacements,
                "content": json.loads(self._library.to_str()),
            },
            ensure_ascii=False,
        )

    @staticmethod
    def from_stored(stored: Mapping[str, object]) -> SubwordTokenizer:
        """The tokenizer that wrote this."""
        replacements = stored["replacements"]
        return SubwordTokenizer(
            json.dumps(stored["content"]),
            prefix=str(stored["prefix"]),
            special=bool(stored["special"]),
            padding=int(str(stored["padding"])),
            replacements={int(k): str(v) for k, v in replacements.items()}
            if isinstance(replacements, dict)
            else None,
        )


def _without_spaces(
    offsets: list[tuple[int, int]], text: str, places: np.ndarray | None
) -> np.ndarray:
    """Offsets into the text (N, 2), without the spaces that begin a token.

    places: of the characters that the library saw in the text, and of its end.
    """
    result = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    if places is not None:
        # A character may have become several; a token that ends within it covers it.
        ends = np.where(result[:, 1] > 0, places[np.maximum(result[:, 1] - 1, 0)] + 1, 0)
        result = np.stack([np.minimum(places[result[:, 0]], ends), ends], 1)
    for k, (start, end) in enumerate(result.tolist()):
        while start < end and text[start].isspace():
            start += 1
        result[k, 0] = start
    return result


def _replaced(text: str, replacements: Mapping[int, str]) -> tuple[str, np.ndarray]:
    """The text after replacements, without superfluous spaces, and the place (M + 1,) of its
    characters in the text.
    """
    letters: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        for new in replacements.get(ord(letter), letter):
            if new != " " or (letters and letters[-1] != " "):
                letters.append(new)
                places.append(place)
    if letters and letters[-1] == " ":
        letters.pop()
        places.pop()
    return "".join(letters), np.array([*places, len(text)], dtype=np.int64)


def unigram_tokenizer(
    pieces: Sequence[str],
    scores: Sequence[float],
    *,
    begin: int,
    end: int,
    padding: int,
    unknown: int,
    replacements: Mapping[int, str],
    prefix: str = "",
) -> SubwordTokenizer:
    """A tokenizer of SentencePiece's unigram model (Kudo, arXiv 1804.10959): the most probable
    pieces, of which a word's first begins with "▁".

    pieces, scores: the vocabulary, with logarithms of probabilities; begin, end, padding, unknown:
    places in it; replacements, prefix: as in `SubwordTokenizer`.

    Raises ValueError for a vocabulary that is none.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, processors

    controls = (begin, end, padding, unknown)
    if len(pieces) != len(scores) or not all(0 <= place < len(pieces) for place in controls):
        raise ValueError(f"no vocabulary: {len(pieces)} pieces, {len(scores)} scores, {controls}")
    vocabulary = list(zip(pieces, map(float, scores), strict=True))
    for place in controls:
        # With a character that no text has after the replacements: no text spells a control piece.
        vocabulary[place] = (f"{CONTROL}{pieces[place]}", float(scores[place]))
    try:
        library = Library(models.Unigram(vocabulary, unknown, False))
    except Exception as error:  # the library raises the bare class
        raise ValueError(f"no vocabulary ({reason(error, 120)})") from None
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    first, last = vocabulary[begin][0], vocabulary[end][0]
    library.post_processor = processors.TemplateProcessing(
        single=[first, "$A", last], special_tokens=[(first, begin), (last, end)]
    )
    return SubwordTokenizer(
        library.to_str(),
        prefix=prefix,
        padding=padding,
        replacements={ord(CONTROL): "", **replacements},
    )


def tokenizer_from_json(content: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote. Raises ValueError for anything else."""
    from .words import WordTokenizer

    kinds: dict[object, Callable[[Mapping[str, object]], Tokenizer]] = {
        "subwords": SubwordTokenizer.from_stored,
        "words": WordTokenizer.from_stored,
    }
    try:
        stored = json.loads(content)
        return kinds[stored["kind"]](stored)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a stored tokenizer ({reason(error, 120)})") from None
