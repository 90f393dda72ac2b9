"""Options of texts. Nothing here imports torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.account import Doubt
from ...base.errors import InputError
from ..engine.command_line.checks import (
    check_least,
    check_shares,
    check_unread,
    flag,
    is_of_a_run,
    refuse_unread,
)
from ..engine.mechanisms import check_mixing
from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

BERTS = ("all-minilm-l6-v2", "multilingual-e5-small")  # weights of whole networks
NETWORKS = ("hybrid", "attention", "cross", "sources")  # models with an encoder of tokens
ONE_ANSWER = ("class", "number")  # goals with one answer for each text
FITS, WHY = ("any tokens", "sequence"), "the tokens are the words of a text"
READ_BY: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(
        ("weights", "tune", "width", "layers", "heads", "dropout", "attention", "ffn", "window",
         "attention_options", "most_tokens"),
        NETWORKS,
    ),
    **dict.fromkeys(("label_texts", "knowledge", "knowledge_texts"), ("hybrid", "attention")),
    "queries": ("cross",),
    "direction": ("cross",),
    "prototypes": ("sources",),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextOptions(MixingOptions):
    """Train a model that labels texts, beside tf-idf with logistic regression on the same texts."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "label_columns", "table", "goal", "separator", "hierarchy", "least",
                 "validation_share", "test_share"),
        "counted terms": ("terms", "most_terms", "vectors"),
        "model": ("model", "weights", "tune", "width", "layers", "heads", "dropout", "attention",
                  "attention_options", "ffn", "window", "most_tokens", "label_texts", "knowledge",
                  "knowledge_texts", "queries", "direction", "prototypes"),
        "learning": ("imbalance", "unlabelled"),
        "scores": ("thresholds", "budget", "calibrate", "coverage"),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ({"weights": "none", "layers": 1},)
    SEARCH: ClassVar[Space] = {
        "width": Choices((64, 96, 128)),
        "dropout": Range(0.0, 0.5),
        "layers": Choices((0, 1, 2)),
    }

    data: str | None = None
    """Table (.csv, .tsv, .jsonl, .parquet, .xlsx) with a column of texts and a column of labels; a
    folder of such tables; or a folder that holds a folder of .txt files for each label.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as text=body title=subject label=tags id=ticket
    group=customer source=channel language=lang part=split; usual names are recognised. All texts of
    a group are in the same part.
    """
    label_columns: tuple[str, ...] = ()
    """Columns of 1 and 0, one for each label, instead of a single column of labels."""
    table: tuple[str, ...] = ()
    """Further columns that the model sees beside the text: numbers, or categories in words."""
    goal: Literal["auto", "class", "labels", "number"] = "auto"
    """What is predicted: exactly one class for each text (class), any number of labels (labels), or
    a number (number); auto: what the cells of the label column look like.
    """
    separator: str | None = None
    """What stands between the labels of a cell, such as ";"; by default the cells show it."""
    hierarchy: str = "auto"
    """What stands between the levels of a label, such as "::" in hardware::printer; auto: the
    labels show it; none: labels have no levels.
    """
    least: int = 3
    """Labels on fewer texts of the training part than this are left out."""
    terms: Literal["auto", "words", "pieces"] = "auto"
    """What is counted: words and pairs of words (words), or also pieces of words of 3 to 5
    characters (pieces); auto: pieces where the texts are short (a median below 30 words).
    """
    vectors: str = "none"
    """Frozen encoder (a name of --weights) whose vector of the text stands beside its counted terms
    in the linear model; none: terms alone. With multilingual-e5-small, a model that is trained on
    texts of one language labels texts of other languages, too.
    """
    most_terms: int = 200_000
    """Most terms to count; those that occur in the most texts are taken."""
    model: Literal["hybrid", "attention", "sparse", "cross", "sources"] = "hybrid"
    """hybrid: tf-idf with a linear model, corrected by a network in which each label weighs the
    words; attention: that network alone; sparse: tf-idf with a linear model alone; cross: tf-idf,
    corrected by the row of a table that reads the text (needs --table); sources: tf-idf, corrected
    by sources that read each other (needs a column of sources).
    """
    weights: str = "none"
    """Encoder of the tokens: none, word vectors learned from scratch; wordllama-256, published
    vectors of single words; all-minilm-l6-v2 (English) or multilingual-e5-small (about 100
    languages), networks that see the sentence; or a folder with a BERT in Hugging Face's form.
    """
    tune: Literal["all", "last", "none"] = "none"
    """What of an encoder with --weights a training changes: nothing, its last layer, or all."""
    width: int = 96
    """Width of the token vectors with --weights none; encoders with weights have one already."""
    layers: int = 0
    """Layers in which the tokens see each other before the labels read them."""
    heads: int = 4
    """Heads of these layers."""
    dropout: float = 0.2
    """Share of features that are set to 0 in training."""
    ffn: Literal["mlp", "glu", "convglu", "moe"] = "mlp"
    """Feed-forward network of these layers; moe: a mixture of experts."""
    window: int = 256
    """Tokens that the encoder sees at once; a longer text is read window by window."""
    most_tokens: int = 4096
    """Tokens of a text that the network reads at most; terms are counted in the entire text."""
    label_texts: str | None = None
    """Table with the columns label and text that describes the labels in words; needs an encoder
    with --weights. It helps labels with few texts.
    """
    knowledge: str | None = None
    """Column of texts that say what is known about each text (encyclopedia entries, notes on the
    product): the network reads it beside the text; a text without any is read alone.
    """
    knowledge_texts: str | None = None
    """Table with the columns term and text, instead of --knowledge: what is known about a text are
    the texts of the terms that it names as entire words, at most 16.
    """
    queries: int = 4
    """Queries that the row of the table puts to the text (--model cross)."""
    direction: Literal["table", "text"] = "table"
    """Which side reads the other: the row of the table the words (table), or the words the row."""
    prototypes: int = 16
    """Vectors that stand for a source when the other sources read it (--model sources)."""
    imbalance: Literal["none", "pos-weight", "focal", "asymmetric", "logit-adjust", "diverse"] = (
        "none"
    )
    """How the loss of the network helps rare labels: they weigh more (pos-weight), what is easy
    weighs less (focal), only absent labels that are easy weigh less (asymmetric), logits are
    adjusted by how frequent the labels are (logit-adjust), or, of classes, three linear experts
    prefer frequent, even and rare ones (diverse: in the way of MDCS, without its cosines and its
    second view).
    """
    unlabelled: bool = False
    """A label that a text lacks may only have been forgotten: probabilities are divided by the
    estimated share of true labels that people wrote down (Elkan and Noto, 2008). The precision of
    the report is then a lower bound.
    """
    thresholds: Literal["per-label", "one", "half", "budget"] = "per-label"
    """From which probability a text gets a label: one threshold for each label, as far from the
    common one as held-out texts support (per-label); one for all labels (one); 0.5 (half); or the
    one by which a text gets --budget labels on average (budget).
    """
    budget: float = 3.0
    """Labels of a text, on average, with --thresholds budget."""
    calibrate: Literal["platt", "temperature", "none"] = "platt"
    """How probabilities are fitted to the validation part: a slope and a shift for each label
    (platt), one slope for all (temperature), or not at all. For classes both are one temperature.
    """
    coverage: float = 0.9
    """Share of the true labels that the set of possible labels is to hold; of a number: share of
    the texts whose number is to lie in its interval.
    """
    validation_share: float = 0.1
    """Share of the texts on which epoch, thresholds and calibration are chosen."""
    test_share: float = 0.2
    """Share of the texts on which the trained model is scored."""
    epochs: int = 10
    """Passes over the training part, at most."""
    patience: int = 2
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 32
    """Texts per optimiser step, over all devices together."""
    lr: float = 2e-3
    """Learning rate at the start."""
    weight_decay: float = 1e-2
    """Decoupled weight decay (AdamW); 0 is plain Adam."""


