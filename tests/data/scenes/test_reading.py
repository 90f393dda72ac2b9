"""Colour, depth and mask on one grid: turns by EXIF, other shapes, names, links, tables."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.scenes.inputs import list_scenes
from headwise.data.scenes.reading import Reading, read_sample, usual_turn
from headwise.data.scenes.scenes import read_rgbd_set
from headwise.tests.statements import statements

Image = pytest.importorskip("PIL.Image", reason="the extra `vision` is not installed")
NAMES = ("RGB", "depth", "GT")


def arrays(height: int = 24, width: int = 36) -> list[np.ndarray]:
    """A bright, near square in the upper left: colour, depth and mask as they are stored."""
    mask = np.zeros((height, width), bool)
    mask[3:12, 4:13] = True
    colour = np.where(mask, 200, 60)[..., None].repeat(3, 2).astype(np.uint8)
    depth = np.where(mask, 2000, 500).astype(np.uint16)
    return [colour, depth, (mask * 255).astype(np.uint8)]


def write(home: Path, stem: str, values, orientations=(1, 1, 1)) -> None:
    for name, picture, orientation in zip(NAMES, values, orientations):
        (home / name).mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if orientation > 1:
            exif[0x0112] = orientation
        Image.fromarray(picture).save(home / name / f"{stem}.png", exif=exif)


def contrast(sample) -> float:
    """Grey levels by which a picture is brighter in its mask; 140 where they lie on each other."""
    grey = sample["image"].mean(0)
    return float(grey[sample["mask"]].mean() - grey[~sample["mask"]].mean())


@pytest.mark.parametrize(
    "orientations", [(6, 1, 1), (8, 1, 1), (5, 1, 1), (6, 6, 1), (6, 1, 6), (6, 6, 6), (1, 6, 6)]
)
def test_depth_and_mask_lie_on_a_picture_that_its_exif_turns(tmp_path, orientations) -> None:
    write(tmp_path, "a", arrays(), orientations)
    with opened() as account:
        scenes = read_rgbd_set(tmp_path)
        sample = read_sample(scenes, 0, (36, 24) if orientations[0] > 1 else (24, 36))
    assert contrast(sample) == pytest.approx(140, abs=3)
    assert sample["depth"][0][sample["mask"]].mean() > 0.9
    assert sample["shape"] == ((36, 24) if orientations[0] > 1 else (24, 36))
    said = any("stored pixels" in line for line in account.lines())
    assert said == (len(set(orientations)) > 1)


def test_pictures_saved_upright_with_partners_turned_by_exif(tmp_path) -> None:
    colour, depth, mask = arrays()
    upright = np.ascontiguousarray(np.rot90(colour, -1))
    write(tmp_path, "a", (upright, depth, mask), (1, 6, 6))
    assert contrast(read_sample(read_rgbd_set(tmp_path), 0, (36, 24))) == pytest.approx(140, abs=3)


def test_a_half_turn_goes_by_the_rest_of_the_set_and_is_said(tmp_path) -> None:
    write(tmp_path, "a", arrays(), (3, 1, 1))
    scenes = read_rgbd_set(tmp_path)
    assert usual_turn(scenes) == "own"
    with opened() as account:
        assert contrast(read_sample(scenes, 0, (24, 36))) < 60
        assert contrast(read_sample(scenes, 0, (24, 36), Reading(turn="picture"))) > 135
    assert sum("--orientation" in line for line in account.lines()) == 1
    write(tmp_path, "b", arrays(), (6, 1, 1))
    assert usual_turn(read_rgbd_set(tmp_path)) == "picture"


def test_another_view_is_refused_unless_it_is_to_be_stretched(tmp_path) -> None:
    colour, _, mask = arrays()
    write(tmp_path, "a", (colour, arrays(24, 24)[1], mask))
    scenes = read_rgbd_set(tmp_path)
    with pytest.raises(InputError, match=r"24 x 24 pixels and its picture .* 36 x 24.*--stretch"):
        read_sample(scenes, 0, (24, 36))
    with opened() as account:
        read_sample(scenes, 0, (24, 36), Reading(stretch=True))
    assert any("another shape" in line for line in account.lines())
    # The same view at other sizes, rounded to whole pixels.
    write(tmp_path, "a", (colour, arrays(7, 11)[1], arrays(37, 55)[2]))
    read_sample(scenes, 0, (24, 36))


@pytest.mark.parametrize(
    "stems",
    [
        ("rgb_{:04d}", "depth_{:04d}", "mask_{:04d}"),
        ("frame-{:06d}.color", "frame-{:06d}.depth", "frame-{:06d}.gt"),
        ("{}", "d{}", "{}-truth"),
        ("scene{}_left", "scene{}_kinect", "scene{}_drawn"),
    ],
)
def test_names_with_a_common_beginning_and_end_are_paired(tmp_path, stems) -> None:
    for number in (1, 2, 10, 21):
        for name, stem, values in zip(NAMES, stems, arrays()):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / name / f"{stem.format(number)}.png")
    with opened() as account:
        scenes = read_rgbd_set(tmp_path)
        listed = list_scenes(tmp_path / "RGB")
    assert len(scenes) == 4
    for number in (1, 2, 10, 21):
        row = scenes.names.index(f"RGB/{stems[0].format(number)}.png")
        assert Path(scenes.depths[row]).stem == stems[1].format(number)
        assert Path(scenes.masks[row]).stem == stems[2].format(number)
        assert (scenes.images[row], scenes.depths[row]) in {(f, d) for f, _, d in listed}
    assert any("belong together" in line for line in account.lines())


def test_names_that_only_numbers_would_pair_are_left_alone_where_some_are_equal(tmp_path) -> None:
    for name, stems in zip(NAMES, (("a1", "a2"), ("a1", "b2"), ("a1", "a2"))):
        (tmp_path / name).mkdir()
        for stem in stems:
            Image.fromarray(arrays()[0][..., 0]).save(tmp_path / name / f"{stem}.png")
    with pytest.raises(InputError, match=r"1 without depth \(RGB/a2.png\)"):
        read_rgbd_set(tmp_path)


def test_depth_as_arrays_is_found(tmp_path) -> None:
    write(tmp_path, "a", arrays())
    (tmp_path / "depth" / "a.png").unlink()
    np.save(tmp_path / "depth" / "a.npy", arrays()[1] / 1000)
    scenes = read_rgbd_set(tmp_path)
    assert Path(scenes.depths[0]).name == "a.npy"
    assert contrast(read_sample(scenes, 0, (24, 36))) == pytest.approx(140)
    assert [(name, Path(depth).name) for _, name, depth in list_scenes(tmp_path)] == [
        ("RGB/a.png", "a.npy")
    ]


class TestTable:
    def write(self, home: Path, text: str) -> Path:
        for stem in ("a", "b"):
            write(home, stem, arrays())
        (home / "t.csv").write_text(text)
        return home / "t.csv"

    def test_usual_names_of_columns_are_taken_and_said(self, tmp_path) -> None:
        path = self.write(
            tmp_path,
            "image_path,depth_map,gt,split,weather\n"
            "RGB/a.png,depth/a.png,GT/a.png,train,sun\nRGB/b.png,depth/b.png,GT/b.png,test,rain\n",
        )
        with opened() as account:
            scenes = read_rgbd_set(path)
        assert (scenes.parts, Path(scenes.masks[1]).name) == (["train", "test"], "b.png")
        (line,) = (line for line in account.lines() if line.startswith("columns"))
        assert "'depth_map' is taken as the depth" in line
        assert "not used (weather)" in line

    def test_other_names_are_given_by_columns(self, tmp_path) -> None:
        path = self.write(tmp_path, "a1,d1,m1\nRGB/a.png,depth/a.png,GT/a.png\n")
        chosen = ("image=a1", "depth=d1", "mask=m1")
        assert read_rgbd_set(path, columns=chosen).names == ["RGB/a.png"]
        assert list_scenes(path, columns=chosen[:1])[0][1] == "RGB/a.png"
        with pytest.raises(InputError, match="--columns image=COLUMN"):
            read_rgbd_set(path)
        for folder in (read_rgbd_set, list_scenes):
            with pytest.raises(InputError, match="--columns is read with a table"):
                folder(tmp_path, columns=chosen)

    def test_a_fold_is_no_part(self, tmp_path) -> None:
        path = self.write(
            tmp_path,
            "image,depth,mask,fold\nRGB/a.png,depth/a.png,GT/a.png,0\n"
            "RGB/b.png,depth/b.png,GT/b.png,1\n",
        )
        with opened() as account:
            assert read_rgbd_set(path).parts == ["", ""]
        assert any("not used as parts" in line and "fold" in line for line in account.lines())

    def test_a_picture_twice_or_with_two_masks_is_refused_unless_accepted(self, tmp_path) -> None:
        rows = "RGB/a.png,depth/a.png,GT/a.png,train\nRGB/a.png,depth/a.png,GT/{}.png,{}\n"
        path = self.write(tmp_path, "")
        for mask, part, kind in (
            ("a", "train", "copies"), ("a", "test", "copies"), ("b", "train", "two-labels")
        ):  # fmt: skip
            path.write_text("image,depth,mask,part\n" + rows.format(mask, part))
            with pytest.raises(InputError, match=f"--accept {kind}") as caught:
                read_rgbd_set(path)
            assert "RGB/a.png" in str(caught.value)
        path.write_text("image,depth,mask,part\n" + rows.format("a", "train"))
        with opened(["copies"]):
            assert len(read_rgbd_set(path)) == 1

    def test_a_missing_file_of_a_prediction_fails_alone(self, tmp_path) -> None:
        path = self.write(tmp_path, "image\nRGB/a.png\nRGB/gone.png\n")
        assert [name for _, name, _ in list_scenes(path)] == ["RGB/a.png", "RGB/gone.png"]

    def test_folders_are_not_read_with_a_table(self, tmp_path) -> None:
        path = self.write(tmp_path, "image,depth,mask\nRGB/a.png,depth/a.png,GT/a.png\n")
        with pytest.raises(InputError, match="leave out --masks"):
            read_rgbd_set(path, mask=tmp_path / "GT")
        with pytest.raises(InputError, match="leave out --depth"):
            list_scenes(path, tmp_path / "depth")


def test_what_was_read_and_left_out_is_in_the_account(tmp_path) -> None:
    for stem in ("a", "b"):
        write(tmp_path, stem, arrays())
    (tmp_path / "depth" / "b.png").unlink()
    (tmp_path / "RGB" / "notes.txt").write_text("x")
    with opened() as account:
        read_rgbd_set(tmp_path, strict=False)
    text = "\n".join(account.lines())
    for part in (
        "read: 1 scenes",
        "without depth (RGB/b.png)",
        "other kinds (notes.txt)",
        "own group",
    ):
        assert part in text
    with opened() as account:
        list_scenes(tmp_path / "RGB")
    text = "\n".join(account.lines())
    assert "read: 2 pictures" in text
    assert "1 of 2 pictures without a depth map" in text


def test_a_linked_folder_of_depth_is_read_and_said(tmp_path) -> None:
    write(tmp_path / "set", "a", arrays())
    (tmp_path / "set" / "depth").rename(tmp_path / "store")
    (tmp_path / "set" / "depth").symlink_to(tmp_path / "store")
    with opened() as account:
        assert len(read_rgbd_set(tmp_path / "set")) == 1
    assert any("linked folders" in line for line in account.lines())


def test_arrays_and_files_in_folders_of_depth_or_masks_are_no_pictures_and_that_is_said(
    tmp_path,
) -> None:
    for stem in ("a", "b"):
        write(tmp_path, stem, arrays())
    np.save(tmp_path / "RGB" / "heat.npy", arrays()[1])
    with opened() as account:
        assert len(list_scenes(tmp_path)) == 2
    assert statements(account, "left out") == {
        ("left out", "files in folders of depth maps or masks"): (4, []),
        ("left out", "arrays, which are no pictures"): (1, ["RGB/heat.npy"]),
    }


def test_scenes_of_groups_are_counted_in_the_account(tmp_path) -> None:
    for stem in ("a", "b", "c"):
        write(tmp_path / "set", stem, arrays())
    (tmp_path / "groups.csv").write_text("image,group\na,g\nb,g\n")
    with opened() as account:
        read_rgbd_set(tmp_path / "set", groups=tmp_path / "groups.csv")
    assert statements(account, "groups") == {("groups", "3 scenes of 2 groups"): (0, [])}
