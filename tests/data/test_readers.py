"""One contract for everything that reads pictures: upright as EXIF says, colours and bits as they
are.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.data.formats.pictures import read_picture
from headwise.data.formats.video import Frames
from headwise.data.scenes.depths import read_depth
from headwise.data.scenes.masks import read_mask
from headwise.data.scenes.reading import read_scene
from headwise.data.xrays.xrays import read_xray

RAMP = np.linspace(1, 255, 20).reshape(4, 5).round().astype(np.uint8)
"""Grey, no two pixels alike, darkest and brightest in opposite corners. (4, 5)."""


def of_frames(path: Path) -> np.ndarray:
    (frame,) = Frames(path)
    assert frame.pixels is not None
    return frame.pixels[..., 0] / 255


# name -> (reads a file as (Y, X) in [0, 1], the modes of pictures that it takes)
READERS: dict[str, tuple[Callable[[Path], np.ndarray], tuple[str, ...]]] = {
    "picture": (lambda path: read_picture(path)[0] / 255, ("L", "RGB", "I;16", "RGBA", "LA", "P")),
    "scene": (
        lambda path: read_scene(path, None, (4, 5))["image"][0] / 255,
        ("L", "RGB", "I;16", "RGBA", "LA", "P"),
    ),
    "frame": (of_frames, ("L", "RGB", "I;16", "RGBA", "LA", "P")),
    "x-ray": (read_xray, ("L", "RGB", "I;16", "RGBA", "LA", "P")),
    "depth": (lambda path: read_depth(path)[0], ("L", "RGB", "I;16", "P")),
    "mask": (
        lambda path: read_mask(path).astype(float),
        ("L", "RGB", "I;16", "RGBA", "LA", "P", "coloured palette"),
    ),
}
CASES = [(name, mode) for name, (_, modes) in READERS.items() for mode in modes]


def expected(name: str, values: np.ndarray, most: int) -> np.ndarray:
    """What a reader makes of grey values up to `most`: a depth is stretched."""
    values = values.astype(float)
    return (
        (values - values.min()) / (values.max() - values.min())
        if name == "depth"
        else values / most
    )


def stored(values: np.ndarray, mode: str) -> Image.Image:
    """Grey values (Y, X) of 8 bits in a mode of Pillow, opaque where the mode has transparency."""
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 257)
    if mode == "P":
        return Image.fromarray(values).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    if mode == "coloured palette":  # as VOC has it
        picture = Image.fromarray((values > 0).astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
        return picture
    return Image.fromarray(values).convert(mode)


# What each value of EXIF says of the stored picture (EXIF 2.3, table of tag 274), undone by numpy.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: np.transpose,
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).T,
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_every_reader_turns_every_kind_upright(tmp_path: Path, name: str, mode: str) -> None:
    read = READERS[name][0]
    values = np.where(RAMP > 127, 255, 0).astype(np.uint8) if name == "mask" else RAMP.copy()
    values[0, 3] = 255  # so that no turn leaves a mask as it is
    for orientation, turned in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored(np.ascontiguousarray(turned(values)), mode).save(tmp_path / "a.png", exif=exif)
        picture = read(tmp_path / "a.png")
        np.testing.assert_allclose(
            picture, expected(name, values, 255), atol=0.009, err_msg=f"{orientation}"
        )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg", ".webp"])
def test_a_red_picture_is_red_and_as_bright_as_red(tmp_path: Path, suffix: str) -> None:
    """Grey is that of ITU-R BT.601, which weighs red, green and blue unlike."""
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    for (colour, rgb), grey in zip(colours.items(), (0.299, 0.587, 0.114)):
        path = tmp_path / f"{colour}{suffix}"
        Image.new("RGB", (32, 24), rgb).save(
            path, **({"quality": 100} if suffix in (".jpg", ".webp") else {})
        )
        truth = np.broadcast_to(np.array(rgb)[:, None, None], (3, 24, 32))
        for picture in (
            read_picture(path),
            read_scene(path, None, (24, 32))["image"],
            read_picture(path, (24, 32)),
        ):
            np.testing.assert_allclose(picture, truth, atol=6)
        np.testing.assert_allclose(read_xray(path), grey, atol=0.02)


def test_cmyk_is_read_as_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "a.jpg")[:, 8, 8].astype(int) - (250, 10, 10)).max() <= 8


@pytest.mark.parametrize("name", ["picture", "scene", "frame", "x-ray", "depth"])
def test_sixteen_bits_are_one_scale_for_every_reader(tmp_path: Path, name: str) -> None:
    """And an x-ray or a depth keeps what lies between the steps of 8 bits."""
    values = (1 + np.arange(20).reshape(4, 5) * 3449).astype(
        np.uint16
    )  # 0 would be a hole of a depth
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = READERS[name][0](tmp_path / "a.png")
    fine = name in ("x-ray", "depth")
    np.testing.assert_allclose(
        picture, expected(name, values, 65_535), atol=1e-5 if fine else 0.0021
    )


def test_a_size_is_height_then_width_for_every_reader(tmp_path: Path) -> None:
    down = np.repeat(np.linspace(20, 240, 40).astype(np.uint8)[:, None], 60, 1)
    Image.fromarray(down).save(tmp_path / "a.png")
    Image.fromarray(np.where(down > 128, 255, 0).astype(np.uint8)).save(tmp_path / "m.png")
    path, size = tmp_path / "a.png", (10, 30)
    scene = read_scene(path, path, size)
    depth, mask = read_depth(path, "bright", size), read_mask(tmp_path / "m.png", size)
    for picture in (
        read_picture(path, size)[1],
        scene["image"][2],
        scene["depth"][0],
        depth[0],
        mask,
    ):
        assert picture.shape == size
        assert (np.diff(picture.astype(float), axis=0) >= 0).all()
        assert (picture == picture[:, :1]).all()
    assert scene["shape"] == (40, 60)
