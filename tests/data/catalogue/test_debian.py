"""Corpora of a Debian archive, from tiny files of packages that do not exist; no network."""

import gzip
import json
import lzma
import math
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.catalogue import CORPORA, OFFLINE, Corpus, find_dataset, get_dataset
from headwise.data.catalogue.corpora import apt, index_files
from headwise.data.catalogue.corpora.archive import (
    Archive,
    part_of,
    plain_text,
    read_archive,
    tag_meanings,
)
from headwise.data.catalogue.corpora.building import get_corpus
from headwise.data.catalogue.corpora.debian import adoption_table, tag_tables
from headwise.data.texts.table import TextReading, read_text_data
from headwise.tests import debian_files as tiny


def corpus(name: str) -> Corpus:
    entry = find_dataset(name)
    assert isinstance(entry, Corpus)
    return entry


def read(folder: Path) -> Archive:
    return read_archive(tiny.write_archive(folder), progress=False)


def test_the_archive_is_read_in_any_order_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    archive = read(tmp_path)
    assert [package.name for package in archive.packages] == [
        "loom",
        "loom-doc",
        "libthread1",
        "yarn",
        "b-shell",
    ]
    loom, doc, _, yarn, _ = archive.packages
    assert loom.tags == ("role::program", "use::weaving")
    assert doc.source == "loom"
    assert loom.relations["Depends"] == (("libthread1",), ("a-shell", "b-shell"))
    assert (loom.installed_size, loom.download_size) == (120, 4096)
    assert yarn.tags == ("use::weaving",)  # of the later version
    assert yarn.installed_size is None
    assert archive.left_out == {
        "older versions of packages": 1,
        "tags still to be chosen (TODO)": 3,
    }
    assert archive.release["Codename"] == "nowhere"
    assert archive.release["Version"] == "99.1"  # not that of the signature


def test_a_description_keeps_its_lists_and_joins_its_lines() -> None:
    text = plain_text(tiny.ENGLISH["loom"])
    assert text == "weaves cloth\nThe loom weaves what it is given.\n* warp\n* weft\nSlowly."
    assert plain_text("a shell") == "a shell"


def test_tags_are_a_row_for_each_package_and_language(tmp_path: Path) -> None:
    built = tag_tables(read(tmp_path), ["en", "it"])
    table = built.tables["debian-tags.parquet"]
    assert list(zip(table["id"], table["language"])) == [
        ("loom", "en"),
        ("loom", "it"),
        ("loom-doc", "en"),
        ("yarn", "en"),
    ]
    assert table["labels"].to_list()[0] == ["role::program", "use::weaving"]
    assert table["group"].to_list() == ["loom", "loom", "loom", "yarn"]
    assert table["text"][1] == "tesse stoffa\nIl telaio tesse."
    first = table.row(0, named=True)
    assert (first["dependencies"], first["recommends"], first["suggests"]) == (2, 1, 1)
    assert (first["installed_size"], first["download_size"]) == (120, 4096)
    assert table["installed_size"][3] is None
    assert built.counts["packages with tags"] == 3
    assert built.counts["labels"] == 3
    assert built.counts["texts in it with tags"] == 1
    assert built.counts["labels of one package a source"] == 0
    assert list(built.tables) == ["debian-tags.parquet"]  # no label has 50 texts


def test_one_package_a_source_is_the_one_with_most_tags_and_has_the_frequent_labels(
    tmp_path: Path,
) -> None:
    blocks, english = [], {}
    for number in range(120):
        source, further = f"s{number}", ", use::some" if number < 60 else ""
        blocks += [
            {"Package": f"{source}-a", "Source": source, "Tag": "role::program"},
            {
                "Package": f"{source}-b",
                "Source": source,
                "Tag": f"role::program, use::u{number}{further}",
            },
            {"Package": f"{source}-c", "Source": source, "Tag": "role::data, use::rare"},
        ]
        english |= {f"{source}-{end}": f"text {number}" for end in "abc"}
    blocks.append({"Package": "z", "Tag": "use::rare"})
    (tmp_path / "P").write_text(tiny.packages_text(blocks))
    (tmp_path / "T").write_text(tiny.translation_text("en", {**english, "z": "last"}))
    italian = {"s0-b": "testo", "s1-a": "altro"}
    (tmp_path / "I").write_text(tiny.translation_text("it", italian))
    archive = read_archive([tmp_path / name for name in "PTI"], progress=False)
    tables = tag_tables(archive, ["en", "it"]).tables
    single = tables["one-a-source-en.parquet"]
    assert single["id"].to_list() == [f"s{number}-b" for number in range(120)]
    assert sum(part_of(f"s{number}") == "train" for number in range(60)) < 50
    assert set(single["labels"].explode()) == {"role::program"}
    assert single["part"].to_list() == [part_of(f"s{number}") for number in range(120)]
    assert 50 <= single.filter(part="train").height < 110
    translated = tables["one-a-source-it.parquet"]
    assert translated["id"].to_list() == ["s0-b"]  # the same packages in all languages
    test = translated.filter(part="test")
    assert tables["one-a-source-it-test.parquet"].equals(test)
    assert tables["one-a-source-en-test.parquet"].equals(single.filter(part="test"))
    assert tables["debian-tags.parquet"].height == 361 + 2


