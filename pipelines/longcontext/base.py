"""The language model that a plan is for: opened once, and known again by its checksum."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from ...base.account import note
from ...base.errors import InputError
from ...base.files import file_stamp
from ...data.prompts.sample import SAMPLE
from ...models.language.generated import GENERATED, write_generated_model
from ...models.language.opening import OpenedLanguageModel, open_language_folder
from ..engine.language_models import open_language_model
from ..engine.runs.limits import beside_the_run
from .options import LongContextOptions

DEFAULT = "smollm2-135m"


def is_sample(data: str | None) -> bool:
    """Whether the data is the built-in sample, as a run holds it."""
    path = Path(data or "")
    return path.name == f"{SAMPLE}.jsonl" and path.parent.name == "sample"


def model_of(options: LongContextOptions) -> str:
    """The model that the options name."""
    if options.model != "auto":
        return options.model
    if not is_sample(options.data):
        return DEFAULT
    note("assumed", "--model generated: a tiny model with random weights, since there is no --data")
    return GENERATED


def open_base(
    name: str, *, option: str = "--model", sha256: str | None = None
) -> OpenedLanguageModel:
    """The language model of a name or a folder; one that was opened before is not read again.

    sha256: of the weights that a run was made with. Raises `InputError` for other ones, and for all
    that cannot be opened.
    """
    weights = Path(name) / "model.safetensors"
    opened = _opened(name, option, file_stamp(weights) if weights.is_file() else None)
    note("read", f"language model {name}; licence: {opened.licence}; sha256 {opened.sha256[:12]}")
    if sha256 is not None and opened.sha256 != sha256:
        raise InputError(
            f"{name}: is not the model that the run was made with: the sha256 of its weights is "
            f"{opened.sha256[:12]}…, not {sha256[:12]}…; a plan holds for one model"
        )
    return opened


@lru_cache(maxsize=1)  # one model at a time: a second one may not fit into memory
def _opened(name: str, option: str, _changed: tuple[int, ...] | None) -> OpenedLanguageModel:
    with beside_the_run():
        return _open(name, option)


def _open(name: str, option: str) -> OpenedLanguageModel:
    if name == GENERATED:
        with tempfile.TemporaryDirectory() as folder:
            home = write_generated_model(Path(folder))
            return open_language_folder(home, name=GENERATED, licence="random weights")
    return open_language_model(name, option=option)
