"""The verb summarise: sentences of several articles that together hold most of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError, fail
from ....base.files import clear_aside, write_aside, write_json
from ....data.columns import parse_columns
from ....data.texts.stories import FIELDS, ReadStory, Story, UnusableStory, read_stories
from ...engine.accounts import publish
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference.output import refuse_input_as_output, stamp_file, writer_of
from ...metrics.answer_coverage import CoverageRow, coverage
from ...metrics.selection import VectorsOf
from .options_judge import SummariseOptions, check_judge
from .summaries import Summary, read_scores, read_summaries, summarised

if TYPE_CHECKING:
    from ..pipeline import TextPipeline

SCHEMA: Mapping[str, pl.DataType] = {
    "story": pl.String(),
    "rank": pl.Int32(),
    "article": pl.String(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "sentence": pl.String(),
    "gain": pl.Float64(),
    "status": pl.String(),
    "error": pl.String(),
}
"""story and article: ids. rank: from 1, in the order of choice. start, end: place of the sentence
in the text of its article, in characters. gain: what it added to the score of the method. status:
ok, or error for a story without a summary."""
THRESHOLDS = (0.3, 0.5, 0.7)
MOST_NAMED = 10  # stories without a summary that the terminal names


@dataclass(frozen=True)
class Summarised:
    """Outcome of the verb. failed: stories without a summary. coverage: rows by what was scored;
    {} where no story has groups of answers.
    """

    output: Path
    stories: int
    failed: int
    coverage: Mapping[str, Sequence[CoverageRow]]


def summarise(pipeline: TextPipeline, options: SummariseOptions) -> Summarised:
    """Summarise all stories of --data into --output."""
    return summarise_with(options)


def summarise_with(options: SummariseOptions, vectors_of: VectorsOf | None = None) -> Summarised:
    """As the verb, with similarities of vectors of one's own; by default of tf-idf.

    vectors_of: texts to vectors (N, D). A story that fails gets a row with its error. Raises
    `InputError` where none can be summarised.
    """
    check_judge(options)
    output = Path(options.output)
    markdown = output.suffix.lower() in (".md", ".markdown")
    writer = None if markdown else writer_of(output, {})
    more = (options.summaries, options.answer_scores)
    refuse_input_as_output(output, [options.data, *(file for file in more if file)])
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give a file")
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output, or --overwrite")
    with opened() as account:
        stories = read_stories(options.data, parse_columns(options.columns, FIELDS))
        if options.encoder is not None and vectors_of is None:
            vectors_of = _encoder(options.encoder)
        results = _summaries(stories, options, vectors_of)
        failed = [result for result in results if isinstance(result, UnusableStory)]
        if len(failed) == len(results):
            raise fail(options.data, f"no story can be summarised; the first: {failed[0].error}")
        scored = _coverage(results, options)
        publish(account)
        clear_aside(output.parent, output.name)
        table = table_of(results)
        if markdown:
            write_aside(output, lambda path: path.write_text(pages_of(results), encoding="utf-8"))
        elif writer is None:
            write_aside(output, table.write_parquet)
        else:
            write_aside(output, partial(writer, table.lazy()))
        publish(account, stamp_file(output), shown=False)
    _report(output, results, failed, scored, options)
    return Summarised(output, len(results), len(failed), scored)


def _encoder(name: str) -> VectorsOf:
    """Vectors of a pretrained encoder."""
    from ..encoders import mean_vectors, open_encoder

    return partial(mean_vectors, open_encoder(name))


def _summaries(
    stories: Sequence[ReadStory], options: SummariseOptions, vectors_of: VectorsOf | None
) -> list[Summary | UnusableStory]:
    """A summary of each story, or why there is none."""
    elsewhere = read_summaries(options.summaries) if options.summaries else {}
    scores = read_scores(options.answer_scores) if options.answer_scores else None
    if unknown := [name for name in elsewhere if name not in {story.id for story in stories}]:
        note("left out", "summaries of stories that --data lacks", unknown)
    results: list[Summary | UnusableStory] = []
    with Progressbar(total=len(stories), unit="story", desc="summarise") as bar:
        for story in stories:
            if isinstance(story, Story):
                results.append(_one(story, options, vectors_of, elsewhere.get(story.id), scores))
            else:
                results.append(story)
            bar.update()
    return results


def _one(
    story: Story,
    options: SummariseOptions,
    vectors_of: VectorsOf | None,
    elsewhere: str | None,
    scores: Mapping[str, Mapping[tuple[str, str], float]] | None,
) -> Summary | UnusableStory:
    try:
        return summarised(story, options, vectors_of, elsewhere=elsewhere, scores=scores)
    except ValueError as error:
        return UnusableStory(story.id, f"story {story.id}: {error}")


def _coverage(
    results: Sequence[Summary | UnusableStory], options: SummariseOptions
) -> dict[str, list[CoverageRow]]:
    """Coverage of the summaries, of the first sentences under the same budget, and of summaries
    made elsewhere; at --threshold and at others, since no threshold is the right one.
    """
    summaries = [result for result in results if isinstance(result, Summary)]
    thresholds = sorted({*THRESHOLDS, options.threshold})
    scored: dict[str, list[CoverageRow]] = {}
    for name in dict.fromkeys(name for summary in summaries for name in summary.nearest):
        nearest = [s.nearest[name] for s in summaries if name in s.nearest]
        if any(len(values) for values in nearest):
            scored[name] = coverage(nearest, thresholds, seed=options.seed)
    return scored


def table_of(results: Sequence[Summary | UnusableStory]) -> pl.DataFrame:
    """A row for each sentence, and for each story without a summary."""
    rows: list[dict[str, object]] = []
    for result in results:
        if isinstance(result, UnusableStory):
            rows.append({"story": result.id, "status": "error", "error": result.error})
            continue
        rows += [
            {
                "story": result.story,
                "rank": rank,
                "article": sentence.article,
                "start": sentence.start,
                "end": sentence.end,
                "sentence": sentence.text,
                "gain": gain,
                "status": "ok",
            }
            for rank, (sentence, gain) in enumerate(zip(result.sentences, result.gain), 1)
        ]
    return pl.DataFrame(rows, schema=SCHEMA)


def pages_of(results: Sequence[Summary | UnusableStory]) -> str:
    """The summaries as Markdown, each sentence with its article and place."""
    pages = []
    for result in results:
        if isinstance(result, UnusableStory):
            pages.append(f"# {_plain(result.id)}\n\nNo summary: {_plain(result.error)}\n")
            continue
        lines = [
            f"- {_plain(s.text)} ({_plain(s.article)}, {s.start}–{s.end})" for s in result.sentences
        ]
        pages.append(f"# {_plain(result.story)}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(pages)


def _plain(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>#" else c for c in line)


def _report(
    output: Path,
    results: Sequence[Summary | UnusableStory],
    failed: Sequence[UnusableStory],
    scored: Mapping[str, Sequence[CoverageRow]],
    options: SummariseOptions,
) -> None:
    """Say what was written, what failed, and what is covered."""
    for story in failed[:MOST_NAMED]:
        say(f"no summary: {story.error}")
    if len(failed) > MOST_NAMED:
        say(f"no summary: {len(failed) - MOST_NAMED} more; see column error of {output}")
    if scored:
        path = Path(f"{output}.coverage.json")
        write_json(
            path,
            {"threshold": options.threshold, "similarity": options.encoder or "tf-idf", **scored},
        )
        for name, rows in scored.items():
            say(coverage_line(name, rows, options.threshold))
        say(f"coverage at other thresholds: {path}")
    sentences = [len(r.sentences) for r in results if isinstance(r, Summary)]
    say(f"{output}: {len(sentences)} stories, {np.sum(sentences)} sentences")


def coverage_line(name: str, rows: Sequence[CoverageRow], threshold: float) -> str:
    """Coverage of one kind of summary in words."""
    row = next(row for row in rows if row["threshold"] == threshold)
    interval = f" ({row['low']:.3f} to {row['high']:.3f})" if np.isfinite(row["low"]) else ""
    return (
        f"{name}: {row['coverage']:.3f}{interval} of the answer groups are covered, mean over "
        f"{row['stories']} stories (similarity of at least {threshold:g})"
    )
