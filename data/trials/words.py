"""Rules, scenes and answers in words, as files and people write them.

A node is its operator and what it asks about: "exist red c", "getcolor c", "getshape red", "sumodd
red c + blue k", "switch". An answer is true, false, a colour, a letter, or a cell such as 4,7 (row
4, column 7).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...base.errors import closest, shown
from .trial import (
    COLOURS,
    EXIST,
    FALSE,
    FIRST_CELL,
    FIRST_COLOUR,
    FIRST_LETTER,
    GET_COLOUR,
    GET_LETTER,
    GO,
    LETTERS,
    OPERATORS,
    SIDE,
    SWITCH,
    TRUE,
    Node,
    Selector,
    answer_of_cell,
    levels_of,
    question_place,
)

_NUMBERS = {name: number for number, name in enumerate(OPERATORS, 1)}
_COLOURS = {name: number for number, name in enumerate(COLOURS, 1)}
_LETTERS = {name: number for number, name in enumerate(LETTERS, 1)}


def answer_words(answer: int) -> str:
    """An answer in words.

    >>> answer_words(TRUE), answer_words(answer_of_cell(4, 7)), answer_words(FIRST_COLOUR)
    ('true', '4,7', 'red')
    """
    if answer < FIRST_CELL:
        return "true" if answer == TRUE else "false"
    if answer >= FIRST_COLOUR:
        return COLOURS[answer - FIRST_COLOUR]
    if answer >= FIRST_LETTER:
        return LETTERS[answer - FIRST_LETTER]
    x, y = divmod(answer - FIRST_CELL, SIDE)
    return f"{y},{x}"


def answer_number(words: str) -> int:
    """The number of an answer in words. Raises ValueError for words that are no answer."""
    plain = words.strip().lower().strip("()[]").replace(" ", "")
    if plain in ("true", "false"):
        return TRUE if plain == "true" else FALSE
    if plain in _COLOURS:
        return FIRST_COLOUR + _COLOURS[plain] - 1
    if plain in _LETTERS:
        return FIRST_LETTER + _LETTERS[plain] - 1
    y, mark, x = plain.partition(",")
    if mark and all(part.isdigit() and len(part) < 3 and int(part) < SIDE for part in (y, x)):
        return answer_of_cell(int(y), int(x))
    raise ValueError(f"{shown(words)} is no answer (true, false, a colour, a letter, a cell 4,7)")


def node_words(node: Node) -> str:
    """A node in words."""
    objects = " + ".join(selector_words(selector) for selector in node.selectors)
    return f"{OPERATORS[node.operator - 1]} {objects}".strip()


def selector_words(selector: Selector) -> str:
    """What a selector asks for: "red c", "red" or "c"."""
    colour = COLOURS[selector.colour - 1] if selector.colour else ""
    letter = LETTERS[selector.letter - 1] if selector.letter else ""
    return f"{colour} {letter}".strip()


def node_of_words(words: str) -> Node:
    """The node that `node_words` writes. Raises ValueError for other words."""
    name, _, rest = words.strip().lower().partition(" ")
    if name not in _NUMBERS:
        near = closest(name, OPERATORS, cutoff=0.0)
        raise ValueError(f"{shown(name)} is no operator; nearest is {near}")
    parts = rest.split("+") if rest.strip() else []
    return Node(_NUMBERS[name], tuple(map(selector_of_words, parts)))


def selector_of_words(words: str) -> Selector:
    """The selector that `selector_words` writes. Raises ValueError for other words."""
    colour = letter = 0
    for word in words.split():
        if word in _COLOURS and not colour:
            colour = _COLOURS[word]
        elif word in _LETTERS and not letter:
            letter = _LETTERS[word]
        else:
            raise ValueError(f"{shown(word)} is no colour or letter of an object")
    return Selector(colour, letter)


def question_words(rule: Sequence[Node]) -> str:
    """A rule as a sentence: "does red c exist?"; "if (...) then (...) else (...)"."""
    levels = levels_of(len(rule))

    def words(level: int, number: int) -> str:
        question = _question(rule[question_place(level, number)])
        if level == levels - 1:
            return question
        branches = (words(level + 1, 2 * number), words(level + 1, 2 * number + 1))
        return f"if ({question}) then ({branches[0]}) else ({branches[1]})"

    return words(0, 0)


def _question(node: Node) -> str:
    objects = [selector_words(selector) for selector in node.selectors]
    if node.operator == EXIST:
        return f"does {objects[0]} exist?"
    if node.operator == GO:
        return f"where is {objects[0]}?"
    if node.operator == GET_COLOUR:
        return f"which colour has {objects[0]}?"
    if node.operator == GET_LETTER:
        return f"which letter is {objects[0]}?"
    if node.operator == SWITCH:
        return "switch"
    name = OPERATORS[node.operator - 1]
    kind = "product" if name.startswith("product") else "sum"
    return f"is the {kind} of {' and '.join(objects)} {name.removeprefix(kind)}?"
