"""Listing and reading pictures: folders, patterns, links, modes, orientation, damage and size."""

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is optional (extra vision) and not installed")

from PIL import Image

from headwise.base import account
from headwise.base.errors import InputError
from headwise.data.formats import pictures
from headwise.data.formats.picture_folder import PictureFolder
from headwise.data.formats.pictures import list_pictures, read_picture
from headwise.tests.data.persons.sets import fill
from headwise.tests.hostile import png_without_pixels
from headwise.tests.picture_files import write_deep_png, write_deep_tiff
from headwise.tests.statements import statements


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def line_of(caught) -> str:
    line = str(caught.value)
    assert "\n" not in line
    return line


class TestList:
    def test_a_folder_at_any_depth_sorted_without_hidden_and_other_files(self, tmp_path) -> None:
        fill(
            tmp_path,
            "b/2.PNG",
            "b/c/1.jpg",
            "a.jpeg",
            "z.pgm",
            ".hidden.jpg",
            ".git/x.png",
            "Thumbs.db",
            "b/t.txt",
        )
        listed = list_pictures(tmp_path)
        assert [name for _, name in listed] == ["a.jpeg", "b/2.PNG", "b/c/1.jpg", "z.pgm"]
        assert [file for file, _ in listed] == [str(tmp_path / name) for _, name in listed]

    def test_a_picture_and_chosen_endings(self, tmp_path) -> None:
        fill(tmp_path, "a.jpg", "b.png")
        assert list_pictures(tmp_path / "a.jpg") == [(str(tmp_path / "a.jpg"), "a.jpg")]
        assert [name for _, name in list_pictures(tmp_path, (".png",))] == ["b.png"]

    def test_a_pattern_is_relative_to_what_stands_before_it(self, tmp_path) -> None:
        fill(tmp_path, "s/a/1.jpg", "s/b/1.jpg", "s/b/2.png", "s/b/.3.jpg", "t/1.jpg")
        assert [name for _, name in list_pictures(f"{tmp_path}/s/*/1.jpg")] == [
            "a/1.jpg",
            "b/1.jpg",
        ]
        assert [name for _, name in list_pictures(f"{tmp_path}/s/**")] == [
            "a/1.jpg",
            "b/1.jpg",
            "b/2.png",
        ]

    def test_folders_of_storage_devices_are_left_out_of_patterns_and_classes(
        self, tmp_path
    ) -> None:
        fill(
            tmp_path, "cats/1.png", "cats/@eaDir/1.png/THUMB.png", "@eaDir/2.png", "__MACOSX/3.png"
        )
        with account.opened() as opened:
            assert [name for _, name in list_pictures(f"{tmp_path}/**/*.png")] == ["cats/1.png"]
            assert pictures.visible_folders(tmp_path) == ["cats"]
        (line,) = opened.lines()
        assert "cats/@eaDir/1.png/THUMB.png" in line
        assert "__MACOSX" in line

    def test_brackets_in_a_name_that_exists_are_no_pattern(self, tmp_path) -> None:
        fill(tmp_path, "run [1]/a.jpg")
        assert [name for _, name in list_pictures(tmp_path / "run [1]")] == ["a.jpg"]

    @pytest.mark.parametrize("how", ["file", "folder", "pattern"])
    def test_links_that_lead_out_are_left_out_and_named_unless_accepted(
        self, tmp_path, how
    ) -> None:
        fill(tmp_path, "secret/x.jpg", "set/a.jpg", "set/b/x.jpg")
        target = "secret/x.jpg" if how == "file" else "secret"
        (tmp_path / "set" / ("l.jpg" if how == "file" else "l")).symlink_to(tmp_path / target)
        source = f"{tmp_path}/set/*/x.jpg" if how == "pattern" else tmp_path / "set"
        inside = ["b/x.jpg"] if how == "pattern" else ["a.jpg", "b/x.jpg"]
        with account.opened() as opened:
            assert [name for _, name in list_pictures(source)] == inside
        assert any("link" in line for line in opened.lines()), opened.lines()
        with account.opened(["links"]):
            linked = "l.jpg" if how == "file" else "l/x.jpg"
            assert [name for _, name in list_pictures(source)] == sorted([*inside, linked])

    def test_nothing_but_links_is_said(self, tmp_path) -> None:
        fill(tmp_path, "secret/x.jpg")
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "l").symlink_to(tmp_path / "secret")
        for source in (tmp_path / "set", f"{tmp_path}/set/*/x.jpg"):
            with pytest.raises(InputError, match="--accept links") as caught:
                list_pictures(source)
            line_of(caught)

    def test_a_link_to_nothing_and_one_to_itself_are_listed_and_fail_when_read(
        self, tmp_path
    ) -> None:
        fill(tmp_path, "a.jpg")
        (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
        (tmp_path / "self.jpg").symlink_to("self.jpg")
        listed = list_pictures(tmp_path)
        assert [name for _, name in listed] == ["a.jpg", "gone.jpg", "self.jpg"]
        assert list_pictures(f"{tmp_path}/*.jpg") == listed
        for file, _ in listed[1:]:
            with pytest.raises(InputError, match="there is no such picture") as caught:
                read_picture(file)
            line_of(caught)

    def test_links_inside_are_kept_and_loops_end(self, tmp_path) -> None:
        fill(tmp_path, "a/1.jpg")
        (tmp_path / "a" / "2.jpg").symlink_to("1.jpg")
        (tmp_path / "a" / "round").symlink_to(tmp_path)
        assert [name for _, name in list_pictures(tmp_path)] == ["a/1.jpg", "a/2.jpg"]

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ("empty", "there is no picture here"),
            ("pictur.jpg", "did you mean 'picture.jpg'?"),
            ("notes.txt", "unknown kind of picture '.txt'"),
            ("empty/*.jpg", "there is no picture here"),
        ],
    )
    def test_nothing_to_list_is_one_line(self, tmp_path, what, message) -> None:
        fill(tmp_path, "picture.jpg", "notes.txt")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError) as caught:
            list_pictures(tmp_path / what)
        assert message in line_of(caught)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
    def test_a_name_that_is_no_utf8_gets_an_id_that_is(self, tmp_path) -> None:
        file = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
        with open(file, "wb") as opened:
            opened.write(b"x")
        [(listed, name)] = list_pictures(tmp_path)
        assert name == "caf\\xe9.jpg"
        assert os.path.exists(listed)

    def test_linked_folders_that_lead_out_are_listed_and_said(self, tmp_path) -> None:
        fill(tmp_path, "set/a/1.jpg", "set/.hidden/1.jpg", "store/b/1.jpg")
        home = tmp_path / "set"
        (home / "b").symlink_to(tmp_path / "store" / "b")
        (home / "c").symlink_to(home / "a")
        with account.opened() as opened:
            assert pictures.visible_folders(home) == ["a", "b", "c"]
        what = "linked folders, whose contents are read"
        assert statements(opened) == {("assumed", what): (1, [str(home / "b")])}


