"""Options of recordings. Nothing here imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_shares, check_unread
from ..engine.mechanisms import check_mixing
from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

Head = Literal["attention", "mean", "gaam", "gaam-density", "gaam-mixture", "grouped-gaam"]
Imbalance = Literal["none", "pos-weight", "focal", "logit-adjust", "diverse"]
HEADS: tuple[Head, ...] = (
    "attention", "mean", "gaam", "gaam-density", "gaam-mixture", "grouped-gaam",
)  # fmt: skip
FITS, WHY = ("any tokens", "sequence"), "the tokens of a recording are a sequence"
# Options of train that a cross-validation has no use for.
NOT_OF_FOLDS = (
    "run", "resume", "checkpoint_every", "keep", "logger", "nodes", "devices", "strategy",
    "precision", "nan", "head", "choose", "test_share",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecordingsOptions(MixingOptions):
    """Train a classifier of recordings (emotion, speaker, word, ...), beside statistics of MFCC
    with logistic regression on the same recordings.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "label_from", "pattern", "features", "weights", "seconds",
                 "standardise", "validation_share", "test_share"),
        "model": ("head", "attention", "attention_options", "ffn", "width", "layers", "heads",
                  "hidden", "dropout"),
        "learning": ("imbalance",),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ()
    # Of the data, but the rows that are scored stay the same: `compare` may vary them.
    SAME_ROWS: ClassVar[tuple[str, ...]] = ("features", "weights", "seconds", "standardise")
    SEARCH: ClassVar[Space] = {
        "width": Choices((32, 64, 128)),
        "dropout": Range(0.0, 0.5),
        "layers": Range(1, 3),
    }

    data: str | None = None
    """Folder of recordings, with a table (labels.csv, manifest.jsonl) or a folder for each label;
    or a table (.csv, .jsonl, .parquet, .xlsx) with the columns audio, label and, if known, speaker,
    group, part, start, end.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as audio=wav label=emotion speaker=actor; usual
    names are recognised.
    """
    label_from: Literal["auto", "table", "folder", "name"] = "auto"
    """Where the label stands: in a table, in the name of the first folder below the data, or in the
    name of the file (see --pattern). auto: --pattern where it names {label}, else the table, else
    the folder.
    """
    pattern: str | None = None
    """What the name of a file says, such as "{label}_{speaker}_*" or "{speaker:2}???{label:1}*"
    ({label:1}: one letter; *: any letters; ?: one letter; with "/", folders count, too); fields are
    label, speaker, group and part. A group stays together in one part; without one, a speaker does.
    """
    features: Literal["mfcc", "log-mel", "whisper-layers", "whisper-frames"] = "mfcc"
    """What the tokens of a recording are: its frames of 10 ms as 13 MFCC with their changes (mfcc)
    or 80 mel bands (log-mel), the layers of Whisper's encoder, each the mean of its states
    (whisper-layers), or the states of the last layer (whisper-frames). The encoder is frozen and
    sees the recording without padding.
    """
    weights: str = "whisper-tiny-en"
    """Weights of Whisper, for --features whisper-...: a name of `headwise data list`, or a file or
    folder of OpenAI, Hugging Face or CTranslate2.
    """
    seconds: float = 5.0
    """Longest stretch of a recording that is used; of longer ones it is the middle."""
    standardise: Literal["corpus", "speaker"] = "corpus"
    """Mean and deviation of features: of the training part (corpus), or first of each speaker's own
    recordings, which needs no labels (speaker). A prediction then takes those of the speaker's
    recordings in --input.
    """
    validation_share: float = 0.15
    """Share of the speakers (or groups) by which the best epoch and what predicts are chosen."""
    test_share: float = 0.2
    """Share of the speakers (or groups) on which the trained model is scored."""
    head: Head = "attention"
    """How tokens are weighed before their mean is classified: a mechanism of the core (attention,
    with the default of --attention multi-head attention); not at all (mean); Gaussian adaptive
    attention as published code (gaam: a product of Gaussians, which is one Gaussian), as the
    authors' Algorithm 1 (gaam-density: a Gaussian for each feature, not normalised) or as the
    paper's text (gaam-mixture); or gaam before grouped-query attention (grouped-gaam).
    """
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward network of a layer; moe: a mixture of 8 experts, 2 per token."""
    width: int = 64
    """Width of a token in the model."""
    layers: int = 1
    """Layers, each with the head and a feed-forward network."""
    heads: int = 4
    """Heads of a layer; must divide --width."""
    hidden: int | None = None
    """Width inside the feed-forward network. none: twice --width."""
    dropout: float = 0.1
    """Share of features that are set to 0 in training."""
    imbalance: Imbalance = "none"
    """How the loss helps rare classes: they weigh more (pos-weight), what is easy weighs less
    (focal), logits are adjusted by how frequent the classes are (logit-adjust), or three experts
    prefer frequent, even and rare classes (diverse: MDCS without its second view).
    """
    epochs: int = 40
    """Passes over the training part, at most."""
    patience: int = 8
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 32
    """Recordings per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the start."""
    weight_decay: float = 1e-2
    """Decoupled weight decay (AdamW); 0 is plain Adam."""


@dataclass(frozen=True, kw_only=True)
class RecordingsEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other recordings."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("columns", "label_from", "pattern")}

    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold; without it, as in the training."""
    label_from: Literal["", "auto", "table", "folder", "name"] = ""
    """Where the label stands; without it, as in the training."""
    pattern: str | None = None
    """What the name of a file says; without it, as in the training."""


