"""What a trial is: a rule, the scene that it asks about, and the answer.

A rule is a tree of questions. Its nodes stand level by level: the question at the root; the switch
below it; the two questions of the switch (first where the answer is true, then where it is false);
their switches; and so on. So the place of a node alone says where in the tree it is.
"""

from __future__ import annotations

from typing import NamedTuple

COLOURS = (
    "red", "green", "blue", "yellow", "purple", "orange", "white", "pink", "cyan", "brown",
)  # fmt: skip
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
SIDE = 10
"""Rows and columns of the grid of a scene."""

OPERATORS = (
    "exist", "go", "getcolor", "getshape", "sumeven", "producteven", "productodd", "sumodd",
    "switch",
)  # fmt: skip
"""What a node does; its number in files is its place here, counted from 1."""
EXIST, GO, GET_COLOUR, GET_LETTER, SUM_EVEN, PRODUCT_EVEN, PRODUCT_ODD, SUM_ODD, SWITCH = range(
    1, 10
)
QUESTIONS = tuple(range(EXIST, SWITCH))
PARITIES = (SUM_EVEN, PRODUCT_EVEN, PRODUCT_ODD, SUM_ODD)
CONDITIONS = (EXIST, *PARITIES)
"""Questions that are answered by true or false."""

ANSWERS = 2 + SIDE * SIDE + len(LETTERS) + len(COLOURS)
"""Possible answers: true, false, a cell, a letter, a colour."""
TRUE, FALSE, FIRST_CELL = 0, 1, 2
FIRST_LETTER = FIRST_CELL + SIDE * SIDE
FIRST_COLOUR = FIRST_LETTER + len(LETTERS)
KINDS = ("true", "false", "cell", "letter", "colour")
DEPTHS = (1, 3, 5, 7)
NODES = {1: 1, 3: 4, 5: 10, 7: 22}
"""Nodes of a rule by its depth, the most nodes on a path from the root."""


class Selector(NamedTuple):
    """Which object a node asks about: colour 1 to 10 and letter 1 to 26, 0 for any."""

    colour: int
    letter: int


class Node(NamedTuple):
    """A node of a rule. selectors: one, or two for the sum or product of two objects; () for a
    switch.
    """

    operator: int
    selectors: tuple[Selector, ...] = ()


class SceneObject(NamedTuple):
    """A coloured letter in a cell: row y and column x from 0, colour 1 to 10, letter 1 to 26."""

    y: int
    x: int
    colour: int
    letter: int


class Trial(NamedTuple):
    """A rule, a scene sorted by cell, and the number of the answer."""

    rule: tuple[Node, ...]
    scene: tuple[SceneObject, ...]
    answer: int


def question_place(level: int, number: int) -> int:
    """Where in a rule a question stands: level from 0, number from 0 to 2^level - 1.

    >>> [question_place(level, 0) for level in range(4)]
    [0, 2, 6, 14]
    """
    return 2 ** (level + 1) - 2 + number


def switch_place(level: int, number: int) -> int:
    """Where the switch below a question stands.

    >>> [switch_place(level, 0) for level in range(3)]
    [1, 4, 10]
    """
    return question_place(level, number) + 2**level


def levels_of(nodes: int) -> int:
    """Levels of questions in a rule of that many nodes. Raises ValueError for a number of nodes
    that no rule has.

    >>> [levels_of(nodes) for nodes in (1, 4, 10, 22)]
    [1, 2, 3, 4]
    """
    depths = [depth for depth, count in NODES.items() if count == nodes]
    if not depths:
        known = ", ".join(map(str, NODES.values()))
        raise ValueError(f"a rule has {known} nodes, not {nodes}")
    return (depths[0] + 1) // 2


def endings(rule: tuple[Node, ...]) -> tuple[Node, ...]:
    """The questions on which the paths of a rule end."""
    return rule[-(2 ** (levels_of(len(rule)) - 1)) :]


def answer_of_cell(y: int, x: int) -> int:
    """The number of the answer that names a cell; columns come first, as in the published code."""
    return FIRST_CELL + SIDE * x + y


def answer_of_truth(truth: bool) -> int:
    """The number of the answer true or false."""
    return TRUE if truth else FALSE


def kind_of_answer(answer: int) -> int:
    """The place in `KINDS` of what an answer is."""
    if answer < FIRST_CELL:
        return answer
    return 2 + (answer >= FIRST_LETTER) + (answer >= FIRST_COLOUR)


def check_rule(rule: tuple[Node, ...]) -> None:
    """Raises ValueError for nodes that form no rule, naming the first that does not fit."""
    levels = levels_of(len(rule))
    switches = {
        switch_place(level, number) for level in range(levels - 1) for number in range(2**level)
    }
    ends = len(rule) - 2 ** (levels - 1)
    for place, node in enumerate(rule):
        name = OPERATORS[node.operator - 1] if 0 < node.operator <= SWITCH else node.operator
        if (node.operator == SWITCH) != (place in switches) or not 0 < node.operator <= SWITCH:
            expected = "a switch" if place in switches else "a question"
            raise ValueError(f"node {place + 1} is {name}, and {expected} must be there")
        if place < ends and place not in switches and node.operator not in CONDITIONS:
            raise ValueError(f"node {place + 1} is {name}, whose answer is not true or false")
        least, most = 1, 2 if node.operator in PARITIES else 1
        if node.operator == SWITCH:
            least = most = 0
        if not least <= len(node.selectors) <= most:
            raise ValueError(f"node {place + 1} ({name}) asks about {len(node.selectors)} objects")
        for selector in node.selectors:
            if bool(selector.colour) == (node.operator == GET_COLOUR):
                raise ValueError(f"node {place + 1} ({name}) does not fit its colour")
            if bool(selector.letter) == (node.operator == GET_LETTER):
                raise ValueError(f"node {place + 1} ({name}) does not fit its letter")
