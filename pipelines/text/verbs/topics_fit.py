"""The topics of a table of texts: their words, and the topic of each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ....data.formats.tables import check_file
from ....data.text_files import read_text_file
from ....data.texts.corpus import Texts, read_texts
from ....data.texts.terms import terms_of
from ....data.texts.topics import Topic
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...figures.style import save_png
from ..topics.figures import topics_figure
from ..topics.models import (
    FittedTopics,
    count_terms,
    fit_kmeans,
    fit_nmf,
    stop_words_of,
    topic_sizes,
)
from ..topics.pages import results_folder, terminal_table, with_interval, write_summary
from ..topics.scores import TopicScores, corpus_terms, score_topics
from ..topics.word_vectors import open_vectors
from .options_topics import CORPUS, TopicFitOptions, check_topics

TOPICS, DOCUMENTS, PICTURE = "topics.json", "documents.parquet", "topics.png"
EXCERPT = 160  # letters of a text in the table of texts
METHODS = {"nmf": "non-negative factors of tf-idf", "kmeans": "k-means with c-TF-IDF"}


@dataclass(frozen=True)
class FoundTopics:
    """What `topics fit` wrote. topics: name and words; documents: row, text, topic, weight and
    weights of each text; scores: coherence (npmi, c_npmi) and diversity.
    """

    output: Path
    topics: Sequence[Topic]
    documents: pl.DataFrame
    scores: TopicScores


def fit(options: TopicFitOptions) -> FoundTopics:
    """Fit topics; writes topics.json, documents.parquet, topics.png and the summary into --output.

    Raises `InputError` for texts and options that cannot be used; then nothing is written.
    """
    check_topics(options)
    names = (TOPICS, DOCUMENTS, PICTURE)
    with (
        opened() as account,
        results_folder(
            options.output, names, overwrite=options.overwrite, read=[options.data]
        ) as folder,
    ):
        texts = read_texts(options.data, options.column)
        corpus = corpus_terms(texts.texts)
        fitted = _fitted(options, corpus)
        topics = [Topic(str(place), tuple(words)) for place, words in enumerate(fitted.words)]
        scores = score_topics(options.output, topics, corpus, None, top=options.top_words)
        documents = _documents(texts, fitted)
        _write(folder, options, topics, fitted, documents)
        publish(account)
        table = _topic_table(options, topics, fitted, scores)
        notes = _notes(options, texts, scores)
        write_summary(
            folder,
            f"{options.count} topics of {Path(options.data).name}",
            {"Topics": table},
            notes=notes,
            picture=PICTURE,
            account=account,
        )
    for line in [*terminal_table(table), *notes]:
        say(line)
    say(f"{options.output}: {len(topics)} topics of {len(texts.texts):,} texts")
    return FoundTopics(Path(options.output), topics, documents, scores)


def _fitted(options: TopicFitOptions, corpus: Sequence[Sequence[str]]) -> FittedTopics:
    if options.method == "nmf" and options.vectors != CORPUS:
        raise InputError("--vectors: is read by --method kmeans; leave it out")
    stopped = _stop_words(options, corpus)
    table = count_terms(corpus, options.least_texts, options.most_share, stopped)
    if options.count > min(len(corpus), len(table.terms)):
        raise InputError(
            f"--count {options.count}: more than the {len(corpus):,} texts or the "
            f"{len(table.terms):,} words that are used"
        )
    if options.method == "nmf":
        return fit_nmf(table, options.count, options.seed)
    vectors = None
    if options.vectors != CORPUS:
        vectors = open_vectors(options.vectors, table.terms, None)
    what = "tf-idf reduced by its singular values" if vectors is None else vectors.what
    note("assumed", f"a text's vector is from {what}")
    return fit_kmeans(table, options.count, vectors, options.seed)


def _stop_words(options: TopicFitOptions, corpus: Sequence[Sequence[str]]) -> frozenset[str]:
    choice = options.stop_words
    if choice in ("auto", "english", "none"):
        return stop_words_of(choice, corpus)
    text = read_text_file(check_file(choice, (".txt",)))
    return frozenset(term for word in text.split() for term in terms_of(word))


def _documents(texts: Texts, fitted: FittedTopics) -> pl.DataFrame:
    usable = fitted.topic >= 0
    weight = np.where(usable, np.nan_to_num(fitted.shares).max(1), np.nan)
    topic = [str(place) if place >= 0 else None for place in fitted.topic.tolist()]
    return pl.DataFrame(
        {
            "row": texts.rows,
            "text": [" ".join(text.split())[:EXCERPT] for text in texts.texts],
            "topic": pl.Series(topic, dtype=pl.String),
            "weight": pl.Series(weight, dtype=pl.Float32).fill_nan(None),
            "weights": pl.Series(
                np.nan_to_num(fitted.shares).astype(np.float32).tolist(), dtype=pl.List(pl.Float32)
            ),
        }
    )


def _write(
    folder: Path,
    options: TopicFitOptions,
    topics: Sequence[Topic],
    fitted: FittedTopics,
    documents: pl.DataFrame,
) -> None:
    sizes = topic_sizes(fitted.topic, options.count)
    write_json(
        folder / TOPICS,
        {
            "method": METHODS[options.method],
            "topics": [
                {
                    "name": topic.name,
                    "texts": sizes[place],
                    "words": topic.words,
                    "weights": weights,
                }
                for place, (topic, weights) in enumerate(zip(topics, fitted.weights, strict=True))
            ],
        },
    )
    write_aside(folder / DOCUMENTS, documents.write_parquet)
    names = [topic.name for topic in topics]
    figure = topics_figure(names, fitted.words, fitted.weights, list(sizes.values()))
    save_png(figure, folder / PICTURE)


def _topic_table(
    options: TopicFitOptions, topics: Sequence[Topic], fitted: FittedTopics, scores: TopicScores
) -> pl.DataFrame:
    sizes = topic_sizes(fitted.topic, options.count)
    table = pl.DataFrame(
        {
            "topic": [topic.name for topic in topics],
            "texts": list(sizes.values()),
            "npmi": scores.by_topic["npmi"],
            "words": [", ".join(topic.words[: options.top_words]) for topic in topics],
        }
    )
    return table.sort("texts", descending=True, maintain_order=True)


def _notes(options: TopicFitOptions, texts: Texts, scores: TopicScores) -> list[str]:
    npmi, c_npmi = scores.scores["npmi"], scores.scores["c_npmi"]
    return [
        f"{METHODS[options.method]}, {options.count} topics of {len(texts.texts):,} texts, seed "
        f"{options.seed}.",
        f"Coherence of the first {options.top_words} words on these texts: npmi "
        f"{with_interval(npmi)} by documents, c_npmi {with_interval(c_npmi)} by windows; "
        f"diversity {scores.scores['diversity'].value:.3f}.",
    ]
