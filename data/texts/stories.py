"""Stories: articles by several writers on one event, with the answers that they give to questions.

Read from
- `.json` and `.jsonl` in the published form of DiverseSumm: `eid`, `articles` (each `aid`, `title`,
  `url`, `domain`, `content`), `question_answers` (each `question`, `answer_groups`: lists of
  `{aid, answer}`; or `answers`, a flat list of them, which are to be grouped);
- a folder of such files and of `.txt` and `.md` articles, where each folder with articles is a
  story;
- a table with a row for each article.

A story that cannot be used is an error in its place, and does not stop the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, reason, shown
from ...base.files import read_plain, walk_folder
from ..columns import find_columns
from ..formats.encodings import text_encoding
from ..formats.tables import TABLE_SUFFIXES, check_file, collect, scan_table, suffix_of

ARTICLE_SUFFIXES = (".txt", ".md")
STORY_SUFFIXES = (".json", ".jsonl")
SYNONYMS: Mapping[str, Sequence[str]] = {
    "story": ("story", "eid", "story_id", "event", "event_id", "cluster", "cluster_id"),
    "article": ("article", "aid", "article_id", "doc_id", "document_id", "id"),
    "content": ("content", "text", "body", "article_text", "article_body", "document"),
    "title": ("title", "headline"),
    "url": ("url", "link"),
    "domain": ("domain", "publisher", "outlet", "source", "site"),
}  # fmt: skip
FIELDS = tuple(SYNONYMS)
TEXT_CAP = 64 << 20  # bytes of a file with one article
STORIES_CAP = 1 << 30  # bytes of a file with stories


@dataclass(frozen=True)
class Article:
    """One article."""

    id: str
    text: str
    title: str = ""
    url: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Question:
    """A question, and the answers of articles to it; groups: places of answers that say the same,
    None where that is not known.
    """

    question: str
    answers: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] | None


@dataclass(frozen=True)
class Story:
    """What several articles say about one event."""

    id: str
    articles: tuple[Article, ...]
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class UnusableStory:
    """A story that cannot be read, and why, on one line."""

    id: str
    error: str


ReadStory: TypeAlias = "Story | UnusableStory"


def read_stories(path: str, columns: Mapping[str, str] | None = None) -> list[ReadStory]:
    """The stories of a file, a folder or a table, in their order.

    columns: names of a table's columns by field (story, article, content, title, url, domain).
    Raises `InputError` where nothing can be read as stories, and where two have one id.
    """
    place = Path(path)
    is_lines = suffix_of(place) == ".json" or _is_lines_of_stories(place)
    if columns and (is_lines or place.is_dir()):
        raise fail(path, "has no columns, which --columns could name; leave it out")
    if place.is_dir():
        stories = list(_of_folder(place))
    elif is_lines:
        check_file(path, STORY_SUFFIXES)
        stories = list(_of_file(place))
    else:
        stories = _of_table(path, columns or {})
    if not stories:
        raise fail(path, "holds no story")
    twice = [name for name, count in Counter(story.id for story in stories).items() if count > 1]
    if twice:
        raise fail(path, f"two stories are called {shown(twice[0])}; give each an eid of its own")
    usable = [story for story in stories if isinstance(story, Story)]
    note("read", "stories", count=len(usable))
    note("read", "articles", count=sum(len(story.articles) for story in usable))
    return stories


def _is_lines_of_stories(path: Path) -> bool:
    """Whether a file of JSON lines holds stories, not the rows of a table."""
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"articles"' in file.readline(STORIES_CAP)


def _of_folder(folder: Path) -> Iterator[ReadStory]:
    """The stories in a folder and the folders below it."""
    articles: dict[str, list[str]] = {}
    for name in walk_folder(folder, (*STORY_SUFFIXES, *ARTICLE_SUFFIXES)):
        if name.lower().endswith(STORY_SUFFIXES):
            yield from _of_file(folder / name)
        else:
            articles.setdefault(name.rpartition("/")[0], []).append(name)
    for home, names in articles.items():
        try:
            texts = [(Path(name).stem, read_text(folder / name)) for name in names]
            read = [Article(stem, text) for stem, text in texts]
            yield checked_story(home or folder.resolve().name, read)
        except InputError as error:
            yield UnusableStory(home or folder.resolve().name, str(error))


def read_text(path: Path) -> str:
    """The text of a file; one that is not UTF-8 is taken as UTF-16 or cp1252, which is noted.

    Raises `InputError` for a file that is too large or no text.
    """
    try:
        content = read_plain(path, TEXT_CAP)
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = text_encoding(path, content)
        note("assumed", f"files in {encoding}, not UTF-8", [path])
        return content.decode(encoding)


def _of_file(path: Path) -> Iterator[ReadStory]:
    """The stories of a .json or .jsonl file."""
    try:
        content = read_plain(path, STORIES_CAP).decode("utf-8-sig")
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from None
    except UnicodeDecodeError:
        raise fail(path, "is not UTF-8; JSON always is") from None
    if path.suffix.lower() == ".jsonl":
        lines = [(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]
        pieces = [(f"{path.stem}:{n}", line) for n, line in lines]
    else:
        pieces = [(path.stem, content)]
    for name, piece in pieces:
        try:
            values = json.loads(piece)
        except (ValueError, RecursionError) as error:
            yield UnusableStory(name, f"{path.name}: is not JSON ({reason(error)})")
            continue
        several = isinstance(values, list)
        for number, value in enumerate(values if several else [values], 1):
            yield _of_json(value, f"{name}:{number}" if several else name)


def _of_json(value: object, name: str) -> ReadStory:
    """A story in the published form; `name` stands in where it has no eid."""
    try:
        if not isinstance(value, dict):
            raise InputError(f"is a {type(value).__name__}, not an object with 'articles'")
        if value.get("eid") not in (None, ""):
            name = str(value["eid"])
        articles = [
            Article(
                str(_or(article, "aid", number)),
                _text(article, "content", f"article {number}"),
                *(str(_or(article, key, "")) for key in ("title", "url", "domain")),
            )
            for number, article in enumerate(_objects(value, "articles"), 1)
        ]
        return checked_story(name, articles, _questions(value))
    except InputError as error:
        return UnusableStory(name, f"story {name}: {error}")


def _questions(value: Mapping[str, object]) -> list[Question]:
    if value.get("question_answers") is None:
        return []
    questions = []
    for number, entry in enumerate(_objects(value, "question_answers"), 1):
        where = f"question {number}"
        if entry.get("answer_groups") is None:
            answers = [_text(answer, "answer", where) for answer in _objects(entry, "answers")]
            questions.append(Question(str(_or(entry, "question", "")), tuple(answers), None))
            continue
        groups = entry["answer_groups"]
        if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
            raise InputError(f"{where}: 'answer_groups' should be a list of lists of answers")
        answers, places = list[str](), list[tuple[int, ...]]()
        for group in groups:
            if not all(isinstance(answer, str | dict) for answer in group):
                raise InputError(f"{where}: an answer should be an object with 'aid' and 'answer'")
            texts = [a if isinstance(a, str) else _text(a, "answer", where) for a in group]
            if texts:
                places.append(tuple(range(len(answers), len(answers) + len(texts))))
                answers += texts
        questions.append(Question(str(_or(entry, "question", "")), tuple(answers), tuple(places)))
    return questions


def _objects(value: Mapping[str, object], key: str) -> list[dict[str, object]]:
    entries = value.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{key!r} should be a list of objects")
    return entries


def _text(value: Mapping[str, object], key: str, where: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise InputError(f"{where}: {key!r} should be a text")
    return text


def _or(value: Mapping[str, object], key: str, default: object) -> object:
    """What stands under a key; the default where there is nothing."""
    return default if value.get(key) in (None, "") else value[key]


def checked_story(
    name: str, articles: Sequence[Article], questions: Sequence[Question] = ()
) -> Story:
    """A story of those articles that hold text. Raises `InputError` where none does, and where two
    have one id.
    """
    filled = [article for article in articles if article.text.strip()]
    empty = [f"{name}: {article.id}" for article in articles if not article.text.strip()]
    if not filled:
        raise InputError(f"{name}: has no article with text")
    twice = [id_ for id_, count in Counter(a.id for a in filled).items() if count > 1]
    if twice:
        raise InputError(f"{name}: two articles are called {shown(twice[0])}")
    if empty:
        note("left out", "articles without text", empty)
    return Story(name, tuple(filled), tuple(questions))


def _of_table(path: str, columns: Mapping[str, str]) -> list[ReadStory]:
    """The stories of a table with a row for each article."""
    frame, names = scan_table(path, TABLE_SUFFIXES)
    used = find_columns(
        path, names, FIELDS, required=["content"], chosen=columns, synonyms=SYNONYMS
    )
    chosen = [pl.col(column).cast(pl.String).alias(field) for field, column in used.items()]
    table = collect(path, frame.select(chosen))
    if "story" not in used:
        note("assumed", "all articles are of one story: there is no column of stories")
    stories: dict[str, list[Article]] = {}
    without = []
    for number, row in enumerate(table.iter_rows(named=True), 1):
        name = row["story"] if "story" in used else Path(path).name
        if not name:
            without.append(number)
            continue
        further = {key: row.get(key) or "" for key in ("title", "url", "domain")}
        article = Article(row.get("article") or str(number), row["content"] or "", **further)
        stories.setdefault(name, []).append(article)
    if without:
        note("left out", "rows without a story", without)
    read: list[ReadStory] = []
    for name, articles in stories.items():
        try:
            read.append(checked_story(name, articles))
        except InputError as error:
            read.append(UnusableStory(name, str(error)))
    return read
