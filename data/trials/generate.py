"""Trials by the thousand: each is a pure function of a seed, a stream and its number.

Repaired trials (see `published` for the others): the answer of each question is decided first, true
and false alike often, and the objects are placed to give it. Whatever a rule asks about is there
once, on all its paths, so that each question has one answer, and the rule alone tells nothing about
which path is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from .evaluate import evaluate
from .kinds import Pair, TrialKind, takes_two
from .published import published_trial
from .trial import (
    COLOURS,
    EXIST,
    GET_COLOUR,
    GET_LETTER,
    LETTERS,
    NODES,
    PARITIES,
    PRODUCT_EVEN,
    PRODUCT_ODD,
    SIDE,
    SUM_EVEN,
    SWITCH,
    Node,
    SceneObject,
    Selector,
    Trial,
    levels_of,
    switch_place,
)

TRIES = 200
"""Draws before a trial is begun anew, and beginnings before it is given up."""
Cell = tuple[int, int]


def trial(kind: TrialKind, seed: int, stream: int, index: int) -> Trial:
    """The trial of that number in a stream. Streams, which are below 256, have nothing in common.

    Raises ValueError for a kind with more objects than a scene can hold.
    """
    return random_trial(kind, Random(((seed << 8 | stream) << 64) | index))


def random_trial(kind: TrialKind, random: Random, operators: Sequence[int] | None = None) -> Trial:
    """A trial from a random state. operators: of its nodes; by default they are random as well.

    Raises ValueError as `trial` does.
    """
    if operators is None:
        operators = random_operators(kind, random)
    if kind.rules == "official":
        return published_trial(kind, operators, random)
    for _ in range(TRIES):
        pairs = _pairs(kind, operators, random)
        scene = None if pairs is None else _scene(kind, operators, pairs, random)
        if pairs is not None and scene is not None:
            rule = rule_of(operators, pairs)
            scene = tuple(sorted(scene))
            return Trial(rule, scene, evaluate(rule, scene).answer)
    raise ValueError(f"no scene holds {kind.most} objects besides those that the rule asks about")


def random_operators(kind: TrialKind, random: Random) -> list[int]:
    """The operators of a rule, level by level."""
    nodes = NODES[kind.depths[int(random.random() * len(kind.depths))]]
    family = kind.families[int(random.random() * len(kind.families))]
    levels = levels_of(nodes)
    ends = nodes - 2 ** (levels - 1)
    operators = [0] * nodes
    for level in range(levels - 1):
        for number in range(2**level):
            operators[switch_place(level, number)] = SWITCH
    for place in range(nodes):
        if not operators[place]:
            choices = family.endings if place >= ends else family.conditions
            operators[place] = choices[int(random.random() * len(choices))]
    return operators


def rule_of(operators: Sequence[int], pairs: Sequence[Sequence[Pair]]) -> tuple[Node, ...]:
    """The rule whose nodes ask about these objects; who asks for a colour does not name it."""
    return tuple(
        Node(
            operator,
            tuple(
                Selector(
                    0 if operator == GET_COLOUR else colour, 0 if operator == GET_LETTER else letter
                )
                for colour, letter in objects
            ),
        )
        for operator, objects in zip(operators, pairs, strict=True)
    )


class _Taken:
    """The objects of a rule so far. No two are alike, and a colour or letter by which a question
    knows its object is that of no other.
    """

    def __init__(self) -> None:
        self.pairs: set[Pair] = set()
        self.colours: set[int] = set()
        self.letters: set[int] = set()
        self.unique_colours: set[int] = set()
        self.unique_letters: set[int] = set()

    def fits(self, operator: int, pair: Pair) -> bool:
        """Whether a question with this operator may ask about this object."""
        colour, letter = pair
        return not (
            pair in self.pairs
            or colour in self.unique_colours
            or letter in self.unique_letters
            or (operator == GET_LETTER and colour in self.colours)
            or (operator == GET_COLOUR and letter in self.letters)
        )

    def add(self, operator: int, pair: Pair) -> None:
        """Take an object."""
        self.pairs.add(pair)
        self.colours.add(pair[0])
        self.letters.add(pair[1])
        if operator == GET_LETTER:
            self.unique_colours.add(pair[0])
        elif operator == GET_COLOUR:
            self.unique_letters.add(pair[1])


def _pairs(
    kind: TrialKind, operators: Sequence[int], random: Random
) -> list[tuple[Pair, ...]] | None:
    """The objects that each node asks about; None where the draws led nowhere."""
    taken = _Taken()
    chosen: list[tuple[Pair, ...]] = [() for _ in operators]
    # Objects that only their colour or letter tells are the hardest to choose: they come first.
    hard_first = sorted(
        range(len(operators)), key=lambda place: operators[place] not in (GET_COLOUR, GET_LETTER)
    )
    for place in hard_first:
        operator = operators[place]
        if operator == SWITCH:
            continue
        two = len(operators) > 1 and takes_two(operator) and random.random() < 0.5
        for _ in range(1 + two):
            choices = kind.pairs[operator]
            for _ in range(TRIES):
                pair = choices[int(random.random() * len(choices))]
                if taken.fits(operator, pair):
                    break
            else:
                return None
            taken.add(operator, pair)
            chosen[place] += (pair,)
    return chosen


def _scene(
    kind: TrialKind, operators: Sequence[int], pairs: Sequence[Sequence[Pair]], random: Random
) -> list[SceneObject] | None:
    """A scene in which each question has one answer; None where no cells are left for it."""
    scene: list[SceneObject] = []
    cells: set[Cell] = set()
    for operator, objects in zip(operators, pairs, strict=True):
        if operator == SWITCH:
            continue
        truth = random.random() < 0.5
        if operator == EXIST and not truth:
            continue
        places = _cells(operator, len(objects), truth, cells, random)
        if places is None:
            return None
        cells.update(places)
        scene += [SceneObject(*cell, *pair) for cell, pair in zip(places, objects, strict=True)]
    count = kind.fewest + int(random.random() * (kind.most - kind.fewest + 1))
    others = _others(operators, pairs, count, random)
    if others is None or len(cells) + count > SIDE * SIDE:
        return None
    for pair in others:
        cell = _free_cell(cells, random)
        cells.add(cell)
        scene.append(SceneObject(*cell, *pair))
    return scene


def _free_cell(cells: set[Cell], random: Random) -> Cell:
    while True:
        cell = divmod(int(random.random() * SIDE * SIDE), SIDE)
        if cell not in cells:
            return cell


def _cells(
    operator: int, count: int, truth: bool, cells: set[Cell], random: Random
) -> list[Cell] | None:
    """Free cells for the objects of a question, so that its answer is `truth`."""
    for _ in range(TRIES):
        first = _free_cell(cells, random)
        places = [first]
        if count == 2:
            places.append(_free_cell(cells | {first}, random))
        if operator not in PARITIES or _is_true(operator, places) == truth:
            return places
    return None


def _is_true(operator: int, places: Sequence[Cell]) -> bool:
    """Whether a question about the sum or product of these coordinates is answered by true."""
    if operator in (PRODUCT_EVEN, PRODUCT_ODD):
        return all(y % 2 and x % 2 for y, x in places) == (operator == PRODUCT_ODD)
    return bool(sum(y + x for y, x in places) % 2) != (operator == SUM_EVEN)


def _others(
    operators: Sequence[int], pairs: Sequence[Sequence[Pair]], count: int, random: Random
) -> list[Pair] | None:
    """Different objects that no node asks about; None where there are not so many."""
    taken = {pair for objects in pairs for pair in objects}
    colours = {objects[0][0] for op, objects in zip(operators, pairs) if op == GET_LETTER}
    letters = {objects[0][1] for op, objects in zip(operators, pairs) if op == GET_COLOUR}
    most = (len(COLOURS) - len(colours)) * (len(LETTERS) - len(letters)) - len(taken)
    if count > most:
        return None
    others: list[Pair] = []
    while len(others) < count:
        pair = (1 + int(random.random() * len(COLOURS)), 1 + int(random.random() * len(LETTERS)))
        if pair in taken or pair[0] in colours or pair[1] in letters:
            continue
        taken.add(pair)
        others.append(pair)
    return others
