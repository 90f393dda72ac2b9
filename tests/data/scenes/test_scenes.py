"""Scenes of colour, depth and mask: layouts, what does not match, kinds of depth and mask, and
hostile files.
"""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.errors import InputError
from headwise.data.scenes.depths import read_depth
from headwise.data.scenes.generate import TESTED, TRAINED, write_sample_scenes
from headwise.data.scenes.inputs import list_scenes
from headwise.data.scenes.layouts import part_of, role_of, set_of
from headwise.data.scenes.masks import read_mask
from headwise.data.scenes.reading import depth_polarity, read_sample, read_scene
from headwise.data.scenes.scenes import read_rgbd_set
from headwise.tests.hostile import png_without_pixels

Image = pytest.importorskip("PIL.Image", reason="the extra `vision` is not installed")


def save(path: Path, values=None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6), np.uint8) if values is None else values).save(path, **options)
    return path


def scene(
    home: Path,
    stem: str,
    image="RGB",
    depth="depth",
    mask="GT",
    kinds=("jpg", "png", "png"),
    ends=("", "", ""),
):
    for folder, kind, end in zip((image, depth, mask), kinds, ends):
        if folder:
            save(home / folder / f"{stem}{end}.{kind}")


@pytest.mark.parametrize(
    ("folders", "ends", "expected"),
    [
        (
            ("NJU2K_TRAIN/RGB", "NJU2K_TRAIN/depth", "NJU2K_TRAIN/GT"),
            ("_left", "_left", "_left"),
            ("NJU2K", "train"),
        ),
        (("NLPR/RGB", "NLPR/depth", "NLPR/groundtruth"), ("", "_Depth", ""), ("NLPR", "")),
        (
            ("STERE-1000/LeftImg", "STERE-1000/disparity", "STERE-1000/GT"),
            ("_left", "_disp", "_gt"),
            ("STERE", ""),
        ),
        (("RGBD135/RGB", "RGBD135/Depth", "RGBD135/GT"), ("", "", ""), ("DES", "")),
        (("SIP/RGB", "SIP/depth", "SIP/gt"), ("", "", ""), ("SIP", "")),
        (("LFSD/Image", "LFSD/Depth", "LFSD/Mask"), ("", "_depth", "_mask"), ("LFSD", "")),
        (("SSD100/images", "SSD100/depths", "SSD100/gts"), ("", "", ""), ("SSD", "")),
        (
            (
                "DUT-RGBD/train_data/train_images",
                "DUT-RGBD/train_data/train_depth",
                "DUT-RGBD/train_data/train_masks",
            ),
            ("", "", ""),
            ("DUT-RGBD", "train"),
        ),
        (
            ("TestDataset/NJU2K/RGB", "TestDataset/NJU2K/depth", "TestDataset/NJU2K/GT"),
            ("", "", ""),
            ("NJU2K", "test"),
        ),
        (("shop/val/img", "shop/val/dep", "shop/val/mask"), ("", "", ""), ("shop", "validation")),
        (("shop/dev/img", "shop/dev/dep", "shop/dev/mask"), ("", "", ""), ("shop", "validation")),
    ],
)
def test_layouts_of_the_public_sets(tmp_path, folders, ends, expected):
    for stem in ("a1", "b_2"):
        scene(tmp_path, stem, *folders, ends=ends)
    assert read_rgbd_set(tmp_path / Path(folders[0]).parent).parts[0] in ("", expected[1])
    scenes = read_rgbd_set(tmp_path)
    assert (scenes.sets[0], scenes.parts[0]) == expected
    assert [Path(x).stem for x in scenes.images] == [f"a1{ends[0]}", f"b_2{ends[0]}"]
    assert [Path(x).stem for x in scenes.depths] == [f"a1{ends[1]}", f"b_2{ends[1]}"]
    assert [Path(x).stem for x in scenes.masks] == [f"a1{ends[2]}", f"b_2{ends[2]}"]
    assert not scenes.unmatched


def test_parts_in_one_folder_are_paired_with_their_own(tmp_path):
    for part in ("train", "test"):
        scene(tmp_path / "DUT", f"{part}0", f"{part}_images", f"{part}_depth", f"{part}_masks")
    scenes = read_rgbd_set(tmp_path)
    assert sorted(scenes.parts) == ["test", "train"]
    assert scenes.rows("train").tolist() == [scenes.parts.index("train")]
    for image, depth in zip(scenes.images, scenes.depths):
        assert Path(image).stem == Path(depth).stem


