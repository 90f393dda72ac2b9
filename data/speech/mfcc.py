"""Mel-frequency cepstral coefficients, their changes, the pitch, and statistics of a recording.

Shapes: S samples at 16,000 per second, T frames of 10 ms, C coefficients.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import dct, irfft, rfft

from ..formats.audio import RATE
from .log_mel import HOP, WINDOW, mel_power

BANDS = 40
COEFFICIENTS = 13  # of a frame, for models
IN_STATISTICS = 20  # coefficients of a recording
REACH = 2  # frames on each side that a change is taken over
LOWEST, HIGHEST = 60.0, 400.0  # Hz, of a voice
PITCH_WINDOW = 640  # samples: 40 ms
VOICED = 0.5  # least autocorrelation of a frame with a voice
NEARLY = 0.9  # of the highest peak: the shortest period that reaches it is no multiple of another
USUAL_PITCH = 7.3  # octaves above 1 Hz (158 Hz), of a recording without a voiced frame
SPREAD = (5, 95)  # percentiles whose distance is a range

STATISTICS = (
    *(f"MFCC {k}, mean" for k in range(IN_STATISTICS)),
    *(f"MFCC {k}, deviation" for k in range(IN_STATISTICS)),
    *(f"MFCC {k}, deviation of its change" for k in range(IN_STATISTICS)),
    "energy, mean",
    "energy, deviation",
    "energy, range",
    "pitch, mean",
    "pitch, deviation",
    "pitch, range",
    "share of voiced frames",
)
"""What the numbers of `clip_statistics` are."""


def mfcc(samples: np.ndarray, coefficients: int = COEFFICIENTS) -> np.ndarray:
    """Coefficients of each frame, float32 (C, T): the orthonormal cosine transform (type 2) of the
    logarithm of the power in 40 mel bands (Davis and Mermelstein, 1980).

    samples: (S,); silence is added to fewer than 400.
    """
    x = torch.as_tensor(samples)
    x = torch.nn.functional.pad(x, (0, max(0, WINDOW - len(x))))
    logarithm = mel_power(x, BANDS).clamp_min(1e-10).log().numpy()
    return np.asarray(dct(logarithm, type=2, axis=0, norm="ortho"))[:coefficients]


def changes(values: np.ndarray, reach: int = REACH) -> np.ndarray:
    """How values (C, T) change from frame to frame: the slope of a line through the frames up to
    `reach` before and behind; the first and the last value go on at the ends.
    """
    padded = np.pad(values, ((0, 0), (reach, reach)), mode="edge")
    count = values.shape[1]
    total = sum(
        n * (padded[:, reach + n :][:, :count] - padded[:, reach - n :][:, :count])
        for n in range(1, reach + 1)
    )
    slopes = np.asarray(total) / (2 * sum(n * n for n in range(1, reach + 1)))
    return slopes.astype(values.dtype)


def mfcc_with_changes(samples: np.ndarray) -> np.ndarray:
    """Coefficients, their changes, and the changes of these, float32 (3 C, T)."""
    plain = mfcc(samples)
    first = changes(plain)
    return np.concatenate([plain, first, changes(first)])


def pitch(samples: np.ndarray) -> np.ndarray:
    """The pitch of each frame in Hz, float64 (T,), 0 where there is no voice.

    The autocorrelation of a window of 40 ms, divided by that of its taper (P. Boersma, 1993),
    between 60 and 400 Hz.
    """
    frames = max(1, len(samples) // HOP)
    half = PITCH_WINDOW // 2
    needed = (frames - 1) * HOP + 2 * half
    x = np.pad(samples.astype(np.float64), (half, max(0, needed - half - len(samples))))
    taper = np.hanning(PITCH_WINDOW)
    windows = np.lib.stride_tricks.sliding_window_view(x, PITCH_WINDOW)[::HOP][:frames]
    centred = (windows - windows.mean(1, keepdims=True)) * taper
    shortest, longest = round(RATE / HIGHEST), round(RATE / LOWEST)
    of_frames = _autocorrelation(centred)
    shares = of_frames[:, : longest + 2] / np.maximum(of_frames[:, :1], 1e-12)
    of_taper = _autocorrelation(taper[None])[0, : longest + 2]
    shares = shares / (of_taper / of_taper[0])
    inner = shares[:, shortest : longest + 1]
    is_peak = (inner >= shares[:, shortest - 1 : longest]) & (
        inner >= shares[:, shortest + 1 : longest + 2]
    )
    peaks = np.where(is_peak, inner, -1.0)
    highest = peaks.max(1, keepdims=True)
    period = shortest + np.argmax(peaks >= NEARLY * highest, axis=1)
    return np.where((highest[:, 0] >= VOICED) & (of_frames[:, 0] > 1e-8), RATE / period, 0.0)


def _autocorrelation(windows: np.ndarray) -> np.ndarray:
    """Of windows (T, W), for all shifts below W."""
    size = windows.shape[1]
    spectrum = np.asarray(rfft(windows, 2 * size, axis=1))
    return np.asarray(irfft(np.abs(spectrum) ** 2, axis=1))[:, :size]


def clip_statistics(samples: np.ndarray) -> np.ndarray:
    """A recording as the numbers that `STATISTICS` names, float32: mean and deviation of 20
    coefficients, deviation of their changes, energy in decibels, and pitch in octaves.
    """
    values = mfcc(samples, IN_STATISTICS)
    frames = max(1, len(samples) // HOP)
    filled = np.pad(samples.astype(np.float64), (0, max(0, frames * HOP - len(samples))))
    power = np.square(filled[: frames * HOP].reshape(frames, HOP)).mean(1)
    energy = 10 * np.log10(np.maximum(power, 1e-10))
    hertz = pitch(samples)
    voiced = hertz[hertz > 0]
    octaves = np.log2(voiced) if len(voiced) else np.array([USUAL_PITCH])
    parts = [values.mean(1), values.std(1), changes(values).std(1)]
    parts += [np.array([x.mean(), x.std(), _range(x)]) for x in (energy, octaves)]
    return np.concatenate([*parts, [len(voiced) / len(hertz)]]).astype(np.float32)


def _range(values: np.ndarray) -> float:
    low, high = np.percentile(values, SPREAD)
    return float(high - low)
