"""Sound in the containers of phones, cameras and meetings (m4a, mp4, webm, mkv, wma, ...), decoded
by PyAV (extra `video`), which brings FFmpeg's libraries with it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import fail, reason
from ...base.extras import install_line

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

STREAM_SUFFIXES = (
    ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".webm", ".weba", ".mka",
    ".mkv", ".wma", ".wmv", ".asf", ".amr", ".avi", ".flv", ".mpg", ".mpeg", ".mts", ".m2ts",
    ".mp2", ".ac3", ".spx",
)  # fmt: skip
# FFmpeg's containers that hold their own sound; others (playlists, lists) name further files or
# hosts.
CONTAINERS = "mov,matroska,aac,asf,amr,avi,flv,mpeg,mpegts,mp3,ac3,eac3,ogg,caf,wav,aiff,w64"
NAMES_LENGTH = ("mov", "matroska", "asf")  # containers whose header says how long the sound is
SHORTFALL = 0.5  # seconds that may be missing: padding of encoders, rounded lengths
BLOCK_SAMPLES = 1 << 20
_BEGINNINGS = (
    (4, b"ftyp"),  # mp4, m4a, mov, 3gp
    (0, b"\x1a\x45\xdf\xa3"),  # webm, mkv
    (0, b"\x30\x26\xb2\x75"),  # wma, asf
    (0, b"#!AMR"),
    (0, b"\xff\xf1"),  # aac
    (0, b"\xff\xf9"),
)


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def is_stream(path: Path) -> bool:
    """Whether a file holds one of these containers, by its name or by its first bytes."""
    if path.suffix.lower() in STREAM_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(16)
    return any(head[place : place + len(mark)] == mark for place, mark in _BEGINNINGS)


class StreamedSound:
    """The first track of sound of a container. frames: its samples by the header, 0 if unknown.

    Raises InputError where PyAV is not installed, and for what is no such file or holds no sound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.container = _open(path)
        try:
            stream = _sound_of(path, self.container)
            self.stream: AudioStream = stream
            self.samplerate = int(stream.rate or 0)
            self.channels = int(stream.channels or 0)
            self.frames = round(self._named_seconds() * self.samplerate)
        except BaseException:
            self.container.close()
            raise

    def _named_seconds(self) -> float:
        """Length by the header of the track, or of a container without other tracks."""
        stream, container = self.stream, self.container
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration and len(container.streams) == 1:
            return container.duration / 1_000_000
        return 0.0

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        """Samples (n, channels) from `first` to `last`, float32, in blocks of about a million.

        Raises InputError for what is damaged or cut off.
        """
        pending: list[np.ndarray] = []
        held = total = 0
        for piece in self._decoded():
            start, total = total, total + len(piece)
            stop = total if last is None else min(total, last)
            if stop > max(start, first):
                pending.append(piece[max(0, first - start) : stop - start])
                held += pending[-1].size
            if held >= BLOCK_SAMPLES:
                yield np.concatenate(pending)
                pending, held = [], 0
            if last is not None and total >= last:
                break
        else:
            self._check_length(total)
        if pending:
            yield np.concatenate(pending)

    def _decoded(self) -> Iterator[np.ndarray]:
        """(n, channels) of each frame from the start."""
        from av import AudioResampler
        from av.error import FFmpegError

        resampler = AudioResampler("fltp", self.stream.layout.name, self.samplerate)

        def pieces(frame: AudioFrame | None) -> Iterator[np.ndarray]:
            for converted in resampler.resample(frame):
                yield np.ascontiguousarray(converted.to_ndarray().T, np.float32)

        try:
            for packet in self.container.demux(self.stream):
                for frame in packet.decode():
                    yield from pieces(frame)
            yield from pieces(None)
        except (FFmpegError, OSError, ValueError) as error:
            problem = f"is damaged ({reason(error).rstrip('.')}); fetch or write it again"
            raise fail(self.path, problem) from None

    def _check_length(self, total: int) -> None:
        names = self.container.format.name.split(",")
        if any(name in NAMES_LENGTH for name in names):
            named, read = (count / self.samplerate for count in (self.frames, total))
            if named - read > SHORTFALL:
                problem = f"{read:.2f} s can be read of the {named:.2f} s that its header names"
                raise fail(self.path, f"is cut off: {problem}; fetch or write it again")
        if not total:
            raise fail(self.path, "holds no samples")

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def _open(path: Path) -> InputContainer:
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        cure = f"or convert it: ffmpeg -i {path.name} {path.stem}.wav"
        needed = f"needs PyAV to be read: {install_line('video')}"
        raise fail(path, f"{needed}; {cure}") from None
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        # "file:", because the name may hold a colon, which would name a protocol.
        return av.open(f"file:{path}", options=options)
    except (FFmpegError, OSError, ValueError) as error:
        problem = reason(error).rstrip(".")
        raise fail(
            path, f"is no recording that can be read ({problem}); is it cut off or damaged?"
        ) from None


def _sound_of(path: Path, container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise fail(path, "holds no sound, only other streams")
    return container.streams.audio[0]