def test_several_sets_in_a_folder(tmp_path):
    scene(tmp_path / "NLPR", "a")
    scene(tmp_path / "mine", "a")
    scenes = read_rgbd_set(tmp_path)
    assert (scenes.layout, scenes.sets) == ("several sets", ["NLPR", "mine"])
    assert scenes.names == ["NLPR/RGB/a.jpg", "mine/RGB/a.jpg"]


def test_words_of_folders_are_understood():
    assert [
        role_of(name) for name in ("RGB", "gt1", "Train_Images", "depth_maps", "results", "train")
    ] == ["image", "mask", "image", "depth", None, None]
    assert part_of(["TrainDataset", "NJU2K"]) == "train"
    assert part_of(["x"]) == ""
    assert set_of(["data", "TestDataset", "STEREO"], "x") == "STERE"
    assert set_of(["train"], "otherwise") == "otherwise"


def test_what_does_not_match_is_named_or_left_out(tmp_path):
    for k in range(4):
        scene(tmp_path, f"s{k}")
    (tmp_path / "depth" / "s1.png").unlink()
    (tmp_path / "GT" / "s2.png").unlink()
    save(tmp_path / "depth" / "s9.png")
    with pytest.raises(InputError) as caught:
        read_rgbd_set(tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert "1 without depth (RGB/s1.jpg)" in line
    assert "1 without mask (RGB/s2.jpg)" in line
    assert "1 depth without picture (s9)" in line
    scenes = read_rgbd_set(tmp_path, strict=False)
    assert scenes.names == ["RGB/s0.jpg", "RGB/s3.jpg"]
    assert scenes.unmatched["without depth"] == ["RGB/s1.jpg"]
    scenes = read_rgbd_set(tmp_path, strict=False, need_depth=False)
    assert scenes.depths[scenes.names.index("RGB/s1.jpg")] is None
    assert len(read_rgbd_set(tmp_path, strict=False, need_mask=False)) == 3


def test_any_three_folders_are_read(tmp_path):
    scene(tmp_path, "a", "photos", "kinect", "drawn")
    scenes = read_rgbd_set(tmp_path / "photos", depth=tmp_path / "kinect", mask=tmp_path / "drawn")
    assert scenes.names == ["a.jpg"]
    with pytest.raises(InputError, match=r"no folder of pictures .*--depth and --mask"):
        read_rgbd_set(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        read_rgbd_set(tmp_path / "photos", depth=tmp_path / "kinet", mask=tmp_path / "drawn")
    with pytest.raises(InputError, match="name it with --masks"):
        read_rgbd_set(tmp_path / "photos", depth=tmp_path / "kinect")


def test_a_table_is_read(tmp_path):
    scene(tmp_path, "a")
    scene(tmp_path, "b")
    table = tmp_path / "scenes.csv"
    table.write_text(
        "image,depth,mask,part,group,set\nRGB/a.jpg,depth/a.png,GT/a.png,train,g,one\n"
        "RGB/b.jpg,depth/b.png,GT/b.png,val,g,\n"
    )
    scenes = read_rgbd_set(table)
    assert scenes.parts == ["train", "validation"]
    assert scenes.groups == ["g", "g"]
    assert scenes.sets == ["one", tmp_path.name]
    table.write_text("image,mask\nRGB/a.jpg,GT/a.png\n")
    with pytest.raises(InputError, match="no column 'depth'"):
        read_rgbd_set(table)
    assert read_rgbd_set(table, need_depth=False).depths == [None]
    for cells, message in (
        ("../x.jpg,d,m", "leads out"),
        ("RGB/a.jpg,,m", "is empty"),
        ("RGB/no.jpg,d,m", "there is no"),
    ):
        table.write_text(f"image,depth,mask\n{cells}\n")
        with pytest.raises(InputError, match=message):
            read_rgbd_set(table)
    table.write_text("image,depth,mask,part\nRGB/a.jpg,depth/a.png,GT/a.png,often\n")
    with pytest.raises(InputError, match="none of train"):
        read_rgbd_set(table)


def test_groups_are_read(tmp_path):
    for stem in ("a", "b", "c"):
        scene(tmp_path / "set", stem)
    table = tmp_path / "groups.csv"
    table.write_text("image,group\na,g\nRGB/b.jpg,g\n")
    assert read_rgbd_set(tmp_path / "set", groups=table).groups == ["g", "g", "RGB/c.jpg"]
    table.write_text("image,group\nz,g\n")
    with pytest.raises(InputError, match="no scene 'z'"):
        read_rgbd_set(tmp_path / "set", groups=table)
    table.write_text("image,group\na,\n")
    with pytest.raises(InputError, match="group is empty"):
        read_rgbd_set(tmp_path / "set", groups=table)


def test_two_files_of_one_stem_cannot_be_told_apart(tmp_path):
    scene(tmp_path, "a")
    save(tmp_path / "RGB" / "a.png")
    with pytest.raises(InputError, match="cannot be told apart"):
        read_rgbd_set(tmp_path)


def test_two_folders_of_depth_are_refused(tmp_path):
    scene(tmp_path, "a")
    save(tmp_path / "disparity" / "a.png")
    with pytest.raises(InputError, match="several folders of depth"):
        read_rgbd_set(tmp_path)


@pytest.mark.parametrize(
    ("what", "message"),
    [("nothing", "no such"), ("text", "neither a folder nor"), ("empty", "no folder of pictures")],
)
def test_what_is_no_set_is_refused(tmp_path, what, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("x")
    with pytest.raises(InputError, match=message):
        read_rgbd_set(tmp_path / what)


def test_depth_of_8_and_16_bits_and_fractions_is_one_scale(tmp_path):
    plain = np.array([[10, 60, 110], [110, 60, 10]])
    expected = np.array([[0, 0.5, 1], [1, 0.5, 0]], np.float32)[None]
    for name, values in {
        "a.png": plain.astype(np.uint8),
        "b.png": (plain * 200).astype(np.uint16),
        "c.tif": plain.astype(np.float32),
    }.items():
        path = save(tmp_path / name, values)
        np.testing.assert_allclose(read_depth(path), expected, atol=1e-6)
        np.testing.assert_allclose(read_depth(path, "dark"), 1 - expected, atol=1e-6)
    assert read_depth(path, size=(4, 6)).shape == (1, 4, 6)
    grey = save(tmp_path / "d.png", np.repeat(plain.astype(np.uint8)[..., None], 3, 2))
    np.testing.assert_allclose(read_depth(grey), expected, atol=1e-6)


def test_holes_of_a_sensor_take_the_nearest_value(tmp_path):
    values = np.array([[0, 1000, 1000, 3000, 0], [0, 1000, 1000, 3000, 3000]], np.uint16)
    path = save(tmp_path / "a.png", values)
    np.testing.assert_allclose(read_depth(path, "dark")[0], [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]])
    assert (read_depth(save(tmp_path / "b.png", np.zeros((2, 2), np.uint16))) == 0.5).all()
    odd = np.array([[np.nan, 1.0], [np.inf, 2.0]], np.float32)
    np.testing.assert_allclose(read_depth(save(tmp_path / "c.tif", odd))[0], [[0, 0], [1, 1]])


def test_depth_drawn_in_colours_is_refused(tmp_path):
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4, :, 0], colours[4:, :, 2] = 255, 255
    with pytest.raises(InputError, match="coloured picture of depth"):
        read_depth(save(tmp_path / "a.png", colours))


def test_masks_of_every_kind_are_read(tmp_path):
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
    grey = mask * np.uint8(255)
    kinds = {
        "grey.png": grey,
        "ones.png": mask * np.uint8(1),
        "bits.png": mask,
        "wide.png": mask * np.uint16(65535),
        "rgb.png": np.repeat(grey[..., None], 3, 2),
    }
    for name, values in kinds.items():
        np.testing.assert_array_equal(read_mask(save(tmp_path / name, values)), mask, err_msg=name)
    palette = Image.new("P", (3, 2))
    palette.putdata(mask.astype(int).ravel().tolist())
    # As in VOC: dark red, which would count as background in grey.
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), mask)
    Image.fromarray(grey).convert("P").save(tmp_path / "grey-palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "grey-palette.png"), mask)
    clear = np.full((2, 3, 4), 255, np.uint8)
    clear[..., 3] = mask * 255
    np.testing.assert_array_equal(read_mask(save(tmp_path / "alpha.png", clear)), mask)
    assert not read_mask(save(tmp_path / "none.png", np.zeros((2, 3), np.uint8))).any()
    assert read_mask(tmp_path / "grey.png", (4, 6)).shape == (4, 6)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "grey.png", (4, 6)), mask.repeat(2, 0).repeat(2, 1)
    )


