"""Walks over folders, and names of files: sorted, hidden ones left out, nothing outside."""

import os
from pathlib import Path

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.base.files import (
    distinct_names,
    place_below,
    refuse_link_out,
    similar_file,
    walk_folder,
)


def write_files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def test_a_walk_lists_the_files_of_a_kind_folder_by_folder(tmp_path: Path) -> None:
    home = write_files(
        tmp_path, "b.JPG", "a/2.jpg", "a-1.jpg", "a/1.jpg", "a/b/0.jpg", "a/1.txt", "z.jpg.gz"
    )
    assert walk_folder(home, (".jpg",)) == ["a/1.jpg", "a/2.jpg", "a/b/0.jpg", "a-1.jpg", "b.JPG"]
    assert walk_folder(home, (".txt", ".jpg.gz")) == ["a/1.txt", "z.jpg.gz"]


def test_a_shallow_walk_stays_in_its_folder(tmp_path: Path) -> None:
    home = write_files(tmp_path / "home", "b.jpg", "a.jpg", "below/c.jpg", "looks.jpg/d.jpg")
    (home / "elsewhere").symlink_to(tmp_path)
    assert walk_folder(home, (".jpg",), deep=False) == ["a.jpg", "b.jpg"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    home = write_files(tmp_path, ".a.jpg", ".cache/b.jpg", "c/.d/e.jpg", "f.jpg")
    assert walk_folder(home, (".jpg",)) == ["f.jpg"]


@pytest.mark.parametrize("target", ["../secret.jpg", "../secret", "../home-2/1.jpg"])
def test_links_that_lead_out_are_left_out_unless_accepted(tmp_path: Path, target: str) -> None:
    home = write_files(tmp_path / "home", "a/1.jpg")
    write_files(tmp_path, "secret.jpg", "secret/1.jpg", "home-2/1.jpg")
    name = "l.jpg" if target.endswith(".jpg") else "l"
    (home / name).symlink_to(tmp_path / "home" / target)
    with opened() as account:
        assert walk_folder(home, (".jpg",)) == ["a/1.jpg"]
    assert account.lines()[0].startswith("left out: 1 links ")
    with opened(["links"]) as account:
        assert walk_folder(home, (".jpg",)) == [
            "a/1.jpg",
            "l.jpg" if ".jpg" in target else "l/1.jpg",
        ]
    assert account.lines() == []


def test_followed_links_do_not_lead_in_circles(tmp_path: Path) -> None:
    home = write_files(tmp_path / "home", "1.jpg")
    write_files(tmp_path, "out/2.jpg")
    (home / "l").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "again").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(home)
    with opened(["links"]):
        assert walk_folder(home, (".jpg",)) == ["1.jpg", "l/2.jpg"]


def test_the_account_names_what_a_walk_leaves_out(tmp_path: Path) -> None:
    home = write_files(tmp_path, "a.jpg", "b.txt", "c/d.mp4", "c/.e.jpg")
    with opened() as account:
        walk_folder(home, (".jpg",))
        walk_folder(home, (".txt",), noted=False)
    assert account.lines() == [
        "left out: 2 files of other kinds (b.txt, c/d.mp4); 1 hidden names (c/.e.jpg)"
    ]


def test_folders_of_storage_devices_and_packers_are_left_out_and_named(tmp_path: Path) -> None:
    copies = (
        "@eaDir/a.jpg/THUMB.jpg",
        "c/lost+found/1.jpg",
        "__MACOSX/a.jpg",
        "c/.AppleDouble/x.jpg",
    )
    home = write_files(tmp_path, "a.jpg", "c/b.jpg", *copies)
    with opened() as account:
        assert walk_folder(home, (".jpg",)) == ["a.jpg", "c/b.jpg"]
    (line,) = account.lines()
    assert "3 folders of a storage device, file system or packer (@eaDir, __MACOSX, c/" in line
    assert walk_folder(home / "@eaDir", (".jpg",)) == ["a.jpg/THUMB.jpg"]


def test_links_within_the_folder_count_and_linked_folders_are_not_entered(tmp_path: Path) -> None:
    home = write_files(tmp_path, "a/1.jpg")
    (home / "a" / "2.jpg").symlink_to("1.jpg")
    (home / "a" / "gone.jpg").symlink_to("none.jpg")
    (home / "a" / "round").symlink_to(home)
    assert walk_folder(home, (".jpg",)) == ["a/1.jpg", "a/2.jpg", "a/gone.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_plain_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert walk_folder(tmp_path, (".jpg",)) == []


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: cannot be listed \(No such file or directory\)"):
        walk_folder(tmp_path / "gone", (".jpg",))


def test_a_missing_file_names_the_closest_one_next_to_it(tmp_path: Path) -> None:
    write_files(tmp_path, "ETTh1.csv", "notes.md")
    assert similar_file(tmp_path / "ETTh2.csv") == "; did you mean 'ETTh1.csv'?"
    assert similar_file(tmp_path / "zzz") == similar_file(tmp_path / "no" / "ETTh1.csv") == ""


def test_names_never_lead_out_of_their_folder() -> None:
    assert place_below(Path("out"), "/a/../../b/./c.png") == Path("out/a/b/c.png")


def test_no_two_items_share_a_name() -> None:
    names = ["a.jpg", "a.png", "b.jpg", "c.x", "c.x"]
    chosen = ["a.jpg.csv", "a.png.csv", "b.csv", "c.x.csv", "c.x-2.csv"]
    assert distinct_names(names, (".jpg", ".png"), ".csv") == chosen


def test_a_link_that_leads_out_is_refused_or_accepted_and_said(tmp_path: Path) -> None:
    home = write_files(tmp_path / "home", "1.jpg")
    write_files(tmp_path, "secret.jpg")
    (home / "in.jpg").symlink_to("1.jpg")
    (home / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    real = os.path.realpath(home)
    with opened() as account:
        refuse_link_out(home / "in.jpg", real)
        with pytest.raises(InputError, match=r"out.jpg: is a link that leads out .*--accept links"):
            refuse_link_out(home / "out.jpg", real)
    assert not account.entries()
    with opened(["links"]) as account:
        refuse_link_out(home / "out.jpg", real)
    (entry,) = account.entries()
    target = os.path.realpath(tmp_path / "secret.jpg")
    assert entry.topic == "accepted"
    assert f"out.jpg: is a link that leads out of its folder, to {target}" in entry.what
