"""Options of fine-tuning. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from ...base.errors import InputError, nearest
from ..engine.command_line.checks import check_least, check_shares, check_unread, flag, is_of_a_run
from ..engine.options import EvaluateOptions, ExportOptions, LadderOptions, PredictOptions
from ..engine.search_space import Range, Space

Method: TypeAlias = Literal["cofitune", "full", "lora", "moe-lora"]
MaskForm: TypeAlias = Literal["none", "published", "signal"]
Conversion: TypeAlias = Literal["none", "moh", "grouped-differential", "bam", "upcycle"]
Template: TypeAlias = Literal["auto", "chat", "plain"]

MODULES = ("q", "k", "v", "o", "gate", "up", "down")
# What a method tunes where --modules and --layers name nothing.
USUAL: Mapping[Method, tuple[tuple[str, ...], str]] = {
    "cofitune": (("up", "down"), "25-50%"),
    "full": ((), "all"),
    "lora": (MODULES, "all"),
    "moe-lora": (("gate", "up", "down"), "all"),
}
CONVERT_OPTIONS: Mapping[str, Mapping[str, type]] = {
    "none": {},
    "moh": {"shared": int, "active": int, "router": str, "balance": float},
    "grouped-differential": {"factor": int, "spread": float},
    "bam": {"experts": int, "spread": float},
    "upcycle": {"experts": int, "active": int, "balance": float, "spread": float},
}
"""Options of each conversion, for --convert-options."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(LadderOptions):
    """Tune a language model on prompts and answers, beside the model as it came; the run stores
    only what changed.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "general", "template", "most_tokens", "packing", "validation_share",
                 "test_share"),
        "model": ("model", "method", "modules", "layers", "mask", "rank", "alpha", "experts",
                  "active", "convert", "convert_options"),
        "scores": ("shots", "answers", "new_tokens"),
    }  # fmt: skip
    # Layers and modules have a search of their own, the verb `search`.
    SEARCH: ClassVar[Space] = {"lr": Range(1e-5, 1e-3, log=True)}

    data: str | None = None
    """Table (.jsonl, .parquet, .csv, .tsv, .xlsx) with a column of prompts and one of answers, or
    with a column `messages` of dialogues; or a folder of such tables.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as prompt=question answer=reply system=role
    id=ticket group=customer part=split messages=dialogue; usual names are recognised. All rows of a
    group are in the same part.
    """
    general: tuple[str, ...] = ()
    """Texts, or tables of prompts and answers, that the model should not get worse at: their
    loss is measured before and after, and --mask protects what they need. builtin: English prose,
    the documentation of Python.
    """
    template: Template = "auto"
    """How a prompt is written for the model: by its chat template (chat), or as it is with a line
    between prompt and answer (plain); auto: by the chat template if there is one.
    """
    most_tokens: int = 1024
    """Tokens of a prompt and its answer together; longer rows are left out."""
    packing: bool = False
    """Put several rows of a batch into one sequence, in which they do not see each other: less
    padding where rows differ in length. The gradients are the same.
    """
    validation_share: float = 0.1
    """Share of the rows on which the epoch is chosen, and whether the tuned model is better."""
    test_share: float = 0.2
    """Share of the rows on which the model is scored."""
    model: str = "auto"
    """Language model: a catalogue name such as smollm2-135m, or a folder in Hugging Face form with
    safetensors. auto: smollm2-135m; for the built-in sample a tiny model with random weights
    (generated).
    """
    method: Method = "cofitune"
    """cofitune: some modules of some layers, by default up and down of the layers from 25 to 50 %;
    full: all weights; lora: low-rank updates beside frozen weights; moe-lora: several low-rank
    updates, of which each token chooses some.
    """
    modules: tuple[str, ...] = ()
    """What is tuned in these layers: any of q k v o (attention) and gate up down (feed-forward);
    without it, as the method says.
    """
    layers: str = ""
    """Layers that are tuned: a range in percent (25-50%), in numbers from 0, both included (8-14),
    or all; without it, as the method says.
    """
    mask: MaskForm = "none"
    """Soft mask of hidden units of the feed-forward networks, by how much --general needs them: of
    the step of a unit 1 - importance is taken. signal: importance by the gradient of the loss;
    published: the form of the paper, which is rounding noise.
    """
    rank: int = 8
    """Rank of the updates of lora and moe-lora."""
    alpha: float = 16.0
    """Updates of lora and moe-lora are multiplied by alpha / rank."""
    experts: int = 4
    """Updates beside each weight of moe-lora."""
    active: int = 2
    """Of these, how many a token takes."""
    convert: Conversion = "none"
    """Turn parts of the model into modules of the core, and go on from there: attention in which
    each token chooses its heads (moh), subtracts a map of noise (grouped-differential) or weighs
    several attentions (bam), or a feed-forward network into a mixture of experts (upcycle).
    """
    convert_options: tuple[str, ...] = ()
    """Options of --convert, such as shared=2 active=5 router=linear for moh, factor=2 spread=0.02
    for grouped-differential, experts=4 active=2 for upcycle. The layers are those of --layers.
    """
    shots: int = 3
    """Rows of the training part that the model as it came may see before the prompt: it is
    compared with and without them.
    """
    answers: int = 64
    """Rows of a part for which answers are generated, to count those that are exactly right."""
    new_tokens: int = 64
    """Tokens of a generated answer, at most."""
    epochs: int = 3
    """Passes over the training part, at most."""
    patience: int = 1
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 8
    """Rows per optimiser step, over all devices together."""
    lr: float = 1e-4
    """Learning rate at the start."""
    clip: float | None = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""


@dataclass(frozen=True, kw_only=True)
class FinetuneEvaluateOptions(EvaluateOptions):
    """Score a tuned model, on its own test part or on other rows, beside the model as it came."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("columns", "general")}

    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold; without it, as in the training."""
    general: tuple[str, ...] = ()
    """Texts that the model should not get worse at; without it, those of the training."""


@dataclass(frozen=True, kw_only=True)
class FinetunePredictOptions(PredictOptions):
    """Answer the prompts of a table, a file of lines or a folder of them; greedy, so that the same
    prompt has the same answer.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "most_rows"),
        "output": ("new_tokens",),
    }

    input: str
    """Table of prompts, .txt file with a prompt on each line, or a folder or quoted pattern of
    them.
    """
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    most_rows: int | None = None
    """Answer the first rows of each file only."""
    new_tokens: int | None = None
    """Tokens of an answer, at most; without it, as in the training."""
    shard_size: int = 200
    """Prompts per shard: the unit of restarting and of sharing work."""
    batch_size: int = 8
    """Prompts that are answered together."""


