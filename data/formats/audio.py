"""Recordings: their samples, mono, at one rate.

Shapes: samples are float32 (S,), about -1 to 1, at 16,000 a second. libsndfile decodes (soundfile,
the extra `speech`), polyphase filters of SciPy change the rate; both run over blocks, so that hours
need no more memory than their result."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import InputError, fail

RATE = 16_000  # samples a second of everything that is read
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
    """What a header says: seconds, samples a second, channels."""

    seconds: float
    rate: int
    channels: int


def audio_facts(path: str | os.PathLike[str]) -> AudioFacts:
    """The header. Raises InputError as `read_audio`."""
    with _opened(path) as file:
        return AudioFacts(file.frames / file.samplerate, file.samplerate, file.channels)


def read_audio(
    path: str | os.PathLike[str], start: float = 0.0, stop: float | None = None
) -> np.ndarray:
    """The samples from `start` to `stop`, seconds, channels averaged.

    Raises InputError, one line, for a file that is missing, of no kind that libsndfile reads,
    empty, damaged or cut off, longer than 8 hours, or not finite; and where soundfile is not
    installed."""
    with _opened(path) as file:
        rate = file.samplerate
        first, last = (
            round(start * rate),
            file.frames if stop is None else min(file.frames, round(stop * rate)),
        )
        if not 0 <= first < last:
            raise fail(
                path,
                f"has no samples from {start:g} s to {stop if stop is None else f'{stop:g}'} s; it is "
                f"{file.frames / rate:.2f} s long",
            )
        file.seek(first)
        blocks = _blocks(path, file, last - first)
        if rate == RATE:
            return np.concatenate(list(blocks))
        return np.concatenate(list(resampled(blocks, rate)))


def _opened(path: str | os.PathLike[str]) -> Any:
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
        raise fail(
            path, f"is no recording that can be read ({_reason(error)}); give wav, flac, mp3 or ogg"
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


def _blocks(path: object, file: Any, count: int) -> Iterator[np.ndarray]:
    """The next `count` frames as mono."""
    import soundfile

    size, left = BLOCK_SECONDS * file.samplerate, count
    spare = (
        MP3_FRAME if file.format == "MP3" else 0
    )  # its header counts samples that no decoder gives out
    while left:
        wanted = min(size, left)
        try:
            found = file.read(wanted, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise fail(path, f"is damaged ({_reason(error)}); fetch or write it again") from None
        left -= len(found)
        if len(found) < wanted:
            if left > spare:
                there = (count - left) / file.samplerate
                raise fail(
                    path,
                    f"is cut off: {there:.2f} s can be read of the {count / file.samplerate:.2f} s that "
                    "its header names; fetch or write it again",
                )
            left = 0
        mono = found[:, 0] if found.shape[1] == 1 else found.mean(1)
        if not np.isfinite(mono).all():
            raise fail(path, "holds samples that are not finite")
        yield mono


def resampled(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Blocks of samples at `rate` as blocks at RATE, the same as if they were one
    (`scipy.signal.resample_poly`).
    """
    from scipy.signal import firwin, upfirdn

    shared = math.gcd(rate, RATE)
    up, down = RATE // shared, rate // shared
    half = 10 * max(up, down)  # as resample_poly has it
    window: Any = ("kaiser", 5.0)
    taps = (np.asarray(firwin(2 * half + 1, 1 / max(up, down), window=window)) * up).astype(
        np.float32
    )
    # upfirdn delays by half; where that is no multiple of down, zeros in front make it one.
    delay = -(-half // down)
    taps = np.concatenate([np.zeros(delay * down - half, np.float32), taps])
    # Output k stands at input k down / up and needs the inputs within half / up of it.
    reach = half // up + 2
    held, begun, made, total = np.zeros(0, np.float32), 0, 0, 0

    def out(until: int) -> np.ndarray:
        """The outputs from `made` on, below `until`; inputs before the first and after the last are
        0.
        """
        nonlocal made, held, begun
        first = max(0, made * down // up - reach)
        first -= first % down  # so that the phase of the filter stays
        part = held[first - begun :]
        shift = first * up // down  # the output that stands at the first input
        result = upfirdn(taps, part, up, down)[delay + made - shift : delay + until - shift]
        held, begun, made = part, first, until
        return np.ascontiguousarray(result, np.float32)

    for block in blocks:
        held = np.concatenate([held, block])
        total += len(block)
        ready = max(0, (total - reach) * up // down)
        if ready > made:
            yield out(ready)
    end = -(-total * up // down)
    if end > made:
        held = np.concatenate([held, np.zeros(2 * reach + down, np.float32)])
        yield out(end)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = (
        text.split(": ")[-1] if "Error opening" in text else text
    )  # without the path, which stands before
    return (text or type(error).__name__).rstrip(".")[:120]