@dataclass(frozen=True, kw_only=True)
class TextEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other texts."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("columns", "label_columns")}

    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold; without it, as in the training."""
    label_columns: tuple[str, ...] = ()
    """Columns of 1 and 0, one for each label; without it, as in the training."""


@dataclass(frozen=True, kw_only=True)
class TextPredictOptions(PredictOptions):
    """Label texts: the labels above their thresholds, the most probable ones, and the set that
    holds the true ones as often as asked for. Reads tables, files of lines, or standard input.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns",),
        "output": ("top", "all_labels", "abstain"),
    }

    input: str
    """Table, folder or quoted pattern of tables, .txt file with a text on each line, folder of .txt
    files, or - for standard input (lines of text, or JSON lines).
    """
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    top: int = 3
    """Most probable labels to write with their probabilities."""
    all_labels: bool = False
    """Also write a column p_LABEL with the probability of each label."""
    abstain: float | None = None
    """Give no label to a text whose most probable label has a smaller probability than this."""
    shard_size: int = 8
    """Parts of 1,024 texts per shard: the unit of memory, of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Say what each word of a text adds to a label: a page with shaded words, and tables. The parts
    sum to the logit.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("text", "columns"),
        "output": ("labels", "top", "show"),
        "check": ("check", "pairs", "seed"),
    }

    run: str
    """Run directory of the trained model."""
    input: str | None = None
    """Table, folder or quoted pattern of tables, .txt file with a text on each line, folder of .txt
    files, or - for lines (or JSON lines) from standard input.
    """
    text: str | None = None
    """A text to explain, instead of --input."""
    output: str
    """Folder to write: index.html, explanations.jsonl, explanations.txt, account.json."""
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    labels: tuple[str, ...] = ()
    """Labels to explain; without it those that are given and the --top most probable ones."""
    top: int = 3
    """Most probable labels to explain of each text, besides those that are given."""
    show: int = 50
    """Texts that index.html shows; explanations.jsonl has all."""
    check: bool = False
    """Also measure, on labelled texts (--input, or the run's own test part), whether a label falls
    more when its three top words are deleted than when three random ones are.
    """
    pairs: int = 500
    """Pairs of a text and a right label that --check takes, at most."""
    seed: int = 0
    """Seed of the random words and pairs of --check."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: copies (an item listed twice, or in two parts),
    two-labels, missing-labels (such rows are left out), label-as-feature, links (links that lead
    out of their folder are followed), missing-codes (numbers such as -999 are numbers).
    """
    overwrite: bool = False
    """Replace an OUTPUT that was written by this verb."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    least = {"least": 1, "most_terms": 1, "width": 8, "heads": 1, "layers": 0, "window": 8,
             "most_tokens": 8, "queries": 1, "prototypes": 1, "top": 1,
             "show": 0, "pairs": 1}  # fmt: skip
    check_least(options, least)
    for name in ("coverage", "abstain"):
        value = getattr(options, name, None)
        if value is not None and not 0 < value < 1:
            raise InputError(f"{flag(name)} {value}: must be between 0 and 1")
    if isinstance(options, ExplainOptions):
        _check_explain(options)
    for name in ("table", "label_columns"):
        names = getattr(options, name, ())
        if twice := [column for column in names if names.count(column) > 1]:
            raise InputError(f"{flag(name)}: names {twice[0]} twice")
    if not isinstance(options, TextOptions):
        return
    check_shares(options, ("dropout", "validation_share", "test_share"))
    if not options.validation_share:
        raise InputError("--validation-share 0: thresholds are chosen on the validation part")
    if options.thresholds != "budget":
        check_unread(options, ("budget",), "--thresholds budget")
    if not 0 < options.budget < math.inf:
        raise InputError(f"--budget {options.budget}: must be a number above 0")
    if options.separator == "":
        raise InputError("--separator: is empty; name what stands between the labels of a cell")
    if not options.hierarchy:
        raise InputError("--hierarchy: is empty; give none where labels have no levels")
    if options.separator is not None and (options.label_columns or options.goal in ONE_ANSWER):
        reader = "a column of labels, several in a cell"
        check_unread(options, ("separator",), reader)
    if options.model == "cross" and not options.table and not is_of_a_run():
        raise InputError("--model cross: needs --table, the columns that read the text")
    if options.label_columns and options.goal not in ("auto", "labels"):
        raise InputError(f"--goal {options.goal}: --label-columns are labels")
    refuse_unread(options, READ_BY, (options.model,))
    if options.knowledge is not None and options.knowledge_texts is not None:
        raise InputError("--knowledge, --knowledge-texts: give one of them")
    if options.knowledge in (*options.table, *options.label_columns):
        raise InputError(f"--knowledge {options.knowledge}: is another column already")
    if options.imbalance == "diverse" and options.model == "sparse":
        raise InputError(
            "--imbalance diverse: --model sparse scales a fitted model, so that there is nothing "
            "to make experts of; take another --model"
        )
    if options.weights in BERTS:
        reader = "--weights none or wordllama-256"
        check_unread(options, ("layers", "heads", "attention", "attention_options", "ffn"), reader)
    if options.weights != "none":
        check_unread(options, ("width",), "--weights none")
    if not options.layers and options.model in ("hybrid", "attention"):
        mixing = ("heads", "attention", "attention_options", "ffn")
        check_unread(options, mixing, "--layers 1 or more")
    check_mixing(options, fits=FITS, why=WHY)


def _check_explain(options: ExplainOptions) -> None:
    if options.input is not None and options.text is not None:
        raise InputError("--input, --text: give one of them")
    if options.check and (options.text is not None or options.input == "-"):
        raise InputError("--check: needs labelled texts; give --input TABLE, or leave it out")
    if options.input is None and options.text is None and not options.check:
        raise InputError("needs --input, or --text, or --check (the test part of the run)")
