"""Generated prompts: something is hidden in a text and asked for at the end.

The text is sentences of the user's own texts (or of those that come with the package) in their
order, so that a long prompt reads as prose. All draws follow from the seed; texts of one part are
in prompts of that part alone. Nothing here knows a tokenizer: lengths are in units of `measure`,
which counts them in a text.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...base.account import note
from ...base.errors import InputError
from .table import Prompt

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey")
OBJECTS = ("door", "box", "safe", "cabinet", "locker", "gate", "drawer", "case")
NEEDLES = 4  # codes in a prompt with distractors
COPIED = 8  # words of a sentence that is to be copied
PIECE = 4000  # characters that a long text is cut into, where there are too few texts for parts
LONGEST = 400  # characters of a sentence
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n{2,}")


class Filler(NamedTuple):
    """Sentences of the texts of a part in their order, and how long they are."""

    sentences: list[str]
    sizes: list[int]


@dataclass(frozen=True)
class Hidden:
    """What a prompt hides: sentences with their depths, 0 to 1, and the questions on them."""

    sentences: Sequence[tuple[float, str]]
    question: str
    answer: str
    question2: str = ""
    answer2: str = ""


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, without blank ones; very long ones in pieces.

    >>> sentences_of("It rains.  We stay in!")
    ['It rains.', 'We stay in!']
    """
    parts = (" ".join(part.split()) for part in _SENTENCE.split(text))
    return [line for part in parts if part for line in textwrap.wrap(part, LONGEST)]


def pieces_of(text: str, most: int = PIECE) -> list[str]:
    """A text in pieces of about `most` characters that end with a sentence."""
    pieces, current, size = list[str](), list[str](), 0
    for sentence in sentences_of(text):
        current.append(sentence)
        size += len(sentence) + 1
        if size >= most:
            pieces.append(" ".join(current))
            current, size = [], 0
    return pieces + ([" ".join(current)] if current else [])


def filler_of(texts: Sequence[str], measure: Callable[[str], int]) -> Filler:
    """The sentences of texts. Raises InputError where there are none."""
    sentences = [sentence for text in texts for sentence in sentences_of(text)]
    if not sentences:
        raise InputError("the texts hold no sentence; prompts cannot be generated over them")
    return Filler(sentences, [measure(f" {sentence}") for sentence in sentences])


def generate_prompts(
    filler: Filler,
    measure: Callable[[str], int],
    *,
    kinds: Sequence[str],
    lengths: Sequence[int],
    depths: Sequence[float],
    count: int,
    seed: int,
    name: str = "prompt",
) -> list[Prompt]:
    """Prompts that go through all kinds, lengths and depths in turn.

    measure: how long a text is, such as its number of tokens; a prompt is at most a sentence
    shorter than its length, and not longer. count: how many; seed: of all draws; name: what their
    ids begin with. Texts that are shorter than a prompt are repeated, which is noted.

    Raises InputError for a length that is too short for the question alone.
    """
    generator = np.random.default_rng(seed)
    settings = [(k, n, d) for d in depths for n in lengths for k in kinds]
    prompts = []
    for number in range(count):
        kind, length, depth = settings[number % len(settings)]
        hidden = KINDS[kind](generator, depth, filler)
        text = _hide(filler, hidden, length, measure, generator)
        prompts.append(
            Prompt(
                text,
                hidden.answer,
                hidden.question2,
                hidden.answer2,
                id=f"{name}-{number + 1:03d}",
                kind=kind,
                depth=depth,
                length=length,
            )
        )
    return prompts


