"""`headwise data list` and `headwise data get` of the corpora of texts, from tiny files."""

from pathlib import Path

import polars as pl
import pytest

from headwise.data.catalogue import CORPORA
from headwise.pipelines.engine.command_line import main
from headwise.tests import debian_files as tiny


def call(words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_list_names_the_corpora_with_their_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data list") == 0
    printed = capsys.readouterr().out
    assert all(entry.name in printed and entry.licence in printed for entry in CORPORA)
    assert "checked by: apt, by the signature of the archive" in printed


@pytest.mark.parametrize("option", ["--from ", "--from=", "--from-files "])
def test_get_prints_the_table_alone_and_says_the_rest_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    names = tiny.write_archive(tmp_path)
    files = " ".join(map(str, names))
    if option.endswith("="):  # takes one file
        text = "\n".join(name.read_text() for name in names if "en" in name.name)
        blocks = names[2].read_text() + "\n" + text
        names[2].write_text(blocks)
        files = str(names[2])
    assert call(f"data get debian-tags --languages en {option}{files}") == 0
    printed = capsys.readouterr()
    path = tmp_path / "cache" / "debian-tags" / "debian-tags.parquet"
    assert printed.out == f"{path}\n"
    assert pl.read_parquet(path)["id"].to_list() == ["loom", "loom-doc", "yarn"]
    assert "GPL-2" in printed.err
    assert "3 packages with tags" in printed.err
    assert ("Codename: nowhere" in printed.err) == (not option.endswith("="))
    assert call("data get Debian-Tags --languages en,en") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{path}\n"
    assert "is kept as it is" in printed.err


def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "Packages").write_text("a,b\x1b[2K\n")
    assert call(f"data get debian-adoption --from {tmp_path / 'Packages'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("headwise: ")
    assert "is no field" in error
    assert "\x1b" not in error
    assert not (tmp_path / "cache").exists()
