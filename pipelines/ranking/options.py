"""Options of the ranking task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from ...base.errors import InputError
from ...models.attention import names_with
from ..engine.command_line.checks import (
    check_least,
    check_mechanism,
    check_shares,
    is_of_a_run,
    refuse_unread,
)
from ..engine.mechanisms import check_mixing
from ..engine.options import MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

Model = Literal["infnet", "infnet-hub", "shared-bottom", "mmoe", "ple", "din", "dcnv2", "tokens"]
MODELS: tuple[Model, ...] = get_args(Model)
# Parts of INFNet that `compare` can train it without, and the options that switch them off.
ABLATIONS = {"no-cross": "cross", "no-gated": "gated", "no-task-tokens": "task_tokens"}
INFNET = ("infnet", "infnet-hub")
# Options that only some models read, and these models.
READ_BY: Mapping[str, tuple[str, ...]] = {
    "layers": (*INFNET, "tokens", "ple", "dcnv2"),
    "heads": (*INFNET, "tokens"),
    **dict.fromkeys(
        ("proxies", "shared_tasks", "residual", "task_tokens", "gated", "cross"), INFNET
    ),
    "experts": ("mmoe", "ple"),
    "hidden": ("shared-bottom", "mmoe", "ple", "din", "dcnv2"),
    "attention": (*INFNET, "tokens"),
    "attention_options": (*INFNET, "tokens"),
    "ffn": ("tokens",),
}


@dataclass(frozen=True, kw_only=True)
class RankingOptions(MixingOptions):
    """Train a click model on an event log, for several tasks at once."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("schema", "from_run"),
        "model": ("model", "width", "layers", "heads", "proxies", "shared_tasks", "residual",
                  "task_tokens", "gated", "cross", "experts", "hidden", "towers", "attention",
                  "attention_options", "ffn", "dropout"),
        "loss": ("task_weights", "embedding_l2"),
        "embeddings": ("embedding_optimizer", "embedding_lr", "sparse"),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ({"model": "tokens"},)
    SEARCH: ClassVar[Space] = {
        "width": Choices((16, 32, 64)),
        "layers": Range(1, 4),
        "dropout": Range(0.0, 0.5),
        "embedding_l2": Range(1e-4, 1e-1, log=True),
    }

    epochs: int = 50
    """Passes over the training part at most; 1 where later passes only overfit the ids (large
    logs).
    """
    patience: int = 3
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 1024
    """Rows per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the start."""
    schedule: Literal["cosine", "constant"] = "constant"
    """Learning rate over the epochs: half a cosine down to 0, or constant."""
    schema: str = "auto"
    """YAML file that says what the columns are, or a known layout: movielens, kuairand, aliexpress,
    criteo. auto: the file of the same name next to the log, else the layout that the columns fit.
    """
    from_run: str | None = None
    """Run to continue from (`--from RUN`): its weights, vocabularies and histories, grown by
    what the new log holds.
    """
    model: Model = "infnet"
    """INFNet (first version of the paper), its hub variant (second version), or a rival; tokens:
    any mechanism of --attention.
    """
    width: int = 32
    """Width of embeddings and tokens."""
    layers: int = 2
    """Blocks of INFNet and tokens, layers of PLE, cross layers of DCNv2."""
    heads: int = 2
    """Attention heads (INFNet, tokens)."""
    proxies: int = 4
    """Proxy tokens of the fields (INFNet)."""
    shared_tasks: int = 2
    """Task tokens that all tasks share (INFNet)."""
    residual: bool = True
    """Residual connections and norms in INFNet; off: its formulas as printed."""
    task_tokens: bool = True
    """INFNet's task tokens; off: towers read the proxies (an ablation)."""
    gated: bool = True
    """INFNet's gated units (off: an ablation)."""
    cross: bool = True
    """INFNet's cross-attention; off: proxies take plain means (an ablation)."""
    experts: int = 4
    """Experts of MMoE; PLE has half as many for each task, and as many shared ones."""
    hidden: tuple[int, ...] = (256, 128)
    """Hidden sizes of the shared network of the rivals; experts are as wide as the first size."""
    towers: tuple[int, ...] = (64,)
    """Hidden sizes of each task's own network."""
    attention: str = "softmax"
    """Mechanism of `headwise list attention`. --model tokens mixes fields, histories and tasks
    with it; the proxies of infnet read them with it, if it takes a context.
    """
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward networks of --model tokens."""
    dropout: float = 0.1
    """Share of activations set to 0 in training."""
    task_weights: tuple[float, ...] = ()
    """Weight of each task's loss, in the order of the schema; by default 1 each."""
    embedding_optimizer: Literal["adam", "adagrad"] = "adam"
    """Optimiser of the embeddings. The rest uses Adam, or AdamW with --weight-decay, which does not
    touch the embeddings.
    """
    embedding_lr: float | None = None
    """Learning rate of the embeddings; by default --lr."""
    embedding_l2: float = 0.01
    """Weight of the squared embeddings of a batch, averaged over its rows."""
    sparse: Literal["auto", "yes", "no"] = "auto"
    """Update only the embeddings that occur in a batch. auto: if there are more than 100,000, on
    one device.
    """


@dataclass(frozen=True, kw_only=True)
class RankingPredictOptions(PredictOptions):
    """Score the rows of tables: one row out for each, in their order, resumable."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("log",)}

    shard_size: int = 8
    """Items (of 50,000 rows) per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 4096
    """Rows per forward pass."""
    log: str | None = None
    """Events since the training (a labelled log of the same columns), added to the histories before
    scoring.
    """


