"""Language models that tasks build on: opened once, and known again by their checksum."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from ...base.errors import InputError
from ...base.files import file_stamp
from ...models.language.generated import GENERATED, write_generated_model
from ...models.language.opening import OpenedLanguageModel, open_language_model
from .runs.limits import of_other_files


def open_base(
    name: str, *, option: str = "--model", sha256: str | None = None
) -> OpenedLanguageModel:
    """The language model of a name or a folder; one that was opened before is not read again, so
    leave it as it is.

    sha256: of the weights that a run was made with. Raises `InputError` for other ones, and for all
    that cannot be opened.
    """
    weights = Path(name) / "model.safetensors"
    opened = _opened(name, option, file_stamp(weights) if weights.is_file() else None)
    if sha256 is not None and opened.sha256 != sha256:
        raise InputError(
            f"{name}: is not the model that the run was made with: the sha256 of its weights is "
            f"{opened.sha256[:12]}…, not {sha256[:12]}…"
        )
    return opened


@lru_cache(maxsize=1)  # one model at a time: a second one may not fit into memory
def _opened(name: str, option: str, _changed: tuple[int, ...] | None) -> OpenedLanguageModel:
    with of_other_files():
        if name == GENERATED:
            with tempfile.TemporaryDirectory() as folder:
                model = write_generated_model(Path(folder))
                opened = open_language_model(str(model), option=option)
        else:
            try:
                opened = open_language_model(name, option=option)
            except InputError:
                raise
            except ValueError as error:
                raise InputError(str(error)) from None
    opened.model.requires_grad_(False)
    return opened
