"""Explanations as a page for people, as plain text and as lines of JSON.

Shapes: L outputs of the model, K of them explained, W words of a text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jinja2
import numpy as np

from ....base.errors import one_line, printable
from ....data.texts.words import word_key
from ...engine.spec import JsonValue
from ..spec import TextSpec
from .sums import ExplainedText

EXCERPT = 20_000  # characters of a text that the page shows
MOST_LABELS = 12  # of a text on the page
TOP = 5  # words for and against that are named
FAINT = 0.03  # share of the strongest word below which a word is not shaded
BOLD = 0.5
NOTHING = 0.005  # what two decimals show as 0
REPLACED = "\ufffd"  # what stands for characters that a page cannot hold


class Piece(NamedTuple):
    """A stretch of a text on the page: kind: "" for plain text, "for", "against", "seen", "window";
    strength: 0 to 1, as the style writes it; title: what is shown where the pointer rests.
    """

    text: str
    kind: str = ""
    strength: str = ""
    is_bold: bool = False
    title: str = ""


class View(NamedTuple):
    """A label of a text on the page. knowledge: the second stream, [] where there is none."""

    label: str
    chance: str
    facts: str
    pieces: list[Piece]
    strongest: list[str]
    windows: list[str]
    note: str
    knowledge: list[Piece]


class Section(NamedTuple):
    """A text on the page. facts: what is said of it beside the views of its labels."""

    name: str
    facts: list[str]
    views: list[View]
    note: str


class NamedWord(NamedTuple):
    """A word. places: how often a text has it; value: what they add together."""

    word: str
    places: int
    value: float

    def words(self, sign: str) -> str:
        """The word as it is listed."""
        times = f" ({self.places} times)" if self.places > 1 else ""
        return f"{self.word}{times} {self.value:{sign}.2f}"


def section(explained: ExplainedText, spec: TextSpec, threshold: np.ndarray | None) -> Section:
    """A text as the page shows it."""
    facts = []
    if spec.goal != "number":
        given = [spec.labels[k] for k in np.flatnonzero(explained.given)]
        possible = [spec.labels[k] for k in np.flatnonzero(explained.possible)]
        facts.append(f"Given: {', '.join(given) or 'no label'}.")
        facts.append(f"Possible: {', '.join(possible) or 'no label'}.")
    views = [
        _view(explained, place, spec, threshold)
        for place in range(min(len(explained.labels), MOST_LABELS))
    ]
    more = len(explained.labels) - len(views)
    note = f"{more} more labels are in explanations.jsonl." if more else ""
    return Section(clean(explained.name), [clean(fact) for fact in facts], views, note)


def write_html(
    sections: Sequence[Section],
    facts: Mapping[str, str],
    *,
    exact: bool,
    is_divided: bool,
    left_out: int,
    check: Mapping[str, object] | None,
) -> str:
    """The page. facts: lines at its top, by what they are of; left_out: texts that it does not
    show; check: sentence, table (columns, rows) and picture of the check.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__ or "", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        sections=sections,
        facts=facts,
        exact=exact,
        is_divided=is_divided,
        left_out=left_out,
        check=check,
    )


def json_lines(
    explained: ExplainedText, spec: TextSpec, threshold: np.ndarray | None
) -> Iterator[dict[str, JsonValue]]:
    """An object for each label of a text; `logit` (or `prediction`) is the sum of the contributions
    of `words`, of `table`, `symbols` and `bias` and, where there are such, `vector`, `network` and
    the words of `knowledge`.
    """
    for place, label in enumerate(explained.labels.tolist()):
        row: dict[str, JsonValue] = {
            "id": explained.id,
            "row": explained.row,
            "label": spec.labels[label],
            "exact": explained.exact,
        }
        if spec.goal == "number":
            row["prediction"] = float(explained.logits[place])
        else:
            row |= {
                "logit": float(explained.logits[place]),
                "probability": float(explained.probability[label]),
                "threshold": None if threshold is None else float(threshold[label]),
                "given": bool(explained.given[label]),
                "possible": bool(explained.possible[label]),
            }
        row |= {
            "bias": float(explained.bias[place]),
            "table": float(explained.table[place]),
            "symbols": float(explained.symbols[place]),
        }
        if spec.vectors is not None:
            row["vector"] = float(explained.vector[place])
        if not explained.exact:
            row["network"] = float(explained.network[place])
        row["words"] = _word_facts(explained, place)
        if explained.knowledge is not None:
            known = explained.of_knowledge()
            row["knowledge"] = {"text": known.text, "words": _word_facts(known, place)}
        if explained.stretches:
            row["windows"] = [
                {"window": number, "start": part.start, "end": part.end, "sum": value}
                for number, (part, value) in enumerate(
                    zip(explained.stretches, explained.by_stretch(place).tolist(), strict=True), 1
                )
            ]
        yield row


