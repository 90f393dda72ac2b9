"""Sentences of a text with their exact places, for scripts with and without spaces and capitals.

Rules, not a model: a mark ends a sentence where its script says so.

- 。！？ and their like end one without a space after them, but not within 「」, and not before
  words that go on after a quotation (」と).
- ؟ ۔ । ॥ ։ ። ། ။ ។ end one wherever they stand.
- . ! ? … end one before a blank that no small letter follows. A full stop does not after
  abbreviations, initials, the number of a list, or a day before its month.
- Blank lines, bullets and U+2029 end one in any script. Thai has no such marks: there only lines
  and blank lines do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_OPENING, _CLOSING, _ENDING = "\"'“‘„«‹»›([{「『（【《〈¿¡*_", "\"'“‘«‹»›*_", "”’)]}」』）】》〉"
_WIDE, _SPACELESS, _SPACED = "。！？｡", "؟۔।॥։።།။។", ".!?…．"
_BLANK_LINE = re.compile(r"\n[ \t\r\f\v\u3000]*\n\s*|[\u2029\f]\s*|\n[ \t]*(?=[-*•‣·–][ \t]+\S)")
# The same sign opens in one language and closes in another; one before a letter opens.
_STOP = re.compile(
    rf"(?P<marks>[{_WIDE}{_SPACELESS}{re.escape(_SPACED)}]+)"
    rf"(?P<closing>(?:[{re.escape(_CLOSING)}](?!\w)|[{re.escape(_ENDING)}]"
    r"|[ \u00a0\u202f]»(?!\w))*)"
)
_WORD_BEFORE = re.compile(r"[^\s()\[\]\"'“”‘’«»„,;:]+\Z")
_WORD_AFTER = re.compile(rf"[\s{re.escape(_OPENING)}—–-]*([^\W_]+)")
_GOES_ON = re.compile(r"[とっ、，,;；：:はがをにでもの]")
_OPEN, _CLOSE = re.compile("[「『]"), re.compile("[」』]")
_LOOK_BACK = 40  # characters that a word before a stop may have


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# In lower case and without the last full stop. A stop after these never ends a sentence.
_NEVER = _word_set(
    """
    mr mrs ms mx dr prof rev hon gen sen rep gov col lt sgt capt st mt messrs hr fr frl hrn dipl ing
    sig sra srta dott avv mme mlle mm vs e.g i.e cf viz ca approx resp fig figs eq eqs no nos nr vol
    pp ed eds al abb bzw z.b d.h u.a o.ä v.a s.o s.u i.d.r vgl bspw sog ggf inkl zzgl exkl evtl p.ex
    núm pág art cap inc. т.е т.к т.н т.ч им ул стр рис см напр гг tel bd jg hrsg usw. ph.d. op
    """
)
# These may end a sentence: a stop after them ends it before a word that often begins one.
_MAYBE = _word_set(
    """
    etc jr sr inc ltd co corp plc llc bros dept est u.s u.k u.n e.u a.m p.m d.c ph.d b.a m.a usw dgl
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun т.д т.п г др руб
    """
)
_STARTERS = _word_set(
    """
    the a an this that these those it its he she we they you i in on at by for from with and but as
    or so if when while after before since there here what who how why however moreover meanwhile
    also although because no not his her their our my one some many most all each both such then now
    der die das ein eine es er sie wir ich im in am und aber doch wenn als nach vor le la les un une
    il elle ils nous en dans mais et el los las una y pero в на и но он она они это мы я после
    """
)
_MONTHS = re.compile(
    r"(?:jan|feb|mär|mar|apr|ma[iy]|ju[nl]|aug|sept?|o[kc]t|nov|de[zc]|янв|фев|март|апр|ма[йя]|июн|"
    r"июл|авг|сен|окт|ноя|дек|led|úno|bře|dub|kvě|črv|srp|zář|říj|lis|pro|sty|lut|kwi|cze|lip|sie|"
    r"wrz|paź|gru|tammi|helmi|maalis|huhti|touko|kesä|heinä|elo|syys|loka|marras|joulu)\w*",
    re.IGNORECASE,
)


class Span(NamedTuple):
    """A stretch of a text: `text[start:end]`."""

    start: int
    end: int


def split_sentences(text: str) -> list[Span]:
    """Places of the sentences of a text, in order.

    No sentence begins or ends with white space, and between two there is nothing else, so that
    every other character of the text is in exactly one of them.

    >>> text = 'Dr. Wu paid 3.5 million. "Why?" she asked.'
    >>> [text[start:end] for start, end in split_sentences(text)]
    ['Dr. Wu paid 3.5 million.', '"Why?" she asked.']
    """
    spans, start = list[Span](), 0
    for end in (*_ends(text), len(text)):
        piece = text[start:end]
        if stripped := piece.strip():
            first = start + len(piece) - len(piece.lstrip())
            spans.append(Span(first, first + len(stripped)))
        start = end
    return spans


def sentences_of(text: str) -> list[str]:
    """The sentences themselves."""
    return [text[start:end] for start, end in split_sentences(text)]


def _ends(text: str) -> Iterator[int]:
    """Places after which a new sentence begins, in order."""
    start = 0
    for gap in (*_BLANK_LINE.finditer(text), None):
        end = len(text) if gap is None else gap.start()
        yield from _stops(text, start, end)
        yield end
        start = end if gap is None else gap.end()


def _stops(text: str, start: int, end: int) -> Iterator[int]:
    """Ends of the sentences within one paragraph."""
    begun, counted, depth, filled = start, start, 0, False
    opened, closed = (len(sign.findall(text, start, end)) for sign in (_OPEN, _CLOSE))
    quoted = opened == closed > 0  # one that is never closed would swallow the rest
    for stop in _STOP.finditer(text, start, end):
        after = stop.end()
        if quoted:
            depth += len(_OPEN.findall(text, counted, after))
            depth -= len(_CLOSE.findall(text, counted, after))
            counted = after
        filled = filled or bool(text[begun : stop.start()].strip())
        if after >= end or not filled:
            continue
        marks = stop["marks"]
        if marks[-1] in _WIDE:
            ended = depth == 0 and not (stop["closing"] and _GOES_ON.match(text, after))
        elif marks[-1] in _SPACELESS:
            ended = True
        else:
            ended = text[after].isspace() and _ends_at_blank(text, begun, stop, end)
        if ended:
            yield after
            begun, filled = after, False


def _ends_at_blank(text: str, begun: int, stop: re.Match[str], end: int) -> bool:
    """Whether a mark before a blank ends the sentence that began at `begun`."""
    match = _WORD_AFTER.match(text, stop.end(), end)
    following = match[1] if match else ""
    if following[:1].islower():
        return False
    if stop["marks"] != "." or stop["closing"]:
        return True
    before = _WORD_BEFORE.search(text, max(begun, stop.start() - _LOOK_BACK), stop.start())
    word = before[0] if before else ""
    folded = word.lower()
    if word.isdigit():
        first = stop.start() - len(word)
        numbers = first - begun < _LOOK_BACK and not text[begun:first].strip()  # of a list
        return not (numbers or (len(word) <= 2 and _MONTHS.fullmatch(following)))
    if folded in _NEVER:
        return folded in ("no", "art") and not following.isdigit()
    if len(word) == len(following) == 1 and word.isalpha():  # z. B., J. R. Smith
        return False
    initial = len(word) == 1 and word.isupper() and word != "I"
    if folded in _MAYBE or initial or re.fullmatch(r"(?:\w\.)+\w", word):
        return following.lower() in _STARTERS or (not following and not initial)
    return True