@dataclass(frozen=True, kw_only=True)
class TopOptions:
    """List the best items for each user as of now: after all events that the run knows."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("users", "candidates", "log"),
        "lists": ("k", "task", "seen"),
    }

    run: str
    """Run directory of the trained model."""
    output: str
    """File to write, .parquet, .csv, .tsv, .jsonl or .xlsx: user, rank, item, scores of tasks."""
    users: str | None = None
    """Table with a column of user ids; by default all users of the run."""
    candidates: str | None = None
    """Table with a column of item ids to choose from; by default all items of the training part."""
    k: int = 20
    """Items per user."""
    task: str | None = None
    """Task whose probability ranks the items; by default the first."""
    seen: bool = False
    """Also list items that the user has already met in the log."""
    log: str | None = None
    """Events since the training, added to the histories."""
    batch_size: int = 8192
    """Pairs of user and item per forward pass."""
    overwrite: bool = False
    """Replace an existing output."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to run on."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RankingOptions):
    """Train several models with several seeds on one log; a table of means and deviations.

    With --vary OPTION=a,b it compares settings of train instead (`compare --vary --help`).
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **RankingOptions.GROUPS,
        "comparison": ("models", "seeds"),
    }

    models: tuple[str, ...] = MODELS
    """Models to train; `infnet:no-cross`, `infnet:no-gated` and `infnet:no-task-tokens` are
    ablations.
    """
    seeds: int = 3
    """Seeds of each model, from --seed on."""
    output: str
    """Folder to write: the table, a figure, and one JSON file per training, so that none is trained
    twice.
    """


@dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """Draft a schema from the columns of a log, for you to read and correct."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"columns": ("user", "item", "task")}

    data: str
    """The log: a file, folder or pattern."""
    user: str | None = None
    """Column of the user's id; by default one with a usual name."""
    item: str | None = None
    """Column of the item's id; by default one with a usual name."""
    task: tuple[str, ...] = ()
    """Columns of the labels (0 and 1, true and false, yes and no), or conditions such as
    'rating>=4'; by default those with usual names.
    """
    output: str | None = None
    """YAML file to write; by default next to the log, with its name."""


def _check_read(options: RankingOptions) -> None:
    """Raise `InputError` for an option that the chosen models do not read."""
    models = [options.model]
    if isinstance(options, CompareOptions):
        if options.model != CompareOptions.model:
            raise InputError(f"--model {options.model}: compare trains those of --models")
        models = [name.partition(":")[0] for name in options.models]
    refuse_unread(options, READ_BY, models)
    of_experts = {*models} <= {"mmoe", "ple"}
    if of_experts and len(options.hidden) > 1 and options.hidden != RankingOptions.hidden:
        raise InputError(f"--hidden: {models[0]} reads one size, the width of its experts")


def _check_attention(options: RankingOptions) -> None:
    """Raise `InputError` for a mechanism that the chosen models cannot take."""
    check_mixing(options, fits=("any tokens", "sequence"), why="tokens of a row are no grid")
    models = options.models if isinstance(options, CompareOptions) else (options.model,)
    infnet = [name for name in models if name.partition(":")[0] in INFNET]
    if not infnet or is_of_a_run():
        return
    why = f"takes no context, which the proxies of --model {infnet[0]} read; --model tokens has it"
    check_mechanism("--attention", options.attention, names_with("context"), why=why)
    if (options.attention, options.attention_options) == ("softmax", ()):
        return
    if not options.cross or "infnet:no-cross" in models:
        raise InputError("--attention: is read by INFNet's cross-attention; leave out --no-cross")


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    if isinstance(options, TopOptions):
        check_least(options, {"k": 1, "batch_size": 1})
    if not isinstance(options, RankingOptions):
        return
    check_least(
        options,
        dict.fromkeys(("width", "layers", "heads", "proxies", "shared_tasks", "experts"), 1),
    )
    check_shares(options, ("dropout",))
    if not 0 <= options.embedding_l2 < float("inf"):
        raise InputError(f"--embedding-l2 {options.embedding_l2}: must be 0 or more")
    if options.embedding_lr is not None and not 0 < options.embedding_lr <= 1e30:
        raise InputError(f"--embedding-lr {options.embedding_lr}: must be a positive number")
    if not options.hidden or min((*options.hidden, *options.towers)) < 1:
        raise InputError("--hidden and --towers: sizes must be at least 1, and --hidden needs one")
    if any(not 0 <= weight < float("inf") for weight in options.task_weights):
        raise InputError("--task-weights: must be 0 or more")
    if options.sparse == "yes" and (
        options.clip is not None or options.devices * options.nodes > 1
    ):
        raise InputError("--sparse yes: goes with one device and without --clip")
    _check_read(options)
    _check_attention(options)
    if isinstance(options, CompareOptions):
        known = (*MODELS, *(f"infnet:{part}" for part in ABLATIONS))
        for name in options.models:
            if name not in known:
                raise InputError(f"--models {name}: unknown; there are {', '.join(known)}")
        if (
            not options.models
            or len(set(options.models)) < len(options.models)
            or options.seeds < 1
        ):
            raise InputError("compare: give at least one model and seed, and no model twice")
