"""Voice activity, judged by loudness; long recordings are cut in pauses.

Shapes: S samples at 16,000 per second, T frames of 10 ms, N frames of 20 ms (those of the encoder).
Loudness is the mean of the log-mel bands, so that breath and hum, which fill few of them, count
less than speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..formats.audio import RATE
from .log_mel import FRAME_SECONDS, HOP, WINDOW, filters_and_window

QUIET_SHARE = 0.3  # where the threshold lies between the quiet (0) and the loud (1) frames
MOST_RANGE = 40.0  # decibels below the loudest that can still be speech
SILENCE = -60.0  # decibels below which a recording is quiet: there, speech must stand out
LEAST_LEVEL = -95.0  # decibels below which there is nothing but the rounding of 16-bit samples
CONTRAST = 12.0  # decibels by which the loudest tenth of a second of quiet speech stands out
LEAST_VARIATION = 5.0  # decibels by which quiet speech without a background varies; noise does less
USUAL_LEVEL = -20.0  # decibels of the loudest tenth of a second, to which quiet speech is raised
# Speech in a long, even background: the background varies less than this, and speech stands out
# from it by so much, and ends so far below the loudest; decibels.
EVEN, STANDS_OUT, RARE_RANGE = 4.0, 8.0, 60.0
SLOPE = 1.5  # decibels over which silence turns into speech
LEAST_PAUSE, LEAST_SOUND = 0.3, 0.1  # seconds
BLOCK_FRAMES = 30_000  # five minutes


def loudness(samples: np.ndarray) -> np.ndarray:
    """Decibels, float32 (T,): the mean over 80 mel bands. samples: (S,)."""
    filters, window = filters_and_window(80)
    x = np.ascontiguousarray(samples, np.float32)
    frames = len(x) // HOP + (len(x) % HOP > 0)
    level = np.empty(frames, np.float32)
    for start in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - start)
        # Silence lies before and behind the recording; only a block is copied.
        first, last = start * HOP - WINDOW // 2, (start + count - 1) * HOP + WINDOW // 2
        part = torch.from_numpy(x[max(0, first) : last])
        part = torch.nn.functional.pad(part, (max(0, -first), max(0, last - len(x))))
        spectrum = torch.stft(part, WINDOW, HOP, window=window, center=False, return_complex=True)
        power = filters @ spectrum.abs().square()
        decibels = (10 * power.clamp_min(1e-10).log10()).mean(0)[:count]
        level[start : start + count] = decibels.numpy()
    return level


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


def _span_threshold(level: np.ndarray) -> float:
    """As `_threshold`; where an even background fills at least 95 % of the recording, the level
    that stands out from it, however short it is heard.
    """
    quiet, middle, loud = np.percentile(level, [10, 50, 95])
    even = middle - quiet <= EVEN and loud - middle <= 1.5 * EVEN
    if not even or peak_level(level) - loud < STANDS_OUT:
        return _threshold(level)
    return float(max(middle + 2 * (middle - quiet) + 3.0, peak_level(level) - RARE_RANGE))


def peak_level(level: np.ndarray) -> float:
    """The largest mean of loudness (T,) over a tenth of a second, in decibels."""
    size = min(len(level), round(LEAST_SOUND / FRAME_SECONDS))
    sums = np.cumsum(np.concatenate([[0.0], level.astype(np.float64)]))
    return float((sums[size:] - sums[:-size]).max() / size)


@dataclass(frozen=True)
class Activity:
    """Where a recording holds speech.

    level: its loudness (T,); seconds: its length.
    """

    level: np.ndarray
    seconds: float

    @classmethod
    def of(cls, samples: np.ndarray) -> Activity:
        """Of samples (S,)."""
        return cls(loudness(samples), len(samples) / RATE)

    @property
    def gain(self) -> float:
        """The factor that brings a quiet recording to a usual loudness; 1 for all others, and 0 for
        one in which nobody speaks.

        Below -60 dB a recording counts as speech if its loudest tenth of a second stands out from
        its background, or if it varies as noise does not.
        """
        level = self.level
        if not len(level):
            return 0.0
        peak, (quiet, loud) = peak_level(level), np.percentile(level, [10, 95])
        if max(peak, loud) >= SILENCE:
            return 1.0
        stands_out = peak - quiet >= CONTRAST or loud - quiet >= LEAST_VARIATION
        if peak < LEAST_LEVEL or not stands_out:
            return 0.0
        return float(10 ** ((USUAL_LEVEL - peak) / 20))

    @property
    def is_rare(self) -> bool:
        """Whether what stands out of silence is so short that a click could be all of it."""
        return bool(self.gain) and float(np.percentile(self.level, 95)) < SILENCE

    def spans(
        self, pause: float = LEAST_PAUSE, least: float = LEAST_SOUND
    ) -> list[tuple[float, float]]:
        """As `speech_spans`."""
        if not self.gain:
            return []
        loud = self.level > _span_threshold(self.level)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
        merged: list[list[int]] = []
        for start, stop in edges.reshape(-1, 2).tolist():
            if merged and (start - merged[-1][1]) * FRAME_SECONDS < pause:
                merged[-1][1] = stop
            else:
                merged.append([start, stop])
        return [
            (start * FRAME_SECONDS, min(self.seconds, stop * FRAME_SECONDS))
            for start, stop in merged
            if (stop - start) * FRAME_SECONDS >= least
        ]

    def windows(self, longest: float = 30.0, margin: float = 0.2) -> list[tuple[float, float]]:
        """As `speech_windows`."""
        end, spans = self.seconds, self.spans()
        if not spans or end <= longest:
            return [(0.0, end)] if spans else []
        room = longest - 2 * margin
        merged: list[list[float]] = []
        for start, stop in _short_pieces(self.level, spans, room):
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


def speech_spans(
    samples: np.ndarray, *, pause: float = LEAST_PAUSE, least: float = LEAST_SOUND
) -> list[tuple[float, float]]:
    """Spans of speech (start, end) in seconds, in order; none in silence.

    samples: (S,); pauses shorter than `pause` seconds are bridged, sounds shorter than `least`
    seconds are left out.
    """
    return Activity.of(samples).spans(pause, least)


def speech_windows(
    samples: np.ndarray, longest: float = 30.0, margin: float = 0.2
) -> list[tuple[float, float]]:
    """Spans in seconds, none longer than `longest`, that hold all speech; none in silence.

    A recording that is short enough is one span. Others are cut in pauses, and the pieces merged as
    far as they fit (Bain et al., WhisperX, arXiv 2303.00747); speech without a pause is cut where
    it is quietest in the last third. margin: seconds added around a span where there is room.
    """
    return Activity.of(samples).windows(longest, margin)


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
