"""Numbers of depth maps: what means that nothing was measured, arrays of numpy, hostile arrays."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.scenes.depths import find_holes, read_depth
from headwise.tests.picture_files import write_deep_tiff

Image = pytest.importorskip("PIL.Image", reason="the extra `vision` is not installed")


def millimetres(hole: int | None = None, kind=np.uint16) -> np.ndarray:
    """A near square on a far ground, with a band of holes."""
    values = np.full((12, 18), 2500, kind) + (np.arange(18) % 7).astype(kind)
    values[4:9, 8:14] = 900
    if hole is not None:
        values[:, :2] = hole
    return values


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


class TestHoles:
    @pytest.mark.parametrize("hole", [0, 65535])
    def test_the_end_of_16_bits_is_no_value_and_is_said(self, tmp_path, hole) -> None:
        path = save(tmp_path / "a.png", millimetres(hole))
        with opened() as account:
            depth = read_depth(path, "dark")[0]
        np.testing.assert_allclose(depth[4:9, 8:14], 1)
        assert (depth < 0.01).sum() == 12 * 18 - 30
        (line,) = account.lines()
        assert f"1 depth maps in which {hole} means no value" in line
        kept = read_depth(path, "dark", invalid=("none",))[0]
        assert kept[0, 0] == (0 if hole else 1)

    def test_numbers_of_the_user_are_holes(self, tmp_path) -> None:
        path = save(tmp_path / "a.png", millimetres(8000))
        assert read_depth(path, "dark")[0][0, 0] == 0
        assert read_depth(path, "dark")[0][0, 5] > 0.7
        assert read_depth(path, "dark", invalid=("8000",))[0][0, 5] < 0.01
        with pytest.raises(InputError, match="--invalid x: give numbers, auto or none"):
            read_depth(path, invalid=("x",))

    @pytest.mark.parametrize("kind", [np.float32, np.int16])
    def test_a_negative_number_is_no_distance(self, tmp_path, kind) -> None:
        np.save(tmp_path / "a.npy", millimetres(-1, kind))
        with opened() as account:
            depth = read_depth(tmp_path / "a.npy", "dark")[0]
        assert (depth < 0.01).sum() == 12 * 18 - 30
        assert "1 depth maps in which -1 means no value" in account.lines()[0]
        # Where bright is near, and where depths lie around 0, negative numbers are numbers.
        assert not find_holes(millimetres(-1, kind), "bright")[0].any()
        around = np.arange(-100, 101).astype(kind)
        assert find_holes(around, "dark")[1] == [0]

    @pytest.mark.parametrize(("number", "near"), [(8000, "dark"), (-9999, "bright")])
    def test_a_number_far_beyond_all_others_is_warned_of(self, tmp_path, number, near) -> None:
        np.save(tmp_path / "a.npy", millimetres(number, np.int32))
        with opened() as account:
            read_depth(tmp_path / "a.npy", near)
        assert f"in which {number}, far beyond all others, takes most" in account.lines()[0]
        for invalid in (("auto", str(number)), ("none",)):
            with opened() as account:
                read_depth(tmp_path / "a.npy", near, invalid=invalid)
            assert "far beyond" not in "".join(account.lines())
        np.save(tmp_path / "a.npy", millimetres())
        with opened() as account:
            read_depth(tmp_path / "a.npy", near)
        assert account.lines() == []

    def test_16_bits_with_white_as_zero_look_as_in_a_viewer(self, tmp_path) -> None:
        stored = write_deep_tiff(tmp_path / "a.tif", 65535 - millimetres(), white_is_zero=True)
        plain = save(tmp_path / "b.png", millimetres())
        np.testing.assert_array_equal(read_depth(stored), read_depth(plain))

    def test_the_largest_number_of_wider_types_is_no_value(self) -> None:
        for kind in (np.int32, np.uint32, np.float32):
            limits = np.iinfo(kind) if np.issubdtype(kind, np.integer) else np.finfo(kind)
            values = millimetres(None, kind)
            values[0, 0] = limits.max
            values[1, 0] = 65535
            holes, _ = find_holes(values, "dark")
            assert holes[0, 0]
            assert holes.sum() == 1
        values = millimetres(65535, np.float32)
        assert find_holes(values, "dark")[1] == [65535]

    @pytest.mark.parametrize(
        "values",
        [
            np.linspace(0, 65535, 216).reshape(12, 18).astype(np.uint16),  # a scale to its end
            np.where(millimetres() < 1000, 65535, 20000 + 257 * np.arange(18)).astype(np.uint16)
            // 257
            * 257,  # 8 bits written as 16
            np.full((12, 18), 65535, np.uint16),
        ],
        ids=["a scale", "8 bits", "constant"],
    )
    def test_a_scale_that_ends_at_65535_is_no_hole(self, values) -> None:
        holes, _ = find_holes(values, "bright")
        assert not holes[values == 65535].any()

    def test_zero_of_8_bits_is_a_hole_where_dark_is_near(self, tmp_path) -> None:
        values = (millimetres() // 12).astype(np.uint8)
        values[:, :2] = 0
        path = save(tmp_path / "a.png", values)
        depth = read_depth(path, "dark")[0]
        np.testing.assert_allclose(depth[4:9, 8:14], 1)
        assert depth[0, 0] < 0.05
        assert read_depth(path, "bright")[0][0, 0] == 0
        assert read_depth(path, "dark", invalid=("none",))[0][0, 0] == 1

    def test_255_of_8_bits_is_a_hole_only_where_the_rest_is_far_from_it(self) -> None:
        values = np.full((8, 8), 60, np.uint8) + np.arange(8, dtype=np.uint8)
        values[0] = 255
        assert find_holes(values, "bright", narrow=True)[1] == [255]
        # Stretched to 0..255: the nearest thing is 255 because it is the nearest.
        values[1] = 0
        assert find_holes(values, "bright", narrow=True)[1] == []
        smooth = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4 + 3
        assert find_holes(smooth, "bright", narrow=True)[1] == []
        assert find_holes(smooth - 3, "dark", narrow=True)[1] == []


class TestArrays:
    def test_numpy_files_are_read_as_pictures_are(self, tmp_path) -> None:
        values = millimetres(0)
        expected = read_depth(save(tmp_path / "a.png", values), "dark")
        np.save(tmp_path / "a.npy", values / 1000)
        np.savez_compressed(tmp_path / "b.npz", values.astype(np.float32)[..., None])
        np.savez(tmp_path / "c.npz", intrinsics=np.eye(3), depth=values)
        for name in ("a.npy", "b.npz", "c.npz"):
            np.testing.assert_allclose(read_depth(tmp_path / name, "dark"), expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("objects.npy", "no array of numpy|not numbers"),
            ("huge.npy", "too large"),
            ("short.npy", "cut off"),
            ("text.npy", "no array of numpy"),
            ("several.npz", "holds 2 arrays"),
            ("cube.npy", "has the shape"),
            ("none.npy", "no such file"),
            ("text.npz", "no array of numpy"),
            ("bomb.npz", "too large|cut off"),
        ],
    )
    def test_what_is_no_depth_is_one_line(self, tmp_path, name, message) -> None:
        np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
        np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
        np.savez(tmp_path / "several.npz", a=np.eye(3), b=np.eye(2))
        (tmp_path / "text.npy").write_text("no array")
        (tmp_path / "text.npz").write_text("no array")
        for file, side in (("huge.npy", 10**8), ("short.npy", 1000)):
            head = io.BytesIO()
            shape = {"descr": "<f4", "fortran_order": False, "shape": (side, side)}
            np.lib.format.write_array_header_1_0(head, shape)
            (tmp_path / file).write_bytes(head.getvalue())
            with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
                archive.writestr("arr_0.npy", head.getvalue())
        with pytest.raises(InputError, match=message) as caught:
            read_depth(tmp_path / name)
        assert "\n" not in str(caught.value)
