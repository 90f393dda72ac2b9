"""The answer to a trial, and what leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .trial import (
    EXIST,
    FIRST_COLOUR,
    FIRST_LETTER,
    GET_COLOUR,
    GET_LETTER,
    GO,
    OPERATORS,
    PRODUCT_EVEN,
    PRODUCT_ODD,
    SUM_EVEN,
    TRUE,
    Node,
    SceneObject,
    Selector,
    answer_of_cell,
    answer_of_truth,
    levels_of,
    question_place,
)


class Outcome(NamedTuple):
    """What a rule gives on a scene.

    answer: its number; path: places of the questions that were asked, from the root to the one that
    gives the answer; asked: places in the scene of the objects that they ask about, sorted;
    well_posed: whether each selector of these questions fits one object at most. Where one fits
    several, the first by row and column counts, as in the published code.
    """

    answer: int
    path: tuple[int, ...]
    asked: tuple[int, ...]
    well_posed: bool


def evaluate(rule: Sequence[Node], scene: Sequence[SceneObject]) -> Outcome:
    """The outcome of a rule on a scene, whose objects may have any order.

    Raises ValueError where a question asks about an object that is not in the scene.
    """
    levels, number, well_posed = levels_of(len(rule)), 0, True
    path: list[int] = []
    asked: set[int] = set()
    answer = TRUE
    for level in range(levels):
        place = question_place(level, number)
        node = rule[place]
        path.append(place)
        first: list[int] = []
        for selector in node.selectors:
            fitting = _fitting(selector, scene)
            if not fitting and node.operator != EXIST:
                raise ValueError(f"node {place + 1} ({_name(node)}) asks about no object")
            well_posed = well_posed and len(fitting) <= 1
            first += fitting[:1]
        asked.update(first)
        answer = _answer(node, [scene[k] for k in first])
        number = 2 * number + (answer != TRUE)
    return Outcome(answer, tuple(path), tuple(sorted(asked)), well_posed)


def _fitting(selector: Selector, scene: Sequence[SceneObject]) -> list[int]:
    """Places of the objects that a selector fits, by row and column."""
    colour, letter = selector
    places = [
        place
        for place, thing in enumerate(scene)
        if (not colour or thing.colour == colour) and (not letter or thing.letter == letter)
    ]
    return places if len(places) < 2 else sorted(places, key=lambda place: scene[place])


def _answer(node: Node, objects: Sequence[SceneObject]) -> int:
    if node.operator == EXIST:
        return answer_of_truth(bool(objects))
    if node.operator == GO:
        return answer_of_cell(objects[0].y, objects[0].x)
    if node.operator == GET_COLOUR:
        return FIRST_COLOUR + objects[0].colour - 1
    if node.operator == GET_LETTER:
        return FIRST_LETTER + objects[0].letter - 1
    if node.operator in (PRODUCT_EVEN, PRODUCT_ODD):
        odd = all(thing.y % 2 and thing.x % 2 for thing in objects)
        return answer_of_truth(odd == (node.operator == PRODUCT_ODD))
    odd = bool(sum(thing.y + thing.x for thing in objects) % 2)
    return answer_of_truth(odd != (node.operator == SUM_EVEN))


def _name(node: Node) -> str:
    return OPERATORS[node.operator - 1]