def test_a_group_has_the_same_part_on_all_machines() -> None:
    names = [f"source-{number}" for number in range(4000)]
    parts = [part_of(name) for name in names]
    shares = [parts.count(part) / 4000 for part in ("train", "validation", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    assert [part_of(name) for name in ("bash", "0ad", "7zip")] == [
        reference_part(name) for name in ("bash", "0ad", "7zip")
    ]


def reference_part(name: str) -> str:
    """By the last digits of the checksum, in the shell: echo -n NAME | sha256sum."""
    import hashlib

    number = 0
    for digit in hashlib.sha256(name.encode()).hexdigest():
        number = (number * 16 + int(digit, 16)) % 100
    return "train" if number < 70 else "validation" if number < 80 else "test"


def test_adoption_counts_the_other_sources_that_name_a_package(tmp_path: Path) -> None:
    table = adoption_table(read(tmp_path)).tables["debian-adoption.parquet"]
    users = dict(zip(table["id"], np.expm1(table["target"].to_numpy()).round().tolist()))
    # loom: by thread (its manual). thread: by loom and yarn. yarn, shells: by loom alone.
    assert users == {"loom": 1, "thread": 2, "yarn": 1, "shells": 1}
    assert table["target"][1] == pytest.approx(math.log(3))
    loom = table.row(0, named=True)
    assert loom["text"].startswith("weaves cloth\nThe loom")  # the package of the source's name
    assert (loom["packages"], loom["dependencies"], loom["installed_size"]) == (2, 2, 120)
    assert table.filter(id="thread")["section"].item() == "libs"
    assert table["id"].n_unique() == table.height


def test_a_corpus_is_a_table_that_the_reader_of_texts_understands(tmp_path: Path) -> None:
    files = tiny.write_archive(tmp_path)
    said: list[str] = []
    path = get_corpus(
        corpus("debian-tags"),
        files=files,
        languages=["en", "it"],
        folder=tmp_path / "cache",
        progress=False,
        say=said.append,
    )
    table = read_text_data(path, TextReading(table=("section", "installed_size")))
    assert table.groups == ["loom", "loom", "loom", "yarn"]
    assert table.languages == ["en", "it", "en", "en"]
    assert table.parts == [part_of(group) for group in table.groups]
    assert table.labels is not None
    assert table.labels.goal == "labels"
    assert table.labels.names[0] == ("role::program", "use::weaving")
    assert table.table.columns == ["section", "installed_size"]
    facts = json.loads((path.parent / "SOURCE.json").read_text())
    assert facts["archive"]["Date"] == "Sat, 01 Jan 2028 00:00:00 UTC"
    assert facts["licence"] == corpus("debian-tags").licence
    assert facts["tables"] == {"debian-tags.parquet": 4}
    assert facts["counts"]["left out: older versions of packages"] == 1
    assert any("label_descriptions.csv: files were named by hand" in line for line in said)
    target = get_corpus(
        corpus("debian-adoption"), files=files, folder=tmp_path / "cache", progress=False
    )
    assert read_text_data(target, TextReading()).columns["label"] == "target"


def test_what_is_there_stays_until_another_language_or_file_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tiny.write_archive(tmp_path)
    entry, home = corpus("debian-tags"), tmp_path / "cache"
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(InputError, match=r"debian-tags: is not in .*HEADWISE_OFFLINE.*--from"):
        get_corpus(entry, folder=home)
    path = get_corpus(entry, files=files, languages=["en", "it"], folder=home, progress=False)
    before = path.read_bytes()
    path.write_bytes(b"marked")
    assert get_dataset("debian-tags", folder=home) == path
    assert get_corpus(entry, languages=["it"], folder=home).read_bytes() == b"marked"
    with pytest.raises(InputError, match="HEADWISE_OFFLINE"):
        get_corpus(entry, languages=["fr"], folder=home)
    get_corpus(entry, files=files, languages=["en", "it"], folder=home, progress=False)
    assert path.read_bytes() == before
    (path.parent / "SOURCE.json").unlink()  # as after a kill
    with pytest.raises(InputError, match="HEADWISE_OFFLINE"):
        get_corpus(entry, folder=home)


def test_a_folder_of_the_user_is_not_written_into(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "debian-tags"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not ours"):
        get_corpus(
            corpus("debian-tags"), files=tiny.write_archive(tmp_path), folder=tmp_path / "cache"
        )
    assert [file.name for file in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_packed_files_are_read_and_cut_ones_refused(tmp_path: Path, ending: str) -> None:
    pack = gzip.compress if ending == ".gz" else lzma.compress
    content = tiny.packages_text(tiny.BLOCKS * 50).encode()
    path = tmp_path / f"Packages{ending}"
    path.write_bytes(pack(content[:700]) + pack(content[700:]))  # in two pieces
    plain = tmp_path / "Packages"
    plain.write_bytes(content)
    assert read_archive([path], progress=False) == read_archive([plain], progress=False)
    path.write_bytes(pack(content)[:-20])
    with pytest.raises(InputError, match=rf"Packages{ending}: is damaged, cut") as caught:
        read_archive([path], progress=False)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"no such thing" * 9)
    with pytest.raises(InputError, match="is damaged, cut"):
        read_archive([path], progress=False)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_a_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(index_files, "TOTAL_CAP", 4 << 20)
    pack = gzip.compress if ending == ".gz" else lzma.compress
    path = tmp_path / f"Packages{ending}"
    path.write_bytes(pack(b"Package: a\nX: %s\n\n" % (b"x" * 10_000) * 500))
    with pytest.raises(InputError, match="unpacks to more than 4 MiB"):
        read_archive([path], progress=False)


def test_xz_may_not_ask_for_any_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Packages.xz"
    path.write_bytes(lzma.compress(tiny.packages_text(tiny.BLOCKS).encode()))
    assert read_archive([path], progress=False).packages
    monkeypatch.setattr(index_files, "MEMORY_CAP", 1 << 20)  # the file asks for eight times that
    with pytest.raises(InputError, match="is damaged, cut"):
        read_archive([path], progress=False)


BAD: dict[str, tuple[bytes, str]] = {
    "one endless line": (b"Package: a" * (1 << 18), r"a line of more than 1,048,576 bytes"),
    "an endless paragraph": (b"Package: a\n" * (1 << 18), r"a paragraph of more than 1,048,576"),
    "no index file": (b"a,b,c\n1,2,3\n", r"line 1: 'a,b,c' is no field"),
    "not UTF-8": (b"Package: \xff\xfe\n", r"before line 1: is not UTF-8"),
    "no name": (b"Section: utils\nDescription-md5: 1\n", r"paragraph 1 has no Package"),
    "nothing": (b"", r"holds no packages; name the Packages file"),
    "a translation alone": (b"Package: a\nDescription-md5: 1\nDescription-en: b\n", "no packages"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_index_file_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "Packages"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_archive([path], progress=False)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_is_of_another_kind_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="nothing: is damaged, cut or cannot be read"):
        read_archive([tmp_path / "nothing"], progress=False)
    (tmp_path / "InRelease").write_text("<html>")
    with pytest.raises(InputError, match="InRelease: holds none of the fields 'Origin'"):
        read_archive([tmp_path / "InRelease"], progress=False)
    (tmp_path / "Packages.lz4").write_bytes(b"")
    monkeypatch.setattr(index_files, "APT_HELPER", str(tmp_path / "no-helper"))
    with pytest.raises(InputError, match="lz4 needs apt; unpack it first"):
        read_archive([tmp_path / "Packages.lz4"], progress=False)
    archive = read(tmp_path)
    with pytest.raises(InputError, match="language 'ja' describes no package"):
        tag_tables(archive, ["en", "ja"])
    with pytest.raises(InputError, match="no text in English"):
        adoption_table(Archive(archive.packages, {}))
    with pytest.raises(InputError, match="no package has tags"):
        tag_tables(Archive(archive.packages[2:3], archive.texts), ["en"])
    for language in ("../en", "EN", "-o", "en;rm"):
        with pytest.raises(InputError, match="is no language"):
            get_corpus(corpus("debian-tags"), languages=[language], folder=tmp_path)
    with pytest.raises(InputError, match="leave out --languages"):
        get_corpus(corpus("debian-adoption"), languages=["it"], folder=tmp_path)


def test_the_vocabulary_says_what_tags_mean(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary"
    path.write_text(
        "Facet: use\nStatus: draft\nDescription: Purpose\n What for.\n\n"
        "Tag: use::weaving\nDescription: Weaving\n Makes cloth\n of threads.\n\nTag: odd::x\n"
    )
    assert tag_meanings(path) == {
        "use::weaving": "Purpose. Weaving. Makes cloth of threads.",
        "odd::x": "",
    }


FakeApt = Callable[[str], None]


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApt:
    """Puts a script in the place of apt-get; no other program is on the path."""

    def put(script: str) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("sh", "cp", "cat", "basename"):
            os.symlink(str(shutil.which(name)), programs / name)
        path = programs / "apt-get"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.delenv(OFFLINE, raising=False)

    return put


def test_apt_is_asked_for_the_main_part_of_debian_alone(tmp_path: Path, fake_apt: FakeApt) -> None:
    here, lists = tmp_path / "archive", tmp_path / "lists"
    here.mkdir()
    lists.mkdir()
    tiny.write_archive(here)
    small = lists / "updates_Packages"
    small.write_text("Package: later\n")
    foreign = lists / "foreign_Packages"
    foreign.write_text("Package: foreign\n" * 99)
    names = {
        "Packages": "main/binary-amd64/Packages",
        "Translation-en": "main/i18n/Translation-en",
        "Translation-it": "main/i18n/Translation-it",
    }
    rows = [f"Packages|Debian|new-updates|main|main/binary-amd64/Packages|{small}"]
    rows += [f"Packages|Other|new|main|main/binary-amd64/Packages|{foreign}"]
    for name, key in names.items():
        target = lists / f"host_dists_new_{key.replace('/', '_')}"
        shutil.copy(here / name, target)
        kind = "Packages" if name == "Packages" else "Translations"
        rows.append(f"{kind}|Debian|new|main|{key}|{target}")
    rows.append(f"Packages|Debian|new|contrib|contrib/binary-amd64/Packages|{foreign}")
    shutil.copy(here / "InRelease", lists / "host_dists_new_InRelease")
    (tmp_path / "targets").write_text("\n".join(rows) + "\n")
    fake_apt(f'case "$*" in *indextargets*) cat {tmp_path}/targets;; esac')
    said: list[str] = []
    path = get_corpus(
        corpus("debian-tags"), languages=["en", "it"], folder=tmp_path / "c", say=said.append
    )
    assert pl.read_parquet(path).height == 4
    facts = json.loads((path.parent / "SOURCE.json").read_text())
    assert facts["archive"]["Codename"] == "nowhere"
    assert facts["languages"] == ["en", "it"]
    calls = (tmp_path / "calls").read_text()
    assert "Acquire::Languages=en,it -qq update" in calls
    assert "without label_descriptions.csv: dpkg-deb: there is none" in "\n".join(said)


def test_without_apt_or_a_network_a_line_says_what_to_do(
    tmp_path: Path, fake_apt: FakeApt, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_apt("echo 'W: odd' >&2; echo 'E: Temporary failure resolving' >&2; exit 100")
    entry = corpus("debian-adoption")
    with pytest.raises(InputError, match=r"Temporary failure resolving; .*--from Packages") as no:
        get_corpus(entry, folder=tmp_path / "c")
    assert "\n" not in str(no.value)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"apt-get: there is none .*--from Packages"):
        get_corpus(entry, folder=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_call_of_apt_that_hangs_is_ended(
    tmp_path: Path, fake_apt: FakeApt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "PATIENCE", 0.2)
    sleep = shutil.which("sleep")
    fake_apt(f"exec {sleep} 20")
    with pytest.raises(InputError, match=r"apt-get update: .*timed out.*--from"):
        get_corpus(corpus("debian-adoption"), folder=tmp_path / "c")


def test_all_corpora_have_a_licence_and_say_what_is_checked() -> None:
    assert [entry.name for entry in CORPORA] == [
        "debian-tags",
        "debian-adoption",
        "sentiment-sources",
    ]
    checks = [entry.checked_by for entry in CORPORA]
    assert checks[0] == checks[1] == "apt, by the signature of the archive"
    assert checks[2] == "sha256 of bytes we have read"
    assert all(entry.licence and entry.citation for entry in CORPORA)
