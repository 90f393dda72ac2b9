"""Names of lists that are spelt otherwise than the files on the disk."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.base.spellings import Spellings
from headwise.data.formats.pictures import write_png
from headwise.data.persons.persons import read_picture_set
from headwise.data.scenes.scenes import read_rgbd_set
from headwise.data.xrays.xrays import read_xray_set

ACCENTS = unicodedata.normalize("NFC", "Müller é")
APART = unicodedata.normalize("NFD", ACCENTS)


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        (f"{ACCENTS}.png", f"{APART}.png"),
        (f"{APART}.png", f"{ACCENTS}.png"),
        ("d\\a.png", "d/a.png"),
        ("D/A.png", "d/a.PNG"),
        ("a.PNG", "a.png"),
        ("d/a", "d/a.png"),
        ("a.b", "a.b.png"),
    ],
)
def test_a_name_that_is_spelt_otherwise_is_found_by_every_task_and_said(
    tmp_path: Path, listed: str, on_disk: str
) -> None:
    write_png(tmp_path / on_disk, np.full((4, 4), 90, np.uint8))
    write_png(tmp_path / "z.png", np.full((4, 4), 9, np.uint8))
    table = tmp_path / "t.csv"
    for read, head, row in (
        (read_xray_set, "image,label", "{},a\nz.png,b"),
        (read_picture_set, "image,identity", "{},a\nz.png,b"),
        (read_rgbd_set, "image,depth,mask", "{0},{0},{0}\nz.png,z.png,z.png"),
    ):
        table.write_text(f"{head}\n{row.format(listed)}\n")
        with opened() as account:
            assert read(table).names == [on_disk, "z.png"]
        said = f"names of a list that are spelt otherwise than their files ({listed}: {on_disk})"
        # Pictures of X-rays are also looked for by their names without ending.
        assert said in str(account.lines()).replace("\\\\", "\\") or read is read_xray_set


def test_what_could_be_several_files_or_leads_out_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "A.png", "b.png", "b.jpg", "in/c.png", "d.txt"):
        (tmp_path / name).write_text("x")
    spellings = Spellings(tmp_path, (".png", ".jpg"))
    assert spellings.find("a.PNG") is None
    assert spellings.find("b") is None
    assert spellings.find("B.jpg") == "b.jpg"
    assert spellings.find("d") is None  # .txt is no ending that may be left out
    assert spellings.find("IN\\C") == "in/c.png"
    inside = Spellings(tmp_path / "in", (".png",))
    assert inside.find("../b.png") is inside.find(str(tmp_path / "b.png")) is None


def test_two_rows_that_mean_one_picture_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.full((4, 4), 90, np.uint8))
    write_png(tmp_path / "z.png", np.full((4, 4), 9, np.uint8))
    (tmp_path / "t.csv").write_text("image,label\na.png,x\nA.PNG,x\nz.png,y\n")
    with pytest.raises(InputError, match=r"'a\.png' is listed more than once"):
        read_xray_set(tmp_path / "t.csv")
