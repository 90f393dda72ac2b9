"""Options that every task shares. The same frozen dataclasses are the command line and the Python
API.

Nothing here imports torch: the command line must answer `--help` and every misspelt word at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, TypeVar

from ...base.account import Doubt

RungName: TypeAlias = str
"""A rung of the ladder: naive, simple, model or blend."""
Choose: TypeAlias = Literal["auto", "naive", "simple", "model", "blend"]

SAMPLE_PRESET = "sample"
"""The preset of a training without --data, where a task has one: its sample should take minutes."""

# Groups of options in help pages, after those of the task itself.
SHARED_GROUPS: Mapping[str, tuple[str, ...]] = {
    "data": ("data", "input", "part", "accept"),
    "training": (
        "preset", "choose", "seed", "epochs", "patience", "max_steps", "batch_size", "accumulate",
        "lr", "schedule", "warmup", "weight_decay", "clip", "nan",
    ),
    "hardware": (
        "precision", "accelerator", "devices", "nodes", "strategy", "workers", "engine",
        "processes", "shard_size",
    ),
    "output": (
        "run", "output", "resume", "overwrite", "checkpoint_every", "keep", "logger", "tolerance",
    ),
}  # fmt: skip

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What every training shares; a task adds its own options to these."""

    data: str | None = None
    """Path of the data. Without it the built-in generated sample is used."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: copies (an item listed twice, or in two parts),
    two-labels, missing-labels (such rows are left out), label-as-feature, links (links that lead
    out of their folder are followed), missing-codes (numbers such as -999 are numbers).
    """
    run: str | None = None
    """Run directory to create (default: runs/TASK-DATE-TIME). Nothing existing is ever
    overwritten.
    """
    resume: bool = False
    """Continue the run in --run where it stopped, with the options it was started with."""
    preset: str | None = None
    """Named set of options from the task's presets; options named in the call win."""
    seed: int = 2021
    """Seed of the initial weights, the order of the data and all random draws."""
    epochs: int = 20
    """Passes over the training part, at most."""
    patience: int = 3
    """Stop after this many epochs without a better validation score."""
    max_steps: int | None = None
    """Stop after this many optimiser steps, for a quick look."""
    batch_size: int = 32
    """Samples per optimiser step, over all devices together."""
    accumulate: int = 1
    """Cut each batch into this many parts, to save memory; the gradient stays the same, but for
    losses of several samples together (triplets, the balance of experts) and batch normalisation.
    """
    lr: float = 3e-4
    """Learning rate at the start."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the epochs: half a cosine down to 0, or constant."""
    warmup: int = 0
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW); 0 is plain Adam."""
    clip: float | None = None
    """Largest gradient norm; larger gradients are scaled down to it."""
    nan: Literal["stop", "skip"] = "stop"
    """When the loss is not finite: stop, or skip the batch. Either way its samples are written to
    nan.json.
    """
    precision: Precision = "32-true"
    """Arithmetic of the model: 32 bits, or 16 bits where that is safe (bf16-mixed, 16-mixed)."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""
    devices: int = 1
    """Devices (or, on the CPU, processes) per node."""
    nodes: int = 1
    """Nodes; start the same command on each of them."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work: copies of the model (ddp), or one model in parts (fsdp),
    which takes less memory on each. auto: copies.
    """
    workers: int = 0
    """Loader processes; the result does not depend on it."""
    checkpoint_every: int = 0
    """Optimiser steps between checkpoints within an epoch; 0: only at the end of each epoch."""
    keep: int = 2
    """Newest checkpoints to keep; the best one is always kept."""
    logger: Literal["none", "tensorboard", "wandb"] = "none"
    """Also log the history to TensorBoard or Weights & Biases (extras of the same name)."""


@dataclass(frozen=True, kw_only=True)
class LadderOptions(TrainOptions):
    """What the training of a task with simple models beside its own shares."""

    choose: Choose = "auto"
    """What predicts: the naive answer, the simple model, the domain model, the blend of both, or
    (auto) the one that the validation part is for. All are scored in the report.
    """


@dataclass(frozen=True, kw_only=True)
class MixingOptions(LadderOptions):
    """What the training of a task whose model takes mechanisms of the core shares.

    WHERE: sets of further options under which more mechanisms or networks are taken than with the
    defaults, the fewest options first; what `headwise list attention --where` tries.
    """

    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ()

    attention: str = "softmax"
    """Mechanism of `headwise list attention`."""
    attention_options: tuple[str, ...] = ()
    """Options of the mechanism of --attention, such as active=2 router=query-norm for moh;
    `headwise list attention NAME` prints those of a mechanism.
    """


TrainOptionsT = TypeVar("TrainOptionsT", bound=TrainOptions)

# Options that say where and how fast, not what: a resumed run may change them.
FREE_ON_RESUME = frozenset({"run", "resume", "workers", "checkpoint_every", "keep", "logger"})


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Score a trained run, on its own test part or on other data."""

    run: str
    """Run directory of the trained model."""
    data: str | None = None
    """Other data with the same columns; without it the data that the run was trained on."""
    part: Literal["auto", "train", "validation", "test", "all"] = "auto"
    """Part of the data to score; auto: the test part of the run's own data, all of other data."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: copies (an item listed twice, or in two parts),
    two-labels, missing-labels (such rows are left out), label-as-feature, links (links that lead
    out of their folder are followed), missing-codes (numbers such as -999 are numbers).
    """
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Predict for a file, a folder or a pattern of files; one table out, resumable."""

    run: str
    """Run directory of the trained model."""
    input: str
    """File, folder or quoted pattern (`'in/*.csv'`) to predict for."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: copies (an item listed twice, or in two parts),
    two-labels, missing-labels (such rows are left out), label-as-feature, links (links that lead
    out of their folder are followed), missing-codes (numbers such as -999 are numbers).
    """
    output: str
    """File to write; its ending is the format: .parquet, .csv, .tsv, .jsonl or .xlsx.
    OUTPUT.account.json says what was read; OUTPUT.parts/ holds what is done until all is done.
    """
    engine: Literal["local", "ray"] = "local"
    """Who maps the shards: this machine's processes, or a Ray cluster (extra `ray`)."""
    processes: int = 1
    """Processes of the local engine (or actors under Ray)."""
    shard_size: int = 1000
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 64
    """Items per forward pass."""
    overwrite: bool = False
    """Replace an existing OUTPUT, and parts left there by another model or input."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write the model as one file that runs without Headwise, checked against the original."""

    run: str
    """Run directory of the trained model."""
    output: str
    """File to write: .pt2 is a torch.export program, .onnx an ONNX graph (extra `onnx`)."""
    tolerance: float = 5e-5
    """Largest difference between exported and original outputs, as a share of outputs above 1; more
    is an error.
    """
