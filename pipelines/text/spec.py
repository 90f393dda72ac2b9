"""What a text model needs to meet new texts, as the run keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from ...data.texts.labels import Goal
from ...models.text.encoder import EncoderForm
from ..engine.spec import Spec
from .linear import LinearFit
from .vectors import VectorFacts

TERMS, TOKENIZER, KNOWLEDGE = "terms.parquet", "tokenizer.json", "knowledge.parquet"


class InputFacts(TypedDict):
    """What the model was trained on, as the run's card says it."""

    texts: int
    training_texts: int
    labels: int
    sources: list[str]
    languages: list[str]


class EncoderFacts(TypedDict):
    """An encoder of tokens: the name of its weights ("none": from scratch), what it is built from
    beside the options of the training, and the most tokens that it takes at once.
    """

    weights: str
    form: EncoderForm
    options: dict[str, object]
    window: int


class TableColumn(TypedDict):
    """A further column that the model sees: a number, scaled by mean and deviation, or one of some
    words, each of which is a number of its own; comma: whether numbers have a decimal comma;
    logarithm: whether log(1 + number) stands for the number.
    """

    name: str
    kind: Literal["number", "words"]
    comma: bool
    logarithm: NotRequired[bool]
    mean: float
    deviation: float
    words: list[str]


@dataclass(frozen=True, kw_only=True)
class TextSpec(Spec):
    """What a text model needs to meet new texts.

    goal        class, labels or number
    labels      names of the outputs, sorted; the name of the number
    levels      what stands between the levels of a label, "" where there are none
    counts      texts of the training part with each label
    columns     of the table, by what they hold
    table       further columns that the model sees
    sources     where the texts of the training part come from; [] where none is known
    mean        of the number that is predicted, and deviation, in the training part
    pieces      whether pieces of words are counted
    terms       how many terms are counted
    encoder     the encoder of tokens; none where the model has none
    most_tokens tokens of a text that it reads
    vectors     frozen vectors of texts that stand behind the table; none where there are none
    parts       texts of each part
    files       whether each text of the training was a file of its own
    by_source   whether sources have weights of their own in the linear part of the model
    fitted      the linear model of the training part, before it is stored
    knowledge_column  of texts of knowledge; "" where they are those of terms, None without any
    """

    input: InputFacts
    goal: Goal
    labels: list[str]
    levels: str
    counts: list[int]
    columns: dict[str, str]
    label_columns: list[str]
    separator: str
    table: list[TableColumn]
    sources: list[str]
    mean: float
    deviation: float
    pieces: bool
    terms: int
    encoder: EncoderFacts | None
    most_tokens: int
    vectors: VectorFacts | None = None
    parts: dict[str, int] = field(default_factory=dict)
    files: bool
    by_source: bool = False
    knowledge_column: str | None = None
    fitted: LinearFit | None = field(default=None, metadata={"saved": False})

    @property
    def outputs(self) -> int:
        """L: labels, classes, or 1 for a number."""
        return len(self.labels)

    @property
    def table_width(self) -> int:
        """T: numbers that the further columns give, and those of the vectors."""
        return self.own_table_width + (0 if self.vectors is None else len(self.vectors["centre"]))

    @property
    def own_table_width(self) -> int:
        """Numbers that the further columns give."""
        return sum(len(column["words"]) or 1 for column in self.table)
