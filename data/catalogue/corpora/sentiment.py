"""Sentences of four sources with the ratings of many people, out of the source package of VADER."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from ....base.errors import InputError, fail, reason, shown
from .archive import part_of
from .debian import Built, parts_of

SOURCES: Mapping[str, str] = {
    "products": "amazonReviewSnippets",
    "films": "movieReviewSnippets",
    "editorials": "nytEditorialSnippets",
    "tweets": "tweets",
}
"""Our names of the sources, and what their files begin with."""
INNER = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
FOLDER = "hutto_ICWSM_2014/"
LEXICON = f"{FOLDER}vader_sentiment_lexicon.txt"
OUTER_CAP = 16 << 20  # bytes of the archive in the package, and of a file in it
UNPACKED_CAP = 64 << 20  # bytes of the inner archive
RATINGS_CAP = 10_000  # of a sentence
_BROKEN = (zipfile.BadZipFile, tarfile.TarError)
_SOFTEN = 15.0  # of the sum of valences, as VADER has it
_WORD_ENDS = re.compile(r"^\W+|\W+$")


def sentiment_tables(package: Path) -> Built:
    """The sentences of all sources, a row each.

    rating: the published mean; ratings: those of each person; rater_sd: their standard deviation;
    group: the document, where there is one, else the sentence; lexicon: the sum s of the valences
    of its words in VADER's lexicon as s / sqrt(s^2 + 15), without VADER's rules (negation,
    capitals, ...).

    Raises InputError for a package that is damaged, lacks a file or unpacks to too much.
    """
    files = _read_members(package)
    valences = dict(_valences(package, files[LEXICON]))
    rows, differing = [], 0
    for source, name in SOURCES.items():
        truth, raters = (f"{FOLDER}{name}_{end}.txt" for end in ("GroundTruth", "anonDataRatings"))
        ratings = {cells[0]: cells for cells in _cells(package, raters, files[raters], 4)}
        for number, mean, text in _cells(package, truth, files[truth], 3):
            if number not in ratings:
                raise fail(f"{package}: {raters}", f"lacks the ratings of {shown(number)}")
            _, _, deviation, listed = ratings[number]
            single = _ratings(f"{package}: {raters}: {number}", listed)
            rating, rater_sd = _values(f"{package}: {truth}: {number}", mean, deviation)
            differing += abs(rating - sum(single) / len(single)) > 1e-3
            rows.append(
                {
                    "id": f"{source}-{number}",
                    "text": text.strip(),
                    "source": source,
                    "rating": rating,
                    "rater_sd": rater_sd,
                    "raters": len(single),
                    "ratings": single,
                    "group": f"{source}-{number.partition('_')[0]}",
                    "part": part_of(f"{source}-{number.partition('_')[0]}"),
                    "lexicon": _lexicon_score(text, valences),
                }
            )
    table = pl.DataFrame(rows, schema_overrides={"ratings": pl.List(pl.Int64)})
    counts = {"sentences": table.height}
    for source in SOURCES:
        chosen = table.filter(source=source)
        counts[f"sentences of {source}"] = chosen.height
        counts[f"groups of {source}"] = chosen["group"].n_unique()
    counts.update(parts_of(table))
    counts["published means that are not those of the ratings"] = differing
    return Built({"sentiment-sources.parquet": table}, counts)


def _read_members(package: Path) -> dict[str, bytes]:
    """The files of the inner archive that are used. Nothing is written to disk, so no path in an
    archive is followed; links and what is no plain file are passed over.
    """
    wanted = {LEXICON}
    for name in SOURCES.values():
        wanted |= {f"{FOLDER}{name}_{end}.txt" for end in ("GroundTruth", "anonDataRatings")}
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(package) as opened:
            if opened.getinfo(INNER).file_size > OUTER_CAP:
                raise fail(package, f"{INNER} is larger than {OUTER_CAP >> 20} MiB")
            packed = opened.read(INNER)
        unpacked = _inflated(package, packed)
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as inner:
            for member in inner:
                content = inner.extractfile(member) if member.isreg() else None
                if member.name in wanted and content is not None:
                    files[member.name] = _limited(package, member, content)
    except InputError:
        raise
    except KeyError as error:
        raise fail(package, f"lacks {INNER}; it is not vaderSentiment 0.5") from error
    except (OSError, EOFError, RuntimeError, zlib.error, *_BROKEN) as error:
        raise fail(package, f"is damaged or cannot be read ({reason(error)})") from error
    if missing := sorted(wanted - set(files)):
        raise fail(package, f"its archive lacks {', '.join(missing)}")
    return files


def _inflated(package: Path, packed: bytes) -> bytes:
    """The bytes of a gzip file of at most `UNPACKED_CAP`."""
    unpacker = zlib.decompressobj(wbits=31)
    content = unpacker.decompress(packed, UNPACKED_CAP)
    if unpacker.unconsumed_tail:
        raise fail(package, f"{INNER} unpacks to more than {UNPACKED_CAP >> 20} MiB")
    if not unpacker.eof:
        raise EOFError("the end is missing")
    return content


def _limited(package: Path, member: tarfile.TarInfo, content: IO[bytes]) -> bytes:
    if member.size > OUTER_CAP:
        raise fail(package, f"{member.name} is larger than {OUTER_CAP >> 20} MiB")
    return content.read(OUTER_CAP)


def _cells(
    package: Path, name: str, content: bytes, width: int, encoding: str = "utf-8-sig"
) -> Iterator[list[str]]:
    """The cells of a file of lines with tabs between them."""
    try:
        lines = content.decode(encoding).replace("\r", "").split("\n")
    except UnicodeDecodeError as error:
        raise fail(f"{package}: {name}", "is not UTF-8") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells = line.split("\t", width - 1)
            if len(cells) != width:
                problem = f"has {len(cells)} cells, not {width}"
                raise fail(f"{package}: {name}, line {number}", problem)
            yield cells


def _ratings(where: str, text: str) -> list[int]:
    """Whole numbers in brackets: "[1, -2]"."""
    try:
        values: object = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, list) and 0 < len(values) <= RATINGS_CAP:
        whole = [value for value in values if type(value) is int and abs(value) <= 4]
        if len(whole) == len(values):
            return whole
    raise fail(where, f"{shown(text)} are no ratings from -4 to 4")


def _values(where: str, *texts: str) -> list[float]:
    try:
        values = [float(text) for text in texts]
    except ValueError as error:
        raise fail(where, f"holds what is no number ({reason(error)})") from error
    if not np.isfinite(values).all():
        raise fail(where, "holds a number that is not finite")
    return values


def _valences(package: Path, content: bytes) -> Iterator[tuple[str, float]]:
    for word, valence, *_ in _cells(package, LEXICON, content, 3, "latin-1"):
        yield word, _values(f"{package}: {LEXICON}: {shown(word)}", valence)[0]


def _lexicon_score(text: str, valences: Mapping[str, float]) -> float:
    total = 0.0
    for word in text.split():
        # As it is for the sake of smileys, then without what stands around a word.
        spellings = (word, word.lower(), _WORD_ENDS.sub("", word.lower()))
        total += next((valences[key] for key in spellings if key in valences), 0.0)
    return total / float(np.sqrt(total * total + _SOFTEN))
