"""The words of texts that have times in front of them: subtitles, lists of labels, TIMIT."""

from __future__ import annotations

import re

_ARROW = re.compile(r"^\s*(\d+:)?\d+:\d+[.,]\d+\s*-->\s*(\d+:)?\d+:\d+[.,]\d+")
_TAGS = re.compile(r"</?[a-zA-Z][^<>]*>|\{\\[^{}]*\}")
_LINE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s+(\S.*)$")
LEAST_SAMPLES = 1000  # of the recording in a single line of TIMIT


def words_of_times(text: str) -> str | None:
    """The words of a text without its times, None where it has none.

    Subtitles are known by their arrows. A list of labels has lines `start end words` whose times
    grow (Audacity, HTK, .wrd); a single such line counts where it begins at 0 and ends at 1,000 or
    later, in samples, as in TIMIT: "1 2 buckle my shoe" may have been said.

    >>> words_of_times("0 61748 She had your dark suit"), words_of_times("1 2 buckle my shoe")
    ('She had your dark suit', None)
    >>> words_of_times("1\\n00:00:00,100 --> 00:00:01,000\\nHello\\n<i>there</i>\\n")
    'Hello there'
    >>> words_of_times("0.0 0.4 good\\n0.4 0.9 day")
    'good day'
    """
    lines = text.splitlines()
    if any(map(_ARROW.match, lines)):
        return _of_subtitles(lines)
    lines = [line for line in lines if line.strip()]
    matches = [match for match in map(_LINE.match, lines) if match is not None]
    if not matches or len(matches) < len(lines):
        return None
    starts, ends = ([float(match[k]) for match in matches] for k in (1, 2))
    grow = starts == sorted(starts) and all(a < b for a, b in zip(starts, ends, strict=True))
    is_timit = starts[0] == 0 and ends[0] >= LEAST_SAMPLES
    if not grow or (len(matches) == 1 and not is_timit):
        return None
    return " ".join(match[3] for match in matches)


def _of_subtitles(lines: list[str]) -> str:
    """The lines below an arrow, up to the next blank line."""
    words, in_cue = [], False
    for line in lines:
        if _ARROW.match(line):
            in_cue = True
        elif not line.strip():
            in_cue = False
        elif in_cue:
            words.append(_TAGS.sub("", line))
    return " ".join(" ".join(words).split())
