"""Options of long contexts. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from ...base.account import Doubt
from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_shares, check_unread, flag
from ..engine.options import EvaluateOptions, LadderOptions, PredictOptions
from ..engine.search_space import Choices, Space

Method: TypeAlias = Literal["needle", "moa", "lychee", "flux", "uniform", "full", "plan"]
Kind: TypeAlias = Literal["passkey", "needles", "copy", "second"]
LEARNED = ("lychee", "flux")  # methods with parameters that a training changes
TEMPERATURES = (1e-3, 1e3)  # beyond, logits overflow, or draws have nothing to do with the model
LENGTHS, DEPTHS = (512,), (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class LongContextOptions(LadderOptions):
    """Make a plan of which keys each head of a language model keeps, and measure what is lost,
    beside the entire cache and windows of the same size.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "lengths", "depths", "kinds", "fit_prompts", "validation_prompts",
                 "test_prompts", "validation_share", "test_share"),
        "model": ("model",),
        "plan": ("method", "share", "sink", "window", "plan"),
    }  # fmt: skip
    SEARCH: ClassVar[Space] = {
        "sink": Choices((None, 4, 16, 64)),
        "window": Choices((None, 16, 32, 64, 128)),
    }

    data: str | None = None
    """Prompts: a table (.csv, .tsv, .jsonl, .parquet, .xlsx) with the columns prompt and answer. Or
    texts, over which prompts are generated: a table with a column text, or .txt files.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as prompt=context answer=target id=key
    question2=follow_up group=document part=split; usual names are recognised.
    """
    lengths: tuple[int, ...] = ()
    """Lengths of generated prompts in tokens (default: 512). Without --data, and with --lengths or
    --model, they are generated over texts that need no download: Python's own documentation.
    """
    depths: tuple[float, ...] = DEPTHS
    """Where generated prompts hide what is asked for: 0 is their beginning, 1 their end."""
    kinds: tuple[Kind, ...] = ("passkey", "needles")
    """Kinds of generated prompts: a passkey; one of several needles, the others of which distract;
    a passage to copy; or a passkey that is asked for in a second question.
    """
    fit_prompts: int = 8
    """Prompts that a plan is fitted on, at most; generated ones: for all lengths together."""
    validation_prompts: int = 16
    """Prompts by which plan and windows are compared, at most."""
    test_prompts: int = 24
    """Prompts on which the plan is scored, at most."""
    model: str = "auto"
    """Language model: a catalogue name such as smollm2-135m, or a folder in Hugging Face form with
    safetensors. auto: smollm2-135m; for the built-in sample a tiny model with random weights
    (generated).
    """
    method: Method = "needle"
    """How the plan is made: heads that attend to what was asked for are full (needle); spans that
    grow with the length (moa); heads that choose keys for the heads above (lychee); a router by
    layer (flux); the same window for all heads (uniform); nothing is cut (full); or --plan (plan).
    """
    share: float = 0.375
    """Share of the full cache's bytes that the plan may keep at the longest prompts."""
    sink: int | None = None
    """First tokens that every head keeps (default: an eighth of the shortest prompt, 64 at most).
    """
    window: int | None = None
    """Last tokens that a head keeps that is not full (default: as many as --sink); of --method
    uniform: what --share leaves.
    """
    plan: str | None = None
    """Plan to take as it is (--method plan): a .json of `export`, MoA's .json, or the folder of
    DuoAttention.
    """
    validation_share: float = 0.25
    """Share of the prompts or texts of --data by which plan and windows are compared."""
    test_share: float = 0.4
    """Share of them on which the plan is scored."""
    epochs: int = 3
    """Passes over the training part, at most; read by lychee and flux."""
    batch_size: int = 2
    """Prompts per optimiser step; read by lychee and flux."""
    lr: float = 1e-2
    """Learning rate at the start; read by lychee and flux."""


@dataclass(frozen=True, kw_only=True)
class LongContextEvaluateOptions(EvaluateOptions):
    """Score a plan, on the prompts of its own test part or on others."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "lengths", "depths", "kinds", "test_prompts")
    }

    data: str | None = None
    """Other prompts or texts; without it those of the training."""
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold; without it, as in the training."""
    lengths: tuple[int, ...] = ()
    """Lengths of generated prompts in tokens; without it, as in the training."""
    depths: tuple[float, ...] = ()
    """Where generated prompts hide what is asked for; without it, as in the training."""
    kinds: tuple[Kind, ...] = ()
    """Kinds of generated prompts; without it, as in the training."""
    test_prompts: int | None = None
    """Prompts to score, at most; without it, as in the training."""


