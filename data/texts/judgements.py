"""Tables of judged pairs: which of two answers a judge preferred, in which order they were shown.

A row is one judgement. Two rows of one pair with its answers the other way round are its two
orders. Fields, by column name or `--columns FIELD=COLUMN`:

first, second                 what was shown first and second: names, or the texts themselves
first_text, second_text       the texts, where first and second are names
first_length, second_length   lengths, where there are no texts (in any unit)
pair                          id of the pair; by default the two answers (and the prompt) are it
prompt                        what was answered; parts pairs of the same two names
order                         in place of first and second: two values, one for each order
preferred                     first or second; A or B; 1 or 2; the cell of the winner; tie, 0
score                         in place of preferred: above 0 for the first, below 0 for the second
probability                   in place of preferred: that the first is better, 0 to 1
human                         as preferred, by people; of the order of its row
judge                         its name, where a table has several
equal_content                 whether both answers say the same
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ...base.account import note
from ...base.errors import fail, one_line, shown
from ..columns import find_columns, plain_name
from ..formats.tables import collect, scan_table
from .sentences import sentences_of

SYNONYMS: Mapping[str, Sequence[str]] = {
    "pair": ("pair", "pair_id", "comparison", "comparison_id", "example_id", "item_id"),
    "prompt": ("prompt", "question", "instruction", "query", "question_id", "prompt_id", "topic"),
    "judge": ("judge", "judge_name", "judge_model", "evaluator", "annotator", "rater"),
    "first": (
        "first", "a", "model_a", "system_a", "candidate_a", "option_a", "model_1", "system_1",
    ),
    "second": (
        "second", "b", "model_b", "system_b", "candidate_b", "option_b", "model_2", "system_2",
    ),
    "first_text": (
        "first_text", "answer_a", "response_a", "output_a", "summary_a", "text_a", "answer_1",
        "response_1", "output_1", "summary_1", "text_1",
    ),
    "second_text": (
        "second_text", "answer_b", "response_b", "output_b", "summary_b", "text_b", "answer_2",
        "response_2", "output_2", "summary_2", "text_2",
    ),
    "first_length": ("first_length", "length_a", "len_a", "words_a", "tokens_a", "length_1"),
    "second_length": ("second_length", "length_b", "len_b", "words_b", "tokens_b", "length_2"),
    "order": ("order", "swapped", "swap", "presentation"),
    "preferred": (
        "preferred", "winner", "preference", "choice", "verdict", "vote", "judgement", "judgment",
        "decision",
    ),
    "score": ("score", "margin"),
    "probability": ("probability", "p_first", "prob_first"),
    "human": (
        "human", "human_preference", "human_winner", "human_choice", "human_label", "gold",
    ),
    "equal_content": ("equal_content", "same_content"),
}  # fmt: skip
FIELDS = tuple(SYNONYMS)
OUTCOMES = ("preferred", "score", "probability")
_FIRST = {
    "first", "a", "1", "left", "model_a", "answer_a", "response_a", "assistant_a", "model_1",
    "answer_1",
}  # fmt: skip
_SECOND = {
    "second", "b", "2", "right", "model_b", "answer_b", "response_b", "assistant_b", "model_2",
    "answer_2",
}  # fmt: skip
_TIES = {
    "tie", "tied", "c", "equal", "draw", "both", "neither", "same", "none", "no_preference",
    "tie_bothbad", "both_bad",
}  # fmt: skip
_NUMBERS: Mapping[float, float] = {1: 1, 2: -1, -1: -1, 0: 0, 0.5: 0}
_TRUE, _FALSE = {"1", "true", "yes", "y", "t"}, {"0", "false", "no", "n", "f"}
SCHEMA: Mapping[str, pl.DataType] = {
    "judge": pl.String(),
    "pair": pl.Int64(),
    "swapped": pl.Boolean(),
    "preference": pl.Float64(),
    "log_ratio": pl.Float64(),
    "human": pl.Float64(),
    "equal_content": pl.Boolean(),
    "padded": pl.Int8(),
}
Row = Mapping[str, str | None]


@dataclass(frozen=True)
class Judgements:
    """The judgements of a table.

    rows: judge; pair, from 0; swapped: which of the two orders; preference: 1 for the answer shown
    first, -1 for the second, 0 for a tie; log_ratio: ln(length of the first / of the second), null
    if unknown; human: as preference, null if unknown; equal_content; padded: 1 if the first is the
    second with sentences repeated, -1 the other way round, else 0.
    refused: rows that were not understood, each "row 7: ...".
    """

    rows: pl.DataFrame
    refused: Sequence[str]


def read_judgements(path: str, columns: Mapping[str, str] | None = None) -> Judgements:
    """Read a table of judged pairs. columns: its names by field.

    Raises `InputError` for a table without the needed columns, for preferences as numbers that may
    mean two things, and where no row can be used.
    """
    frame, names = scan_table(path)
    used = find_columns(path, names, FIELDS, chosen=columns, synonyms=SYNONYMS)
    _check_fields(path, used, names)
    chosen = [pl.col(column).cast(pl.String).alias(field) for field, column in used.items()]
    table = collect(path, frame.select(chosen))
    if not table.height:
        raise fail(path, "has no rows")
    for field in ("preferred", "human"):
        if field in used:
            _check_numbers(path, used[field], table, field)
    parsed, refused, silent = list[_Judgement](), list[str](), list[str]()
    texts_as_sides = "first_text" not in used and _are_texts(table)
    if texts_as_sides:
        note("assumed", "cells of first and second are texts, by which lengths are measured")
    paddings = Paddings()
    for number, row in enumerate(table.iter_rows(named=True), 1):
        sides = _sides(row, texts_as_sides)
        preference, problem = _outcome(row)
        if problem or sides is None:
            refused.append(f"row {number}: {problem or 'an answer or the order is missing'}")
        elif preference is None:
            silent.append(f"row {number}")
        else:
            parsed.append(_parsed(row, sides, preference, paddings))
    _note_unused(used, table)
    if silent:
        note("left out", "rows without a preference", silent)
    if refused:
        note("left out", "rows that are not understood", refused)
    note("read", "judgements", count=len(parsed))
    if not parsed:
        first = refused[0] if refused else "all cells of the preference are empty"
        raise fail(path, f"no row can be used; {first}")
    return Judgements(_oriented(path, parsed, "pair" in used), refused)


def _note_unused(used: Mapping[str, str], table: pl.DataFrame) -> None:
    """Note cells of further columns that say nothing that is understood."""
    rows = [(f"row {n}", row) for n, row in enumerate(table.iter_rows(named=True), 1)]

    def note_cells(field: str, is_understood: Callable[[str, Row], bool], what: str) -> None:
        cells = [(name, (row.get(field) or "").strip(), row) for name, row in rows]
        bad = [
            f"{name}: {cell}" for name, cell, row in cells if cell and not is_understood(cell, row)
        ]
        if bad:
            note("left out", f"cells of {used[field]} that are {what}", bad)

    if "human" in used:
        note_cells("human", lambda cell, row: preference_of(cell, row) is not None, "no preference")
    for field in ("first_length", "second_length"):
        if field in used:
            note_cells(field, lambda cell, _: (_number(cell) or 0) > 0, "no length above 0")
    if "equal_content" in used:
        known = _TRUE | _FALSE
        note_cells("equal_content", lambda cell, _: plain_name(cell) in known, "neither yes nor no")


def _check_fields(path: str, used: Mapping[str, str], names: Sequence[str]) -> None:
    listed = ", ".join(map(shown, names[:20]))
    outcomes = [name for name in OUTCOMES if name in used]
    if not outcomes:
        what = "'preferred' (or 'score' or 'probability')"
        cure = "name it with --columns preferred=COLUMN"
        raise fail(path, f"there is no column {what}; it has {listed}; {cure}")
    if len(outcomes) > 1:
        both = " and ".join(shown(used[name]) for name in outcomes[:2])
        raise fail(path, f"columns {both} could both be the preference; remove one of them")
    for side in ("first", "second"):
        if side not in used and f"{side}_text" not in used:
            if "pair" in used and "order" in used:
                continue
            cure = f"name it with --columns {side}=COLUMN, or give columns 'pair' and 'order'"
            raise fail(path, f"there is no column {side!r}; it has {listed}; {cure}")


def _check_numbers(path: str, column: str, table: pl.DataFrame, field: str) -> None:
    """Note what numbers are taken to mean; refuse those that other tables use in another sense.

    Raises `InputError` for a column of only 0 and 1, or of 0, 1 and 2: a 0 is a tie in some of
    these tables and the first answer in others.
    """
    cells = pl.col(field).str.strip_chars()
    for side in ("first", "second"):  # an answer may be called 1
        if side in table.columns:
            cells = pl.when(cells == pl.col(side).str.strip_chars()).then(None).otherwise(cells)
    codes = table.select(cells.unique()).to_series().drop_nulls()
    values = [number for code in codes if (number := _number(code)) is not None]
    numbers = _NUMBERS.keys() & values
    if not numbers:
        return
    if 0 in numbers and 1 in numbers and numbers <= {0, 1, 2}:
        held = "0, 1 and 2" if 2 in numbers else "only 0 and 1"
        cure = "write first, second and tie; or call it 'probability' (1 the first, 0 the second)"
        raise fail(path, f"column {shown(column)} holds {held}; is 0 a tie? {cure}")
    words = {1.0: "first", -1.0: "second", 0.0: "tie"}
    meanings = [f"{number:g} as {words[_NUMBERS[number]]}" for number in sorted(numbers)]
    note("assumed", f"numbers in {shown(column)}: {', '.join(meanings)}")


def _are_texts(table: pl.DataFrame) -> bool:
    """Whether the cells of `first` are texts, not names: most hold four words or more."""
    if "first" not in table.columns:
        return False
    cells = table["first"].drop_nulls().to_list()
    return sum(len(cell.split()) >= 4 for cell in cells) > len(cells) / 2


@dataclass(frozen=True)
class _Judgement:
    """A row that is understood. keys: what was shown first and second; ("ab", "") where the row
    names an order in place of its answers.
    """

    judge: str
    pair: str
    prompt: str
    keys: tuple[str, str]
    preference: float
    log_ratio: float | None
    human: float | None
    equal_content: bool
    padded: int


@dataclass(frozen=True)
class _Sides:
    """What was shown first and second: keys that tell them, and their texts where known."""

    keys: tuple[str, str]
    texts: tuple[str, str] | None


def _sides(row: Row, keys_are_texts: bool) -> _Sides | None:
    """The two sides of a row; None where one is missing."""
    first_text, second_text = row.get("first_text"), row.get("second_text")
    first, second = row.get("first") or first_text, row.get("second") or second_text
    if "first" not in row and "first_text" not in row:
        order = (row.get("order") or "").strip()
        return _Sides((order, ""), None) if order else None
    if not first or not second:
        return None
    texts = (first, second) if keys_are_texts else None
    if first_text and second_text:
        texts = (first_text, second_text)
    return _Sides((first.strip(), second.strip()), texts)


def _outcome(row: Row) -> tuple[float | None, str | None]:
    """The preference of a row, None where it has none; and what is wrong with it."""
    for field, read in (("score", _sign), ("probability", _chance)):
        if field in row:
            cell = (row[field] or "").strip()
            value = read(cell) if cell else None
            bad = bool(cell) and value is None
            return value, f"{field} {shown(cell)} is no number that fits" if bad else None
    cell = (row["preferred"] or "").strip()
    value = preference_of(cell, row)
    problem = f"preference {shown(cell)} is none of first, second, tie" if cell else None
    return value, problem if value is None else None


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sign(cell: str) -> float | None:
    value = _number(cell)
    return None if value is None else float((value > 0) - (value < 0))


def _chance(cell: str) -> float | None:
    value = _number(cell)
    return _sign(str(value - 0.5)) if value is not None and 0 <= value <= 1 else None


def preference_of(cell: str, row: Row) -> float | None:
    """1 for the first, -1 for the second, 0 for a tie; None where a cell says none of them.

    >>> [preference_of(cell, {"first": "x", "second": "y"}) for cell in ("[[A]]", "y", "tie", "z")]
    [1.0, -1.0, 0.0, None]
    """
    names = [(row.get(side) or "").strip() for side in ("first", "second")]
    for spelling in (str, str.casefold):
        name, first, second = map(spelling, (cell, *names))
        if name and first != second and name in (first, second):
            return 1.0 if name == first else -1.0
    number = _number(cell)
    if number is not None:
        return _NUMBERS.get(number)
    word = plain_name(cell)
    return 1.0 if word in _FIRST else -1.0 if word in _SECOND else 0.0 if word in _TIES else None


class Paddings:
    """Tells which of two texts is the other with sentences repeated; each text is split once."""

    def __init__(self) -> None:
        self._sentences: dict[str, list[str]] = {}

    def of(self, first: str, second: str) -> int:
        """1 if the first is the padded one, -1 if the second is, 0 if neither."""
        before, after = self._split(first), self._split(second)
        if len(before) == len(after) or set(before) != set(after):
            return 0
        return 1 if len(before) > len(after) else -1

    def _split(self, text: str) -> list[str]:
        if text not in self._sentences:
            sentences = (" ".join(s.split()).casefold() for s in sentences_of(text))
            self._sentences[text] = list(sentences)
        return self._sentences[text]


def _parsed(row: Row, sides: _Sides, preference: float, paddings: Paddings) -> _Judgement:
    """A row that is understood."""
    lengths = [_number((row.get(f"{side}_length") or "").strip()) for side in ("first", "second")]
    padded = 0
    if sides.texts is not None:
        padded = paddings.of(*sides.texts)
        if lengths == [None, None]:
            lengths = [float(len("".join(text.split()))) for text in sides.texts]
    positive = [length for length in lengths if length is not None and length > 0]
    return _Judgement(
        judge=one_line(row.get("judge") or "") or "the judge",
        pair=(row.get("pair") or "").strip(),
        prompt=(row.get("prompt") or "").strip(),
        keys=sides.keys,
        preference=preference,
        log_ratio=math.log(positive[0] / positive[1]) if len(positive) == 2 else None,
        human=preference_of((row.get("human") or "").strip(), row),
        equal_content=bool(padded) or plain_name(row.get("equal_content") or "") in _TRUE,
        padded=padded,
    )


def _oriented(where: object, judged: Sequence[_Judgement], by_id: bool) -> pl.DataFrame:
    """The rows with the number of their pair and their order.

    Left out: two equal answers, and rows that compare other answers than the first row of their
    pair. Raises `InputError` where none remains, and for more than two orders.
    """
    numbers, answers = dict[tuple[object, ...], int](), dict[int, frozenset[str]]()
    rows, equal, mixed = list[dict[str, object]](), 0, dict[str, None]()
    last_order = _last_order(where, judged)
    for row in judged:
        sides = frozenset(row.keys)
        if len(sides) == 1:
            equal += 1
            continue
        name = (row.judge, row.prompt, row.pair if by_id else tuple(sorted(sides)))
        number = numbers.setdefault(name, len(numbers))
        if last_order is None and answers.setdefault(number, sides) != sides:
            mixed[row.pair] = None
            continue
        swapped = row.keys[0] > row.keys[1] if last_order is None else row.keys[0] == last_order
        values = {key: getattr(row, key) for key in SCHEMA if key not in ("pair", "swapped")}
        rows.append({**values, "pair": number, "swapped": swapped})
    if equal:
        note("left out", "judgements of two equal answers", count=equal)
    if mixed:
        note("left out", "rows that compare other answers than their pair's first row", mixed)
    if not rows:
        raise fail(where, "every pair has two equal answers, so that no order can be told")
    return pl.DataFrame(rows, schema=SCHEMA)


def _last_order(where: object, judged: Sequence[_Judgement]) -> str | None:
    """The second of the two names of orders; None where rows name their answers."""
    if judged[0].keys[1]:
        return None
    orders = sorted({row.keys[0] for row in judged})
    if len(orders) > 2:
        named = ", ".join(map(shown, orders[:3]))
        raise fail(where, f"the column of orders holds {named}; a pair has two orders")
    return orders[-1] if len(orders) == 2 else ""
