"""Frames of folders and videos: order, numbers, damage, and what is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is optional (extra vision) and not installed")

from PIL import Image

from headwise.base.errors import InputError
from headwise.data.formats.video import Frames


def pictures(folder: Path, names: list[str]) -> Path:
    """Small pictures whose red is their place in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.new("RGB", (6, 4), (10 * k, 100, 200)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (
            ["frame2.png", "frame10.png", "frame1.png"],
            [("frame1.png", 1), ("frame2.png", 2), ("frame10.png", 10)],
        ),
        (["000017.png", "000003.png"], [("000003.png", 3), ("000017.png", 17)]),
        (["a1.png", "b1.png"], [("a1.png", 1), ("b1.png", 2)]),  # equal numbers do not count
        (["x.png", "y.png"], [("x.png", 1), ("y.png", 2)]),
    ],
)
def test_order_and_numbers_of_a_folder(tmp_path, names, numbers) -> None:
    frames = Frames(pictures(tmp_path / "in", names))
    read = list(frames)
    assert [(frame.name, frame.number) for frame in read] == numbers
    assert frames.total == len(names)
    assert frames.camera == "in"
    for frame in read:
        assert frame.pixels is not None
        assert frame.pixels.shape == (4, 6, 3)
        assert frame.pixels[0, 0].tolist() == [10 * names.index(frame.name), 100, 200]


def test_every_nth_frame_keeps_its_number(tmp_path) -> None:
    frames = Frames(pictures(tmp_path / "in", [f"{k}.png" for k in range(1, 8)]), stride=3)
    assert [frame.number for frame in frames] == [1, 4, 7]
    assert frames.total == 3
    with pytest.raises(ValueError, match="at least 1"):
        Frames(tmp_path / "in", stride=0)


def test_a_sequence_of_motchallenge_is_its_img1(tmp_path) -> None:
    pictures(tmp_path / "MOT17-02" / "img1", ["000001.png"])
    (tmp_path / "MOT17-02" / "seqinfo.ini").write_text("[Sequence]")
    for where in (tmp_path / "MOT17-02", tmp_path / "MOT17-02" / "img1"):
        assert [frame.name for frame in Frames(where)] == ["000001.png"]
        assert Frames(where / "").camera == "MOT17-02"


def test_a_damaged_frame_does_not_stop_the_others(tmp_path) -> None:
    pictures(tmp_path, ["1.png", "2.png", "3.png"])
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    first, damaged, third = Frames(tmp_path)
    assert first.pixels is not None
    assert third.pixels is not None
    assert damaged.pixels is None
    assert damaged.error is not None
    assert "2.png" in damaged.error
    assert "\n" not in damaged.error


def test_input_without_frames_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no such video or folder"):
        Frames(tmp_path / "none")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(InputError, match="unknown kind of video"):
        Frames(tmp_path / "a.doc")
    with pytest.raises(InputError, match="no file of a kind"):
        Frames(tmp_path)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Twelve uniform grey frames of 64 x 48; the level rises by 20."""
    av = pytest.importorskip("av", reason="PyAV is optional (extra video) and not installed")
    path = tmp_path_factory.mktemp("video") / "a b:c.mp4"
    with av.open(f"file:{path}", "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(12):
            picture = np.full((48, 64, 3), 20 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_of_a_video_come_in_their_order(video) -> None:
    frames = Frames(video, stride=5)
    read = list(frames)
    assert [(frame.number, frame.name) for frame in read] == [
        (1, "000001"),
        (6, "000006"),
        (11, "000011"),
    ]
    assert frames.total == 3
    assert frames.camera == "a b:c"
    for frame in read:
        assert frame.pixels is not None
        assert frame.pixels.shape == (48, 64, 3)
        assert abs(frame.pixels.astype(int) - 20 * (frame.number - 1)).max() <= 4
    assert len(list(Frames(video))) == 12


COLOURS = {
    (0, 0): (220, 30, 20),
    (0, 1): (30, 200, 40),
    (1, 0): (20, 40, 230),
    (1, 1): (210, 210, 50),
}


def coloured() -> np.ndarray:
    """A quarter each of red, green, blue and yellow: no two can change places unseen. (32, 64,
    3).
    """
    picture = np.zeros((32, 64, 3), np.uint8)
    for (down, right), colour in COLOURS.items():
        picture[16 * down : 16 * down + 16, 32 * right : 32 * right + 32] = colour
    return picture


def film(path: Path, pictures: list[np.ndarray]) -> Path:
    av = pytest.importorskip("av", reason="PyAV is optional (extra video) and not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5, options={"qscale": "1"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def assert_close(pixels: np.ndarray | None, expected: np.ndarray) -> None:
    """Within what the codec does to colours, away from their borders."""
    assert pixels is not None
    assert pixels.shape == expected.shape
    inner = np.zeros(expected.shape[:2], bool)
    inner[4:12, 4:12] = inner[-12:-4, 4:12] = inner[4:12, -12:-4] = inner[-12:-4, -12:-4] = True
    assert np.abs(pixels.astype(int) - expected)[inner].max() <= 12


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_red_frame_of_a_video_is_red(tmp_path, suffix) -> None:
    others = [coloured()[::-1], coloured()[:, ::-1], np.full((32, 64, 3), (220, 30, 20), np.uint8)]
    path = film(tmp_path / f"a{suffix}", [coloured(), *others])
    frames = list(Frames(path))
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    for frame, expected in zip(frames, [coloured(), *others]):
        assert_close(frame.pixels, expected)


def test_a_red_frame_of_a_folder_is_red(tmp_path) -> None:
    for name in ("1.png", "2.jpg"):
        Image.fromarray(coloured()).save(
            tmp_path / name, **({"quality": 98} if name.endswith("jpg") else {})
        )
    first, second = Frames(tmp_path)
    np.testing.assert_array_equal(first.pixels, coloured())
    assert_close(second.pixels, coloured())


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0)],
)
def test_a_video_of_a_camera_held_upright_is_turned(tmp_path, matrix, turns) -> None:
    """The display matrix (ISO 14496-12, tkhd): x' = a x + c y, y' = b x + d y; y goes down."""
    path = film(tmp_path / "a.mp4", [coloured()] * 2)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = matrix
    content[place : place + 36] = struct.pack(
        ">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30
    )
    path.write_bytes(bytes(content))
    for frame in Frames(path):
        assert_close(frame.pixels, np.rot90(coloured(), turns))


def test_a_cut_video_gives_what_it_has_and_a_text_is_none(video, tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    with pytest.raises(InputError, match="is no video that FFmpeg reads"):
        Frames(tmp_path / "text.mp4")
    # A playlist would read other files, or hosts.
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{video}\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match="is no video that FFmpeg reads"):
        Frames(tmp_path / "list.mp4")


def test_without_pyav_the_extra_is_named(video, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"pip install .*\[video\]'"):
        Frames(video)
