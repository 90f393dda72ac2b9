"""Generated persons: counts, names, the same bytes each time, and colours that do not suffice."""

import sys
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is optional (extra vision) and not installed")

from headwise.base.errors import InputError
from headwise.data.formats.pictures import read_picture
from headwise.data.persons.generate import draw_identity, write_sample_persons
from headwise.data.persons.persons import read_picture_set


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample_persons(tmp_path_factory.mktemp("sample"))


def test_it_is_read_as_market1501(sample) -> None:
    pictures = read_picture_set(sample)
    assert (pictures.layout, len(pictures)) == ("market1501", 300)
    per = {part: pictures.rows(part) for part in ("train", "query", "gallery")}
    assert {part: len(rows) for part, rows in per.items()} == {
        "train": 192,
        "query": 24,
        "gallery": 84,
    }
    assert (pictures.junk.sum(), pictures.distractor.sum()) == (6, 6)
    assert pictures.cameras is not None
    both = Counter((pictures.identities[r], pictures.cameras[r]) for r in per["train"])
    assert len(both) == 48
    assert set(both.values()) == {4}
    searched = Counter((pictures.identities[r], pictures.cameras[r]) for r in per["query"])
    assert len(searched) == 24
    assert set(searched.values()) == {1}
    right = Counter(
        (pictures.identities[r], pictures.cameras[r])
        for r in per["gallery"]
        if int(pictures.identities[r]) > 0
    )
    assert right == dict.fromkeys(searched, 3)
    assert not {pictures.identities[r] for r in per["train"]} & {
        pictures.identities[r] for r in per["query"]
    }


def test_pictures_are_128_by_64_and_the_note_says_generated(sample) -> None:
    pictures = read_picture_set(sample)
    assert {read_picture(pictures.paths[r]).shape for r in range(0, 300, 17)} == {(3, 128, 64)}
    assert "Generated" in (sample / "GENERATED.txt").read_text()


def test_the_same_bytes_each_time(sample, tmp_path) -> None:
    again = write_sample_persons(tmp_path)
    assert again == tmp_path / "generated-persons"
    first = {str(p.relative_to(sample)): p.read_bytes() for p in sample.rglob("*") if p.is_file()}
    assert first == {
        str(p.relative_to(again)): p.read_bytes() for p in again.rglob("*") if p.is_file()
    }
    assert len(set(first.values())) == 301  # and no picture twice


def test_doubles_share_colours_and_differ_in_pattern_hair_and_bag() -> None:
    for number in range(0, 36, 4):
        person, double = draw_identity(number), draw_identity(number + 1)
        for name in ("skin", "hair", "top", "second", "legs", "bag_colour", "tall", "wide"):
            assert getattr(person, name) == getattr(double, name), name
        assert person.pattern != double.pattern
        assert person.bag != double.bag
        assert person.long_hair != double.long_hair
    tops = [draw_identity(number).top for number in range(36)]
    assert len(set(tops)) > 6


def test_colours_alone_do_not_solve_it_and_places_do_better_than_chance(sample) -> None:
    listed = read_picture_set(sample)
    assert listed.cameras is not None
    cameras, names = np.array(listed.cameras), np.array(listed.identities)
    pictures = np.stack([read_picture(path) for path in listed.paths]).astype(float)
    colour = pictures.mean((2, 3))
    cells = pictures.reshape(300, 3, 8, 16, 4, 16).mean((3, 5)).reshape(300, -1)
    for camera in "12":  # take out the light of the camera
        here = cameras == camera
        cells[here] = (cells[here] - cells[here].mean(0)) / cells[here].std(0)
    rates = {}
    for kind, vectors in (("colour", colour), ("cells", cells)):
        hits = []
        for row in listed.rows("query"):
            gallery = listed.rows("gallery")
            ok = gallery[
                ~listed.junk[gallery]
                & ((names[gallery] != names[row]) | (cameras[gallery] != cameras[row]))
            ]
            nearest = ok[np.linalg.norm(vectors[ok] - vectors[row], axis=1).argmin()]
            hits.append(names[nearest] == names[row])
        rates[kind] = float(np.mean(hits))
    assert rates["colour"] < 0.5
    assert 0.15 < rates["cells"] < 0.95  # by chance 3 of 81


def test_bad_folders_and_no_pillow_are_one_line(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_sample_persons(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install .*\[vision\]'"):
        write_sample_persons(tmp_path / "b")
