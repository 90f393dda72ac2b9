"""X-rays are recognised and found however a folder, a CD or a list names them."""

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.files import XrayFolder, by_place_or_stem, list_xrays


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)


def write_dicom(path):
    """The preamble and four letters, which listing goes by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + bytes(20))


def entries(account, topic):
    return {entry.what: list(entry.names) for entry in account.entries() if entry.topic == topic}


def test_dicom_files_are_listed_by_content_next_to_pictures(tmp_path):
    for name in ("IM0001", "a/1.2.840.171", "b.dcm"):
        write_dicom(tmp_path / name)
    save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / ".hidden.png").write_bytes(b"")
    with opened() as account:
        names = [name for _, name in list_xrays(tmp_path)]
    assert names == ["IM0001", "a/1.2.840.171", "b.dcm", "c.png"]
    assert entries(account, "left out") == {
        "files of other kinds": ["notes.txt"],
        "hidden names": [".hidden.png"],
    }
    assert list_xrays(tmp_path / "a" / "1.2.840.171")[0][1] == "1.2.840.171"
    assert [name for _, name in list_xrays(f"{tmp_path}/*0*1")] == ["IM0001"]
    with pytest.raises(InputError, match=r"unknown kind of picture '\.txt'"):
        list_xrays(tmp_path / "notes.txt")


def test_of_a_cd_only_its_dicom_files_are_taken(tmp_path):
    write_dicom(tmp_path / "DICOMDIR")
    write_dicom(tmp_path / "DATA" / "IM0001")
    save(tmp_path / "VIEWER" / "logo.png")
    (tmp_path / "AUTORUN.INF").write_text("[autorun]")
    for path in (tmp_path, tmp_path / "DICOMDIR"):
        with opened() as account:
            assert [name for _, name in list_xrays(path)] == ["DATA/IM0001"]
        assert entries(account, "left out") == {
            "tables of contents of a CD (DICOMDIR)": ["DICOMDIR"],
            "pictures that are no DICOM, next to a DICOMDIR": ["VIEWER/logo.png"],
            "files of other kinds": ["AUTORUN.INF"],
        }


def test_a_folder_without_pictures_says_what_is_read(tmp_path):
    for _ in range(2):
        with pytest.raises(InputError, match=r"no picture here \(\.jpg, .*\) and no DICOM file"):
            list_xrays(tmp_path)
        (tmp_path / "notes.txt").write_text("text")


def test_a_picture_is_found_by_its_path_or_else_by_its_name(tmp_path):
    for name in ("images_001/images/1.png", "images_002/images/2.png", "masks/1.png", "3.png"):
        save(tmp_path / name)
    save(tmp_path / "train" / "patient1" / "study1" / "view1.jpg")
    folder = XrayFolder([tmp_path])

    def name_of(path):
        return folder.find("t.csv: row 1", path)[1]

    assert name_of("1.png") == "images_001/images/1.png"
    assert name_of("2") == name_of("images/2.png") == "images_002/images/2.png"
    assert name_of("3.png") == "3.png"
    assert name_of("images_001\\images\\1.png") == "images_001/images/1.png"
    long = "CheXpert-v1.0-small/train/patient1/study1/view1.jpg"
    assert name_of(long) == "train/patient1/study1/view1.jpg"
    assert name_of(str(tmp_path / "3.png")) == "3.png"
    # A name alone is not taken for a picture of another folder.
    for missing in ("4.png", "test/3.png", "images_003/images/1.png"):
        with pytest.raises(InputError, match=r"row 1: there is no picture .*--images"):
            name_of(missing)
    for outside in ("../3.png", "/etc/hostname"):
        with pytest.raises(InputError, match=r"leads out|does not lie in"):
            name_of(outside)
    save(tmp_path / "images_003" / "images" / "2.png")
    with pytest.raises(InputError, match=r"'2\.png' could be .*; write the folder, too"):
        XrayFolder([tmp_path]).find("t.csv", "2.png")


def test_the_first_folder_that_has_a_picture_wins(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        save(tmp_path / name)
    folder = XrayFolder([tmp_path / "a", tmp_path / "b"])
    assert folder.find("t", "1.png")[0] == str(tmp_path / "a" / "1.png")
    assert folder.find("t", "2.png")[0] == str(tmp_path / "b" / "2.png")
    for name in ("a/1.png", "b/2.png"):
        assert folder.find("t", str(tmp_path / name))[0] == str(tmp_path / name)
    save(tmp_path / "c" / "3.png")
    with pytest.raises(InputError, match=r"does not lie in .*with --images"):
        folder.find("t", str(tmp_path / "c" / "3.png"))


def test_names_belong_together_by_path_or_by_a_unique_last_part():
    names = by_place_or_stem(["a/1.png", "b/1.png", "b/2.png", "1.2.840.7"])
    assert names == {
        "a/1": "a/1.png",
        "b/1": "b/1.png",
        "b/2": "b/2.png",
        "2": "b/2.png",
        "1.2.840.7": "1.2.840.7",
    }