@dataclass(frozen=True, kw_only=True)
class RecordingsPredictOptions(PredictOptions):
    """Classify recordings: calibrated probabilities of all classes."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("columns", "pattern")}

    input: str
    """Recording, folder of them at any depth, quoted pattern, or table."""
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; usual names are recognised."""
    pattern: str | None = None
    """What the name of a file says, for a run with --standardise speaker: "{speaker}_*"; without
    it, as in the training.
    """
    shard_size: int = 100
    """Recordings per shard: the unit of memory, of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(RecordingsOptions):
    """Leave one speaker (or group) out: heads and simple models on the same folds, with intervals
    by speaker and paired tests over recordings; resumable.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "folds": ("compared", "folds", "seeds"),
        **RecordingsOptions.GROUPS,
    }

    output: str
    """Folder to write; started again, the command does only what is missing, and more heads or
    seeds are added to the folder.
    """
    compared: tuple[Head, ...] = ("attention", "gaam", "mean")
    """Heads to compare, with each other and with the simple model."""
    folds: int = 0
    """Number of folds, by speaker (or group); 0: each speaker is a fold."""
    seeds: int = 1
    """Trainings per fold, whose probabilities are averaged."""
    processes: int = 1
    """Processes that share the folds."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(RecordingsEvaluateOptions):
    """How much each layer or frame weighs in a run (the importance factor), and whether a recording
    loses its class sooner when the highest are deleted than when random ones are.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **RecordingsEvaluateOptions.GROUPS,
        "check": ("draws", "seed"),
    }

    output: str
    """Folder to write: importance.png, deletion.png, explain.json, recordings.parquet."""
    draws: int = 10
    """Random choices of tokens that the deletion of the highest is compared with."""
    seed: int = 0
    """Seed of these choices."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    ones = ("width", "layers", "heads", "hidden", "seeds", "draws", "shard_size")
    check_least(options, {"folds": 0, **dict.fromkeys(ones, 1)})
    if not isinstance(options, RecordingsOptions):
        return
    check_shares(options, ("dropout", "validation_share", "test_share"))
    if not options.validation_share:
        raise InputError("--validation-share 0: what predicts is chosen on the validation part")
    if not 0.1 <= options.seconds <= 60:
        raise InputError(f"--seconds {options.seconds:g}: must be 0.1 to 60")
    if options.width % options.heads:
        raise InputError(f"--heads {options.heads}: must divide --width {options.width}")
    if not options.features.startswith("whisper"):
        check_unread(options, ("weights",), "--features whisper-layers or whisper-frames")
    heads: tuple[Head, ...] = (options.head,)
    if isinstance(options, CrossvalOptions):
        _check_crossval(options)
        heads = options.compared
    if "attention" not in heads:
        check_unread(options, ("attention", "attention_options"), "--head attention")
    if "grouped-gaam" in heads and options.heads > 4 and options.heads % 4:
        raise InputError(f"--heads {options.heads}: grouped-gaam takes 4 or fewer, or groups of 4")
    check_mixing(options, fits=FITS, why=WHY)


def _check_crossval(options: CrossvalOptions) -> None:
    if options.data is None:
        raise InputError("recordings crossval: needs --data, recordings with labels and speakers")
    if options.folds == 1:
        raise InputError("--folds 1: give 2 or more, or 0 for a fold of each speaker")
    if not options.compared or len(set(options.compared)) < len(options.compared):
        raise InputError("--compared: give at least one head, and none twice")
    what = "train; a cross-validation trains in memory, in 32 bits on a device"
    check_unread(options, NOT_OF_FOLDS, what)
