"""Frames of a video, or of a folder of pictures, one after the other.

Video is read by PyAV (extra `video`), which brings FFmpeg's libraries with it. Only one frame is in
memory at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import InputError, fail, reason
from ...base.extras import install_line
from .pictures import PICTURE_SUFFIXES, read_picture
from .tables import list_files

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

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
FRAME_PIXELS = 100_000_000  # largest frame of a video: three times 8K
# FFmpeg's containers that hold their own frames; others (playlists, lists) name further files or
# hosts.
CONTAINERS = "mov,avi,matroska,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,h264,hevc"


@dataclass(frozen=True)
class Frame:
    """One frame. pixels: uint8 RGB (Y, X, 3), or None where it cannot be read; error says why."""

    number: int
    name: str
    pixels: np.ndarray | None
    error: str | None = None


class Frames:
    """The frames of a video file, a picture or a folder of pictures, in order: an iterable of
    `Frame`.

    Pictures are sorted by name, with numbers in names compared by value. Where all names end in
    digits and no two in the same number, these are the frame numbers (000017.jpg is 17). All other
    frames are numbered from 1, as in MOTChallenge. A folder without pictures but with a folder img1
    is a sequence of MOTChallenge, whose frames are in img1.

    stride: read every stride-th frame, beginning with the first. A frame that cannot be read comes
    with its error, and the next frames follow. The orientation that cameras record (EXIF, display
    matrix) is applied.

    Raises InputError where there is nothing to read, and ValueError for a stride below 1.
    """

    def __init__(self, path: str | Path, *, stride: int = 1) -> None:
        if stride < 1:
            raise ValueError(f"stride: must be at least 1, got {stride}")
        self.path, self.stride, home = Path(path), stride, Path(path)
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
        self.total = len(range(0, len(self.files), stride)) if self.files is not None else None
        """How many frames there will be; None where a video does not say."""
        self.span = (1, len(self.files or ()) or None)
        """The lowest and the highest number of a frame; None where a video does not say."""
        if self.files is None:
            with _open_video(self.path) as container:
                count = container.streams.video[0].frames
            self.total = len(range(0, count, stride)) if count > 0 else None
            self.span = (1, count if count > 0 else None)
        elif self.numbers:
            self.span = (min(self.numbers), max(self.numbers))

    @property
    def camera(self) -> str:
        """The name of the input: a video's without its ending; for a folder img1, the name of the
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
        for number, file in list(zip(self.numbers, self.files))[:: self.stride]:
            try:
                yield Frame(
                    number, file.name, np.ascontiguousarray(read_picture(file).transpose(1, 2, 0))
                )
            except InputError as error:
                yield Frame(number, file.name, None, str(error))

    def _video(self) -> Iterator[Frame]:
        number = 0
        with _open_video(self.path) as container:
            for decoded in _decoded(container):
                number += 1
                if (number - 1) % self.stride:
                    continue
                name = f"{number:06d}"
                try:
                    yield Frame(number, name, _pixels(decoded))
                except _Unreadable as error:
                    yield Frame(number, name, None, f"{self.path}: frame {number}: {error}")
        if not number:
            raise fail(self.path, "holds no frame that can be decoded")


class _Unreadable(Exception):
    """Why a frame of a video cannot be used."""


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Key that sorts frame2 before frame10; the name itself decides between 01 and 1."""
    parts = re.split(r"([0-9]{1,18})", path.name)
    return [(0, int(part)) if k % 2 else (1, part) for k, part in enumerate(parts)], path.name


def _numbers(files: list[Path]) -> list[int]:
    digits = [re.search(r"[0-9]{1,18}$", file.stem) for file in files]
    numbers = [int(match.group()) for match in digits if match]
    if len(numbers) == len(files) and max(Counter(numbers).values()) == 1:
        return numbers
    return list(range(1, len(files) + 1))


def _open_video(path: Path) -> InputContainer:
    """PyAV's container. Raises InputError where the file is no video."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise InputError(
            f"{path}: video needs PyAV: {install_line('video')}; or give a folder of pictures"
        ) from None
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        # "file:", because the name may hold a colon, which would name a protocol.
        container = av.open(f"file:{path}", options=options)
    except (FFmpegError, OSError, ValueError) as error:
        raise fail(path, f"is no video that FFmpeg reads ({reason(error)})") from None
    if not container.streams.video:
        container.close()
        raise fail(path, "holds no picture, only other streams")
    return container


def _decoded(container: InputContainer) -> Iterator[VideoFrame | Exception]:
    """PyAV's frames in display order; an error in place of a frame that cannot be decoded."""
    from av.error import FFmpegError

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(FRAME_PIXELS)}
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (FFmpegError, OSError) as error:  # the file is cut off
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


def _pixels(frame: VideoFrame | Exception) -> np.ndarray:
    """RGB (Y, X, 3) of a frame of PyAV."""
    if isinstance(frame, Exception):
        raise _Unreadable(reason(frame))
    if frame.width * frame.height > FRAME_PIXELS:
        raise _Unreadable(f"has {frame.width} x {frame.height} pixels, more than {FRAME_PIXELS:,}")
    if frame.is_corrupt:
        raise _Unreadable("is damaged")
    pixels = frame.to_ndarray(format="rgb24")
    # The display matrix of a camera that was held upright; counterclockwise.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