@dataclass(frozen=True, kw_only=True)
class FinetuneExportOptions(ExportOptions):
    """Write the tuned model: as a folder in Hugging Face's form, which transformers and others load
    without Headwise, or as one program; checked against the original.
    """

    output: str
    """Folder to make (config.json, model.safetensors, tokenizer), or a file: .pt2 is a torch.export
    program, .onnx an ONNX graph (extra `onnx`).
    """


@dataclass(frozen=True, kw_only=True)
class SearchOptions(FinetuneOptions):
    """Search for the layers and modules to tune: a tree over ranges of layers, then over modules,
    each node tuned for a few steps and scored on the validation part and on --general. Resumable.
    """

    output: str
    """Folder for the table of all nodes; what is in it already is not tried again."""
    node_steps: int = 50
    """Optimiser steps of a node."""
    versatility: float = 1.0
    """What a lost nat of --general counts, beside one gained on the task."""


@dataclass(frozen=True, kw_only=True)
class ImportanceOptions:
    """Write how much hidden units matter for some texts, by the gradient of the loss and as
    published, with what tells signal from rounding noise.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("model", "general", "template", "most_tokens"),
        "output": ("output",),
    }

    model: str
    """Name of a model in `headwise data list`, or a folder in Hugging Face's form."""
    general: tuple[str, ...]
    """Texts, or tables of prompts and answers."""
    output: str
    """File to write: .parquet or .csv, a hidden unit of a layer in each row."""
    template: Template = "auto"
    """How a prompt is written for the model; see `train`."""
    most_tokens: int = 512
    """Tokens of a text; longer ones are cut."""
    batch_size: int = 4
    """Texts in a pass."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    bounds = {"most_tokens": 8, "new_tokens": 1, "rank": 1, "experts": 1, "active": 1, "shots": 0,
              "answers": 0, "most_rows": 1, "node_steps": 1}  # fmt: skip
    check_least(options, bounds)
    check_shares(options, ("validation_share", "test_share"))
    if isinstance(options, FinetuneOptions):
        _check_training(options)


def _check_training(options: FinetuneOptions) -> None:
    if unknown := [name for name in options.modules if name not in MODULES]:
        raise InputError(f"--modules {unknown[0]}: no such module{nearest(unknown[0], MODULES)}")
    parse_layers(options.layers or "all")
    parse_convert_options(options.convert, options.convert_options)
    if options.active > options.experts:
        raise InputError(
            f"--active {options.active}: of --experts {options.experts} no more can be taken"
        )
    if options.mask != "none" and not options.general and not is_of_a_run():
        raise InputError(f"--mask {options.mask}: needs --general, the texts that it protects")
    if options.mask != "none" and options.strategy == "fsdp":
        raise InputError("--mask: does not go with --strategy fsdp; take --strategy ddp")
    if options.mask != "none" and options.method not in ("cofitune", "full"):
        raise InputError(f"--mask {options.mask}: goes with --method cofitune and full")
    if options.method not in ("lora", "moe-lora"):
        check_unread(options, ("rank", "alpha"), "--method lora and moe-lora")
    if options.method != "moe-lora":
        check_unread(options, ("experts", "active"), "--method moe-lora")


def parse_layers(text: str) -> tuple[float, float, bool] | None:
    """The option --layers: first, last, and whether they are in percent; None for all.

    >>> parse_layers("25-50%")
    (25.0, 50.0, True)
    """
    if text == "all":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)(%?)", text)
    if match is None:
        raise InputError(f"--layers {text}: should be a range such as 25-50%, 8-14, or all")
    first, last, percent = float(match[1]), float(match[2]), bool(match[3])
    if last < first or (percent and (last > 100 or first == last)):
        raise InputError(f"--layers {text}: is no range")
    if not percent and not (first.is_integer() and last.is_integer()):
        raise InputError(f"--layers {text}: numbers of layers are whole")
    return first, last, percent


def parse_convert_options(
    convert: Conversion, words: Sequence[str]
) -> dict[str, int | float | str]:
    """Options of a conversion from words such as "active=5". Raises `InputError`, on one line, for
    what is none.
    """
    known, options = CONVERT_OPTIONS[convert], dict[str, int | float | str]()
    for word in words:
        name, mark, text = (part.strip() for part in word.partition("="))
        where = f"{flag('convert_options')} {word}"
        if not mark or not text:
            raise InputError(f"{where}: should be name=value")
        if name not in known:
            raise InputError(f"{where}: --convert {convert} has no such option"
                             f"{nearest(name, known) if known else ''}")  # fmt: skip
        try:
            options[name] = known[name](text)
        except ValueError:
            raise InputError(f"{where}: {text!r} is no {known[name].__name__}") from None
    return options
