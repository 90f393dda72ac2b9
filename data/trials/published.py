"""Trials as the published generator of gCOG makes them, with its faults.

Written from its behaviour (github.com/IBM/gcog at afba7f0), not from its text. What differs from
repaired trials: the cell of an object is drawn before it is known what is asked, so that parities
are unbalanced (a product is even three times out of four); two questions of a tree may ask about
the same object, colour or letter, so that a question may fit several objects, of which the first by
row and column counts; an object that nothing asks about may be one whose existence is asked; it
replaces an older one that is alike, and gives way to an object that is asked about; and an object
that is asked about goes to another cell where its own is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from .evaluate import evaluate
from .kinds import ASKED_LETTERS, Pair, TrialKind, takes_two
from .trial import (
    COLOURS,
    EXIST,
    GET_COLOUR,
    GET_LETTER,
    LETTERS,
    SIDE,
    SWITCH,
    Node,
    SceneObject,
    Selector,
    Trial,
    levels_of,
    question_place,
)

Cell = tuple[int, int]
_CELLS = [(y, x) for y in range(SIDE) for x in range(SIDE)]


class _Asked:
    """An object that a question asks about, with the cell that was drawn for it."""

    def __init__(self, pair: Pair, cell: Cell) -> None:
        self.pair, self.cell = pair, cell


class _Scene:
    """Objects by their cells; `distractors` are those that nothing asks about."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.objects: dict[Cell, Pair] = {}
        self.cells: dict[Pair, Cell] = {}
        self.distractors: set[Pair] = set()

    def free_cell(self) -> Cell:
        """A random cell without an object."""
        while True:
            cell = _CELLS[int(self.random.random() * len(_CELLS))]
            if cell not in self.objects:
                return cell

    def remove(self, pair: Pair) -> None:
        """Take an object that nothing asks about away."""
        self.distractors.discard(pair)
        del self.objects[self.cells.pop(pair)]

    def place(self, pair: Pair, cell: Cell) -> None:
        """Put an object into a free cell."""
        self.objects[cell] = pair
        self.cells[pair] = cell

    def add_distractor(self, pair: Pair) -> None:
        """Add an object that nothing asks about, in place of an older one that is alike."""
        if pair in self.distractors:
            self.remove(pair)
        self.place(pair, self.free_cell())
        self.distractors.add(pair)

    def add_asked(self, asked: _Asked) -> None:
        """Add an object that is asked about, unless another question has added it."""
        if asked.pair in self.distractors:
            self.remove(asked.pair)
        if asked.pair in self.cells:
            return
        cell, present = asked.cell, self.objects.get(asked.cell)
        if present is not None:
            if present in self.distractors:
                self.remove(present)
            cell = self.free_cell()
        self.place(asked.pair, cell)


def published_trial(kind: TrialKind, operators: Sequence[int], random: Random) -> Trial:
    """A trial whose nodes have these operators."""
    asked = _asked(kind, operators, random)
    scene = _Scene(random)
    colours = [c for c in range(1, len(COLOURS) + 1) if not _names(asked, operators, GET_LETTER, c)]
    letters = [k for k in range(1, len(LETTERS) + 1) if not _names(asked, operators, GET_COLOUR, k)]
    count = kind.fewest + int(random.random() * (kind.most - kind.fewest + 1))
    for _ in range(min(count, len(_CELLS) - 2 * len(operators))):
        colour = colours[int(random.random() * len(colours))]
        scene.add_distractor((colour, letters[int(random.random() * len(letters))]))
    for place in _order(len(operators)):
        if operators[place] != EXIST or random.random() > 0.5:
            for item in reversed(asked[place]):
                scene.add_asked(item)
    rule = tuple(
        Node(operator, tuple(_selector(operator, item.pair) for item in items))
        for operator, items in zip(operators, asked, strict=True)
    )
    objects = tuple(sorted(SceneObject(*cell, *pair) for cell, pair in scene.objects.items()))
    return Trial(rule, objects, evaluate(rule, objects).answer)


def _names(
    asked: Sequence[Sequence[_Asked]], operators: Sequence[int], by: int, value: int
) -> bool:
    """Whether a question that knows its object by its colour (or letter) alone names this one."""
    attribute = 0 if by == GET_LETTER else 1
    return any(
        operator == by and items[0].pair[attribute] == value
        for operator, items in zip(operators, asked, strict=True)
    )


def _selector(operator: int, pair: Pair) -> Selector:
    colour, letter = pair
    return Selector(
        0 if operator == GET_COLOUR else colour, 0 if operator == GET_LETTER else letter
    )


def _asked(kind: TrialKind, operators: Sequence[int], random: Random) -> list[list[_Asked]]:
    """What each node asks about. In a tree, objects are drawn with replacement from a list in which
    each has one cell, and second objects are any of all 260.
    """

    def random_cell() -> Cell:
        return _CELLS[int(random.random() * len(_CELLS))]

    if len(operators) == 1:
        pairs = kind.pairs[operators[0]]
        return [[_Asked(pairs[int(random.random() * len(pairs))], random_cell())]]
    pairs = [(c, k) for c in range(1, len(COLOURS) + 1) for k in range(1, ASKED_LETTERS + 1)]
    cells = list(_CELLS)
    random.shuffle(cells)
    listed = [_Asked(pair, cell) for pair, cell in zip(pairs, cells, strict=True)]
    taken: set[Cell] = set()
    chosen: list[list[_Asked]] = []
    for operator in operators:
        if operator == SWITCH:
            chosen.append([])
            continue
        first = listed[int(random.random() * len(listed))]
        while first.cell in taken:
            first.cell = random_cell()
        objects = [first]
        if takes_two(operator) and random.random() < 0.5:
            cell = random_cell()
            while cell == first.cell or cell in taken:
                cell = random_cell()
            pair = (
                1 + int(random.random() * len(COLOURS)),
                1 + int(random.random() * len(LETTERS)),
            )
            objects.append(_Asked(pair, cell))
        taken.update(item.cell for item in objects)
        chosen.append(objects)
    return chosen


def _order(nodes: int) -> list[int]:
    """Places of the questions in the order in which their objects are added: the branch for false,
    the branch for true, then the condition above them.
    """
    levels = levels_of(nodes)

    def below(level: int, number: int) -> list[int]:
        here = [question_place(level, number)]
        if level == levels - 1:
            return here
        return below(level + 1, 2 * number + 1) + below(level + 1, 2 * number) + here

    return below(0, 0)
