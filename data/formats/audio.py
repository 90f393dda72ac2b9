"""Recordings: their samples, mono, at one rate.

Shapes: samples are float32 (S,), about -1 to 1, at 16,000 per second. libsndfile decodes
(soundfile, the extra `speech`) and SciPy's polyphase filters change the rate. Both work in blocks,
so a long recording needs no more memory than its samples at that rate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import InputError, fail, reason

if TYPE_CHECKING:
    from soundfile import SoundFile

RATE = 16_000  # samples per second of everything that is read
AUDIO_SUFFIXES = (
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".opus",
    ".aiff",
    ".aif",
    ".aifc",
    ".au",
    ".caf",
    ".w64",
    ".rf64",
)
MOST_SECONDS = 8 * 3600
LEAST_RATE, MOST_RATE = 1_000, 768_000
BLOCK_SECONDS = 30
MP3_FRAME = 1_152  # samples


@dataclass(frozen=True)
class AudioFacts:
    """The header of a recording: seconds, samples per second, number of channels."""

    seconds: float
    rate: int
    channels: int


def audio_facts(path: str | os.PathLike[str]) -> AudioFacts:
    """Facts from the header of a recording. Raises InputError as `read_audio` does."""
    with _opened(path) as file:
        return AudioFacts(file.frames / file.samplerate, file.samplerate, file.channels)


def read_audio(
    path: str | os.PathLike[str], start: float = 0.0, stop: float | None = None
) -> np.ndarray:
    """The samples (S,) from `start` to `stop` in seconds (None: the end), channels averaged.

    Raises InputError for a file that is missing, of a kind that libsndfile does not read, empty,
    damaged, cut off, longer than 8 hours or not finite, and where soundfile is not installed.
    """
    with _opened(path) as file:
        rate = file.samplerate
        first = round(start * rate)
        last = file.frames if stop is None else min(file.frames, round(stop * rate))
        if not 0 <= first < last:
            until = stop if stop is None else f"{stop:g}"
            length = f"{file.frames / rate:.2f} s"
            raise fail(path, f"has no samples from {start:g} s to {until} s; it is {length} long")
        file.seek(first)
        blocks = _blocks(path, file, last - first)
        if rate == RATE:
            return np.concatenate(list(blocks))
        return np.concatenate(list(resampled(blocks, rate)))


def _opened(path: str | os.PathLike[str]) -> SoundFile:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without libsndfile
        raise InputError(
            "reading recordings needs soundfile; pip install 'headwise[speech]'"
        ) from error
    file = Path(path)
    if not file.is_file():
        raise fail(path, "there is no such file" if not file.exists() else "is not a plain file")
    if file.stat().st_size == 0:
        raise fail(path, "is an empty file")
    try:
        opened = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        # error_string: libsndfile's message without the path, which the line has already.
        problem = (getattr(error, "error_string", "") or reason(error)).rstrip(".")
        raise fail(
            path, f"is no recording that can be read ({problem}); give wav, flac, mp3 or ogg"
        ) from None
    problem = None
    if opened.frames < 1:
        problem = "holds no samples"
    elif not LEAST_RATE <= opened.samplerate <= MOST_RATE:
        problem = f"has {opened.samplerate} samples a second"
    elif opened.frames / opened.samplerate > MOST_SECONDS:
        hours = opened.frames / opened.samplerate / 3600
        problem = f"is {hours:.1f} hours long (at most {MOST_SECONDS // 3600}); cut it"
    if problem:
        opened.close()
        raise fail(path, problem)
    return opened


def _blocks(path: object, file: SoundFile, count: int) -> Iterator[np.ndarray]:
    """The next `count` samples as mono, block by block."""
    import soundfile

    size, remaining = BLOCK_SECONDS * file.samplerate, count
    # The header of an MP3 counts samples that no decoder returns.
    spare = MP3_FRAME if file.format == "MP3" else 0
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
                read, total = ((n / file.samplerate) for n in (count - remaining, count))
                problem = f"{read:.2f} s can be read of the {total:.2f} s that its header names"
                raise fail(path, f"is cut off: {problem}; fetch or write it again")
            remaining = 0
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(1)
        if not np.isfinite(mono).all():
            raise fail(path, "holds samples that are not finite")
        yield mono


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
