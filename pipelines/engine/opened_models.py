"""Language models that runs stand beside: opened once, and known again by their checksum."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from ...base.account import note
from ...base.errors import InputError
from ...base.files import file_stamp
from ...models.language.generated import GENERATED, write_generated_model
from ...models.language.opening import SETTINGS, OpenedLanguageModel, open_language_folder
from .language_models import open_language_model
from .runs.limits import beside_the_run

DEFAULT = "smollm2-135m"


def is_sample(data: str | None, name: str) -> bool:
    """Whether the data is the built-in sample of a name, as a run holds it."""
    path = Path(data or "")
    return path.name == f"{name}.jsonl" and path.parent.name == "sample"


def model_of(model: str, *, generated: bool = False) -> str:
    """The language model that --model names. generated: whether auto is the tiny model with random
    weights, as it is for the built-in sample.
    """
    if model != "auto":
        return model
    if not generated:
        return DEFAULT
    note("assumed", "--model generated: a tiny model with random weights, since there is no --data")
    return GENERATED


def open_base(
    name: str, *, option: str = "--model", sha256: str | None = None, settings_sha256: str = ""
) -> OpenedLanguageModel:
    """The language model of a name or a folder; one that was opened before is not read again, so
    leave it as it is.

    sha256, settings_sha256: of the files that a run was made with, "" where an older run does not
    say it. Raises `InputError` for other ones, and for all that cannot be opened.
    """
    files = sorted(Path(name).iterdir()) if Path(name).is_dir() else []
    opened = _opened(name, option, tuple(map(file_stamp, files)))
    note("read", f"language model {name}; licence: {opened.licence}; sha256 {opened.sha256[:12]}")
    if sha256 is not None and opened.sha256 != sha256:
        raise InputError(
            f"{name}: is not the model that the run was made with: the sha256 of its files is "
            f"{opened.sha256[:12]}…, not {sha256[:12]}…"
        )
    if settings_sha256 not in ("", opened.settings_sha256):
        raise InputError(
            f"{name}: its chat template, special tokens or settings of generation are not those "
            f"that the run was made with; put back the files ({', '.join(SETTINGS)}) of that time"
        )
    return opened


@lru_cache(maxsize=1)  # one model at a time: a second one may not fit into memory
def _opened(
    name: str, option: str, _changed: tuple[tuple[int, ...] | None, ...]
) -> OpenedLanguageModel:
    with beside_the_run():
        opened = _open(name, option)
    opened.model.requires_grad_(False)
    return opened


def _open(name: str, option: str) -> OpenedLanguageModel:
    if name != GENERATED:
        return open_language_model(name, option=option)
    with tempfile.TemporaryDirectory() as folder:
        home = write_generated_model(Path(folder))
        return open_language_folder(home, name=GENERATED, licence="random weights")
