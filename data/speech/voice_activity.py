"""Voice activity, judged by loudness; long recordings are cut in pauses.

Shapes: S samples at 16,000 per second, T frames of 10 ms, N frames of 20 ms (those of the encoder).
Loudness is the mean of the log-mel bands, so that breath and hum, which fill few of them, count
less than speech.
"""

from __future__ import annotations

import numpy as np
import torch

from ..formats.audio import RATE
from .log_mel import FRAME_SECONDS, HOP, WINDOW, filters_and_window

QUIET_SHARE = 0.3  # where the threshold lies between the quiet (0) and the loud (1) frames
MOST_RANGE = 40.0  # decibels below the loudest that can still be speech
SILENCE = -60.0  # decibels relative to full scale below which a recording is silent
SLOPE = 1.5  # decibels over which silence turns into speech
LEAST_PAUSE, LEAST_SOUND = 0.3, 0.1  # seconds
BLOCK_FRAMES = 30_000  # five minutes


def loudness(samples: np.ndarray) -> np.ndarray:
    """Decibels, float32 (T,): the mean over 80 mel bands. samples: (S,)."""
    filters, window = filters_and_window(80)
    x = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    x = torch.nn.functional.pad(x, (WINDOW // 2, WINDOW))
    frames, levels = len(samples) // HOP + (len(samples) % HOP > 0), []
    for start in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - start)
        part = x[start * HOP : (start + count - 1) * HOP + WINDOW]
        spectrum = torch.stft(part, WINDOW, HOP, window=window, center=False, return_complex=True)
        power = filters @ spectrum.abs().square()
        levels.append((10 * power.clamp_min(1e-10).log10()).mean(0)[:count])
    return torch.cat(levels).numpy() if levels else np.zeros(0, np.float32)


def speech_share(samples: np.ndarray, frames: int | None = None) -> np.ndarray:
    """How much each frame of 20 ms sounds like speech, float32 (N,), 0 to 1.

    samples: (S,); frames: N, by default all of the recording.
    """
    level = loudness(samples)
    if not len(level):
        return np.zeros(frames or 0, np.float32)
    limit = _threshold(level)
    count = -(-len(level) // 2) if frames is None else frames
    level = np.pad(level[: 2 * count], (0, max(0, 2 * count - len(level))), mode="edge")
    level = level.reshape(count, 2).mean(1)
    return (1 / (1 + np.exp(np.clip((limit - level) / SLOPE, -50, 50)))).astype(np.float32)


def _threshold(level: np.ndarray) -> float:
    quiet, loud = np.percentile(level, 10), np.percentile(level, 95)
    return float(max(quiet + QUIET_SHARE * (loud - quiet), loud - MOST_RANGE))


def speech_spans(
    samples: np.ndarray, *, pause: float = LEAST_PAUSE, least: float = LEAST_SOUND
) -> list[tuple[float, float]]:
    """Spans of speech (start, end) in seconds, in order; none in silence.

    samples: (S,); pauses shorter than `pause` seconds are bridged, sounds shorter than `least`
    seconds are left out.
    """
    return _spans_in(loudness(samples), len(samples) / RATE, pause, least)


def _spans_in(
    level: np.ndarray, end: float, pause: float = LEAST_PAUSE, least: float = LEAST_SOUND
) -> list[tuple[float, float]]:
    """`speech_spans` of a recording of `end` seconds by its loudness (T,)."""
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
    return [
        (start * FRAME_SECONDS, min(end, stop * FRAME_SECONDS))
        for start, stop in merged
        if (stop - start) * FRAME_SECONDS >= least
    ]


def speech_windows(
    samples: np.ndarray, longest: float = 30.0, margin: float = 0.2
) -> list[tuple[float, float]]:
    """Spans in seconds, none longer than `longest`, that hold all speech; none in silence.

    A recording that is short enough is one span. Others are cut in pauses, and the pieces merged as
    far as they fit (Bain et al., WhisperX, arXiv 2303.00747); speech without a pause is cut where
    it is quietest in the last third. margin: seconds added around a span where there is room.
    """
    end = len(samples) / RATE
    level = loudness(samples)
    spans = _spans_in(level, end)
    if not spans or end <= longest:
        return [(0.0, end)] if spans else []
    room = longest - 2 * margin
    merged: list[list[float]] = []
    for start, stop in _short_pieces(level, spans, room):
        if merged and stop - merged[-1][0] <= room:
            merged[-1][1] = stop
        else:
            merged.append([start, stop])
    # A margin never reaches into the speech of a neighbour: half of the pause is the most.
    widened: list[tuple[float, float]] = []
    for k, (start, stop) in enumerate(merged):
        first = (merged[k - 1][1] + start) / 2 if k else 0.0
        last = (stop + merged[k + 1][0]) / 2 if k + 1 < len(merged) else end
        widened.append((max(start - margin, first), min(stop + margin, last)))
    return widened


def _short_pieces(
    level: np.ndarray, spans: list[tuple[float, float]], longest: float
) -> list[tuple[float, float]]:
    """The spans; those longer than `longest` seconds are cut where the last third is quietest."""
    pieces: list[tuple[float, float]] = []
    for start, stop in spans:
        while stop - start > longest:
            first = round((start + longest * 2 / 3) / FRAME_SECONDS)
            last = round((start + longest) / FRAME_SECONDS)
            cut = (first + int(np.argmin(level[first:last]))) * FRAME_SECONDS
            pieces.append((start, cut))
            start = cut
        pieces.append((start, stop))
    return pieces
