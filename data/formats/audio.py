"""Recordings: their samples, of one channel or of all of them mixed, at one rate.

Shapes: samples are float32 (S,), about -1 to 1, at 16,000 per second. libsndfile decodes
(soundfile, the extra `speech`), PyAV what is in containers (`audio_streams`), and SciPy's polyphase
filters change the rate. All work in blocks, so a long recording needs no more memory than its
samples at that rate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail, reason
from ...base.extras import install_line
from .audio_sizes import UnsizedWave, missing_sound
from .audio_streams import STREAM_SUFFIXES, StreamedSound, has_pyav, is_stream

if TYPE_CHECKING:
    from soundfile import SoundFile

RATE = 16_000  # samples per second of everything that is read
SNDFILE_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".caf",
    ".w64", ".rf64",
)  # fmt: skip
AUDIO_SUFFIXES = (*SNDFILE_SUFFIXES, *STREAM_SUFFIXES)
MOST_SECONDS = 8 * 3600
LEAST_RATE, MOST_RATE = 1_000, 768_000
MOST_CHANNELS = 64
MOST_PEAK = 16.0  # of a sample, where 1 is full scale; louder ones are in another unit
BLOCK_SECONDS = 30
BLOCK_SAMPLES = 8 << 20  # of all channels together
MP3_FRAME = 1_152  # samples
SPEECH_RATE = 8_000  # at about which the channels are compared
CANCELLED = 10.0  # as much energy must come from turning channels for them to count as opposite
OPPOSITE = "channels of opposite phase, one side turned before they were mixed"


@dataclass(frozen=True)
class AudioFacts:
    """The header of a recording: seconds, samples per second, number of channels."""

    seconds: float
    rate: int
    channels: int


@dataclass(frozen=True)
class Sound:
    """samples: float32 (S,) at 16,000 per second. remarks: what was done to them that whoever uses
    them should know.
    """

    samples: np.ndarray
    remarks: tuple[str, ...] = ()


class _Source(Protocol):
    """A recording that is open. frames: samples by its header, 0 where it does not say."""

    samplerate: int
    channels: int
    frames: int

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]: ...

    def close(self) -> None: ...


def audio_facts(path: str | os.PathLike[str]) -> AudioFacts:
    """Facts from the header of a recording; one that does not name its length is decoded. Raises
    InputError as `read_audio` does.
    """
    with closing(_opened(path)) as source:
        frames = source.frames or sum(map(len, source.blocks(0, None)))
        return AudioFacts(frames / source.samplerate, source.samplerate, source.channels)


def read_audio(
    path: str | os.PathLike[str],
    start: float = 0.0,
    stop: float | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """The samples of `read_sound`."""
    return read_sound(path, start, stop, channel).samples


def read_sound(
    path: str | os.PathLike[str],
    start: float = 0.0,
    stop: float | None = None,
    channel: int | None = None,
) -> Sound:
    """The samples from `start` to `stop` in seconds (None: the end) of one channel, counted from 0,
    or of the mean of all of them. Channels of opposite phase, which would cancel, are turned first.

    Raises InputError for a file that is missing, of a kind that cannot be read, empty, damaged, cut
    off, longer than 8 hours or not finite, and where soundfile (or PyAV) is not installed.
    """
    with closing(_opened(path)) as source:
        rate, count = source.samplerate, source.channels
        if channel is not None and not 0 <= channel < count:
            raise fail(path, f"has no channel {channel + 1}; it has {count}")
        first, last = _stretch(path, source, start, stop)
        mixture = _Mixture(path, count, channel)
        samples = _samples(mixture, source, first, last)
        if not len(samples):
            raise fail(path, f"has no samples from {start:g} s on")
        signs = mixture.opposite_signs()
    remarks: tuple[str, ...] = ()
    if signs is not None:
        with closing(_opened(path)) as source:
            samples = _samples(_Mixture(path, count, None, signs), source, first, last)
        remarks = (OPPOSITE,)
        note("assumed", f"recordings with {OPPOSITE}", [path])
    elif count > 1 and channel is None:
        note("assumed", "recordings of several channels, which are averaged", [path])
    if rate != RATE:
        note("assumed", f"recordings at {rate:,} samples a second, changed to {RATE:,}", [path])
    return Sound(samples, remarks)


def raw_blocks(
    path: str | os.PathLike[str], start: float = 0.0, stop: float | None = None
) -> Iterator[np.ndarray]:
    """The samples of a stretch as they are in the file, (n, channels), block by block. Raises
    InputError as `read_sound` does.
    """
    with closing(_opened(path)) as source:
        yield from source.blocks(*_stretch(path, source, start, stop))


def _stretch(
    path: object, source: _Source, start: float, stop: float | None
) -> tuple[int, int | None]:
    """The first sample and the one after the last of a stretch in seconds."""
    rate, frames = source.samplerate, source.frames
    first = round(start * rate)
    if frames > 0:
        refuse_other_unit(path, stop, frames / rate)
    if isinstance(source, StreamedSound):  # its length by the header is not exact
        return first, None if stop is None else round(stop * rate)
    last = frames if stop is None else min(frames, round(stop * rate))
    if not 0 <= first < last:
        until = stop if stop is None else f"{stop:g}"
        length = f"{frames / rate:.2f} s"
        raise fail(path, f"has no samples from {start:g} s to {until} s; it is {length} long")
    return first, last


def refuse_other_unit(path: object, stop: float | None, seconds: float) -> None:
    """Raise InputError for a stretch that ends so far behind its recording that its times are in
    no seconds. seconds: length of the recording.
    """
    if stop is not None and stop > 2 * seconds + 1:
        problem = f"a stretch ends at {stop:g} s, and the recording is {seconds:.2f} s long"
        raise fail(path, f"{problem}; are its times milliseconds or samples? give seconds")


class _Mixture:
    """Blocks of several channels (n, C) as one channel, and how much the channels cancel.

    channel: the one to take; None: the mean of all, each times its sign in `signs`.
    """

    def __init__(
        self, path: object, count: int, channel: int | None, signs: np.ndarray | None = None
    ) -> None:
        self.path, self.channel, self.signs = path, channel, signs
        self.products: np.ndarray | None = None
        if count > 1 and channel is None and signs is None:
            self.products = np.zeros((count, count))

    def mixed(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """(n,) of each block. Raises InputError for samples that are not finite."""
        total = 0
        for block in blocks:
            total += len(block)
            _check_length(self.path, total / rate)
            if self.channel is not None:
                mono = np.ascontiguousarray(block[:, self.channel])
            elif self.signs is not None:
                mono = (block * self.signs).mean(1)
            else:
                mono = block[:, 0] if block.shape[1] == 1 else block.mean(1)
            if not np.isfinite(mono).all():
                raise fail(self.path, "holds samples that are not finite")
            if len(mono) and (peak := float(np.abs(mono).max())) > MOST_PEAK:
                problem = f"holds fractions up to {peak:,.0f}, where 1 is the loudest"
                raise fail(self.path, f"{problem} (integers saved as fractions?); divide them")
            if self.products is not None:
                low = _speech_band(block, rate)
                self.products += low.T @ low
            yield mono

    def opposite_signs(self) -> np.ndarray | None:
        """The sign of each channel, float32 (C,), where the mean of the channels has far less
        energy than with these signs; else None.
        """
        if self.products is None:
            return None
        loudest = int(self.products.diagonal().argmax())
        signs = np.where(self.products[loudest] < 0, -1.0, 1.0)
        signs = signs * signs[0]  # the first channel stays as it is
        turned, plain = float(signs @ self.products @ signs), float(self.products.sum())
        return signs.astype(np.float32) if turned > CANCELLED * max(plain, 0.0) else None


def _speech_band(block: np.ndarray, rate: int) -> np.ndarray:
    """A block (n, C) at about 8,000 samples a second, without hum and constant shares."""
    step = max(1, rate // SPEECH_RATE)
    usable = block[: len(block) // step * step].reshape(-1, step, block.shape[1])
    return np.diff(usable.mean(1, dtype=np.float64), axis=0)


def _samples(mixture: _Mixture, source: _Source, first: int, last: int | None) -> np.ndarray:
    """The samples (S,) at RATE of a stretch, without a second copy of them in memory."""
    rate = source.samplerate
    blocks = mixture.mixed(source.blocks(first, last), rate)
    count = max(0, (source.frames if last is None else last) - first)
    samples, size = np.empty(-(-count * RATE // rate), np.float32), 0
    for block in blocks if rate == RATE else resampled(blocks, rate):
        if size + len(block) > len(samples):  # longer than its header says
            samples = np.concatenate([samples[:size], np.empty(size + len(block), np.float32)])
        samples[size : size + len(block)] = block
        size += len(block)
    return samples[:size]


def _check_length(path: object, seconds: float) -> None:
    if seconds > MOST_SECONDS:
        hours = f"{seconds / 3600:.1f} hours long (at most {MOST_SECONDS // 3600})"
        raise fail(path, f"is {hours}; cut it, or name stretches of it in a manifest")


def _opened(path: str | os.PathLike[str]) -> _Source:
    file = Path(path)
    try:
        if not file.is_file():
            present = file.exists()
            raise fail(path, "is not a plain file" if present else "there is no such file")
        if file.stat().st_size == 0:
            raise fail(path, "is an empty file")
        source = StreamedSound(file) if is_stream(file) else _sndfile(path, file)
    except OSError as error:  # such as a name that is too long
        raise fail(path, f"cannot be opened ({reason(error)})") from None
    try:
        if source.frames < 1 and not isinstance(source, StreamedSound):
            raise fail(path, "holds no samples")
        if not LEAST_RATE <= source.samplerate <= MOST_RATE:
            raise fail(path, f"has {source.samplerate} samples a second")
        if source.channels > MOST_CHANNELS:
            raise fail(path, f"has {source.channels} channels (at most {MOST_CHANNELS})")
        _check_length(path, source.frames / source.samplerate)
    except InputError:
        source.close()
        raise
    return source


def _sndfile(path: object, file: Path) -> _Source:
    """A recording that libsndfile reads; what it cannot is left to PyAV where that is installed."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without libsndfile
        raise InputError(f"reading recordings needs soundfile; {install_line('speech')}") from error
    if (sizes := missing_sound(file)) is not None:
        problem = f"{sizes[1]:,} bytes of sound are there of the {sizes[0]:,} that it names"
        raise fail(path, f"is cut off: {problem}; fetch or write it again")
    unsized = UnsizedWave.of(file)
    try:
        source = soundfile.SoundFile(unsized or os.fsencode(file))  # pyright: ignore[reportArgumentType]
        return _Sndfile(path, source, unsized)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        if has_pyav() and (stream := _other_codec(file)) is not None:
            return stream
        # error_string: libsndfile's message without the path, which the line has already.
        problem = (getattr(error, "error_string", "") or reason(error)).rstrip(".")
        raise fail(
            path, f"is no recording that can be read ({problem}); give wav, flac, mp3 or ogg"
        ) from None


