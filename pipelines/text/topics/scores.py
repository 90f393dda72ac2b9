"""Scores of topics on a corpus and by machine raters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....base.account import note
from ....data.texts.terms import Vocabulary, document_counts, terms_of
from ....data.texts.topic_tasks import SINGLE, WordTask, intrusion_tasks, mixing_tasks
from ....data.texts.topics import Topic
from ...engine.command_line.terminal import Progressbar
from ...metrics.agreement import Score
from ...metrics.bootstrap import bootstrap_intervals, interval_of_mean
from ...metrics.classification import weighted_auc
from ...metrics.topics import (
    EPSILON,
    WINDOW,
    between_minus_within,
    count_occurrences,
    least_similar,
    npmi,
    topic_coherence,
    topic_diversity,
    topic_similarity,
)
from .word_vectors import WordVectors

NOTHING = Score(float("nan"), float("nan"), float("nan"))
COHERENCES: tuple[str, ...] = ("npmi", "c_npmi")
CLOSE_WORDS = 50  # of a topic say how close it is to others


@dataclass(frozen=True)
class TopicScores:
    """What is known of a model's topics, each with its interval over topics or tasks.

    scores: npmi, c_npmi, diversity, intrusion_accuracy, mixing_auc; NaN for what cannot be
    measured. by_topic: npmi and c_npmi of each topic. in_corpus: share of the words that are in the
    corpus. rated: machine-rated tasks by kind.
    """

    scores: Mapping[str, Score]
    by_topic: Mapping[str, np.ndarray]
    in_corpus: float
    rated: Mapping[str, int]


def score_topics(
    model: str,
    topics: Sequence[Topic],
    corpus: Sequence[Sequence[str]] | None,
    vectors: WordVectors | None,
    *,
    top: int = 10,
    window: int = WINDOW,
    seed: int = 0,
) -> TopicScores:
    """Scores of topics. corpus: the terms of its texts; None: no coherence. vectors: None: no
    machine raters.
    """
    words = [topic.words[:top] for topic in topics]
    scores: dict[str, Score] = dict.fromkeys(("npmi", "c_npmi"), NOTHING)
    by_topic: dict[str, np.ndarray] = {name: np.full(len(topics), np.nan) for name in scores}
    share = float("nan")
    if corpus is not None:
        by_topic, share = coherence_of(model, words, corpus, window)
        scores = {name: _mean_score(values, seed) for name, values in by_topic.items()}
    diversity = topic_diversity(words)
    scores["diversity"] = Score(diversity, float("nan"), float("nan"))
    rated = {"intrusion": 0, "mixing": 0}
    if vectors is not None:
        generator = np.random.default_rng(seed)
        frequency = None if corpus is None else document_counts(corpus)
        vectors = vectors.stored([word for topic in topics for word in topic.words])
        similarity = similarity_of(topics, vectors)
        known = set(_known([word for topic in topics for word in topic.words], vectors))
        tasks = intrusion_tasks(
            model, topics, generator, frequency=frequency, known=known.__contains__
        )
        tasks += mixing_tasks(model, topics, similarity, generator)
        rated, machine = rate_tasks(tasks, vectors, seed)
        scores |= machine
    else:
        scores |= {"intrusion_accuracy": NOTHING, "mixing_auc": NOTHING}
    return TopicScores(scores, by_topic, share, rated)


def coherence_of(
    model: str, topics: Sequence[Sequence[str]], corpus: Sequence[Sequence[str]], window: int
) -> tuple[dict[str, np.ndarray], float]:
    """npmi (documents) and c_npmi (windows) of each topic, and the share of words in the corpus."""
    words = list(dict.fromkeys(word for topic in topics for word in topic))
    vocabulary = Vocabulary(words)
    with Progressbar(total=len(corpus), unit="text", desc="count words") as bar:
        documents = []
        for terms in corpus:
            documents.append(vocabulary.find(terms))
            bar.update()
    code = {word: place for place, word in enumerate(words)}
    codes = [[code[word] for word in topic] for topic in topics]
    by_document = count_occurrences(documents, len(words))
    by_window = count_occurrences(documents, len(words), window)
    absent = [word for word, n in zip(words, by_document.singles, strict=True) if not n]
    if absent:
        note("left out", f"words of {model} that the texts do not hold", absent)
    values = {
        "npmi": topic_coherence(npmi(by_document), codes),
        "c_npmi": topic_coherence(npmi(by_window, EPSILON), codes),
    }
    return values, 1 - len(absent) / max(len(words), 1)


def similarity_of(topics: Sequence[Topic], vectors: WordVectors) -> np.ndarray:
    """Cosine between topics by their first 50 words, (K, K); NaN for topics without vectors."""
    known = [vectors(topic.words[:CLOSE_WORDS]) for topic in topics]
    return topic_similarity([rows[~np.isnan(rows).any(axis=1)] for rows in known])


def rate_tasks(
    tasks: Sequence[WordTask], vectors: WordVectors, seed: int = 0
) -> tuple[dict[str, int], dict[str, Score]]:
    """How many tasks of each kind a machine could do, and how well it did them.

    Tasks with a word that has no vector are left out and noted.
    """
    vectors = vectors.stored([word for task in tasks for word in task.words])
    doable = [task for task in tasks if len(_known(task.words, vectors)) == len(task.words)]
    if len(doable) < len(tasks):
        what = "tasks of machine raters with a word that has no vector"
        note("left out", what, count=len(tasks) - len(doable))
    intrusion = [task for task in doable if task.kind == "intrusion"]
    mixing = [task for task in doable if task.kind == "mixing"]
    scores = {"intrusion_accuracy": NOTHING, "mixing_auc": NOTHING}
    if intrusion:
        picked = pick_intruders(intrusion, vectors)
        right = [task.words[place] == task.truth for task, place in zip(intrusion, picked)]
        scores["intrusion_accuracy"] = _mean_score(np.array(right, float), seed)
    if mixing:
        single = np.array([task.truth == SINGLE for task in mixing])
        scores["mixing_auc"] = auc_score(single, likeness_of(mixing, vectors), seed)
    return {"intrusion": len(intrusion), "mixing": len(mixing)}, scores


def pick_intruders(tasks: Sequence[WordTask], vectors: WordVectors) -> np.ndarray:
    """The place of the word that is least similar to the others of each intrusion, (N,)."""
    return np.array([int(least_similar(vectors(task.words)[None])[0]) for task in tasks])


def likeness_of(tasks: Sequence[WordTask], vectors: WordVectors) -> np.ndarray:
    """How much the halves of each mixing are of one topic: cosine between minus within, (N,)."""
    halves = [[vectors(half) for half in task.halves] for task in tasks]
    return np.array(
        [between_minus_within(first[None], second[None])[0] for first, second in halves]
    )


def auc_score(positive: np.ndarray, score: np.ndarray, seed: int = 0) -> Score:
    """Area under the ROC curve with an interval over tasks; NaN where all are of one kind."""
    if positive.all() or not positive.any():
        return NOTHING
    value = weighted_auc(positive, score, np.ones((1, len(score))))[0]
    interval = bootstrap_intervals(
        lambda weights: {"auc": weighted_auc(positive, score, weights)}, len(score), seed=seed
    )["auc"]
    return Score(float(value), *interval)


def corpus_terms(texts: Sequence[str]) -> list[list[str]]:
    """The terms of each text."""
    with Progressbar(total=len(texts), unit="text", desc="read words") as bar:
        corpus = []
        for text in texts:
            corpus.append(terms_of(text))
            bar.update()
    return corpus


def _known(words: Sequence[str], vectors: WordVectors) -> list[str]:
    known = np.flatnonzero(np.isfinite(vectors(words)).all(axis=1))
    return [words[int(place)] for place in known]


def _mean_score(values: np.ndarray, seed: int) -> Score:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return NOTHING
    return Score(float(defined.mean()), *interval_of_mean(defined, seed=seed))
