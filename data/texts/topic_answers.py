"""What raters answered: tables of answers, with a key of the tasks where the truth is in another.

Plain tables have a row for each answer: task, annotator, answer, and optionally kind (intrusion or
mixing), model, truth, control, and the words (word1, word2, ...). The key has a row for each task:
task, and any of these columns but the answer. An answer to an intrusion is the word or its number
from 1 on, one to a mixing 1 or 2, one or two, single or mixed. Without a kind answers are names of
any sort.

The published annotations of topic word mixing (Prouteau et al. 2026) are read as they are: tables
with `sentiment` for the answer and `intruder` and `word1` ..., or `mixed_set` and `quartile`. Their
mixings do not say which model they are of; the published tables of tasks, as the key, do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..formats.tables import TABLE_SUFFIXES, collect, list_files, require_columns, scan_table
from .topic_tasks import MIXED, SINGLE

Row = Mapping[str, object]
ALIASES = {"rater": "annotator", "task_id": "task", "id": "task", "coder": "annotator"}
KINDS = ("intrusion", "mixing", "names")
_MIXING_ANSWERS = {
    "1": SINGLE, "one": SINGLE, SINGLE: SINGLE, "2": MIXED, "two": MIXED, MIXED: MIXED,
}  # fmt: skip
_PUBLISHED = "sentiment"  # what the published tables call the answer
# `quartile` of the published mixings: 0 is the closest topic; below are singles and controls.
_SINGLES, _MIXEDS, _CONTROLS = (-1, -10), (0, -20), (-10, -20)
_TRUE, _FALSE = ("true", "1", "yes", "1.0"), ("false", "0", "no", "0.0", "")


@dataclass(frozen=True)
class RatedTask:
    """A task with what is known of it. truth: the code of the right answer, -1 if unknown."""

    kind: str
    model: str
    words: tuple[str, ...]
    truth: int
    control: bool


@dataclass
class Ratings:
    """Answers of one kind as codes, and their tasks by name.

    The code of an answer is the place of the word (intrusion), 0 for single and 1 for mixed
    (mixing), or the place among `names`.
    """

    kind: str
    tasks: dict[str, RatedTask] = field(default_factory=dict)
    answers: list[tuple[str, str, int]] = field(default_factory=list)
    """(task, annotator, code), in the order of the tables."""
    names: tuple[str, ...] = ()

    @property
    def annotators(self) -> list[str]:
        """Their names, sorted."""
        return sorted({annotator for _, annotator, _ in self.answers})


def read_answers(paths: Iterable[str], keys: Iterable[str] = ()) -> list[Ratings]:
    """The answers of tables, by kind. paths, keys: files, folders or patterns.

    Blank answers are missing; answers that are none of the possible ones are left out and noted.
    Raises InputError for tables without the columns, and for tasks that the key lacks.
    """
    key, models = _read_keys(keys)
    rows = [row for path in paths for row in _rows_of(path)]
    rows = _with_published_models([_standard(row) for row in rows], models)
    by_kind: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        task = _text(row.get("task"))
        if key and task not in key and not row.get("published"):
            raise fail(row["where"], f"task {shown(task)} is not in the key{nearest(task, key)}")
        merged = {**{n: v for n, v in row.items() if v is not None}, **key.get(task, {})}
        merged.update({name: row[name] for name in ("where", "answer", "annotator")})
        kind = _text(merged.get("kind")) or "names"
        if kind not in KINDS:
            raise fail(row["where"], f"kind {shown(kind)}{nearest(kind, KINDS)}")
        by_kind.setdefault(kind, []).append(merged)
    return [_ratings(kind, by_kind[kind]) for kind in KINDS if kind in by_kind]


def _rows_of(path: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for file in list_files(path, TABLE_SUFFIXES):
        frame, names = scan_table(file)
        columns = {name: ALIASES.get(name.lower(), name.lower()) for name in names}
        if _PUBLISHED in columns.values():
            columns = {name: name for name in names}
        else:
            require_columns(file, ["task", "annotator", "answer"], list(columns.values()))
        rows += _named_rows(file, collect(file, frame).to_dicts(), columns)
    note("read", "answers", count=len(rows))
    return rows


def _named_rows(
    file: str, rows: Sequence[Row], columns: Mapping[str, str]
) -> list[dict[str, object]]:
    return [
        {**{columns[name]: cell for name, cell in row.items()}, "where": f"{file}: row {number}"}
        for number, row in enumerate(rows, 1)
    ]


def _read_keys(paths: Iterable[str]) -> tuple[dict[str, dict[str, object]], dict[str, list[str]]]:
    """What keys say of each task; and of published tables, the models of each set of words."""
    key: dict[str, dict[str, object]] = {}
    models: dict[str, list[str]] = {}
    for path in paths:
        for file in list_files(path, TABLE_SUFFIXES):
            frame, names = scan_table(file)
            rows = collect(file, frame).to_dicts()
            if "mixed_set" in names:
                require_columns(file, ["model"], names)
                for row in rows:
                    models.setdefault(_text(row["mixed_set"]), []).append(_text(row["model"]))
                continue
            if {"intruder", "word1", "text"} <= set(names):
                continue  # published intrusions: the answers have all that is in here
            columns = {name: ALIASES.get(name.lower(), name.lower()) for name in names}
            require_columns(file, ["task"], list(columns.values()))
            for row in _named_rows(file, rows, columns):
                facts = {name: cell for name, cell in row.items() if cell is not None}
                key[_text(row["task"])] = {"words": _numbered_words(row), **facts}
    return key, models


def _standard(row: dict[str, object]) -> dict[str, object]:
    """A row of a published table as one of a plain table; other rows as they are."""
    if _PUBLISHED not in row:
        return {"words": _numbered_words(row), **row}
    where = row["where"]
    common: dict[str, object] = {
        "where": where,
        "published": True,
        "annotator": row.get("annotator"),
        "answer": row[_PUBLISHED],
        "control": row.get("is_control_task"),
        "model": row.get("model"),
    }
    if "intruder" in row:
        require_columns(where, ["id", "word1"], list(row))
        words = _numbered_words(row)
        facts = {"task": row["id"], "kind": "intrusion", "truth": row["intruder"], "words": words}
        return {**common, **facts}
    require_columns(where, ["task_id", "mixed_set", "quartile"], list(row))
    quartile = int(float(_text(row["quartile"])))
    if quartile not in (*_SINGLES, *_MIXEDS):
        raise fail(where, f"quartile {quartile} is none of 0, -1, -10, -20")
    mixed_set = _text(row["mixed_set"])
    return {
        **common,
        "task": row["task_id"],
        "kind": "mixing",
        "truth": MIXED if quartile in _MIXEDS else SINGLE,
        "control": quartile in _CONTROLS,
        "words": _halves(mixed_set),
        "mixed_set": mixed_set,
    }


def _with_published_models(
    rows: list[dict[str, object]], models: Mapping[str, Sequence[str]]
) -> list[dict[str, object]]:
    """Rows with the model of their set of words, where the answers do not name one."""
    places: dict[str, dict[str, int]] = {}
    for row in rows:
        mixed_set = _text(row.pop("mixed_set", None))
        among = models.get(mixed_set)
        if not among or _text(row.get("model")):
            continue
        # Two models may have the same set: their tasks are in the same order in both tables.
        tasks = places.setdefault(mixed_set, {})
        place = tasks.setdefault(_text(row["task"]), len(tasks))
        row["model"] = among[min(place, len(among) - 1)]
        if len(set(among)) > 1:
            note("assumed", "tasks of several models with the same words, taken in order", among)
    return rows


def _halves(mixed_set: str) -> tuple[str, ...]:
    """The words of a published set: those in bold are one half, which comes first."""
    words = [word.strip() for word in mixed_set.split("<br>")]
    bold = [word[3:-4] for word in words if word.startswith("<b>")]
    return (*bold, *(word for word in words if not word.startswith("<b>")))


def _numbered_words(row: Row) -> tuple[str, ...]:
    names = sorted(
        (name for name in row if re.fullmatch(r"word_?\d+", name)),
        key=lambda name: int(re.sub(r"\D", "", name)),
    )
    return tuple(_text(row[name]) for name in names if _text(row[name]))


def _ratings(kind: str, rows: Sequence[Row]) -> Ratings:
    ratings = Ratings(kind)
    if kind == "names":
        texts = {_text(row[name]) for row in rows for name in ("answer", "truth") if name in row}
        ratings.names = tuple(sorted(texts - {""}))
    unknown: list[str] = []
    for row in rows:
        task = _text(row.get("task"))
        annotator = _text(row.get("annotator"))
        if not task or not annotator:
            raise fail(row["where"], "has no task or no annotator")
        if task not in ratings.tasks:
            ratings.tasks[task] = _task(kind, row, ratings.names)
        answer = _text(row["answer"])
        code = _code(kind, answer, ratings.tasks[task].words, ratings.names)
        if code >= 0:
            ratings.answers.append((task, annotator, code))
        elif answer:
            unknown.append(f"{row['where']}: {answer}")
    if unknown:
        note("left out", f"answers ({kind}) that are none of those possible", unknown)
    if blank := len(rows) - len(ratings.answers) - len(unknown):
        note("left out", f"blank answers ({kind})", count=blank)
    return ratings


def _task(kind: str, row: Row, names: Sequence[str]) -> RatedTask:
    raw = row.get("words") or ()
    words = tuple(raw) if isinstance(raw, tuple) else tuple(str(raw).split())
    if kind == "intrusion" and not words:
        raise fail(
            row["where"], "an intrusion needs its words: word1, word2, ..., here or in the key"
        )
    truth = _text(row.get("truth"))
    code = _code(kind, truth, words, names) if truth else -1
    if truth and code < 0:
        raise fail(row["where"], f"the truth {shown(truth)} is no possible answer")
    control = _text(row.get("control")).lower()
    if control not in (*_TRUE, *_FALSE):
        raise fail(row["where"], f"control {shown(control)}: should be true or false")
    return RatedTask(kind, _text(row.get("model")), words, code, control in _TRUE)


def _code(kind: str, answer: str, words: Sequence[str], names: Sequence[str]) -> int:
    """The code of an answer, -1 where it is none of the possible ones."""
    plain = answer.casefold()
    if kind == "mixing":
        name = _MIXING_ANSWERS.get(plain.removesuffix(".0"))
        return -1 if name is None else int(name == MIXED)
    if kind == "names":
        return names.index(answer) if answer in names else -1
    folded = [word.casefold() for word in words]
    if plain in folded:
        return folded.index(plain)
    number = plain.removesuffix(".0")
    return int(number) - 1 if number.isdigit() and 1 <= int(number) <= len(words) else -1


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()
