"""Options of the verbs that show what attention does. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ....base.account import Doubt
from ....base.errors import InputError
from ...engine.command_line.checks import check_least
from ..options import DEPTHS, Kind

LEAST_TOKENS = 64  # of a text whose sinks are measured: shorter ones have few later tokens


@dataclass(frozen=True, kw_only=True)
class HeadsOptions:
    """Which heads of a language model fetch what a prompt asks for: scores from forward passes, a
    picture of all heads, and what cutting them costs on other prompts. A stopped job continues.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("data", "columns", "lengths", "depths", "kinds", "prompts", "check_prompts"),
        "model": ("model",),
        "heads": ("share", "sink", "window", "cut", "seed"),
        "output": ("output", "accept"),
        "hardware": ("batch_size", "accelerator"),
    }

    data: str | None = None
    """Prompts: a table (.csv, .tsv, .jsonl, .parquet, .xlsx) with the columns prompt and answer,
    where the answer stands in the prompt, word for word. Or texts, over which prompts are
    generated: a table with a column text, or .txt files. Without it, prompts are
    generated over Python's own documentation.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as prompt=context answer=target; usual names are
    recognised.
    """
    lengths: tuple[int, ...] = (512,)
    """Lengths of generated prompts in tokens."""
    depths: tuple[float, ...] = DEPTHS
    """Where generated prompts hide what is asked for: 0 is their beginning, 1 their end."""
    kinds: tuple[Kind, ...] = ("passkey", "needles")
    """Kinds of generated prompts, as of train."""
    prompts: int = 8
    """Prompts that the heads are scored on, at most."""
    check_prompts: int = 8
    """Other prompts, on which heads are cut, at most; 0: heads are only scored."""
    model: str = "auto"
    """Language model: a catalogue name such as smollm2-135m, which is also what auto means, or a
    folder in Hugging Face form with safetensors.
    """
    share: float = 0.375
    """Share of the full cache's bytes that the best heads may keep at the longest prompt, together
    with sink and window of the others; as many of them as fit go into plan.json.
    """
    sink: int | None = None
    """First tokens that every head keeps (default: an eighth of the shortest prompt, 64 at most).
    """
    window: int | None = None
    """Last tokens that a head keeps that is cut (default: as many as --sink)."""
    cut: int = 8
    """How many of the best heads are cut one by one, and as many of the others, drawn at random."""
    seed: int = 0
    """Seed of all random draws."""
    output: str = "heads"
    """Folder to write; given again, what it already holds is not done again."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors, as of train."""
    batch_size: int = 2
    """Prompts that are read at once."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class SinksOptions:
    """Which tokens draw the attention of a language model without saying anything, from which layer
    on, and what writes them. A stopped job continues.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("data", "columns", "texts", "length"),
        "model": ("model",),
        "sinks": ("mass", "removals"),
        "output": ("output", "accept"),
        "hardware": ("accelerator",),
    }

    data: str | None = None
    """Texts: a table with a column text, prompts as of train, or .txt files; each is cut into
    pieces. Without it, Python's own documentation.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as text=body."""
    texts: int = 16
    """Pieces of texts to measure, at most."""
    length: int = 512
    """Tokens of a piece, at most."""
    model: str = "auto"
    """Language model: a catalogue name such as smollm2-135m, which is also what auto means, or a
    folder in Hugging Face form with safetensors.
    """
    mass: float = 0.05
    """A token is a sink where it draws at least this share of the attention of later tokens, mean
    over heads, and several times what chance would give.
    """
    removals: int = 2
    """Sinks of each piece that are tested: what the layers wrote into them is taken out, and the
    attention that they draw is measured again. 0: none.
    """
    output: str = "sinks"
    """Folder to write; given again, what it already holds is not done again."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors, as of train."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""


def check_attention(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    check_least(
        options,
        {"prompts": 1, "check_prompts": 0, "cut": 0, "batch_size": 1, "texts": 1, "removals": 0,
         "length": LEAST_TOKENS, "sink": 0, "window": 1},
    )  # fmt: skip
    for name in ("share", "mass"):
        value = getattr(options, name, 0.5)
        if not 0 < value <= 1:
            raise InputError(f"--{name} {value}: must be a share above 0, 1 at most")
    for name in ("lengths", "depths", "kinds"):
        if getattr(options, name, True) == ():
            raise InputError(f"--{name}: names nothing")
