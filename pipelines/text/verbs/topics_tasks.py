"""Sheets for human raters of topics, and the key that they must not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError, fail
from ....base.files import write_aside, write_text
from ....data.formats.tables import collect, scan_table
from ....data.texts.corpus import read_texts
from ....data.texts.terms import Vocabulary, terms_of
from ....data.texts.topic_tasks import (
    CLEAR_GROUPS,
    KINDS,
    SIZE,
    WordTask,
    assigned,
    balanced,
    control_tasks,
    intrusion_tasks,
    mixing_tasks,
)
from ....data.texts.topics import read_topics
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.inference.output import WRITERS
from ..topics.pages import ACCOUNT, results_folder, terminal_table
from ..topics.scores import similarity_of
from ..topics.word_vectors import open_vectors
from .options_topics import TopicTaskOptions, check_topics
from .topics_evaluate import read_models

KEY, SHEETS, INSTRUCTIONS = "key.csv", "sheets", "instructions.md"
MOST_WORDS = 2 * SIZE
TEXT = f"""# For raters

Answer without help, in the order of the sheet, and do not talk about the tasks before all are done.
Write your answer into the column `answer` of each row; leave it empty if you cannot say.

- Sheets of intrusion: {SIZE} of the {SIZE + 1} words belong together. Which word does not? Write
  the word, or its number from 1 to {SIZE + 1}.
- Sheets of mixing: do both groups of words come from one topic, or from two? Write 1 or 2.

