"""What the account states of tables of boxes and of folders of pictures."""

from pathlib import Path

import pytest

from headwise.base.account import opened
from headwise.data.persons.boxes import read_boxes
from headwise.data.persons.persons import read_picture_set
from headwise.tests.statements import statements

from .sets import fill, folders, market

SHARES = "boxes are shares of the frame, since no number is above 1"


@pytest.mark.parametrize(
    ("text", "centre", "expected"),
    [
        (
            "Image,left,y,width,height,note,who\n1,2,3,10,20,a,b\n2,0,0.5,4,4,a,b\n",
            False,
            {
                ("read", "boxes"): (2, []),
                ("columns", "'Image' is taken as the frame"): (0, []),
                ("columns", "'left' is taken as the x"): (0, []),
                ("columns", "not used"): (2, ["note", "who"]),
            },
        ),
        (
            "frame,x,y,width,height\n1,20,30,10,20\n",
            True,
            {("read", "boxes"): (1, []), ("assumed", "x and y are the middle of a box"): (0, [])},
        ),
        (
            "frame,x,y,width,height\n1,0.5,0.5,0.1,0.2\n",
            False,
            {
                ("read", "boxes"): (1, []),
                (
                    "assumed",
                    f"{SHARES}; x and y are the upper left corner (--centre: the middle)",
                ): (0, []),
            },
        ),
        (
            "frame,x,y,width,height\n1,0.5,0.5,1,1\n",
            True,
            {("read", "boxes"): (1, []), ("assumed", f"{SHARES}; x and y are the middle"): (0, [])},
        ),
    ],
)
def test_boxes_with_named_columns(tmp_path: Path, text: str, centre: bool, expected: dict) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with opened() as account:
        read_boxes(tmp_path / "boxes.csv", centre=centre)
    assert statements(account) == expected


def test_boxes_of_motchallenge(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("1,3,11,21,30,60,1,1,0.9\n1,-1,1,1,5,5,0,3,1\n2,4,7,7,9,9,1,7,0.5\n")
    with opened() as account:
        read_boxes(path)
    stated = statements(account)
    assert stated["read", "boxes"] == (3, [])
    assert ("assumed", f"{path} is of MOTChallenge: pixels are counted from 1") in stated


def test_a_layout_that_was_recognised(tmp_path: Path) -> None:
    home = market(tmp_path)
    with opened() as account:
        read_picture_set(home)
    stated = statements(account)
    nobody = "pictures of nobody in the query, which count against a search"
    junk = "pictures of identity -1, which count neither for nor against a search"
    assert stated["assumed", "layout market1501 (--layout)"] == (0, [])
    assert stated["read", "pictures"] == (6, [])
    assert stated["read", "identities"] == (3, [])
    assert stated["items", nobody] == (1, [])
    assert stated["items", junk] == (1, [])
    with opened() as account:
        read_picture_set(home, "market1501")
    assert not statements(account, "assumed")


def test_folders_that_are_called_like_no_part(tmp_path: Path) -> None:
    home = fill(folders(tmp_path), "masks/anna/1.png", "sketches/ben/2.png")
    with opened() as account:
        assert len(read_picture_set(home, "folders")) == 4
    what = "folders that are called like no part"
    assert statements(account)["left out", what] == (2, ["masks", "sketches"])


def test_the_table_of_a_folder_that_lists_its_pictures(tmp_path: Path) -> None:
    home = fill(tmp_path, "1.png", "2.png", "3.png")
    (home / "labels.csv").write_text("image,identity\n1.png,anna\n2.png,ben\n")
    with opened() as account:
        assert len(read_picture_set(home)) == 2
    assert statements(account)["assumed", "labels.csv lists the pictures (--layout)"] == (0, [])


def test_identities_of_folders_have_one_spelling(tmp_path) -> None:
    for name in ("Am\u00e9lie", "Ame\u0301lie", "Bella", "bella"):
        fill(tmp_path / name, "1.jpg" if name.isascii() else f"{len(name)}.jpg")
    with opened() as account:
        identities = set(read_picture_set(tmp_path).identities)
    assert identities == {"Am\u00e9lie", "Bella", "bella"}
    said = "; ".join(account.lines())
    assert "1 identities written in several ways, each taken as one" in said
    assert "1 identities whose names look alike, taken as different ('Bella' and 'bella')" in said
