"""Options of reasoning. Nothing here imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.errors import InputError
from ...data.trials.kinds import Rules, SplitName
from ..engine.command_line.checks import check_least, check_shares, flag, refuse_unread
from ..engine.mechanisms import check_mixing
from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

ASKING = ("cross", "perceiver")  # models whose tokens ask a context
ATTENDING = (*ASKING, "single", "double")
FITS, WHY = ("any tokens", "sequence"), "nodes of a rule and objects of a scene are no grid"
MOST_DISTRACTORS = 60
READ_BY: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("heads", "attention", "attention_options", "ffn"), ATTENDING),
    "mask": ("cross", "single", "double"),
    "latents": ("perceiver",),
}


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """What generated trials are like."""

    split: SplitName = "distractors"
    """What the test part has that the training has not: more objects that nothing asks about
    (distractors); operators with objects that they were not trained with (operators; in
    operators-leaky the two sets share objects, as published); conditions with endings that they
    were not trained with (subtrees); deeper rules (depth).
    """
    rules: Rules = "repaired"
    """How trials are generated: each question well posed and the answers balanced (repaired), or as
    by the published generator, with its faults (official).
    """
    most_distractors: int = 5
    """Most objects that nothing asks about, in the training."""
    test_distractors: tuple[int, ...] = (10, 20, 30, 40)
    """Numbers of such objects in the test part, with --split distractors."""
    test_depth: int = 5
    """Depth of the rules in the test part, with --split depth: 3, 5 or 7."""
    trials: int = 40_000
    """Trials of an epoch."""
    validation_trials: int = 1000
    """Trials of the validation part, which are like those of the training."""
    test_trials: int = 500
    """Trials of each level of the test part."""


@dataclass(frozen=True, kw_only=True)
class ReasoningOptions(TrialOptions, MixingOptions):
    """Train a model that answers questions about scenes. Without --data, trials are generated."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "trials": ("split", "rules", "most_distractors", "test_distractors", "test_depth", "trials",
                   "fresh", "validation_trials", "test_trials", "validation_share", "test_share"),
        "model": ("model", "width", "parameters", "heads", "layers", "attention",
                  "attention_options", "ffn", "dropout", "mask", "latents"),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ({"model": "single"},)
    SEARCH: ClassVar[Space] = {"layers": Choices((2, 3, 4)), "dropout": Range(0.0, 0.3)}

    data: str | None = None
    """File of trials (.jsonl, in words or with the numbers of the published data sets), or a folder
    of such files. Where none of them is of a training part, that is generated.
    """
    fresh: bool = True
    """Generate new trials for each epoch; --no-fresh trains on the same --trials again and again.
    """
    validation_share: float = 0.1
    """Share of the trials of --data on which the best epoch is chosen, where the file names no
    parts.
    """
    test_share: float = 0.2
    """Share of the trials of --data on which the trained model is scored, where it names none."""
    model: Literal["cross", "single", "double", "perceiver", "recurrent"] = "cross"
    """How rule and scene meet: the rule asks the scene (cross); all tokens in one row (single); two
    streams that are joined in the last layer (double); latent vectors ask both (perceiver); read
    one after the other (recurrent).
    """
    width: int = 64
    """Width of the tokens."""
    parameters: int | None = None
    """Choose the width at which the model has nearest to this many parameters, to compare models
    of one size.
    """
    heads: int = 4
    """Heads of each layer."""
    layers: int = 2
    """Layers."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward network of the layers; moe: a mixture of experts."""
    dropout: float = 0.0
    """Share of features that are set to 0 in training."""
    mask: Literal["all", "tree"] = "all"
    """Which nodes of a rule attend to each other: all, or those that its tree joins (tree)."""
    latents: int = 16
    """Latent vectors (--model perceiver)."""
    epochs: int = 10
    """Passes over the training part, at most."""
    patience: int = 5
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 128
    """Trials per optimiser step, over all devices together."""
    lr: float = 2e-3
    """Learning rate at the start."""
    warmup: int = 1
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 1e-2
    """Decoupled weight decay (AdamW); 0 is plain Adam."""
    clip: float | None = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""


@dataclass(frozen=True, kw_only=True)
class ReasoningEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other trials. Of a file in the published form
    it also says whether its answers are those that the rules give, and whether its trials are
    like those of --rules official.
    """

    data: str | None = None
    """File of trials (.jsonl), or a folder of such files; without it the test part of the run."""


@dataclass(frozen=True, kw_only=True)
class ReasoningPredictOptions(PredictOptions):
    """Answer the questions of files of trials (.jsonl). A trial needs no answer."""

    input: str
    """File, folder or quoted pattern of files of trials (.jsonl)."""
    shard_size: int = 8
    """Parts of 4,096 trials per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 256
    """Trials per forward pass."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(TrialOptions):
    """Write the trials of a split to a file, with the parts train, validation and test."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "trials": ("split", "rules", "most_distractors", "test_distractors", "test_depth", "trials",
                   "validation_trials", "test_trials", "seed"),
        "output": ("output", "form", "overwrite"),
    }  # fmt: skip

    output: str
    """File to write (.jsonl)."""
    form: Literal["words", "published"] = "words"
    """Trials in words, or with the numbers of the published data sets."""
    seed: int = 2021
    """Seed of all random draws."""
    overwrite: bool = False
    """Replace an existing OUTPUT."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Measure how much of the attention on the scene is on the objects that were asked for, which
    are known; writes attention.csv, summary.json and pictures.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"output": ("show",)}

    run: str
    """Run directory of the trained model."""
    input: str | None = None
    """File of trials, folder or quoted pattern; without it the test part of the run."""
    output: str
    """Folder to write."""
    show: int = 12
    """Trials to draw."""
    overwrite: bool = False
    """Replace the files of this verb in OUTPUT."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    least = {"most_distractors": 0, "trials": 1, "validation_trials": 1, "test_trials": 1,
             "width": 2, "heads": 1, "layers": 1, "latents": 1, "parameters": 1,
             "show": 0}  # fmt: skip
    check_least(options, least)
    if isinstance(options, TrialOptions):
        _check_trials(options)
    if isinstance(options, ReasoningOptions):
        _check_model(options)


def _check_trials(options: TrialOptions) -> None:
    if options.test_depth not in (3, 5, 7):
        raise InputError(f"--test-depth {options.test_depth}: must be 3, 5 or 7")
    if not options.test_distractors:
        raise InputError("--test-distractors: name a number at least")
    for name, values in (
        ("most_distractors", (options.most_distractors,)),
        ("test_distractors", options.test_distractors),
    ):
        if not 0 <= min(values) <= max(values) <= MOST_DISTRACTORS:
            shown = " ".join(map(str, values))
            raise InputError(f"{flag(name)} {shown}: must be between 0 and {MOST_DISTRACTORS}")


def _check_model(options: ReasoningOptions) -> None:
    check_shares(options, ("dropout", "validation_share", "test_share"))
    refuse_unread(options, READ_BY, (options.model,))
    check_mixing(options, fits=FITS, why=WHY)
    if options.model in ASKING:
        from ...models.attention import ALIASES, names_with

        if ALIASES.get(options.attention, options.attention) not in names_with("context"):
            raise InputError(
                f"--attention {options.attention}: takes no context, as --model {options.model} "
                "asks of it; give --model single"
            )
    if options.model == "double" and options.layers < 2:
        raise InputError("--layers 1: --model double needs a layer of each stream and one for both")
    if options.parameters is None and options.model in ATTENDING and options.width % options.heads:
        raise InputError(f"--heads {options.heads}: must divide --width {options.width}")
