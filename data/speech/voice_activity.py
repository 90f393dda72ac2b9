"""Where somebody speaks, by loudness; long recordings cut in pauses.

Shapes: S samples at 16,000 a second, T frames of 10 ms, N frames of 20 ms (those of the encoder).
Loudness is the mean of the log-mel bands, so that breath and hum, which fill few of them, count
less than speech."""

from __future__ import annotations

import numpy as np
import torch

from ..formats.audio import RATE
from .log_mel import FRAME_SECONDS, HOP, WINDOW, _bank

QUIET_SHARE = 0.3  # the threshold lies this far between the quiet and the loud of a recording
MOST_RANGE = 40.0  # decibels below the loudest that can still be speech
SILENCE = -60.0  # decibels of a full-scale recording below which there is nothing to be heard
SLOPE = 1.5  # decibels over which silence turns into speech
BLOCK_FRAMES = 30_000  # five minutes


def loudness(samples: np.ndarray) -> np.ndarray:
    """Decibels (T,), float32: mean over 80 mel bands."""
    bank, window = _bank(80)
    x = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    x = torch.nn.functional.pad(x, (WINDOW // 2, WINDOW))
    frames, found = len(samples) // HOP + (len(samples) % HOP > 0), []
    for start in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - start)
        part = x[start * HOP : (start + count - 1) * HOP + WINDOW]
        power = (
            torch.stft(part, WINDOW, HOP, window=window, center=False, return_complex=True)
            .abs()
            .square()
        )
        found.append((10 * (bank @ power).clamp_min(1e-10).log10()).mean(0)[:count])
    return torch.cat(found).numpy() if found else np.zeros(0, np.float32)


def speech_share(samples: np.ndarray, frames: int | None = None) -> np.ndarray:
    """How much like speech each frame of 20 ms is, 0 to 1, (N,); frames: N, by default all of the
    recording.
    """
    level = loudness(samples)
    if not len(level):
        return np.zeros(frames or 0, np.float32)
    limit = _threshold(level)
    count = -(-len(level) // 2) if frames is None else frames
    level = (
        np.pad(level[: 2 * count], (0, max(0, 2 * count - len(level))), mode="edge")
        .reshape(count, 2)
        .mean(1)
    )
    return (1 / (1 + np.exp(np.clip((limit - level) / SLOPE, -50, 50)))).astype(np.float32)


def _threshold(level: np.ndarray) -> float:
    quiet, loud = np.percentile(level, 10), np.percentile(level, 95)
    return float(max(quiet + QUIET_SHARE * (loud - quiet), loud - MOST_RANGE))


def speech_spans(
    samples: np.ndarray, *, pause: float = 0.3, least: float = 0.1
) -> list[tuple[float, float]]:
    """Spans of speech in seconds, in order: pauses shorter than `pause` are bridged, sounds shorter
    than `least` left out. None in silence."""
    level = loudness(samples)
    if not len(level) or np.percentile(level, 95) < SILENCE:
        return []
    loud = level > _threshold(level)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
    merged: list[list[int]] = []
    for start, stop in edges.reshape(-1, 2).tolist():
        if merged and (start - merged[-1][1]) * FRAME_SECONDS < pause:
            merged[-1][1] = stop
        else:
            merged.append([start, stop])
    end = len(samples) / RATE
    return [
        (start * FRAME_SECONDS, min(end, stop * FRAME_SECONDS))
        for start, stop in merged
        if (stop - start) * FRAME_SECONDS >= least
    ]


def windows(
    samples: np.ndarray, longest: float = 30.0, margin: float = 0.2
) -> list[tuple[float, float]]:
    """Spans in seconds, none longer than `longest`, that hold all speech: whole recordings that are
    short enough, else cut in pauses and merged as far as they fit (Bain et al., WhisperX, arXiv
    2303.00747); speech without any pause is cut where it is quietest in the last third. None in
    silence."""
    end = len(samples) / RATE
    spans = speech_spans(samples)
    if not spans or end <= longest:
        return [(0.0, end)] if spans else []
    level = loudness(samples)
    pieces: list[tuple[float, float]] = []
    for start, stop in spans:
        while stop - start > longest - 2 * margin:
            first = round((start + (longest - 2 * margin) * 2 / 3) / FRAME_SECONDS)
            last = round((start + longest - 2 * margin) / FRAME_SECONDS)
            cut = (first + int(np.argmin(level[first:last]))) * FRAME_SECONDS
            pieces.append((start, cut))
            start = cut
        pieces.append((start, stop))
    found: list[list[float]] = []
    for start, stop in pieces:
        if found and stop - found[-1][0] <= longest - 2 * margin:
            found[-1][1] = stop
        else:
            found.append([start, stop])
    made: list[tuple[float, float]] = []
    for k, (start, stop) in enumerate(found):
        # A margin never reaches into the neighbour's speech.
        before = found[k - 1][1] if k else 0.0
        after = found[k + 1][0] if k + 1 < len(found) else end
        made.append(
            (
                max(start - margin, (before + start) / 2 if k else 0.0),
                min(stop + margin, (stop + after) / 2 if k + 1 < len(found) else end),
            )
        )
    return made