def _hide(
    filler: Filler,
    hidden: Hidden,
    length: int,
    measure: Callable[[str], int],
    generator: np.random.Generator,
) -> str:
    """Sentences of the filler from a random one on, with those that are hidden among them."""
    asked = " ".join(sentence for _, sentence in hidden.sentences) + hidden.question
    room = length - measure(asked)
    if room < 0:
        raise InputError(
            f"--lengths {length}: is too short; the question alone has {length - room}"
        )
    place = int(generator.integers(len(filler.sentences)))
    chosen = list[str]()
    while True:
        size = filler.sizes[place % len(filler.sizes)]
        if size > room:
            break
        chosen.append(filler.sentences[place % len(filler.sizes)])
        room -= size
        place += 1
    if len(chosen) > len(filler.sentences):
        note("assumed", "texts are shorter than the prompts generated over them, and repeated")
    for depth, sentence in sorted(hidden.sentences, reverse=True):
        chosen.insert(round(depth * len(chosen)), sentence)
    return " ".join(chosen) + hidden.question


def _passkey(generator: np.random.Generator, depth: float, filler: Filler) -> Hidden:
    """A number of five digits. The question says that it is one: else a small model may go on with
    "a" or "the", and the first token tells of that instead of what was remembered.
    """
    key = _code(generator)
    return Hidden(
        [(depth, f"The pass key is the number {key}. Remember it. {key} is the pass key.")],
        "\n\nWhat is the pass key? The pass key is the number",
        f" {key}",
    )


def _needles(generator: np.random.Generator, depth: float, filler: Filler) -> Hidden:
    """One of several codes; the others distract."""
    names, codes = _named_codes(generator, NEEDLES)
    others = [(float(place), names[k], codes[k]) for k, place in _others(generator)]
    places = [(depth, names[0], codes[0]), *others]
    return Hidden(
        [(place, f"The code of {name} is the number {code}.") for place, name, code in places],
        _question(names[0]),
        f" {codes[0]}",
    )


def _second(generator: np.random.Generator, depth: float, filler: Filler) -> Hidden:
    """Two codes that are asked for one after the other; the second is at the depth."""
    names, codes = _named_codes(generator, 2)
    place = float(generator.uniform(0, 1))
    return Hidden(
        [(place, f"The code of {names[0]} is the number {codes[0]}."),
         (depth, f"The code of {names[1]} is the number {codes[1]}.")],
        _question(names[0]),
        f" {codes[0]}",
        _question(names[1]),
        f" {codes[1]}",
    )  # fmt: skip


def _copy(generator: np.random.Generator, depth: float, filler: Filler) -> Hidden:
    """Random words that are to be repeated; words of the text itself could be known by heart."""
    words = [str(word) for word in generator.choice(_words(filler), COPIED, replace=True)]
    return Hidden(
        [(depth, f"The secret words are: {' '.join(words)}.")],
        "\n\nRepeat the secret words. The secret words are:",
        f" {' '.join(words)}",
    )


KINDS: Mapping[str, Callable[[np.random.Generator, float, Filler], Hidden]] = {
    "passkey": _passkey,
    "needles": _needles,
    "copy": _copy,
    "second": _second,
}
"""What prompts can hide, by name."""


def _code(generator: np.random.Generator) -> str:
    return str(generator.integers(10_000, 100_000))


def _named_codes(generator: np.random.Generator, count: int) -> tuple[list[str], list[str]]:
    """Different things, and a code for each of them."""
    places = generator.choice(len(COLOURS) * len(OBJECTS), count, replace=False)
    names = [f"the {COLOURS[k % len(COLOURS)]} {OBJECTS[k // len(COLOURS)]}" for k in places]
    return names, [_code(generator) for _ in range(count)]


def _others(generator: np.random.Generator) -> list[tuple[int, float]]:
    """Numbers of the needles that distract, and where they are."""
    return [(k, float(generator.uniform(0, 1))) for k in range(1, NEEDLES)]


def _question(name: str) -> str:
    return f"\n\nWhat is the code of {name}? The code of {name} is the number"


def _words(filler: Filler) -> list[str]:
    """Plain words of the filler, in their order."""
    words = re.findall(r"\b[a-z]{3,8}\b", " ".join(filler.sentences[:500]))
    return list(dict.fromkeys(words)) or ["red", "stone", "river", "lamp"]
