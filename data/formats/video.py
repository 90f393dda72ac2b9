"""Frames of a video, or of a folder of pictures, one after the other.

Video is read by PyAV (extra `video`), which brings FFmpeg's libraries with it. Only one frame is in
memory at a time."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import InputError, fail
from .pictures import PICTURE_SUFFIXES, read_picture
from .tables import list_files

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".wmv",
    ".asf",
    ".flv",
    ".ogv",
    ".3gp",
    ".mxf",
)
FRAME_PIXELS = 100_000_000  # largest frame of a video; 8K has a third of it
# Containers of FFmpeg that hold their frames themselves; others (playlists, lists) name further
# files or hosts.
CONTAINERS = "mov,avi,matroska,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,h264,hevc"


@dataclass(frozen=True)
class Frame:
    """One frame. `pixels`: uint8 RGB (Y, X, 3), or None where it cannot be read, and `error` says
    why.
    """

    number: int
    name: str
    pixels: np.ndarray | None
    error: str | None = None


class Frames:
    """The frames of a video file, a picture or a folder of pictures, in order: an iterable of
    `Frame`.

    Pictures are sorted by name, numbers in it by their value, and numbered by the digits that end
    their names where all have such and no two the same (000017.jpg is 17). All other frames are
    numbered from 1, as in MOTChallenge. A folder without pictures that has a folder img1 (a
    sequence of MOTChallenge) stands for that.

    every: take the first frame and then every so many-th. A frame that cannot be read is given with
    its error and ends nothing. The orientation that cameras note (EXIF, display matrix) is applied.

    Raises InputError where there is nothing to read; `ValueError` for `every` below 1.
    """

    def __init__(self, path: str | Path, *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every: must be at least 1, got {every}")
        self.path, self.every, home = Path(path), every, Path(path)
        self.files: list[Path] | None = None
        if home.is_dir():
            if (home / "img1").is_dir() and not any(
                f.suffix.lower() in PICTURE_SUFFIXES for f in home.iterdir()
            ):
                home = home / "img1"
            self.files = sorted(map(Path, list_files(home, PICTURE_SUFFIXES)), key=_natural)
        elif not home.is_file():
            raise fail(path, "there is no such video or folder of frames")
        elif home.suffix.lower() in PICTURE_SUFFIXES:
            self.files = [home]
        elif home.suffix.lower() not in VIDEO_SUFFIXES:
            raise fail(
                path,
                f"unknown kind of video {home.suffix!r}; headwise reads folders of pictures and "
                f"{', '.join(VIDEO_SUFFIXES)}",
            )
        self.numbers = _numbers(self.files) if self.files is not None else None
        self.total = len(range(0, len(self.files), every)) if self.files is not None else None
        """How many frames there will be, None where a video does not say."""
        if self.files is None:
            with _open_video(self.path) as container:
                count = container.streams.video[0].frames
            self.total = len(range(0, count, every)) if count > 0 else None

    @property
    def camera(self) -> str:
        """The name of the input: of a video without its ending, of a folder img1 that of the
        sequence.
        """
        path = self.path.resolve()
        if self.files is None or path.is_file():
            return path.stem
        return path.parent.name if path.name == "img1" else path.name

    def __iter__(self) -> Iterator[Frame]:
        return self._pictures() if self.files is not None else self._video()

    def _pictures(self) -> Iterator[Frame]:
        assert self.files is not None
        assert self.numbers is not None
        for number, file in list(zip(self.numbers, self.files))[:: self.every]:
            try:
                yield Frame(
                    number, file.name, np.ascontiguousarray(read_picture(file).transpose(1, 2, 0))
                )
            except InputError as error:
                yield Frame(number, file.name, None, str(error))

    def _video(self) -> Iterator[Frame]:
        number = 0
        with _open_video(self.path) as container:
            for found in _decoded(container):
                number += 1
                if (number - 1) % self.every:
                    continue
                name = f"{number:06d}"
                try:
                    yield Frame(number, name, _pixels(found))
                except _Unreadable as error:
                    yield Frame(number, name, None, f"{self.path}: frame {number}: {error}")
        if not number:
            raise fail(self.path, "holds no frame that can be decoded")


class _Unreadable(Exception):
    """Why a frame of a video cannot be used."""


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sorts frame2 before frame10; the name itself decides between 01 and 1."""
    parts = re.split(r"([0-9]{1,18})", path.name)
    return [(0, int(part)) if k % 2 else (1, part) for k, part in enumerate(parts)], path.name


def _numbers(files: list[Path]) -> list[int]:
    digits = [re.search(r"[0-9]{1,18}$", file.stem) for file in files]
    found = [int(match.group()) for match in digits if match]
    if len(found) == len(files) and max(Counter(found).values()) == 1:
        return found
    return list(range(1, len(files) + 1))


def _open_video(path: Path) -> Any:
    """PyAV's container; InputError where it is no video."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise InputError(
            f"{path}: video needs PyAV: pip install 'headwise[video]'; or give a folder of pictures"
        ) from None
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        container = av.open(
            f"file:{path}", options=options
        )  # a name may hold a colon, which would be a protocol
    except (FFmpegError, OSError, ValueError) as error:
        raise fail(
            path, f"is no video that FFmpeg reads ({getattr(error, 'strerror', None) or error})"
        ) from None
    if not container.streams.video:
        container.close()
        raise fail(path, "holds no picture, only other streams")
    return container


def _decoded(container: Any) -> Iterator[Any]:
    """PyAV's frames in the order they are shown; the error in place of one that cannot be
    decoded.
    """
    from av.error import FFmpegError

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(FRAME_PIXELS)}
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (FFmpegError, OSError) as error:  # the file ends in the middle of something
            yield error
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except (FFmpegError, OSError) as error:
            yield error
            continue
        yield from frames


def _pixels(found: Any) -> np.ndarray:
    """RGB (Y, X, 3) of a frame of PyAV."""
    if isinstance(found, Exception):
        raise _Unreadable(getattr(found, "strerror", None) or str(found))
    if found.width * found.height > FRAME_PIXELS:
        raise _Unreadable(f"has {found.width} x {found.height} pixels, more than {FRAME_PIXELS:,}")
    if found.is_corrupt:
        raise _Unreadable("is damaged")
    pixels = found.to_ndarray(format="rgb24")
    turns = (
        round(found.rotation / 90) % 4
    )  # the display matrix of a camera held upright; counterclockwise
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