class TestListedPaths:
    def test_relative_and_absolute_paths_inside_are_read(self, tmp_path) -> None:
        fill(tmp_path, "set/a/1.jpg")
        home = PictureFolder(tmp_path / "set")
        expected = (str(tmp_path / "set" / "a" / "1.jpg"), "a/1.jpg")
        for path in ("a/1.jpg", "./a/1.jpg", "a//1.jpg", str(tmp_path / "set/a/1.jpg")):
            assert home.find("t", path) == expected

    @pytest.mark.parametrize(
        "path", ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "link/x.jpg", "x.jpg", "a/../a/1.jpg"]
    )
    def test_what_leads_out_is_refused(self, tmp_path, path) -> None:
        fill(tmp_path, "set/a/1.jpg", "x.jpg")
        (tmp_path / "set" / "link").symlink_to(tmp_path)
        (tmp_path / "set" / "x.jpg").symlink_to(tmp_path / "x.jpg")
        with pytest.raises(InputError, match=r"leads out|does not lie in"):
            PictureFolder(tmp_path / "set").find("t.csv, row 1", path)

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("b.jpg", "there is no picture"),
            ("a\\2.jpg", "write / between"),
            ("a", "not a plain file"),
            ("", "no name"),
            ("a\0.jpg", "no name"),
            ("x" * 300 + ".jpg", "there is no picture"),
        ],
    )
    def test_what_is_no_picture_there_is_one_line(self, tmp_path, path, message) -> None:
        fill(tmp_path, "a/1.jpg")
        with pytest.raises(InputError) as caught:
            PictureFolder(tmp_path).find("t.csv, row 1", path)
        assert message in line_of(caught)
        assert line_of(caught).startswith("t.csv, row 1: ")

    def test_a_folder_that_leads_out_is_refused_after_one_that_does_not(self, tmp_path) -> None:
        fill(tmp_path, "out/secret/x.jpg", "in/own/a.jpg", "in/own/b.jpg")
        (tmp_path / "in" / "link").symlink_to(tmp_path / "out" / "secret")
        home = PictureFolder(tmp_path / "in")
        assert home.find("t.csv, row 1", "own/a.jpg")[1] == "own/a.jpg"
        with pytest.raises(InputError, match="leads out"):
            home.find("t.csv, row 2", "link/x.jpg")
        assert home.find("t.csv, row 3", "own/b.jpg") == (
            str(tmp_path / "in/own/b.jpg"),
            "own/b.jpg",
        )


