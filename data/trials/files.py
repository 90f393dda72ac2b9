"""Files of trials: JSON lines in words, or with the numbers of the published data sets.

In words:

    {"id": "t1", "part": "test", "level": "10 distractors", "rule": ["exist red c"],
     "scene": ["red c 4,7", "blue k 0,2"], "answer": "true"}

As published: `rule` (or rule_inputs, rule_array), of each node 8 numbers (operator, then letter,
colour and time of two selectors, then the mark of the end), with a last row for the end; `stim` (or
stim_inputs, stim_array), of each of the 100 cells, row by row, 2 or 3 numbers (colour, letter, mark
of the end), with a last row for the end; `target` (or target_idx), the number of the answer. A line
may also be a list of these three. Lengths of 1, such as that of time, do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail, shown
from ..parts import PARTS, read_part
from .evaluate import evaluate
from .trial import (
    ANSWERS,
    COLOURS,
    GET_COLOUR,
    GET_LETTER,
    LETTERS,
    SIDE,
    SWITCH,
    Node,
    SceneObject,
    Selector,
    Trial,
    check_rule,
)
from .words import (
    answer_number,
    answer_words,
    node_of_words,
    node_words,
    selector_of_words,
    selector_words,
)

PUBLISHED_RULE = 8  # numbers of a node in the published form
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "rule": ("rule", "rules", "rule_inputs", "rule_input", "rule_array", "task", "instruction"),
    "scene": (
        "scene", "stim", "stimulus", "stimuli", "stim_inputs", "stim_input", "stim_array",
        "objects", "image",
    ),
    "answer": (
        "answer", "target", "target_idx", "target_output", "target_outputs", "targets", "label",
        "output",
    ),
    "id": ("id", "idx", "index", "trial", "name"),
    "part": ("part", "split"),
    "level": ("level", "setting"),
}  # fmt: skip


@dataclass(frozen=True)
class ReadTrial:
    """A trial of a file. trial: its answer is that of the file, or the evaluator's where the file
    has none; by_rule: the evaluator's answer; well_posed: see `Outcome`; part: "" for none.
    """

    trial: Trial
    by_rule: int
    well_posed: bool
    id: str
    part: str
    level: str
    has_answer: bool
    published: bool


def trial_line(
    trial: Trial, *, id: str = "", part: str = "", level: str = "", published: bool = False
) -> str:
    """A trial as a line of JSON, in words or with the numbers of the published data sets."""
    row: dict[str, object] = {
        name: text for name, text in (("id", id), ("part", part), ("level", level)) if text
    }
    if published:
        row |= {"rule": _published_rule(trial), "stim": _published_scene(trial)}
        return json.dumps({**row, "target": trial.answer}, separators=(",", ":"))
    row["rule"] = [node_words(node) for node in trial.rule]
    row["scene"] = [
        f"{selector_words(Selector(thing.colour, thing.letter))} {thing.y},{thing.x}"
        for thing in trial.scene
    ]
    return json.dumps({**row, "answer": answer_words(trial.answer)})


def _published_rule(trial: Trial) -> list[list[int]]:
    rows = []
    for node in trial.rule:
        row = [node.operator]
        for selector in node.selectors:
            row += [selector.letter or 1, selector.colour or 1, 1]
        rows.append(row + [0] * (PUBLISHED_RULE - len(row)))
    return [*rows, [0] * (PUBLISHED_RULE - 1) + [1]]


def _published_scene(trial: Trial) -> list[list[int]]:
    rows = [[0, 0, 0] for _ in range(SIDE * SIDE)]
    for thing in trial.scene:
        rows[SIDE * thing.y + thing.x][:2] = [thing.colour, thing.letter]
    return [*rows, [0, 0, 1]]


def read_trials(path: str | Path, lines: Iterable[str], start: int = 0) -> list[ReadTrial]:
    """The trials of lines of a file; a line without text is left out. Fields that are not used are
    noted.

    start: the number of the first line, from 0. Raises InputError for a line that is no trial.
    """
    trials: list[ReadTrial] = []
    names: dict[str, str] = {}
    for number, line in enumerate(lines, start):
        if not line.strip():
            continue
        try:
            trials.append(_read(line, number, names))
        except (ValueError, TypeError, OverflowError) as error:
            raise fail(f"{path}, line {number + 1}", str(error)) from None
    unused = [name for name, field in names.items() if not field]
    if unused:
        note("columns", "fields of trials that are not used", unused)
    if missing := sum(not trial.has_answer for trial in trials):
        note("assumed", "answers that the file lacks are those of the evaluator", count=missing)
    return trials


def _read(line: str, number: int, names: dict[str, str]) -> ReadTrial:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{shown(line[:50])} is no JSON") from None
    if isinstance(row, list) and len(row) in (2, 3, 4):
        row = dict(zip(("rule", "scene", "answer", "id"), row))
    if not isinstance(row, dict):
        raise InputError(f"{shown(line[:50])} is no JSON object")
    values: dict[str, object] = {}
    for name, value in row.items():
        field = _field_of(name)
        if field in values:
            field = ""
        names.setdefault(name, field)
        if field:
            values[field] = value
    for field in ("rule", "scene"):
        if values.get(field) is None:
            raise InputError(f"has no {field}")
    rule, published = read_rule(values["rule"])
    scene = read_scene(values["scene"])
    outcome = evaluate(rule, scene)
    stated = values.get("answer")
    answer = outcome.answer if stated is None else read_answer(stated)
    part = values.get("part")
    if str(part).lower() not in PARTS and "part" not in row:  # a split of another kind
        values.setdefault("level", part)
        part = None
    return ReadTrial(
        Trial(rule, scene, answer),
        outcome.answer,
        outcome.well_posed,
        str(values.get("id", number)),
        "" if part is None else read_part(f"line {number + 1}", str(part)),
        str(values.get("level", "") or ""),
        stated is not None,
        published,
    )


def _field_of(name: str) -> str:
    plain = name.strip().lower()
    return next((field for field, known in _FIELDS.items() if plain in known), "")


def read_rule(value: object) -> tuple[tuple[Node, ...], bool]:
    """A rule, and whether it has the published form. Raises ValueError for what is none."""
    if isinstance(value, str):
        value = value.split(";")
    if isinstance(value, Sequence) and value and all(isinstance(node, str) for node in value):
        rule, published = tuple(node_of_words(str(node)) for node in value), False
    else:
        rule, published = _rule_of_numbers(_numbers(value, "rule")), True
    check_rule(rule)
    return rule, published


def _rule_of_numbers(rows: np.ndarray) -> tuple[Node, ...]:
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim == 2 and rows.shape[1] not in (PUBLISHED_RULE, PUBLISHED_RULE - 1):
        rows = rows.T
    if rows.ndim != 2 or rows.shape[1] not in (PUBLISHED_RULE, PUBLISHED_RULE - 1):
        raise ValueError(f"rule: each node needs 8 numbers, got an array of {rows.shape}")
    return tuple(_node_of_numbers(row.tolist()) for row in rows if row[0])


def _node_of_numbers(row: Sequence[int]) -> Node:
    operator = row[0]
    selectors = []
    for letter, colour, when in (row[1:4], row[4:7]):
        if not letter and not colour and not when:
            continue
        if not (0 < letter <= len(LETTERS) and 0 < colour <= len(COLOURS)):
            raise ValueError(f"rule: no object has letter {letter} and colour {colour}")
        # What is not asked for is 1 in the published form, as the first letter and colour are.
        selectors.append(
            Selector(
                0 if operator == GET_COLOUR else colour, 0 if operator == GET_LETTER else letter
            )
        )
    return Node(operator, () if operator == SWITCH else tuple(selectors))


def read_scene(value: object) -> tuple[SceneObject, ...]:
    """A scene, sorted by cell. Raises ValueError for what is none."""
    if isinstance(value, Sequence) and all(isinstance(thing, str) for thing in value):
        scene = [_object_of_words(str(thing)) for thing in value]
    else:
        scene = _scene_of_numbers(_numbers(value, "scene"))
    if len({(thing.y, thing.x) for thing in scene}) < len(scene):
        raise ValueError("scene: two objects are in one cell")
    return tuple(sorted(scene))


def _object_of_words(words: str) -> SceneObject:
    name, _, cell = words.strip().lower().rpartition(" ")
    selector = selector_of_words(name)
    y, mark, x = cell.partition(",")
    if not (selector.colour and selector.letter and mark and y.isdigit() and x.isdigit()):
        raise ValueError(f"scene: {shown(words)} is no object such as 'red c 4,7'")
    if not (int(y) < SIDE and int(x) < SIDE):
        raise ValueError(f"scene: {shown(words)} lies outside of the grid")
    return SceneObject(int(y), int(x), *selector)


def _scene_of_numbers(rows: np.ndarray) -> list[SceneObject]:
    cells = SIDE * SIDE
    if rows.ndim == 3 and rows.shape[:2] == (SIDE, SIDE):
        rows = rows.reshape(cells, -1)
    if rows.ndim == 2 and rows.shape[0] in (2, 3) and rows.shape[1] in (cells, cells + 1):
        rows = rows.T
    if rows.ndim != 2 or len(rows) not in (cells, cells + 1) or rows.shape[1] not in (2, 3):
        raise ValueError(f"scene: needs 2 or 3 numbers of each of 100 cells, got {rows.shape}")
    scene = []
    for place in np.flatnonzero(rows[:cells, 0] | rows[:cells, 1]).tolist():
        colour, letter = rows[place, :2].tolist()
        if not (0 < letter <= len(LETTERS) and 0 < colour <= len(COLOURS)):
            raise ValueError(f"scene: no object has letter {letter} and colour {colour}")
        scene.append(SceneObject(*divmod(place, SIDE), colour, letter))
    return scene


def _numbers(value: object, name: str) -> np.ndarray:
    """An array of whole numbers, without axes of length 1."""
    try:
        rows = np.array(value, np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{name}: {shown(value)} is no array of numbers, and no words") from None
    if not np.isfinite(rows).all() or (rows != np.round(rows)).any():
        raise ValueError(f"{name}: holds numbers that are not whole")
    if rows.size and not 0 <= rows.min() <= rows.max() <= 1000:
        raise ValueError(f"{name}: holds numbers outside of what is known")
    numbers = rows.astype(np.int64)
    return numbers.reshape([length for length in numbers.shape if length != 1] or [1])


def read_answer(value: object) -> int:
    """The number of an answer in words, as true or false, as a cell or as its number. Raises
    ValueError for what is none.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return 0 if value else 1
    if isinstance(value, str) and not value.strip().isdigit():
        return answer_number(value)
    if isinstance(value, list) and len(value) == 2:
        return answer_number(",".join(map(str, value)))
    if isinstance(value, str):
        value = int(value)
    if isinstance(value, int | float) and value in range(ANSWERS):
        return int(value)
    raise ValueError(f"answer {shown(value)}: answers have the numbers 0 to {ANSWERS - 1}")