The sheets are tables (.csv) that any spreadsheet opens; save them as .csv again.
"""


@dataclass(frozen=True)
class WrittenTasks:
    """tasks: all of them with their truths, as in key.csv; sheets: the files for the raters."""

    output: Path
    tasks: pl.DataFrame
    sheets: Sequence[Path]


def make_tasks(options: TopicTaskOptions) -> WrittenTasks:
    """Write sheets/rater_N_KIND.csv, key.csv and instructions.md into --output.

    There are as many tasks of each model and kind, and as many single as mixed ones. Raises
    `InputError` for topics and options that cannot be used; then nothing is written.
    """
    check_topics(options)
    names = (KEY, SHEETS, INSTRUCTIONS)
    read = [*options.topics, options.data, options.control_words]
    _keep_answers(options)
    with (
        opened() as account,
        results_folder(options.output, names, overwrite=options.overwrite, read=read) as folder,
    ):
        generator = np.random.default_rng(options.seed)
        tasks = _tasks(options, generator)
        key = _key(tasks)
        sheets = _write_sheets(folder / SHEETS, options, tasks, key, generator)
        write_aside(folder / KEY, key.write_csv)
        write_text(folder / INSTRUCTIONS, TEXT)
        publish(account, folder / ACCOUNT)
    output = Path(options.output)
    counts = key.group_by("kind", "model", "truth_kind", maintain_order=True).len("tasks")
    for line in terminal_table(counts.rename({"truth_kind": "what"})):
        say(line)
    say(f"{output}: {len(sheets)} sheets for {options.raters} raters in {output / SHEETS}")
    say(
        f"keep {output / KEY} from the raters; then: headwise text topics agreement --answers "
        f"{output / SHEETS} --key {output / KEY}"
    )
    return WrittenTasks(output, key, [output / SHEETS / sheet for sheet in sheets])


def _keep_answers(options: TopicTaskOptions) -> None:
    """Raise `InputError` where sheets that raters have filled would be replaced."""
    for sheet in sorted(Path(options.output, SHEETS).glob("*.csv")):
        frame, names = scan_table(sheet)
        answers = collect(sheet, frame)["answer"] if "answer" in names else None
        if answers is None or (answers.fill_null("").str.strip_chars() != "").any():
            raise InputError(f"{sheet}: holds answers; choose another --output")


def _tasks(options: TopicTaskOptions, generator: np.random.Generator) -> list[WordTask]:
    """All tasks in random order, balanced, with the controls among them."""
    models = read_models(options.topics)
    corpus = None
    if options.data is not None:
        corpus = [terms_of(text) for text in read_texts(options.data, options.column).texts]
    words = list({word: None for topics in models.values() for t in topics for word in t.words})
    tasks: list[WordTask] = []
    if "intrusion" in options.kinds:
        frequency = None if corpus is None else _frequency(words, corpus)
        if frequency is None:
            note("assumed", "intruders of any frequency: --data names texts to count words in")
        for model, topics in models.items():
            tasks += intrusion_tasks(model, topics, generator, frequency=frequency)
    if "mixing" in options.kinds:
        vectors = open_vectors(options.vectors, words, corpus, options.seed)
        if vectors is None:
            raise InputError(
                "--kinds mixing: needs --data, or --vectors FILE, to find the closest topics"
            )
        note("assumed", f"closest topics by {vectors.what}")
        for model, topics in models.items():
            tasks += mixing_tasks(model, topics, similarity_of(topics, vectors), generator)
    chosen = balanced(tasks, options.each, generator)
    if not chosen:
        raise InputError("no task can be made of these topics: each needs words of its own")
    groups = _control_groups(options)
    for kind in options.kinds:
        chosen += control_tasks(kind, groups, options.controls, generator)
    return [chosen[place] for place in generator.permutation(len(chosen))]


def _frequency(words: Sequence[str], corpus: Sequence[Sequence[str]]) -> dict[str, float]:
    """In how many texts each word occurs; words that do not are not in it."""
    vocabulary = Vocabulary(words)
    counts = np.zeros(len(words))
    for terms in corpus:
        counts[np.unique(vocabulary.find(terms)[1])] += 1
    return {word: float(n) for word, n in zip(words, counts, strict=True) if n}


def _control_groups(options: TopicTaskOptions) -> Sequence[Sequence[str]]:
    if options.control_words is None:
        return CLEAR_GROUPS
    groups = [topic.words for topic in read_topics(options.control_words)]
    if len(groups) < 2 or any(len(words) < MOST_WORDS for words in groups):
        raise fail(options.control_words, f"needs two groups or more, of {MOST_WORDS} words each")
    return groups


def _key(tasks: Sequence[WordTask]) -> pl.DataFrame:
    """A row for each task. Its name says nothing of its model or truth."""
    width = max(len(str(len(tasks))), 3)
    rows = []
    for number, task in enumerate(tasks, 1):
        truth_kind = task.truth if task.kind == "mixing" else "intruder"
        words = {
            f"word{place}": task.words[place - 1] if place <= len(task.words) else None
            for place in range(1, MOST_WORDS + 1)
        }
        rows.append(
            {
                "task": f"{task.kind[0]}{number:0{width}}",
                "kind": task.kind,
                "model": task.model,
                "topics": " ".join(task.topics),
                "truth": task.truth,
                "truth_kind": "control" if task.control else truth_kind,
                "control": task.control,
                **words,
            }
        )
    return pl.DataFrame(rows).sort("kind", "model", "task")


def _write_sheets(
    folder: Path,
    options: TopicTaskOptions,
    tasks: Sequence[WordTask],
    key: pl.DataFrame,
    generator: np.random.Generator,
) -> list[str]:
    """A sheet for each rater and kind, in an order of its own."""
    names = []
    folder.mkdir()
    for kind in KINDS:
        rows = key.filter(pl.col("kind") == kind)
        if not rows.height:
            continue
        each = options.answers or options.raters
        orders = assigned(rows.height, options.raters, each, generator)
        for rater, places in enumerate(orders, 1):
            sheet = _sheet(kind, rows[places]).with_columns(
                pl.lit(f"rater_{rater}").alias("annotator"), pl.lit("").alias("answer")
            )
            name = f"rater_{rater}_{kind}.csv"
            write_aside(
                folder / name, lambda path, sheet=sheet: WRITERS[".csv"](sheet.lazy(), path)
            )
            names.append(name)
    return names


def _sheet(kind: str, rows: pl.DataFrame) -> pl.DataFrame:
    if kind == "intrusion":
        return rows.select("task", *(f"word{place}" for place in range(1, SIZE + 2)))
    halves = {"first_group": range(1, SIZE + 1), "second_group": range(SIZE + 1, MOST_WORDS + 1)}
    return rows.select(
        "task",
        *(
            pl.concat_str([f"word{place}" for place in places], separator=", ").alias(name)
            for name, places in halves.items()
        ),
    )
