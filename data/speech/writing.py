"""How text is written: with spaces between words, or without, as in Chinese, Japanese and Thai."""

from __future__ import annotations

import re

# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han characters.
_UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
)
_BEGINS = re.compile(f"[{_UNSPACED}]")
# Punctuation may follow the last letter. Marks above and below letters of these scripts are part
# of them.
_ENDS = re.compile(rf"[{_UNSPACED}][^\w\s]*$")
_COMBINING = re.compile(
    "[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u3099\u309a\u30fc]"
)


def has_no_spaces(letter: str) -> bool:
    """Whether a letter is of a script without spaces between words."""
    return bool(_BEGINS.match(letter))


def begins_word(before: str, text: str) -> bool:
    """Whether `text` begins a new word behind `before`: after a space, and in a script without
    spaces at each letter.

    >>> begins_word("今", "天"), begins_word("word", "s"), begins_word("天", "。")
    (True, False, False)
    """
    if not before or text[:1].isspace():
        return True
    if _COMBINING.match(text):
        return False
    return bool(_BEGINS.match(text)) or bool(_ENDS.search(before) and text[:1].isalnum())


def joined(before: str, text: str) -> str:
    """Two words of a line, with the space between them that their script has.

    >>> joined("one", "two"), joined("今", "天")
    ('one two', '今天')
    """
    if not before or not text:
        return before or text
    spaceless = _ENDS.search(before) or _BEGINS.match(text)
    return f"{before}{text}" if spaceless else f"{before} {text}"


def split_words(text: str) -> list[tuple[int, int]]:
    """The places (first letter, letter after the last) of the words of a text.

    >>> [("a 今天。")[first:last] for first, last in split_words("a 今天。")]
    ['a', '今', '天。']
    """
    places: list[tuple[int, int]] = []
    for match in re.finditer(r"\S+", text):
        first = match.start()
        for place in range(match.start() + 1, match.end()):
            if begins_word(text[first:place], text[place]):
                places.append((first, place))
                first = place
        places.append((first, match.end()))
    return places
