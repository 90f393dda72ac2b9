"""An evaluator that shares nothing with that of the package: rules as nested tuples, scenes as
dictionaries by cell, questions in words.
"""

from __future__ import annotations

from typing import Any

from headwise.data.trials.trial import Trial
from headwise.data.trials.words import node_words

COLOURS = (
    "red", "green", "blue", "yellow", "purple", "orange", "white", "pink", "cyan", "brown",
)  # fmt: skip


def tree(words: list[str]) -> Any:
    """(question, tree if true, tree if false), or the question alone, from nodes level by level."""
    levels, rest = [], list(words)
    while rest:
        count = max(1, 2 * len(levels[-1]) if levels else 1)
        levels.append(rest[:count])
        rest = rest[count:]
        if rest:
            assert rest[:count] == ["switch"] * count
            rest = rest[count:]
    trees: list[Any] = levels[-1]
    for questions in reversed(levels[:-1]):
        trees = [(q, trees[2 * k], trees[2 * k + 1]) for k, q in enumerate(questions)]
    return trees[0]


def scene_of(trial: Trial) -> dict[tuple[int, int], tuple[str, str]]:
    """Colour and letter by (row, column)."""
    return {
        (y, x): (COLOURS[c - 1], "abcdefghijklmnopqrstuvwxyz"[k - 1]) for y, x, c, k in trial.scene
    }


def where(scene: dict[tuple[int, int], tuple[str, str]], asked: str) -> list[tuple[int, int]]:
    """Cells of the objects that words fit, by row and column."""
    return sorted(cell for cell, words in scene.items() if set(asked.split()) <= set(words))


def ask(question: str, scene: dict[tuple[int, int], tuple[str, str]]) -> str:
    """The answer to one question."""
    operator, _, rest = question.partition(" ")
    cells = [where(scene, part) for part in rest.split(" + ")]
    if operator == "exist":
        return str(len(cells[0]) > 0).lower()
    y, x = cells[0][0]
    if operator == "go":
        return f"{y},{x}"
    if operator == "getcolor":
        return scene[y, x][0]
    if operator == "getshape":
        return scene[y, x][1]
    numbers = [number for places in cells for number in places[0]]
    total = 0 if operator.startswith("sum") else 1
    for number in numbers:
        total = total + number if operator.startswith("sum") else total * number
    return str((total % 2 == 0) == operator.endswith("even")).lower()


def plain_answer(trial: Trial) -> str:
    """The answer to a trial in words."""
    node, scene = tree([node_words(node) for node in trial.rule]), scene_of(trial)
    while isinstance(node, tuple):
        node = node[1] if ask(node[0], scene) == "true" else node[2]
    return ask(node, scene)
