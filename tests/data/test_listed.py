"""Folders of items with a table that lists some of them."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats.pictures import write_png
from headwise.data.listed import labels_table, note_whole_folder
from headwise.data.parts import without_other_parts
from headwise.data.persons.persons import read_picture_set
from headwise.data.scenes.scenes import read_rgbd_set
from headwise.data.xrays.records import Reading
from headwise.data.xrays.xrays import read_xray_set


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Four pictures, of which a table can list some."""
    for k in range(4):
        write_png(tmp_path / "img" / f"{k}.png", np.full((4, 4), 50 * k, np.uint8))
    return tmp_path


UNLISTED = "left out: 2 pictures that labels.csv does not list (img/2.png, img/3.png)"


def test_a_training_reads_what_the_table_of_its_folder_lists_and_names_the_rest(home) -> None:
    (home / "labels.csv").write_text("image,label\nimg/0.png,a\nimg/1.png,b\n")
    with opened() as account:
        assert read_xray_set(home).names == ["img/0.png", "img/1.png"]
    assert UNLISTED.replace("labels.csv does not list", "no table of the folder lists") in (
        account.lines()
    )
    (home / "labels.csv").write_text("image,identity\nimg/0.png,a\nimg/1.png,b\n")
    with opened() as account:
        assert read_picture_set(home).names == ["img/0.png", "img/1.png"]
    assert UNLISTED in account.lines()
    (home / "labels.csv").write_text("image,depth,mask\nimg/0.png,img/1.png,img/2.png\n")
    with opened() as account:
        assert read_rgbd_set(home).names == ["img/0.png"]
    assert "left out: 1 pictures that labels.csv does not list (img/3.png)" in account.lines()


def test_a_table_for_another_purpose_is_named_and_not_read(home) -> None:
    (home / "labels.csv").write_text("picture,day\nimg/0.png,monday\n")
    with opened() as account:
        assert set(read_picture_set(home).identities) == {"img"}
    assert "left out: labels.csv is not read: there is no column 'identity'; it has " in str(
        account.lines()
    )
    with pytest.raises(InputError, match="there is no column 'tag'"):  # the user means it
        read_picture_set(home, columns=("identity=tag",))


def test_the_count_is_of_what_is_used(home) -> None:
    rows = "img/0.png,a\nimg/0.png,a\nimg/1.png,b\nimg/1.png,b\nimg/2.png,\n"
    (home / "t.csv").write_text(f"image,label\n{rows}")
    with opened(["copies", "missing-labels"]) as account:
        assert len(read_xray_set(home / "t.csv")) == 2
    assert "read: 2 pictures" in account.lines()
    with opened() as account:
        assert len(read_xray_set(home / "t.csv", Reading(need_label=False))) == 3
    assert "read: 3 pictures" in account.lines()


def test_a_prediction_for_a_folder_says_that_its_table_is_not_read(home) -> None:
    assert labels_table(home) is None
    (home / "Labels.xlsx").write_bytes(b"x")
    assert labels_table(home) == home / "Labels.xlsx"
    (home / "labels.csv").write_text("image\n")
    with opened() as account:
        note_whole_folder(home, "pictures")
        note_whole_folder(home / "labels.csv", "pictures")
    assert account.lines() == [
        "assumed: all pictures of the folder are predicted; labels.csv, as --input, gives those "
        "that it lists"
    ]


def test_a_column_is_taken_as_parts_or_not_used_but_never_both(home) -> None:
    cells = {"fold": ["1", "2"], "set": ["train", "tset", "test"], "subset": ["a"], "image": []}
    with opened() as account:
        names = without_other_parts(list(cells), cells.__getitem__, chosen=["subset"])
    # A wrong word among those of parts is said when the parts are read.
    assert names == ["set", "subset", "image"]
    assert account.lines() == ["columns: 1 not used as parts, since they hold other words (fold)"]
    (home / "t.csv").write_text("image,label,set\nimg/0.png,a,train\nimg/1.png,b,tset\n")
    with pytest.raises(InputError, match="column 'set', row 2: 'tset' is none of train"):
        read_xray_set(home / "t.csv")
