"""Summaries of stories: which sentences are candidates, which are chosen, what answers they cover.

Sentences are sorted by what they say before anything is computed, so that the result does not
depend on the order of the articles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl

from ....base.account import note
from ....base.errors import InputError, fail
from ....data.columns import find_columns
from ....data.formats.tables import collect, numbers, scan_table
from ....data.texts.sentences import sentences_of, split_sentences
from ....data.texts.stories import SYNONYMS, Article, Question, Story
from ...metrics import selection
from ...metrics.answer_coverage import consolidate, nearest_by_group
from ...metrics.selection import (
    Choice,
    TextVectors,
    VectorsOf,
    similarities,
    text_vectors,
    within_budget,
    words_of,
)
from .options_judge import SummariseOptions

MOST_SENTENCES = 4000  # of a story: their similarities are all in memory
SHORT, LONG = 4, 80  # words of a sentence that may stand in a summary
SUMMARIES, LEAD, ELSEWHERE = "summaries", "first sentences", "summaries of --summaries"

OF_SUMMARIES: Mapping[str, Sequence[str]] = {
    "story": SYNONYMS["story"],
    "summary": ("summary", "summary_text", "prediction", "output"),
}
OF_SCORES: Mapping[str, Sequence[str]] = {
    "question": ("question",),
    "first": ("first", "answer_1", "answer_a"),
    "second": ("second", "answer_2", "answer_b"),
    "score": ("score",),
}

Scores = Mapping[str, Mapping[tuple[str, str], float]]
"""Scores of pairs of answers, by question."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of an article: `article.text[start:end]`."""

    article: str
    start: int
    end: int
    text: str
    words: int


@dataclass(frozen=True)
class Summary:
    """The sentences chosen for a story, best first, with what each added.

    nearest: by what was scored, the highest similarity to an answer of each group, (G,).
    """

    story: str
    sentences: Sequence[Sentence]
    gain: Sequence[float]
    nearest: Mapping[str, np.ndarray] = field(default_factory=dict)


def summarised(
    story: Story,
    options: SummariseOptions,
    vectors_of: VectorsOf | None = None,
    *,
    elsewhere: str | None = None,
    scores: Scores | None = None,
) -> Summary:
    """The summary of a story, and how it, the first sentences, and a summary made elsewhere cover
    its groups of answers.

    scores: by which answers without groups are grouped. Raises `InputError` where the budget is too
    small for any sentence, and for missing scores.
    """
    candidates = candidates_of(story)
    texts = [sentence.text for sentence in candidates]
    choice = _chosen(candidates, text_vectors(texts, vectors_of), story, options)
    chosen = [candidates[place] for place in choice.order]
    groups = [(q, group) for q in story.questions for group in _groups(q, scores)]
    if not groups:
        if elsewhere is not None:
            note("left out", "summaries of stories without groups of answers", [story.id])
        return Summary(story.id, chosen, choice.gain.tolist())
    answers = [q.answers[place] for q, group in groups for place in group]
    group_of = [number for number, (_, group) in enumerate(groups) for _ in group]
    others = sentences_of(elsewhere) if elsewhere is not None else []
    # Answers take no part in the choice; here words weigh as they do in the story.
    vectors = text_vectors(texts, vectors_of, further=[*answers, *others])
    end = len(texts) + len(answers)
    of_answers = vectors[len(texts) : end]
    near = partial(nearest_by_group, group_of=group_of, count=len(groups))
    to_answers = similarities(vectors[: len(texts)], of_answers)
    nearest = {SUMMARIES: near(to_answers[choice.order])}
    if options.method != "lead":
        lead = within_budget(_lead(candidates, story), _sizes(candidates, options), options.budget)
        nearest[LEAD] = near(to_answers[lead])
    if elsewhere is not None:
        nearest[ELSEWHERE] = near(similarities(vectors[end:], of_answers))
    return Summary(story.id, chosen, choice.gain.tolist(), nearest)


def candidates_of(story: Story) -> list[Sentence]:
    """The sentences of a story that may stand in its summary, sorted by what they say.

    Those of fewer than SHORT or more than LONG words only where there are no others: fragments, and
    tables or lists without full stops. Of a story with more than MOST_SENTENCES, as many are taken
    from the beginning of each article.
    """
    by_article = [_sentences(article) for article in story.articles]
    quota = _quota([len(sentences) for sentences in by_article])
    if any(len(sentences) > quota for sentences in by_article):
        what = f"sentences after the first {quota:,} of an article, of stories with more than "
        note("left out", f"{what}{MOST_SENTENCES:,}", [story.id])
    texts = {article.id: article.text for article in story.articles}
    sentences = [sentence for among in by_article for sentence in among[:quota]]
    fitting = [sentence for sentence in sentences if SHORT <= sentence.words <= LONG]
    return sorted(fitting or sentences, key=lambda s: (s.text, texts[s.article], s.start))


