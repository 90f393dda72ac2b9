"""Log-mel features, as Whisper uses them.

Shapes: S samples at 16,000 per second, T = S // 160 frames of 10 ms, F mel bands.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..formats.audio import RATE

WINDOW, HOP = 400, 160  # samples: 25 ms, 10 ms
FRAME_SECONDS = HOP / RATE


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1,000 Hz, logarithmic above, with 27 mels from 1,000 to
    6,400 Hz (M. Slaney, Auditory Toolbox, 1998).
    """
    logarithmic = 15 + 27 * torch.log(hertz.clamp_min(1) / 1000) / math.log(6.4)
    return torch.where(hertz < 1000, hertz * 3 / 200, logarithmic)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The inverse of `hertz_to_mel`."""
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


def mel_filters(bands: int, rate: int = RATE, window: int = WINDOW) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, each of area 1: float32 (F, window / 2 + 1)."""
    top = hertz_to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    edges = mel_to_hertz(torch.linspace(0, float(top), bands + 2, dtype=torch.float64)).numpy()
    bins = np.linspace(0, rate / 2, window // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


@cache
def filters_and_window(bands: int) -> tuple[Tensor, Tensor]:
    """`mel_filters` (F, 201) and the window of a frame (400,), for `torch.stft`."""
    return torch.from_numpy(mel_filters(bands)), torch.hann_window(WINDOW)


def log_mel(samples: np.ndarray | Tensor, bands: int = 80, frames: int | None = None) -> Tensor:
    """The log-mel features of a recording, float32 (F, T): (x + 4) / 4, where x is log10 of the
    power in each band, at least the largest x minus 8.

    samples: (S,); frames: silence is added, or the end cut off, to get this many. The recording is
    mirrored at its ends.
    """
    x = torch.as_tensor(samples)
    if frames is not None:
        x = torch.nn.functional.pad(x[: frames * HOP], (0, max(0, frames * HOP - len(x))))
    elif len(x) < WINDOW:
        x = torch.nn.functional.pad(x, (0, WINDOW - len(x)))
    decades = mel_power(x, bands).clamp_min(1e-10).log10()
    return (decades.maximum(decades.amax() - 8.0) + 4.0) / 4.0


def mel_power(samples: Tensor, bands: int) -> Tensor:
    """The power in each mel band, float32 (F, T). samples: (S,), at least 400; they are mirrored at
    their ends.
    """
    filters, window = filters_and_window(bands)
    spectrum = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True)
    return filters @ spectrum[:, :-1].abs().square()
