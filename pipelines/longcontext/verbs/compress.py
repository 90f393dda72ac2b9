"""`headwise longcontext compress`: a context read once, its cut cache stored for many questions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ....base.account import opened
from ....base.errors import InputError
from ....data.text_files import is_text_file, read_text_file
from ....models.language.running.attach import attach
from ....models.language.running.cache_file import save_cache
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.runs.loaded import load_run
from ..caches import read_context
from ..coding import Coder
from ..data import base_of
from ..generation import full_bytes
from ..options import CompressOptions
from ..pipeline import LongContextPipeline
from ..planned import PlannedModel, planned


class Compressed(NamedTuple):
    """What was stored, or would be: by length in tokens, bytes of the full cache and of the cut
    one. output: the file, None of a dry run.
    """

    sizes: dict[int, tuple[int, int]]
    output: str | None = None


def compress(pipeline: LongContextPipeline, options: CompressOptions) -> Compressed:
    """Read the text of --input under the plan of a run and write the cache to --output; with
    --dry-run say how large caches of some lengths would be.

    Raises `InputError` for a text that is empty or longer than the model's positions, and for an
    output that exists.
    """
    if options.output is not None and Path(options.output).exists() and not options.overwrite:
        raise InputError(f"{options.output}: already exists; choose another or --overwrite")
    if options.input is not None and not is_text_file(options.input):
        raise InputError(f"--input {options.input}: must be a text file, .txt")
    loaded = load_run(pipeline, options.run, options.accelerator)
    model = planned(loaded.model)
    if options.dry_run:
        sizes = {length: _sizes(model, length) for length in options.dry_run}
        for length, (full, cut) in sizes.items():
            say(_line(length, full, cut))
        return Compressed(sizes)
    assert options.input is not None
    assert options.output is not None
    with opened(options.accept) as account:
        text = read_text_file(options.input)
        coder = Coder(base_of(loaded.spec).tokenizer)
        tokens = coder.code(text)
        _check(options, tokens, text, model)
        with attach(model.base, model.plan, beyond=options.beyond_positions) as attached:
            cache = read_context(model.base, attached, tokens, options.chunk)
            save_cache(cache, options.output)
        publish(account, Path(f"{options.output}.account.json"))
    full, cut = _sizes(model, len(tokens))[0], cache.bytes()
    say(_line(len(tokens), full, cut))
    say(f"cache {options.output}; ask it with predict --cache")
    return Compressed({len(tokens): (full, cut)}, options.output)


def _check(
    options: CompressOptions, tokens: tuple[int, ...], text: str, model: PlannedModel
) -> None:
    if not text.strip() or not tokens:
        raise InputError(f"{options.input}: the context is empty")
    if len(tokens) > model.facts.positions and not options.beyond_positions:
        raise InputError(
            f"{options.input}: {len(tokens):,} tokens are more than the {model.facts.positions:,} "
            "positions of the model; --beyond-positions goes on all the same"
        )


def _sizes(model: PlannedModel, length: int) -> tuple[int, int]:
    number = next(model.base.parameters())
    full = full_bytes(model.facts, length, number.element_size())
    return full, round(model.plan.kept(length) * full)


def _line(length: int, full: int, cut: int) -> str:
    return (
        f"{length:,} tokens: the cache holds {cut / 2**20:.2f} MiB of {full / 2**20:.2f} "
        f"({cut / full:.1%})"
    )