def _sentences(article: Article) -> list[Sentence]:
    spans = split_sentences(article.text)
    texts = [article.text[start:end] for start, end in spans]
    return [
        Sentence(article.id, start, end, text, max(1, len(words_of(text))))
        for (start, end), text in zip(spans, texts, strict=True)
    ]


def _quota(counts: Sequence[int]) -> int:
    """The most sentences of one article with which a story has no more than MOST_SENTENCES."""
    room, quota = MOST_SENTENCES, 0
    for position, count in enumerate(sorted(counts)):
        quota = room // (len(counts) - position)
        if count > quota:
            return max(quota, 1)
        room -= count
    return max(counts, default=0)


def _sizes(candidates: Sequence[Sentence], options: SummariseOptions) -> np.ndarray:
    """What each candidate takes of the budget."""
    return np.array([s.words if options.unit == "words" else 1 for s in candidates])


def _chosen(
    candidates: Sequence[Sentence], vectors: TextVectors, story: Story, options: SummariseOptions
) -> Choice:
    """The candidates that are chosen within the budget. Raises `InputError` where none fits."""
    sizes, most = _sizes(candidates, options), min(options.budget, len(candidates))
    if options.method == "lead":
        order = _lead(candidates, story)
        choice = Choice(order, np.zeros(len(order)))
    elif options.method == "determinantal":
        quality = selection.centrality(similarities(vectors))
        kernel = selection.determinantal_kernel(similarities(vectors, least=-1), quality)
        choice = selection.determinantal(kernel, most)
    else:
        similarity = similarities(vectors)
        weights = _weights(similarity, candidates, options)
        by_size = sizes if options.unit == "words" else None
        choice = selection.facility_location(similarity, weights, by_size, most=most)
    used = within_budget(choice.order, sizes, options.budget)
    if not len(used):
        first = candidates[choice.order[0]].words
        raise InputError(f"--budget {options.budget} words: the first sentence has {first}")
    return Choice(used, choice.gain[: len(used)])


def _weights(
    similarity: np.ndarray, candidates: Sequence[Sentence], options: SummariseOptions
) -> np.ndarray:
    """How much it counts that each candidate is stood for."""
    if options.weights == "sentences":
        return np.ones(len(candidates))
    if options.weights == "statements":
        return selection.statement_weights(similarity)
    numbers = dict[str, int]()
    groups = [numbers.setdefault(s.article, len(numbers)) for s in candidates]
    return selection.difference_weights(similarity, groups)


def _lead(candidates: Sequence[Sentence], story: Story) -> np.ndarray:
    """The first sentences of all articles, then the second ones, ...; none twice. Articles are in
    the order of their texts.
    """
    by_text = sorted(story.articles, key=lambda article: article.text)
    rank = {article.id: number for number, article in enumerate(by_text)}
    places = sorted(
        range(len(candidates)),
        key=lambda place: (rank[candidates[place].article], candidates[place].start),
    )
    turns = selection.first_of_each([rank[candidates[place].article] for place in places])
    distinct: dict[str, int] = {}
    for turn in turns:
        distinct.setdefault(candidates[places[turn]].text, places[turn])
    return np.array(list(distinct.values()), np.int64)


def _groups(question: Question, scores: Scores | None) -> Sequence[Sequence[int]]:
    """The groups of the answers to a question, as places among them."""
    if question.groups is not None:
        return question.groups
    if scores is None:
        note("left out", "questions with answers in no groups (--answer-scores groups them)")
        return ()
    return consolidate(question.answers, scores.get(question.question, {}))


def read_summaries(path: str) -> dict[str, str]:
    """Summaries made elsewhere, by story: a table with columns story (or eid) and summary."""
    rows = _cells(path, OF_SUMMARIES)
    return {
        str(story): str(text).strip().removeprefix("Summary:")
        for story, text in rows.iter_rows()
        if story is not None and text is not None
    }


def read_scores(path: str) -> Scores:
    """Scores of pairs of answers: a table with columns question, first, second and score.

    Raises `InputError` for a score that is no number.
    """
    rows = _cells(path, OF_SCORES)
    values, bad = numbers(rows["score"])
    if wrong := np.flatnonzero(bad).tolist():
        raise fail(path, f"column 'score', row {wrong[0] + 1}: is not a number")
    scores: dict[str, dict[tuple[str, str], float]] = {}
    for (question, first, second, _), value in zip(rows.iter_rows(), values, strict=True):
        scores.setdefault(str(question), {})[str(first), str(second)] = float(value)
    return scores


def _cells(path: str, synonyms: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Columns of a table as text, by field; all are needed."""
    frame, names = scan_table(path)
    fields = tuple(synonyms)
    used = find_columns(path, names, fields, required=fields, synonyms=synonyms)
    return collect(path, frame.select(pl.col(used[f]).cast(pl.String).alias(f) for f in fields))
