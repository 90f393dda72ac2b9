"""Whisper's published weights by name: of the hub's cache, fetched from the hub, or a line
that says how to get them.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...base.errors import InputError, reason
from ...data.catalogue import OFFLINE
from ...models.layers.encoders import hub_answers
from ..engine.command_line.terminal import say

SIZES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v1",
    "large-v2", "large-v3", "large-v3-turbo",
)  # fmt: skip
"""Names of the weights, in the order of their size; those with .en know English alone."""
FILES = ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json")
"""What a folder of weights needs, and the last one if there is one."""


def size_named(name: str) -> str | None:
    """Which of `SIZES` a name means, as "small", "whisper-small" or "openai/whisper-small"."""
    plain = name.removeprefix("openai/").removeprefix("whisper-")
    return plain if plain in SIZES else None


def find_published(size: str) -> Path:
    """The folder of published weights; they are fetched if the hub can be reached.

    Raises `InputError` where it cannot, with what to type on another machine.
    """
    repository = f"openai/whisper-{size}"
    if (cached := _cached(repository)) is not None:
        return cached
    if os.environ.get(OFFLINE):
        raise _not_here(size, f"{OFFLINE} forbids to fetch them")
    if not hub_answers():
        raise _not_here(size, "the hub cannot be reached")
    from huggingface_hub import snapshot_download

    say(f"fetching {repository}; licence: https://huggingface.co/{repository}")
    try:
        return Path(snapshot_download(repository, allow_patterns=list(FILES)))
    except Exception as error:  # of the hub's client, the network, or the disk
        raise _not_here(size, reason(error, 160)) from None


def _cached(repository: str) -> Path | None:
    """The folder of a repository whose files were all fetched before, without asking the hub."""
    from huggingface_hub import try_to_load_from_cache

    files = [try_to_load_from_cache(repository, file) for file in FILES[:3]]
    if not all(isinstance(file, str) for file in files):
        return None
    folders = {Path(str(file)).parent for file in files}
    return folders.pop() if len(folders) == 1 else None


def _not_here(size: str, why: str) -> InputError:
    folder = f"whisper-{size}"
    return InputError(
        f"--weights {size}: not on this machine, and {why}; on another one `hf download "
        f"openai/{folder} {' '.join(FILES)} --local-dir {folder}`, copy the folder, and name it: "
        f"--weights {folder}/"
    )
