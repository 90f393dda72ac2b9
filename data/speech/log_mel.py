"""Log-mel features as Whisper hears them.

Shapes: S samples at 16,000 a second, T = S // 160 frames of 10 ms, F mel bands.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..formats.audio import RATE

WINDOW, HOP = 400, 160  # samples: 25 ms, 10 ms
FRAME_SECONDS = HOP / RATE


def mel_filters(bands: int, rate: int = RATE, window: int = WINDOW) -> np.ndarray:
    """Triangles on Slaney's mel scale, each of area 1, float32 (F, window / 2 + 1): linear below
    1,000 Hz, logarithmic above (M. Slaney, Auditory Toolbox, 1998)."""
    step = np.log(6.4) / 27  # 27 mels from 1,000 to 6,400 Hz
    top = 15 + np.log(rate / 2 / 1000) / step
    mels = np.linspace(0.0, top, bands + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    bins = np.linspace(0, rate / 2, window // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return (
        np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    ).astype(np.float32)


@cache
def _bank(bands: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(mel_filters(bands)), torch.hann_window(WINDOW)


def log_mel(samples: np.ndarray | Tensor, bands: int = 80, frames: int | None = None) -> Tensor:
    """float32 (F, T): log10 of the power in each band, at most 8 below the largest, (x + 4) / 4.

    frames: silence is added, or the end cut, to this many. The recording is mirrored at its ends.
    """
    x = torch.as_tensor(samples)
    if frames is not None:
        x = torch.nn.functional.pad(x[: frames * HOP], (0, max(0, frames * HOP - len(x))))
    elif len(x) < WINDOW:
        x = torch.nn.functional.pad(x, (0, WINDOW - len(x)))
    bank, window = _bank(bands)
    power = torch.stft(x, WINDOW, HOP, window=window, return_complex=True)[:, :-1].abs().square()
    found = (bank @ power).clamp_min(1e-10).log10()
    return (found.maximum(found.amax() - 8.0) + 4.0) / 4.0
