"""Scores of topics from any tool."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import Account, opened
from ....base.files import write_aside, write_json
from ....data.formats.tables import stem_of
from ....data.texts.corpus import read_texts
from ....data.texts.topics import Topic, read_topics
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...figures.style import save_png
from ..topics.figures import scores_figure
from ..topics.pages import as_json, results_folder, terminal_table, with_interval, write_summary
from ..topics.scores import TopicScores, corpus_terms, score_topics
from ..topics.word_vectors import WordVectors, open_vectors
from .options_topics import CORPUS, TopicEvaluateOptions, check_topics

SCORES, BY_TOPIC, PICTURE = "scores.json", "by_topic.csv", "scores.png"
CHANCE = {"intrusion_accuracy": 0.2, "mixing_auc": 0.5}


@dataclass(frozen=True)
class EvaluatedTopics:
    """scores: of each model by its name; table: what is printed; output: None if nothing was
    written.
    """

    scores: dict[str, TopicScores]
    table: pl.DataFrame
    output: Path | None


def evaluate(options: TopicEvaluateOptions) -> EvaluatedTopics:
    """Score the topics of files; prints a row for each model and writes --output if it is asked.

    Raises `InputError` for files and options that cannot be used.
    """
    check_topics(options)
    read = [*options.topics, options.data]
    names = (SCORES, BY_TOPIC, PICTURE)
    folder = (
        nullcontext(None)
        if options.output is None
        else results_folder(options.output, names, overwrite=options.overwrite, read=read)
    )
    with opened() as account, folder as home:
        models = read_models(options.topics)
        corpus = None
        if options.data is not None:
            corpus = corpus_terms(read_texts(options.data, options.column).texts)
        words = {word for topics in models.values() for topic in topics for word in topic.words}
        vectors = open_vectors(options.vectors, words, corpus, options.seed)
        scores = {
            model: score_topics(
                model,
                topics,
                corpus,
                vectors,
                top=options.top_words,
                window=options.window,
                seed=options.seed,
            )
            for model, topics in models.items()
        }
        table = _table(models, scores)
        notes = _notes(options, vectors, corpus is not None)
        publish(account)
        if home is not None:
            _write(home, options, models, scores, table, notes, account)
    for line in [*terminal_table(table), *notes]:
        say(line)
    return EvaluatedTopics(scores, table, None if options.output is None else Path(options.output))


def read_models(files: Sequence[str]) -> dict[str, list[Topic]]:
    """The topics of files by the names of their models, which are those of the files.

    Files that have the same name are told apart by their folders.
    """
    names = [stem_of(file) if not file.endswith(".json") else Path(file).stem for file in files]
    if len(set(names)) < len(names):
        names = [str(Path(file).with_suffix("")) for file in files]
    return {name: read_topics(file) for name, file in zip(names, files, strict=True)}


def _table(models: dict[str, list[Topic]], scores: dict[str, TopicScores]) -> pl.DataFrame:
    rows = [
        {
            "model": model,
            "topics": len(topics),
            "in corpus": scores[model].in_corpus,
            **{name: with_interval(score) for name, score in scores[model].scores.items()},
        }
        for model, topics in models.items()
    ]
    return pl.DataFrame(rows)


def _notes(
    options: TopicEvaluateOptions, vectors: WordVectors | None, has_corpus: bool
) -> list[str]:
    """What the scores are, and what is missing and why."""
    notes = []
    if has_corpus:
        notes.append(
            f"Of the first {options.top_words} words. npmi: by documents, pairs never together "
            f"count -1. c_npmi: by windows of {options.window} words, 1e-12 added (gensim's form; "
            "OCTIS calls gensim, on its own texts). Intervals of 95 % over topics or tasks."
        )
    else:
        notes.append("No coherence: name the texts with --data.")
    if vectors is None:
        notes.append("No machine raters: they need --data, or word vectors in a file (--vectors).")
        return notes
    notes.append(
        f"Machine raters by {vectors.what}: intrusion_accuracy, the share of intruders that are "
        "the least similar word (chance 0.200); mixing_auc, how well the similarity between two "
        "halves minus that within them tells one topic from two close ones (chance 0.500)."
    )
    if options.vectors == CORPUS:
        notes.append(
            "Vectors of the same texts favour topics that are made from them: compare models by "
            "vectors of another source."
        )
    return notes


def _write(
    home: Path,
    options: TopicEvaluateOptions,
    models: dict[str, list[Topic]],
    scores: dict[str, TopicScores],
    table: pl.DataFrame,
    notes: Sequence[str],
    account: Account,
) -> None:
    write_json(
        home / SCORES,
        {
            model: {
                **as_json(result.scores),
                "in_corpus": result.in_corpus,
                "tasks": dict(result.rated),
            }
            for model, result in scores.items()
        },
    )
    write_aside(home / BY_TOPIC, _by_topic(options, models, scores).write_csv)
    names = list(next(iter(scores.values())).scores)
    panels = {
        name: [result.scores[name] for result in scores.values()]
        for name in names
        if any(np.isfinite(result.scores[name].value) for result in scores.values())
    }
    save_png(scores_figure(list(models), panels, CHANCE), home / PICTURE)
    title = f"Scores of {', '.join(models)}"
    write_summary(home, title, {"Models": table}, notes=notes, picture=PICTURE, account=account)


def _by_topic(
    options: TopicEvaluateOptions, models: dict[str, list[Topic]], scores: dict[str, TopicScores]
) -> pl.DataFrame:
    rows = [
        {
            "model": model,
            "topic": topic.name,
            "npmi": float(scores[model].by_topic["npmi"][place]),
            "c_npmi": float(scores[model].by_topic["c_npmi"][place]),
            "words": " ".join(topic.words[: options.top_words]),
        }
        for model, topics in models.items()
        for place, topic in enumerate(topics)
    ]
    return pl.DataFrame(rows).fill_nan(None)
