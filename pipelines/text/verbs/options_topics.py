"""Options of the verbs on topics. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ....base.errors import InputError
from ...engine.command_line.checks import check_least

CORPUS, NO_VECTORS = "corpus", "none"
ENCODERS = ("all-minilm-l6-v2", "wordllama-256", "multilingual-e5-small")
TopicMethod = Literal["nmf", "kmeans"]
TaskKind = Literal["intrusion", "mixing"]


@dataclass(frozen=True, kw_only=True)
class TopicFitOptions:
    """Find the topics of a table of texts: their words, and the topic of each text."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("data", "column", "output", "overwrite"),
        "model": ("count", "method", "vectors", "seed"),
        "words": ("top_words", "least_texts", "most_share", "stop_words"),
    }

    data: str
    """Table of texts (.csv, .tsv, .jsonl, .parquet, .xlsx), or .txt with a text on each line."""
    column: str | None = None
    """Column of the texts; by default one with a usual name, else the only one of long cells."""
    output: str = "topics"
    """Folder for topics.json, documents.parquet, the picture and the summary."""
    overwrite: bool = False
    """Replace the results in the folder."""
    count: int = 20
    """How many topics."""
    method: TopicMethod = "nmf"
    """nmf: texts are mixtures of topics; kmeans: each text has one, the nearest of its vectors, and
    its words are those with the largest c-TF-IDF."""
    vectors: str = CORPUS
    """For kmeans: word vectors whose mean is the vector of a text: wordllama-256, another published
    encoder, or a file (.npz, .txt, .vec); corpus takes the tf-idf of the texts, reduced to 100
    numbers."""
    seed: int = 0
    """Seed of the random numbers."""
    top_words: int = 10
    """Words that the summary shows of each topic; topics.json has 50."""
    least_texts: int = 5
    """Words in fewer texts than this are not used."""
    most_share: float = 0.5
    """Words in a larger share of the texts than this are not used."""
    stop_words: str = "auto"
    """Words that are not used: english, none, a file with one on each line, or auto, which takes
    the English ones where the texts seem to be English."""


@dataclass(frozen=True, kw_only=True)
class TopicEvaluateOptions:
    """Score topics from any tool: coherence on your texts, diversity, and two machine raters."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("topics", "data", "column", "output", "overwrite"),
        "scores": ("top_words", "window", "vectors", "seed"),
    }

    topics: tuple[str, ...]
    """Files of topics, one a model: .json, a table, or .txt with a topic on each line."""
    data: str | None = None
    """Table of texts to count words in; without it there is no coherence."""
    column: str | None = None
    """Column of the texts; by default one with a usual name, else the only one of long cells."""
    output: str | None = None
    """Folder for scores.json, the scores of each topic, the picture and the summary; by default
    they are only printed."""
    overwrite: bool = False
    """Replace the results in the folder."""
    top_words: int = 10
    """Words of each topic that coherence and diversity are measured on."""
    window: int = 10
    """Words of a window of c_npmi."""
    vectors: str = CORPUS
    """Word vectors of the machine raters: corpus, made from the texts of --data; all-minilm-l6-v2,
    wordllama-256, multilingual-e5-small or a folder with such an encoder; or a file (.npz with
    words and vectors; .txt or .vec as of GloVe and word2vec)."""
    seed: int = 0
    """Seed of the tasks and of the intervals."""


@dataclass(frozen=True, kw_only=True)
class TopicTaskOptions:
    """Write sheets for human raters: word intrusion and topic word mixing, with controls."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("topics", "data", "column", "vectors", "output", "overwrite"),
        "tasks": ("kinds", "each", "controls", "control_words", "raters", "answers", "seed"),
    }

    topics: tuple[str, ...]
    """Files of topics, one a model: .json, a table, or .txt with a topic on each line."""
    data: str | None = None
    """Table of texts: intruders are then about as frequent as the words of the topic."""
    column: str | None = None
    """Column of the texts; by default one with a usual name, else the only one of long cells."""
    vectors: str = CORPUS
    """Word vectors that say which topics are close (mixing): corpus, a published encoder or a file,
    as of `topics evaluate`."""
    output: str = "tasks"
    """Folder for the sheets and for the key, which raters must not see."""
    overwrite: bool = False
    """Replace the results in the folder."""
    kinds: tuple[TaskKind, ...] = ("intrusion", "mixing")
    """Kinds of tasks."""
    each: int | None = None
    """Most tasks of a model and kind (of mixing: of single and mixed each); by default as many as
    the model with the fewest has."""
    controls: int = 4
    """Tasks of each kind whose answer is beyond doubt."""
    control_words: str | None = None
    """File of topics whose words nobody mixes up, 8 words each, for the controls; by default
    everyday English words."""
    raters: int = 3
    """How many raters; each gets a sheet of each kind, in an order of its own."""
    answers: int | None = None
    """Raters that answer each task; by default all of them."""
    seed: int = 0
    """Seed of the random numbers."""


@dataclass(frozen=True, kw_only=True)
class TopicAgreementOptions:
    """Score the answers of human raters: agreement, accuracy, d' and bias, with intervals."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("answers", "key", "output", "overwrite"),
        "scores": ("vectors", "merge_sizes", "draws", "seed"),
    }

    answers: tuple[str, ...]
    """Tables of answers (files, folders or patterns): task, annotator, answer; or the published
    annotations of topic word mixing."""
    key: tuple[str, ...] = ()
    """Tables with the truth, model and words of the tasks, such as key.csv of `topics tasks`."""
    output: str | None = None
    """Folder for scores.json, tables of models and annotators, the picture and the summary; by
    default they are only printed."""
    overwrite: bool = False
    """Replace the results in the folder."""
    vectors: str = NO_VECTORS
    """Word vectors of machine raters that do the same tasks: a published encoder or a file, as of
    `topics evaluate`; none: no machine raters."""
    merge_sizes: bool = True
    """Take models whose names differ by a number at the end (LDA_10, LDA_25) as one model; each
    has a row of its own in models.csv as well."""
    draws: int = 5000
    """Draws of tasks for the intervals."""
    seed: int = 0
    """Seed of the intervals."""


def check_topics(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    least = {
        "count": 2,
        "top_words": 2,
        "least_texts": 1,
        "window": 2,
        "each": 1,
        "controls": 0,
        "raters": 1,
        "answers": 1,
        "draws": 1,
    }
    if isinstance(options, TopicAgreementOptions):
        least.pop("answers")  # there it is files
    check_least(options, least)
    share = getattr(options, "most_share", 1.0)
    if not 0 < share <= 1:
        raise InputError(f"--most-share {share}: must be above 0 and at most 1")
    if isinstance(options, TopicTaskOptions):
        if not options.kinds:
            raise InputError("--kinds: say intrusion, mixing or both")
        if options.answers is not None and options.answers > options.raters:
            raise InputError(
                f"--answers {options.answers}: more than --raters {options.raters}; a rater "
                "answers a task once"
            )