def _word_facts(explained: ExplainedText, place: int) -> list[JsonValue]:
    """What is known of each word."""
    facts: dict[str, list[float]] = {}
    if explained.is_divided:
        facts["contribution"] = explained.words[:, place].tolist()
    if explained.attention is not None:
        facts["attention"] = explained.attention.tolist()
    return [
        {
            "word": explained.text[start:end],
            "start": start,
            "end": end,
            **{name: values[k] for name, values in facts.items()},
        }
        for k, (start, end) in enumerate(explained.spans.tolist())
    ]


def heading(explained: ExplainedText, spec: TextSpec) -> str:
    """The first label of a text with its probability, or the number that is predicted."""
    chance, _ = _facts(explained, 0, spec, None)
    return f"{spec.labels[explained.labels[0]]} {chance}"


def text_lines(explained: ExplainedText, spec: TextSpec, threshold: np.ndarray | None) -> list[str]:
    """A line for each label of a text: its strongest words for and against, and the rest."""
    lines = []
    for place, label in enumerate(explained.labels.tolist()):
        chance, facts = _facts(explained, place, spec, threshold)
        parts = [*_strongest(explained, place), *_windows(explained, place)[:1]]
        line = f"{explained.name}: {spec.labels[label]} {chance} ({facts}): {'; '.join(parts)}"
        lines.append(printable(one_line(line)))
    return lines


def by_word(explained: ExplainedText, place: int) -> list[NamedWord]:
    """Distinct words of a text with what they add to a label (by its place in `labels`), those that
    add most first.
    """
    words: dict[str, list[tuple[str, float]]] = {}
    values = explained.shades(place).tolist()
    for (start, end), value in zip(explained.spans.tolist(), values, strict=True):
        word = explained.text[start:end]
        words.setdefault(word_key(word), []).append((word, value))
    named = [
        NamedWord(places[0][0], len(places), sum(value for _, value in places))
        for places in words.values()
    ]
    return sorted(named, key=lambda word: -word.value)


def clean(text: str) -> str:
    """A text as a page can hold it: no control characters, no halves of pairs."""
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") else REPLACED
        for letter in text
    )


def _view(
    explained: ExplainedText, place: int, spec: TextSpec, threshold: np.ndarray | None
) -> View:
    chance, facts = _facts(explained, place, spec, threshold)
    start, end = 0, len(explained.text)
    note = ""
    if end > EXCERPT:
        if explained.stretches:
            start = explained.stretches[explained.strongest_stretch(place)].start
        end = min(end, start + EXCERPT)
        note = (
            f"Of {len(explained.text):,} characters, {start:,} to {end:,} are shown, from the "
            "strongest window on."
        )
    return View(
        clean(spec.labels[explained.labels[place]]),
        chance,
        facts,
        shaded_pieces(explained, place, start, end),
        [clean(line) for line in _strongest(explained, place)],
        _windows(explained, place),
        note,
        _knowledge_pieces(explained, place),
    )


def _knowledge_pieces(explained: ExplainedText, place: int) -> list[Piece]:
    """What is known about a text, shaded on the scale of the text."""
    if explained.knowledge is None or not explained.knowledge.text:
        return []
    known = explained.of_knowledge()
    end = min(len(known.text), EXCERPT)
    return shaded_pieces(known, place, 0, end, _largest(explained, place))


def _largest(explained: ExplainedText, place: int) -> float:
    """The strongest shade of a label's words, of the text and of the knowledge."""
    largest = float(np.abs(explained.shades(place)).max(initial=0.0))
    if explained.knowledge is not None:
        largest = max(largest, float(np.abs(explained.knowledge.words[:, place]).max(initial=0.0)))
    return largest


