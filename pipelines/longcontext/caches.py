"""Contexts that were read once: their cut caches as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...base.errors import InputError
from ...models.language.running.attach import attach
from ...models.language.running.cache_file import load_cache
from ..engine.command_line.terminal import Progressbar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...models.language.running.attach import Attached
    from ...models.language.running.cache import PlanCache
    from .planned import PlannedModel


def read_context(
    model: PreTrainedModel, attached: Attached, tokens: tuple[int, ...], chunk: int
) -> PlanCache:
    """The cache of a context, which is read in pieces: memory holds the attention of a piece."""
    cache = attached.cache()
    ids = torch.tensor([tokens], device=model.device)
    with torch.no_grad(), Progressbar(total=len(tokens), unit="token", desc="reads") as bar:
        for piece in ids.split(chunk, 1):
            model(input_ids=piece, cache=cache, use_cache=True, logits_to_keep=1)
            bar.update(piece.shape[1])
    return cache


def check_cache(path: str, model: PlannedModel) -> None:
    """Raise `InputError` for a file that is missing, damaged, no cache, or of another plan or
    model: all prompts would fail with it.
    """
    if not Path(path).is_file():
        raise InputError(f"--cache {path}: there is no such file; compress writes it")
    with attach(model.base, model.plan) as attached:
        open_cache(path, attached)


def open_cache(path: str, attached: Attached) -> PlanCache:
    """The cache of a file. Raises `InputError` for one of another plan or model."""
    try:
        return load_cache(path, attached)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"--cache {error}") from None
