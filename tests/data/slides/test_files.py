"""Which file belongs to which slide, and what tells two slides apart."""

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.slides import files
from headwise.data.slides.files import feature_names, match_files, not_matched, slide_digest

UUID = "0A1B2C3D-0000-1111-2222-333344445555"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("s01", "f/s01.h5"),
        ("s01.svs", "f/s01.h5"),
        ("s01.svs", "f/s01.svs.h5"),
        ("s01", "f/s01.svs.h5"),
        ("s01", "f/h5_files/s01.h5"),
        ("s01.h5", "f/s01.h5"),
        ("s01", "f/pt_files/s01.pt"),
        ("batch1/s01.svs", "f/batch1__s01.svs.h5"),
        ("batch1/s01", "slides/batch1/s01.svs"),
        ("s.01", "f/s.01.h5"),
        ("batch1\\s01.svs", "slides/batch1/s01.svs"),
        ("M\u00fcller", "f/Mu\u0308ller.h5"),
        ("TCGA-AA-1000-01Z-00-DX1", f"f/TCGA-AA-1000-01Z-00-DX1.{UUID}.svs"),
        (f"TCGA-AA-1000-01Z-00-DX1.{UUID}", "f/TCGA-AA-1000-01Z-00-DX1.h5"),
    ],
)
def test_a_slide_is_found_by_the_names_that_people_write(name: str, file: str) -> None:
    assert match_files((name, "other"), ["f/unlike.h5", file], "labels.csv") == {name: file}


def test_what_agrees_up_to_a_dot_is_noted_and_never_shared() -> None:
    barcodes = ("TCGA-AA-1000", "TCGA-AA-2000")
    with opened() as account:
        matched = match_files(barcodes, [f"{b}.{UUID}.svs" for b in barcodes], "labels.csv")
    assert matched == {b: f"{b}.{UUID}.svs" for b in barcodes}
    assert "up to a dot" in account.lines()[0]
    # Two slides of one case, and two names of one beginning, are no match.
    assert match_files(("TCGA-AA-1000",), ["TCGA-AA-1000.a.svs", "TCGA-AA-1000.b.svs"], "l") == {}
    assert match_files(("s.1", "s.2"), ["s.svs"], "l") == {}


def test_one_of_two_files_is_taken_only_where_it_is_meant() -> None:
    assert match_files(("a",), ["h5_files/a.h5", "pt_files/a.pt"], "l") == {"a": "h5_files/a.h5"}
    assert match_files(("x/a",), ["in/x/a.svs", "in/y/a.svs"], "l") == {"x/a": "in/x/a.svs"}
    for pair in (["x/a.svs", "y/a.tiff"], ["x/a.h5", "y/a.h5"]):
        with pytest.raises(InputError, match="slide 'a' could be x/a"):
            match_files(("a",), pair, "l")


def test_the_message_shows_a_name_and_a_file() -> None:
    assert not_matched(["s1"], ["f/S-1.h5"]) == "looked for 's1', there is 'S-1.h5'"


def test_slides_of_one_name_get_feature_files_of_their_own() -> None:
    slides = ["in/p1/slide1.png", "in/p2/slide1.png", "in/s.png", "in/s.tif", "in/only.svs"]
    names = feature_names(slides, "in")
    assert names == ["p1__slide1.png", "p2__slide1.png", "s.png", "s.tif", "only"]


def test_a_digest_is_of_the_contents_not_of_the_place(tmp_path, monkeypatch) -> None:
    content = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8)
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(content.tobytes())
    content[150_000:156_000] ^= 1
    (tmp_path / "c.tif").write_bytes(content.tobytes())
    first, same, other = (slide_digest(tmp_path / f"{name}.tif") for name in "abc")
    assert first == same != other
    # Of a large file many places are read: its begin and its end may be white.
    monkeypatch.setattr(files, "_READ_AT_ONCE", 1000)
    monkeypatch.setattr(files, "_SAMPLE_BYTES", 4000)
    assert slide_digest(tmp_path / "a.tif") != slide_digest(tmp_path / "c.tif")
    (tmp_path / "c.tif").write_bytes(content.tobytes() + b"x")
    assert slide_digest(tmp_path / "c.tif") != other