def shaded_pieces(
    explained: ExplainedText, place: int, start: int, end: int, largest: float | None = None
) -> list[Piece]:
    """A stretch of a text, cut where the shade changes. largest: what is shaded most, by default
    the strongest word.
    """
    values = explained.shades(place)
    largest = _largest(explained, place) if largest is None else largest
    pieces: list[Piece] = []
    at = start
    windows = [(part.start, number) for number, part in enumerate(explained.stretches, 1)]
    for (first, last), value in zip(explained.spans.tolist(), values.tolist(), strict=True):
        if first < start or last > end:
            continue
        strength = abs(value) / largest if largest else 0.0
        begun = [number for place_of, number in windows if place_of <= first]
        windows = windows[len(begun) :]
        if begun:
            pieces.append(Piece(clean(explained.text[at:first])))
            pieces.append(Piece(f"window {begun[-1]}", "window"))
            at = first
        if strength < FAINT:
            continue
        kind = "seen" if not explained.is_divided else "for" if value > 0 else "against"
        pieces.append(Piece(clean(explained.text[at:first])))
        title = f"{value:+.3f}" if explained.is_divided else f"{value:.3f}"
        word = clean(explained.text[first:last])
        pieces.append(Piece(word, kind, f"{strength:.2f}", strength >= BOLD, title))
        at = last
    pieces.append(Piece(clean(explained.text[at:end])))
    return [piece for piece in pieces if piece.text]


def _facts(
    explained: ExplainedText, place: int, spec: TextSpec, threshold: np.ndarray | None
) -> tuple[str, str]:
    """The probability (or the number), and what belongs to it."""
    label, logit = int(explained.labels[place]), float(explained.logits[place])
    if spec.goal == "number":
        return f"{logit:.4g}", "the prediction"
    facts = [f"logit {logit:+.3f}"]
    if threshold is not None:
        word = "given" if explained.given[label] else "not given"
        facts.append(f"{word}, from {_percent(float(threshold[label]))} on")
    elif explained.given[label]:
        facts.append("given")
    if explained.possible[label]:
        facts.append("possible")
    return _percent(float(explained.probability[label])), ", ".join(facts)


def _percent(chance: float) -> str:
    if chance in (0.0, 1.0) or 0.001 <= chance <= 0.999:
        return f"{chance:.1%}"
    return "under 0.1%" if chance < 0.5 else "over 99.9%"


def _strongest(explained: ExplainedText, place: int) -> list[str]:
    """Words for and against, then what is no word."""
    words, sign = by_word(explained, place), "+" if explained.is_divided else ""
    best = [word.words(sign) for word in words[:TOP] if word.value >= NOTHING]
    if not explained.is_divided:
        return [f"attends to {', '.join(best) or 'no word'}"]
    worst = [word.words(sign) for word in words[: -TOP - 1 : -1] if word.value <= -NOTHING]
    lines = [f"for: {', '.join(best) or 'no word'}", f"against: {', '.join(worst) or 'no word'}"]
    further = {
        "network": explained.network,
        "vector of the text": explained.vector,
        "table": explained.table,
        "symbols": explained.symbols,
    }
    if explained.knowledge is not None:
        further["knowledge"] = explained.knowledge.words.sum(0)
    for name, value in further.items():
        if abs(value[place]) >= NOTHING:
            lines.append(f"{name} {value[place]:+.2f}")
    return [*lines, f"bias {explained.bias[place]:+.2f}"]


def _windows(explained: ExplainedText, place: int) -> list[str]:
    """The windows of a long text, the strongest first."""
    if not explained.stretches:
        return []
    values = explained.by_stretch(place)
    sign = "+" if explained.is_divided else ""
    lines = []
    for k in np.argsort(-np.abs(values), kind="stable").tolist():
        part = explained.stretches[k]
        unread = "" if part.is_read else ", counted words alone"
        span = f"characters {part.start:,} to {part.end:,}{unread}"
        lines.append(f"window {k + 1} ({span}) {values[k]:{sign}.2f}")
    return lines