def test_a_mask_of_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="no value above 128"):
        read_mask(save(tmp_path / "a.png", np.array([[0, 7], [3, 20]], np.uint8)))


def test_a_picture_of_one_pixel(tmp_path):
    save(tmp_path / "RGB" / "a.png", np.full((1, 1, 3), 200, np.uint8))
    save(tmp_path / "depth" / "a.png", np.full((1, 1), 9, np.uint8))
    save(tmp_path / "GT" / "a.png", np.full((1, 1), 255, np.uint8))
    sample = read_sample(read_rgbd_set(tmp_path), 0, (4, 6))
    assert sample["shape"] == (1, 1)
    assert (sample["image"] == 200).all()
    assert (sample["depth"] == 0.5).all()
    assert sample["mask"].all()


@pytest.mark.parametrize(
    "read", [read_depth, read_mask, lambda path: read_scene(path, None, (4, 4))]
)
def test_hostile_files_get_one_line(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    content = save(tmp_path / "full.jpg", noise).read_bytes()
    (tmp_path / "short.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(png_without_pixels(50_000, colour_type=0))
    for name, message in (
        ("short.jpg", "truncated"),
        ("empty.png", "empty"),
        ("text.png", "no picture"),
        ("bomb.png", "too large"),
        ("none.png", "there is no"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_polarity_is_the_share_of_scenes_that_are_far_inside(tmp_path):
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    near, far = np.where(mask, 0.9, 0.1)[None], np.where(mask, 0.1, 0.9)[None]
    assert depth_polarity([near, near, far, far], [mask] * 4) == 0.5
    assert depth_polarity([far], [mask]) == 1
    assert np.isnan(depth_polarity([near], [np.zeros_like(mask)]))


def test_scenes_to_predict_for_are_listed(tmp_path):
    for part in ("a", "b"):
        scene(tmp_path / part, "s0")
        scene(tmp_path / part, "s1", depth=None)
    save(tmp_path / "alone.png")
    scenes = list_scenes(tmp_path)
    names = ["a/RGB/s0.jpg", "a/RGB/s1.jpg", "alone.png", "b/RGB/s0.jpg", "b/RGB/s1.jpg"]
    assert [name for _, name, _ in scenes] == names
    assert [depth and Path(depth).name for _, _, depth in scenes] == [
        "s0.png",
        None,
        None,
        "s0.png",
        None,
    ]
    assert list_scenes(tmp_path / "a" / "RGB")[0][2] == str(tmp_path / "a" / "depth" / "s0.png")
    (single,) = list_scenes(tmp_path / "alone.png", tmp_path / "a" / "depth" / "s0.png")
    assert single[2] == str(tmp_path / "a" / "depth" / "s0.png")
    named = list_scenes(tmp_path / "b" / "RGB", tmp_path / "a" / "depth")
    assert [depth and Path(depth).parent.parent.name for _, _, depth in named] == ["a", None]
    with pytest.raises(InputError, match="one depth map for"):
        list_scenes(tmp_path, tmp_path / "a" / "depth" / "s0.png")
    with pytest.raises(InputError, match="no such depth"):
        list_scenes(tmp_path, tmp_path / "nowhere")
    table = tmp_path / "in.csv"
    table.write_text("image,depth\na/RGB/s0.jpg,a/depth/s0.png\nalone.png,\n")
    assert [depth and Path(depth).name for _, _, depth in list_scenes(table)] == ["s0.png", None]


def test_the_sample_is_generated_the_same_each_time_and_says_so(tmp_path):
    home, again = write_sample_scenes(tmp_path / "a"), write_sample_scenes(tmp_path / "b")
    assert "generated" in home.name
    files = sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file())
    assert len(files) == 3 * (TRAINED + TESTED) + 1
    assert all((home / file).read_bytes() == (again / file).read_bytes() for file in files)
    scenes = read_rgbd_set(home)
    assert (len(scenes.rows("train")), len(scenes.rows("test"))) == (TRAINED, TESTED)
    masks = [read_mask(path) for path in scenes.masks]
    assert all(0.005 < mask.mean() < 0.6 for mask in masks)
    assert depth_polarity((read_depth(path) for path in scenes.depths), masks) < 0.1


def test_real_triples_are_read(real_data):
    home = real_data / "saliency" / "nju2k_pdnet18"
    if not home.is_dir():
        pytest.skip(f"no NJU2K triples at {home}")
    scenes = read_rgbd_set(home)
    assert (len(scenes), scenes.layout, scenes.unmatched) == (18, "NJU2K", {})
    depths = (read_depth(path, "bright", (96, 96)) for path in scenes.depths)
    assert depth_polarity(depths, (read_mask(path, (96, 96)) for path in scenes.masks)) == 0


def numbered(home: Path, count: int = 8) -> None:
    """Scenes that tell their number: grey of the picture, height of the bright part of depth and of
    the mask.
    """
    for k in range(count):
        bright = (np.arange(16) <= k + 2)[:, None] * np.full((1, 12), 255, np.uint8)
        save(home / "RGB" / f"s{k}.png", np.full((16, 12, 3), 10 * k + 5, np.uint8))
        save(home / "depth" / f"s{k}.png", bright.astype(np.uint8))
        save(home / "GT" / f"s{k}.png", bright.astype(np.uint8))


def assert_of_one_scene(scenes, row: int) -> None:
    sample = read_sample(scenes, row, (16, 12))
    number = int(Path(scenes.names[row]).stem[1:])
    assert (sample["image"] == 10 * number + 5).all()
    assert sample["depth"][0, :, 0].sum() == sample["mask"][:, 0].sum() == number + 3
    assert [
        Path(path).stem for path in (scenes.images[row], scenes.depths[row], scenes.masks[row])
    ] == [f"s{number}"] * 3


def test_picture_depth_and_mask_of_a_row_are_of_one_scene(tmp_path):
    """In folders, and in tables in any order with part, group and set."""
    numbered(tmp_path)
    scenes = read_rgbd_set(tmp_path)
    assert len(scenes) == 8
    order = np.random.default_rng(0).permutation(8)
    parts = ("train", "val", "test")
    lines = [
        f"GT/s{k}.png,g{k % 4},RGB/s{k}.png,{parts[k % 3]},depth/s{k}.png,set{k % 2}" for k in order
    ]
    (tmp_path / "scenes.csv").write_text("mask,group,image,part,depth,set\n" + "\n".join(lines))
    listed = read_rgbd_set(tmp_path / "scenes.csv")
    assert listed.groups == [f"g{k % 4}" for k in order]
    assert listed.sets == [f"set{k % 2}" for k in order]
    assert listed.parts == [("train", "validation", "test")[k % 3] for k in order]
    assert sorted(
        np.concatenate([listed.rows(part) for part in ("train", "validation", "test")])
    ) == list(range(8))
    for row in range(8):
        assert_of_one_scene(scenes, row)
        assert_of_one_scene(listed, row)
    assert [Path(scene[0]).stem for scene in list_scenes(tmp_path / "scenes.csv")] == [
        f"s{k}" for k in range(8)
    ]
    assert all(
        Path(picture).stem == Path(depth).stem
        for picture, _, depth in list_scenes(tmp_path / "RGB")
    )


def test_a_depth_in_three_grey_channels_is_their_mean(tmp_path):
    values = np.zeros((4, 5, 3), np.uint8)
    odd = 6 * (np.arange(5) % 2)
    values[..., 0], values[..., 1], values[..., 2] = (
        np.arange(5) * 20 + odd,
        np.arange(5) * 20,
        np.arange(5) * 20 - odd,
    )
    np.testing.assert_allclose(
        read_depth(save(tmp_path / "a.png", values))[0], np.tile(np.arange(5) / 4, (4, 1))
    )