def _other_codec(file: Path) -> StreamedSound | None:
    """A container of libsndfile's with sound that only FFmpeg decodes, such as AAC in .caf."""
    with file.open("rb") as opened:
        head = opened.read(4)
    try:
        return StreamedSound(file) if head in (b"caff", b"OggS", b"RIFF", b"FORM") else None
    except InputError:
        return None


class _Sndfile:
    """A file of libsndfile, as `_Source`."""

    def __init__(self, path: object, file: SoundFile, unsized: UnsizedWave | None = None) -> None:
        self.path, self.file, self.unsized = path, file, unsized
        self.samplerate, self.channels = int(file.samplerate), int(file.channels)
        self.frames = int(file.frames)

    def close(self) -> None:
        self.file.close()
        if self.unsized is not None:
            self.unsized.close()

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        """The samples (n, C) from `first` to `last`. Raises InputError for what is damaged or cut
        off.
        """
        import soundfile

        file, path = self.file, self.path
        count = (self.frames if last is None else last) - first
        most = max(1, BLOCK_SAMPLES // self.channels)
        size, remaining = min(most, BLOCK_SECONDS * self.samplerate), count
        # The header of an MP3 counts samples that no decoder returns.
        spare = MP3_FRAME if file.format == "MP3" else 0
        if file.seekable():
            file.seek(first)
        else:  # GSM 6.10 of telephones: what lies before the stretch is read, too
            skipped = 0
            while skipped < first and len(file.read(min(size, first - skipped))):
                skipped += min(size, first - skipped)
        while remaining:
            expected = min(size, remaining)
            try:
                block = file.read(expected, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                problem = reason(error).rstrip(".")
                raise fail(path, f"is damaged ({problem}); fetch or write it again") from None
            remaining -= len(block)
            if len(block) < expected:
                if remaining > spare:
                    read, total = ((n / self.samplerate) for n in (count - remaining, count))
                    problem = f"{read:.2f} s can be read of the {total:.2f} s that its header names"
                    raise fail(path, f"is cut off: {problem}; fetch or write it again")
                remaining = 0
            yield block


def resampled(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Blocks of samples at `rate` as blocks at RATE.

    Joined, they are equal to `scipy.signal.resample_poly` of the joined input.
    """
    from scipy.signal import firwin, upfirdn

    shared = math.gcd(rate, RATE)
    up, down = RATE // shared, rate // shared
    half = 10 * max(up, down)  # as in resample_poly
    window = firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))  # pyright: ignore[reportArgumentType]
    taps = (np.asarray(window) * up).astype(np.float32)
    # upfirdn delays by half; where that is no multiple of down, zeros in front make it one.
    delay = -(-half // down)
    taps = np.concatenate([np.zeros(delay * down - half, np.float32), taps])
    # Output k is at input k down / up and needs the inputs within half / up of it.
    reach = half // up + 2
    pending = np.zeros(0, np.float32)  # the inputs that are still needed, ...
    begin = 0  # ... the number of the first of them, ...
    written = total = 0  # ... how many outputs were returned, and how many inputs were read

    def outputs(until: int) -> np.ndarray:
        """The outputs from `written` to `until`; inputs beyond both ends are 0."""
        nonlocal written, pending, begin
        first = max(0, written * down // up - reach)
        first -= first % down  # so that the phase of the filter stays the same
        pending, begin = pending[first - begin :], first
        shift = delay - first * up // down  # from an output to its place behind the filter
        result = upfirdn(taps, pending, up, down)[written + shift : until + shift]
        written = until
        return np.ascontiguousarray(result, np.float32)

    for block in blocks:
        pending = np.concatenate([pending, block])
        total += len(block)
        ready = max(0, (total - reach) * up // down)
        if ready > written:
            yield outputs(ready)
    end = -(-total * up // down)
    if end > written:
        pending = np.concatenate([pending, np.zeros(2 * reach + down, np.float32)])
        yield outputs(end)