class TestRead:
    @pytest.mark.parametrize("ending", [".png", ".bmp", ".ppm", ".tif"])
    def test_rgb_is_kept_exactly(self, tmp_path, ending) -> None:
        picture = noise(7, 5)
        Image.fromarray(picture).save(tmp_path / f"a{ending}")
        pixels = read_picture(tmp_path / f"a{ending}")
        assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == (
            (3, 7, 5),
            np.uint8,
            True,
        )
        np.testing.assert_array_equal(pixels, picture.transpose(2, 0, 1))

    @pytest.mark.parametrize("ending", [".jpg", ".webp"])
    def test_lossy_ones_come_close(self, tmp_path, ending) -> None:
        picture = np.full((16, 24, 3), (200, 100, 50), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"a{ending}", quality=95)
        assert (
            np.abs(
                read_picture(tmp_path / f"a{ending}").astype(int) - [[[200]], [[100]], [[50]]]
            ).max()
            <= 4
        )

    def test_size_is_height_then_width(self, tmp_path) -> None:
        y, x = np.mgrid[:40, :60]
        picture = np.stack([y * 5, x * 4, 0 * x], 2).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "a.png")
        pixels = read_picture(tmp_path / "a.png", (20, 30))
        assert pixels.shape == (3, 20, 30)
        # A ramp stays one: in the middle the value is that at the centre of the two old pixels.
        np.testing.assert_allclose(pixels[0, 5:15, 7], 5 * (2 * np.arange(5, 15) + 0.5), atol=1)
        np.testing.assert_allclose(pixels[1, 7, 5:25], 4 * (2 * np.arange(5, 25) + 0.5), atol=1)
        with pytest.raises(ValueError, match="positive"):
            read_picture(tmp_path / "a.png", (0, 4))

    def test_grey_palette_alpha_and_bits(self, tmp_path) -> None:
        grey = noise(6, 4)[..., 0]
        Image.fromarray(grey).save(tmp_path / "grey.png")
        np.testing.assert_array_equal(read_picture(tmp_path / "grey.png"), np.stack([grey] * 3))
        Image.fromarray(grey > 127).save(tmp_path / "bits.png")
        np.testing.assert_array_equal(read_picture(tmp_path / "bits.png")[1], 255 * (grey > 127))
        palette = Image.new("P", (2, 1))
        palette.putpalette([10, 20, 30, 40, 50, 60])
        palette.putdata([1, 0])
        palette.save(tmp_path / "palette.png")
        assert read_picture(tmp_path / "palette.png")[:, 0].T.tolist() == [
            [40, 50, 60],
            [10, 20, 30],
        ]
        palette.save(tmp_path / "clear.png", transparency=1)
        assert read_picture(tmp_path / "clear.png")[:, 0].T.tolist() == [
            [255, 255, 255],
            [10, 20, 30],
        ]
        rgba = np.dstack([np.full((1, 3, 3), 100, np.uint8), np.uint8([[0, 255, 51]])])
        Image.fromarray(rgba).save(tmp_path / "alpha.png")
        assert read_picture(tmp_path / "alpha.png")[0, 0].tolist() == pytest.approx(
            [255, 100, 224], abs=1
        )
        Image.fromarray(np.uint8([[[80, 0], [80, 255]]]), "LA").save(tmp_path / "la.png")
        assert read_picture(tmp_path / "la.png")[2, 0].tolist() == [255, 80]

    @pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
    def test_sixteen_bits_are_scaled_not_cut(self, tmp_path, ending) -> None:
        values = np.uint16([[0, 257, 128 * 257], [65535, 400, 64000]])
        if ending == ".pgm":
            (tmp_path / "a.pgm").write_bytes(b"P5 3 2 65535\n" + values.astype(">u2").tobytes())
        else:
            Image.fromarray(values).save(tmp_path / f"a{ending}")
        expected = np.rint(values / 65535 * 255)
        np.testing.assert_array_equal(read_picture(tmp_path / f"a{ending}")[0], expected)

    @pytest.mark.parametrize(
        "values", [np.float32([[0.5, 1]]), np.int32([[0, 70000]]), np.int32([[-1, 2]])]
    )
    def test_other_numbers_are_refused(self, tmp_path, values) -> None:
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(InputError) as caught:
            read_picture(tmp_path / "a.tif")
        assert "bit" in line_of(caught)

    def test_orientation_turns_the_picture_upright(self, tmp_path) -> None:
        # What each value says of the stored picture (EXIF 2.3, table of tag 274), undone by numpy.
        upright = noise(4, 6)
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: np.rot90(upright, 1),
            7: np.rot90(upright, 2).transpose(1, 0, 2),
            8: np.rot90(upright, -1),
        }
        for value, picture in stored.items():
            exif = Image.Exif()
            exif[0x0112] = value
            Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / "a.png", exif=exif)
            pixels = read_picture(tmp_path / "a.png")
            np.testing.assert_array_equal(
                pixels, upright.transpose(2, 0, 1), err_msg=f"orientation {value}"
            )
            assert read_picture(tmp_path / "a.png", (8, 12)).shape == (3, 8, 12)

    def test_damaged_exif_is_no_reason_to_lose_a_picture(self, tmp_path) -> None:
        Image.fromarray(noise(16, 16)).save(
            tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f junk"
        )
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            assert read_picture(tmp_path / "a.jpg").shape == (3, 16, 16)
        assert not warned

    def test_bytes_decide_and_not_the_name(self, tmp_path) -> None:
        picture = noise(5, 5)
        Image.fromarray(picture).save(tmp_path / "a.jpg", format="PNG")
        np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), picture.transpose(2, 0, 1))

    @pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".bmp"])
    def test_truncated_is_one_line(self, tmp_path, ending) -> None:
        file = tmp_path / f"a{ending}"
        Image.fromarray(noise(64, 64)).save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
        with pytest.raises(InputError) as caught:
            read_picture(file)
        assert line_of(caught).startswith(str(file))

    @pytest.mark.parametrize(
        ("content", "message"),
        [(b"", "is empty (0 bytes)"), (b"hello", "is no picture"), (None, "there is no such")],
    )
    def test_no_picture_is_one_line(self, tmp_path, content, message) -> None:
        if content is not None:
            (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_picture(tmp_path / "a.jpg")
        assert message in line_of(caught)

    def test_postscript_under_another_name_is_not_run(self, tmp_path) -> None:
        (tmp_path / "a.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
        )
        with pytest.raises(InputError, match="is no picture"):
            read_picture(tmp_path / "a.png")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_pipe_is_refused_instead_of_waited_for(self, tmp_path) -> None:
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(InputError, match="not a plain file"):
            read_picture(tmp_path / "a.png")

    @pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
    def test_the_header_is_enough_to_refuse_a_huge_picture(self, tmp_path, side) -> None:
        # There is no pixel behind it: a reader that began to decode would say "truncated" instead.
        (tmp_path / "a.png").write_bytes(png_without_pixels(side))
        with pytest.raises(InputError) as caught:
            read_picture(tmp_path / "a.png")
        assert "is too large" in line_of(caught)
        assert f"{pictures.PICTURE_PIXELS:,}" in line_of(caught)

    def test_without_pillow_the_line_says_what_to_install(self, tmp_path, monkeypatch) -> None:
        Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
        monkeypatch.setitem(sys.modules, "PIL", None)
        assert list_pictures(tmp_path)[0][1] == "a.png"
        with pytest.raises(InputError, match=r"pip install .*\[vision\]'"):
            read_picture(tmp_path / "a.png")

    def test_real_pictures_are_read(self, real_data) -> None:
        faces = list_pictures(real_data / "reid" / "orl_faces")
        assert len(faces) == 400
        raw = (real_data / "reid" / "orl_faces" / "s1" / "1.pgm").read_bytes()
        header = re.match(rb"P5\s+(?:#.*\n)*(\d+) (\d+)\s+255\s", raw)
        assert header is not None
        width, height = int(header[1]), int(header[2])
        plain = np.frombuffer(raw[header.end() :], np.uint8).reshape(height, width)
        np.testing.assert_array_equal(read_picture(faces[0][0]), np.stack([plain] * 3))


@pytest.mark.parametrize(("bits", "kind"), [(8, "TIFF"), (12, "PNG"), (14, "PNG"), (16, "PNG")])
def test_16_bits_are_scaled_by_what_their_values_need(tmp_path, bits: int, kind: str) -> None:
    """As of thermal cameras and microscopes: 4095 is white where no value is larger."""
    levels = np.linspace(0, 2**bits - 1, 64).reshape(8, 8).round()
    path = tmp_path / "a.img"
    Image.fromarray(levels.astype(np.uint16)).save(path, kind)
    with account.opened() as opened:
        grey = read_picture(path)[0]
    np.testing.assert_allclose(grey, levels * 255 / (2**bits - 1), atol=0.51)
    scaled = f"assumed: 1 files of 16 bits whose values need only {bits}, scaled by {2**bits - 1}"
    assert [line.split(" (")[0] for line in opened.lines()] == ([scaled] if bits < 16 else [])


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_further_pages_and_frames_are_not_read_and_that_is_said(tmp_path, kind: str) -> None:
    first, second = (np.full((8, 9, 3), level, np.uint8) for level in (40, 200))
    more = {"save_all": True, "append_images": [Image.fromarray(second)]}
    for name, options in (("one", {}), ("two", more)):
        Image.fromarray(first).save(tmp_path / name, kind, **options)
        with account.opened() as opened:
            assert abs(read_picture(tmp_path / name).astype(int) - 40).max() <= 2
        lines = [line.split(" (")[0] for line in opened.lines()]
        what = "assumed: 1 pictures of several pages or frames, of which the first is read"
        assert lines == ([what] if name == "two" else [])


@pytest.mark.parametrize("kind", ["png", "png with alpha", "tif"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_16_bits_in_colour_are_scaled_as_in_grey(tmp_path, bits: int, kind: str) -> None:
    """Pillow reads the upper 8 of the 16 bits, in which 12 bits are nearly black."""
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, (9, 8, 3)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    if kind == "tif":
        path = write_deep_tiff(tmp_path / "a.tif", values)
    else:
        alpha = np.full((9, 8, 1), 65535, np.uint16)
        stored = values if kind == "png" else np.dstack([values, alpha])
        path = write_deep_png(tmp_path / "a.png", stored)
    with account.opened() as opened:
        picture = read_picture(path)
    expected = values.transpose(2, 0, 1) * (255 / (2**bits - 1))
    np.testing.assert_allclose(picture, expected, atol=0.51 if bits < 16 else 1)
    scaled = f"assumed: 1 files of 16 bits whose values need only {bits}, scaled by {2**bits - 1}"
    assert [line.split(" (")[0] for line in opened.lines()] == ([scaled] if bits < 16 else [])


@pytest.mark.parametrize("kind", ["grey with alpha", "a colour that is transparent"])
def test_16_bits_that_are_lost_beside_transparency_are_refused(tmp_path, kind: str) -> None:
    """Pillow reads the upper 8 bits of them: enough for 16 bits, black for 12."""

    def written(bits: int) -> Path:
        values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
        if kind == "grey with alpha":
            return write_deep_png(tmp_path / "a.png", np.dstack([values, np.full((8, 8), 65535)]))
        return write_deep_png(tmp_path / "a.png", np.dstack([values] * 3), key=(1, 2, 3))

    expected = np.linspace(0, 255, 64).reshape(8, 8)
    assert np.abs(read_picture(written(16)) - expected).max() <= 1
    with pytest.raises(InputError, match=r"a\.png: uses 12 of its 16 bits, .* transparency; save"):
        read_picture(written(12))


def test_16_bits_in_which_white_is_zero_are_turned_round_as_8_are(tmp_path) -> None:
    values = np.linspace(0, 65535, 72).reshape(9, 8).round().astype(np.uint16)
    path = write_deep_tiff(tmp_path / "a.tif", values, white_is_zero=True)
    with account.opened() as opened:
        picture = read_picture(path)
    np.testing.assert_allclose(picture[0], 255 - values / 257, atol=0.51)
    assert "white is zero" in opened.lines()[0]
    plain = write_deep_tiff(tmp_path / "b.tif", 65535 - values)
    np.testing.assert_array_equal(read_picture(plain), picture)


def test_colours_that_pillow_cannot_give_are_named(tmp_path) -> None:
    colours = noise(6, 4)
    Image.fromarray(colours).convert("LAB").save(tmp_path / "lab.tif")
    path = write_deep_tiff(tmp_path / "planes.tif", colours.astype(np.uint16) * 257, planes=True)
    for file, problem in ((tmp_path / "lab.tif", "LAB"), (path, "one channel after the other")):
        with pytest.raises(InputError) as caught:
            read_picture(file)
        assert problem in line_of(caught)
        assert "truncated" not in line_of(caught)