@dataclass(frozen=True, kw_only=True)
class LongContextPredictOptions(PredictOptions):
    """Write on after prompts, with the cut cache: a table, text files or standard input in, one
    table out. Prompts are read in batches; one that cannot be answered is a row with an error.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "cache"),
        "answers": ("max_new_tokens", "sample", "temperature", "seed", "beyond_positions"),
    }

    input: str
    """Table with a column of prompts, folder or quoted pattern of tables, .txt file with one
    prompt, folder of .txt files, or - for standard input (a prompt on each line, or JSON lines).
    """
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    cache: str | None = None
    """Cache of a context that `compress` wrote (.safetensors): each prompt is a question on it."""
    max_new_tokens: int = 32
    """Tokens that an answer has at most."""
    sample: bool = False
    """Draw each token by its probability; without it the most probable token is taken."""
    temperature: float = 1.0
    """Divides the logits before a token is drawn (--sample)."""
    seed: int = 0
    """Seed of the draws (--sample)."""
    beyond_positions: bool = False
    """Also answer prompts that are longer than the positions that the model was trained for."""
    batch_size: int = 8
    """Prompts that are read at once."""
    shard_size: int = 32
    """Prompts per shard: the unit of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """Read a context once and store its cut cache, on which predict asks many questions."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("input",),
        "context": ("dry_run", "chunk", "beyond_positions"),
    }

    run: str
    """Run directory of the plan."""
    input: str | None = None
    """Text file (.txt) with the context."""
    output: str | None = None
    """File to write, .safetensors."""
    dry_run: tuple[int, ...] = ()
    """Only print the bytes of the cache at these lengths in tokens, whole and cut."""
    chunk: int = 1024
    """Tokens that are read at once."""
    beyond_positions: bool = False
    """Also read a context that is longer than the positions that the model was trained for."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: copies (an item listed twice, or in two parts),
    two-labels, missing-labels (such rows are left out), label-as-feature, links (links that lead
    out of their folder are followed), missing-codes (numbers such as -999 are numbers).
    """
    overwrite: bool = False
    """Replace an existing OUTPUT."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    least = {"fit_prompts": 1, "validation_prompts": 1, "test_prompts": 1, "sink": 0, "window": 1,
             "max_new_tokens": 1, "chunk": 1}  # fmt: skip
    check_least(options, least)
    for name, least_value in (("lengths", 32), ("dry_run", 1)):
        for value in getattr(options, name, ()):
            if value < least_value:
                raise InputError(f"{flag(name)} {value}: must be at least {least_value} tokens")
    for value in getattr(options, "depths", ()):
        if not 0 <= value <= 1:
            raise InputError(f"--depths {value}: must be from 0 (the beginning) to 1 (the end)")
    if isinstance(options, LongContextOptions):
        _check_training(options)
    if isinstance(options, LongContextPredictOptions):
        if not TEMPERATURES[0] <= options.temperature <= TEMPERATURES[1]:
            least, most = TEMPERATURES
            raise InputError(
                f"--temperature {options.temperature:g}: must be from {least:g} to {most:g}"
            )
        if not options.sample:
            check_unread(options, ("temperature", "seed"), "--sample")
    if isinstance(options, CompressOptions) and not options.dry_run:
        if options.input is None or options.output is None:
            raise InputError("compress: needs --input TEXT.txt and --output CACHE.safetensors")
        if not options.output.endswith(".safetensors"):
            raise InputError(f"--output {options.output}: must end in .safetensors")


def _check_training(options: LongContextOptions) -> None:
    check_shares(options, ("validation_share", "test_share"))
    if not 0 < options.share <= 1:
        raise InputError(f"--share {options.share}: must be a share above 0, 1 at most")
    for name in ("depths", "kinds"):
        if not getattr(options, name):
            raise InputError(f"{flag(name)}: names nothing")
    if options.choose in ("simple", "blend"):
        raise InputError(
            f"--choose {options.choose}: a plan has no such model; there are auto, model (the "
            "plan) and naive (uniform windows of the same size)"
        )
    if (options.plan is None) == (options.method == "plan"):
        problem = "needs --plan FILE" if options.plan is None else "is read by --method plan"
        raise InputError(f"{'--method plan' if options.plan is None else '--plan'}: {problem}")
    if options.method in ("full", "plan"):
        check_unread(options, ("share", "sink", "window"), "the methods that make a plan")
    if options.method not in LEARNED:
        reader = f"--method {' and '.join(LEARNED)}"
        check_unread(options, ("epochs", "lr", "batch_size", "weight_decay", "clip"), reader)
        if options.devices * options.nodes > 1:
            raise InputError(
                f"--devices, --nodes: --method {options.method} has nothing to train on several "
                f"devices; {reader} have"
            )
