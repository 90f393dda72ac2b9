"""Options of the verbs `judge` and `summarise`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ....base.errors import InputError
from ...engine.command_line.checks import check_least


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Measure the biases of judges that compare two answers, from a table of their judgements.

    For the place: P(the answer shown first is preferred) - 1/2; against its own word: how often
    both orders name one winner; for length; and the agreement with people. No model is needed.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "budget"),
        "intervals": ("draws", "seed"),
    }

    data: str
    """Table of judgements (csv, jsonl, parquet, xlsx, ...), a row for each: `first`, `second`,
    `preferred`; of the two orders of a pair, each is a row. Further columns: see the page on
    judges.
    """
    output: str | None = None
    """Folder to write: report.html, report.md, judges.json and a picture; by default the table is
    only printed.
    """
    columns: tuple[str, ...] = ()
    """Columns under other names, as FIELD=COLUMN: preferred=winner judge=model."""
    budget: int | None = None
    """Most judgements to use of each judge: pairs are drawn, with both orders; by default all."""
    draws: int = 1000
    """Draws of pairs by which intervals are made."""
    seed: int = 0
    """Seed of the draws."""
    overwrite: bool = False
    """Replace the files in --output."""


@dataclass(frozen=True, kw_only=True)
class SummariseOptions:
    """Choose the sentences of several articles that together hold most of what they say.

    Sentences are taken as they are, with their article and place. Where stories hold groups of
    answers, the share of them that the summary covers is measured.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns",),
        "summary": ("method", "budget", "unit", "weights", "encoder"),
        "coverage": ("threshold", "summaries", "answer_scores", "seed"),
    }

    data: str
    """Stories: .json or .jsonl in the form of DiverseSumm, a folder with a folder of .txt files for
    each, or a table with a row for each article (columns story, article, content).
    """
    output: str
    """File to write, .jsonl, .parquet, .csv, .tsv, .xlsx: a row for each sentence; or .md: pages to
    read.
    """
    columns: tuple[str, ...] = ()
    """Columns under other names, as FIELD=COLUMN: content=body story=event."""
    method: Literal["facility", "determinantal", "lead"] = "facility"
    """facility: each statement should have a sentence near it. determinantal: central sentences
    that are unlike each other. lead: the first sentences of all articles in turn.
    """
    budget: int = 10
    """Most sentences, or words with --unit words, of a summary."""
    unit: Literal["sentences", "words"] = "sentences"
    """What --budget counts."""
    weights: Literal["statements", "differences", "sentences"] = "statements"
    """What facility covers: statements count once, however many sentences repeat them; differences
    count less the more articles say the same; sentences count each, so that what most say comes
    first.
    """
    encoder: str | None = None
    """Encoder by whose vectors sentences are compared: a name that train --weights takes; by
    default by tf-idf, which knows nothing of words that mean the same.
    """
    threshold: float = 0.5
    """Similarity from which a sentence covers an answer; encoders give higher ones than tf-idf."""
    summaries: str | None = None
    """Table of summaries made elsewhere (columns story and summary), whose coverage is measured
    beside.
    """
    answer_scores: str | None = None
    """Table of scores (question, first, second, score from 0 to 5, both directions) by which
    answers without groups are grouped.
    """
    seed: int = 0
    """Seed of the intervals."""
    overwrite: bool = False
    """Replace an existing output."""


def check_judge(options: object) -> None:
    """Raise `InputError` for values of these verbs that no data can make right."""
    if isinstance(options, JudgeOptions):
        check_least(options, {"budget": 2, "draws": 100})
    if isinstance(options, SummariseOptions):
        check_least(options, {"budget": 1})
        if not 0 < options.threshold <= 1:
            raise InputError(f"--threshold {options.threshold}: must be above 0, 1 at most")
        if options.weights != "statements" and options.method != "facility":
            raise InputError("--weights: is read by --method facility; leave it out")
