"""Options of the ranking task."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..engine.options import PredictOptions, TrainOptions

Model = Literal["infnet", "infnet-hub", "shared-bottom", "mmoe", "ple", "din", "dcnv2", "tokens"]
MODELS: tuple[Model, ...] = get_args(Model)
# Parts of INFNet that `compare` can train it without, and the options that switch them off.
ABLATIONS = {"no-cross": "cross", "no-gated": "gated", "no-task-tokens": "task_tokens"}


@dataclass(frozen=True, kw_only=True)
class RankingOptions(TrainOptions):
    """Train a click model on an event log: several tasks at once."""

    epochs: int = 8
    """Passes over the training part at most; 1 where later passes only overfit the ids (large
    logs).
    """
    patience: int = 2
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 1024
    """Rows per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the start."""
    schedule: Literal["cosine", "constant"] = "constant"
    """Learning rate over the epochs: half a cosine down to 0, or constant."""
    schema: str = "auto"
    """YAML file that says what the columns are, or a layout: movielens, kuairand, aliexpress,
    criteo. auto: the file beside the log that bears its name, else the layout of the columns."""
    from_run: str | None = None
    """Run to go on from (`--from RUN`): its weights, vocabularies and histories, grown by what the
    new log holds.
    """
    model: Model = "infnet"
    """INFNet (first version), its hub variant (second version), or a rival; tokens: any mechanism
    by --attention.
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
    """Residual connections and norms in INFNet; without, its formulas as printed."""
    task_tokens: bool = True
    """INFNet's task tokens; without, towers read the proxies (ablation)."""
    gated: bool = True
    """INFNet's gated units (ablation)."""
    cross: bool = True
    """INFNet's cross-attention; without, proxies take plain means (ablation)."""
    experts: int = 4
    """Experts of MMoE; PLE has half as many for each task and in common."""
    hidden: tuple[int, ...] = (256, 128)
    """Hidden sizes of the shared network of the rivals; experts are as wide as the first."""
    towers: tuple[int, ...] = (64,)
    """Hidden sizes of each task's own network."""
    attention: str = "softmax"
    """Mechanism of --model tokens (`headwise list attention`)."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward networks of --model tokens."""
    dropout: float = 0.1
    """Share of activations set to 0 in training."""
    task_weights: tuple[float, ...] = ()
    """Weight of each task's loss, in the order of the schema; by default 1 each."""
    embedding_optimizer: Literal["adam", "adagrad"] = "adam"
    """Optimiser of the embeddings; the rest has Adam (AdamW with --weight-decay, which leaves
    embeddings alone).
    """
    embedding_lr: float | None = None
    """Learning rate of the embeddings; by default --lr."""
    embedding_l2: float = 0.01
    """Weight of the squared embeddings of a batch's rows, a mean over rows."""
    sparse: Literal["auto", "yes", "no"] = "auto"
    """Update only the embeddings that a batch has; auto: where there are more than 100,000, on one
    device.
    """


@dataclass(frozen=True, kw_only=True)
class RankingPredictOptions(PredictOptions):
    """Score the rows of tables: parquet out, in their order, resumable."""

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
    """The best items for each user, as of now: after all events that the run knows."""

    run: str
    """Run directory of the trained model."""
    output: str
    """Parquet file to write: user, rank, item, score of each task."""
    users: str | None = None
    """Table with a column of user ids; by default all users of the run."""
    candidates: str | None = None
    """Table with a column of item ids to choose from; by default all items of the training part."""
    k: int = 20
    """Items per user."""
    task: str | None = None
    """Task whose probability ranks the items; by default the first."""
    seen: bool = False
    """Also list items that the user has met in the log."""
    log: str | None = None
    """Events since the training, added to the histories."""
    batch_size: int = 8192
    """Pairs of user and item per forward pass."""
    overwrite: bool = False
    """Replace an existing output."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RankingOptions):
    """Train several models with several seeds on one log; a table of means and deviations."""

    models: tuple[str, ...] = MODELS
    """Models to train; `infnet:no-cross`, `infnet:no-gated` and `infnet:no-task-tokens` are
    ablations.
    """
    seeds: int = 3
    """Seeds of each model, from --seed on."""
    output: str
    """Folder to write: the table, a picture, and a JSON file a training, which is not trained
    again.
    """


@dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """Draft a schema from the columns of a log, to be read and mended."""

    data: str
    """The log: a file, folder or pattern."""
    output: str | None = None
    """YAML file to write; by default beside the log, by its name."""
