"""Topics from any tool: lists of words, the most important ones first.

Read are JSON (a list of topics, or a mapping of names to topics), tables (a row for each word, or a
row for each topic) and text (a line for each topic, such as MALLET's keys). A topic is a list of
words, of (word, weight) pairs, of mappings with `word` and a weight, a mapping of words to weights,
or a text such as gensim's '0.050*"cat" + 0.030*"dog"'. Known exports: gensim (`show_topics`), OCTIS
(`topics` of its output), BERTopic (`get_topics`, `get_topic_info` and its saved `topics.json`),
MALLET, and `topics.json` of this package.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import polars as pl

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..formats.tables import TABLE_SUFFIXES, check_file, collect, scan_table
from ..text_files import read_text_file

LINES = (".txt", ".keys")
# What tools call things, the most telling first.
TOPICS = ("topic_representations", "topics", "topic_words", "topic-words")
NAMES = ("name", "topic", "topic_id", "id", "label")
WORDS = ("words", "representation", "keywords", "terms", "top_words")
WORD = ("word", "term", "token", "keyword")
WEIGHT = ("weight", "value", "score", "probability", "prob", "beta")
OUTLIERS = "-1"  # what BERTopic calls the topic of texts that belong to none
_FORMATTED = re.compile(r"(-?[\d.]+(?:e-?\d+)?)\*\"?([^\"+]+?)\"?\s*(?:\+|$)")
_NUMBERED = re.compile(r"(?:(?:word|term|top)[_ ]?)?(\d+)$", re.I)


@dataclass(frozen=True)
class Topic:
    """A topic: its name and its distinct words, the most important first."""

    name: str
    words: tuple[str, ...]


def read_topics(path: str) -> list[Topic]:
    """The topics of a file; see the module for what may be in it.

    Words that a topic names twice, topics without words and BERTopic's topic of outliers are left
    out and noted. Raises InputError for a file that holds no topics.
    """
    suffix = Path(path).suffix.lower()
    allowed = (*TABLE_SUFFIXES, ".json", *LINES)
    file = check_file(path, allowed)
    if suffix == ".json":
        raw = _of_json(path, _json(path, file))
    elif suffix in LINES:
        raw = _of_lines(read_text_file(file))
    else:
        frame, _ = scan_table(path)
        raw = _of_table(path, collect(path, frame))
    return _checked(path, raw)


def _checked(path: str, raw: Iterable[tuple[str, list[str]]]) -> list[Topic]:
    topics, twice, empty = [], 0, []
    for name, words in raw:
        cleaned = [word.strip() for word in words if word.strip()]
        distinct = tuple(dict.fromkeys(cleaned))
        twice += len(cleaned) - len(distinct)
        if name == OUTLIERS:
            note("left out", "topics of outliers (-1)", [f"{path}: {name}"])
        elif not distinct:
            empty.append(f"{path}: {name}")
        else:
            topics.append(Topic(name, distinct))
    if twice:
        note("left out", "words that their topic names twice", count=twice)
    if empty:
        note("left out", "topics without words", empty)
    if not topics:
        raise fail(path, "holds no topics; give a list of lists of words, or name: words")
    note("read", f"topics of {path}", count=len(topics))
    return topics


def _json(path: str, file: Path) -> object:
    try:
        return json.loads(read_text_file(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise fail(path, f"is no JSON ({error})") from None


def _of_json(path: str, value: object) -> list[tuple[str, list[str]]]:
    if isinstance(value, Mapping):
        by_key = {str(key).lower(): item for key, item in value.items()}
        for key in TOPICS:
            if _holds_topics(by_key.get(key)):
                return _of_json(path, by_key[key])
        if not all(isinstance(item, list | Mapping | str) for item in value.values()):
            raise fail(path, f"there is no key 'topics'{nearest('topics', map(str, value))}")
        return [(str(name), _words(f"{path}: {name}", topic)) for name, topic in value.items()]
    if not isinstance(value, list):
        raise fail(path, "should hold a list of topics, or name: words")
    return [_named(path, place, topic) for place, topic in enumerate(value)]


def _holds_topics(value: object) -> bool:
    """Whether this is topics, not the number of the topic of each document."""
    items = list(value.values()) if isinstance(value, Mapping) else value
    return isinstance(items, list) and any(isinstance(i, list | Mapping | str) for i in items)


def _named(path: str, place: int, topic: object) -> tuple[str, list[str]]:
    """A topic of a list: its name is in it, or its place from 0 on."""
    where = f"{path}: topic {place}"
    if isinstance(topic, Mapping):
        keys = {str(key).lower(): key for key in topic}
        words = next((keys[key] for key in WORDS if key in keys), None)
        if words is not None:
            name = next((topic[keys[key]] for key in NAMES if key in keys), place)
            return str(name), _words(where, topic[words])
        if any(not _is_number(weight) for weight in topic.values()):
            raise fail(where, f"there is no key 'words'{nearest('words', keys)}")
    if isinstance(topic, list) and len(topic) == 2 and not isinstance(topic[1], int | float):
        name, words = topic  # gensim: [[0, [["cat", 0.1], ...]], ...]
        if isinstance(name, int) or (isinstance(name, str) and isinstance(words, list)):
            return str(name), _words(where, words)
    return str(place), _words(where, topic)


def _words(where: str, topic: object) -> list[str]:
    """The words of a topic in any form, in order; by falling weight where a mapping has weights."""
    if isinstance(topic, str):
        if weighted := _FORMATTED.findall(topic):
            return [word.strip() for _, word in weighted]
        return _split(topic)
    if isinstance(topic, Mapping):
        if not all(_is_number(weight) for weight in topic.values()):
            raise fail(where, "should map words to weights")
        weights = cast(Mapping[str, float], topic)
        return sorted(map(str, weights), key=lambda word: -weights[word])
    if not isinstance(topic, list):
        raise fail(where, f"should be a list of words, is {shown(topic)}")
    return [_word(where, entry) for entry in topic]


def _word(where: str, entry: object) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list) and len(entry) == 2:
        texts = [part for part in entry if isinstance(part, str)]
        if len(texts) == 1:
            return texts[0]
    if isinstance(entry, Mapping):
        keys = {str(key).lower(): key for key in entry}
        for key in WORD:
            if key in keys:
                return str(entry[keys[key]])
        raise fail(where, f"there is no key 'word'{nearest('word', keys)}")
    raise fail(where, f"{shown(entry)} is no word; give a word, or a word and its weight")


def _split(text: str) -> list[str]:
    """The words of one text: a list as Python writes it, or between commas or blanks."""
    if text.startswith("["):
        try:
            return [str(word) for word in ast.literal_eval(text)]
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            pass
    return text.split(",") if "," in text else text.split()


def _of_lines(text: str) -> list[tuple[str, list[str]]]:
    """A topic on each line; MALLET puts a number and a weight before the words, between tabs."""
    topics = []
    for place, line in enumerate(line for line in text.splitlines() if line.strip()):
        cells = line.split("\t")
        mallet = len(cells) == 3 and cells[0].strip().isdigit()
        topics.append(
            (cells[0].strip(), cells[2].split()) if mallet else (str(place), _split(line))
        )
    return topics


def _of_table(path: str, table: pl.DataFrame) -> list[tuple[str, list[str]]]:
    """A row for each word (topic, word, weight), or a row for each topic (words in one cell, or in
    numbered columns).
    """
    columns = {name.lower(): name for name in reversed(table.columns)}
    named = next((columns[name] for name in NAMES if name in columns), None)
    if words := next((columns[name] for name in WORDS if name in columns), None):
        name = columns.get("topic", named)
        names = [str(i) for i in range(table.height)] if name is None else table[name].to_list()
        cells = table[words].to_list()
        return [
            (str(name), _words(f"{path}: {name}", cell if cell is not None else []))
            for name, cell in zip(names, cells, strict=True)
        ]
    if word := next((columns[name] for name in WORD if name in columns), None):
        if named is None:
            raise fail(path, f"there is no column 'topic'{nearest('topic', table.columns)}")
        return _of_long_table(path, table, columns.get("topic", named), word)
    numbered = [name for name in table.columns if _NUMBERED.match(name)]
    if not numbered:
        raise fail(path, f"there is no column 'words'{nearest('words', table.columns)}")
    numbered.sort(key=lambda name: int(_NUMBERED.match(name)[1]))  # pyright: ignore[reportOptionalSubscript]
    names = range(table.height) if named is None else table[named].to_list()
    rows = table.select(numbered).iter_rows()
    return [
        (str(name), [str(cell) for cell in row if cell is not None])
        for name, row in zip(names, rows, strict=True)
    ]


def _of_long_table(
    path: str, table: pl.DataFrame, topic: str, word: str
) -> list[tuple[str, list[str]]]:
    columns = {name.lower(): name for name in table.columns}
    weight = next((columns[name] for name in WEIGHT if name in columns), None)
    weights: Sequence[float | None] = [None] * table.height
    if weight is not None:
        weights = table[weight].cast(pl.Float64, strict=False).to_list()
        if any(value is None for value in weights):
            raise fail(path, f"column {shown(weight)} should hold numbers only")
    by_topic: dict[str, list[tuple[float, str]]] = {}
    for name, text, value in zip(table[topic], table[word], weights, strict=True):
        if name is not None and text is not None:
            by_topic.setdefault(str(name), []).append((-(value or 0.0), str(text)))
    # A stable sort: words of equal weight, and those without, stay in the order of the table.
    return [
        (name, [text for _, text in sorted(pairs, key=lambda pair: pair[0])])
        for name, pairs in by_topic.items()
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
