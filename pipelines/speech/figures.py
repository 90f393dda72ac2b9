"""Pictures: a spectrogram with its words, attention and saliency one above the other; errors of word times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ...data.audio import RATE
from ...data.log_mel import log_mel
from ...data.transcripts import Word
from ..engine.task import Picture
from ..metrics.alignment import Boundaries

WIDEST = 16.0  # inches


def heard(
    name: str, samples: np.ndarray, words: Sequence[Word], known: Sequence[Word] | None, maps: np.ndarray | None,
    caption: str, others: Mapping[str, np.ndarray] | None = None,
) -> Picture:  # fmt: skip
    """A recording: its spectrogram with words above (and known ones below), then maps (tokens, states), one above the
    other on one axis of time."""
    rows = {} if maps is None else {"cross-attention, mean of all heads": maps}
    rows |= others or {}
    seconds = len(samples) / RATE
    drawn = Figure(figsize=(min(WIDEST, max(6.0, 1.2 * seconds)), 2.2 + 1.9 * len(rows)), layout="constrained")
    axes = drawn.subplots(1 + len(rows), sharex=True, squeeze=False)[:, 0]
    spectrogram = log_mel(samples).numpy()
    axes[0].imshow(spectrogram, origin="lower", aspect="auto", extent=(0, spectrogram.shape[1] / 100, 0, 80),
                   cmap="magma")  # fmt: skip
    axes[0].set(ylabel="mel band")
    for place, (own, side) in enumerate(((words, 1.02), (known or (), -0.13))):
        for word in own:
            middle = (word.start + word.end) / 2
            axes[0].text(middle, side, word.text, transform=axes[0].get_xaxis_transform(), ha="center", fontsize=7,
                         color="black" if place == 0 else "tab:green", clip_on=False, parse_math=False,
                         rotation=30 if len(own) > 25 else 0)  # fmt: skip
            if place == 0:
                for at in (word.start, word.end):
                    axes[0].axvline(at, color="white", lw=0.6)
    for axis, (title, values) in zip(axes[1:], rows.items()):
        axis.imshow(values, aspect="auto", extent=(0, 0.02 * values.shape[1], values.shape[0], 0), cmap="viridis",
                    interpolation="nearest")  # fmt: skip
        axis.set(ylabel="token")
        axis.set_title(title, fontsize=8)
    axes[-1].set(xlabel="seconds", xlim=(0, seconds))
    return Picture(name, caption, drawn)


def times(bounds: Boundaries) -> Picture:
    """Signed errors of starts and ends."""
    drawn = Figure(figsize=(6, 2.6), layout="constrained")
    axis = drawn.subplots()
    edges = np.linspace(-0.5, 0.5, 51).tolist()
    for label, values in (("start", bounds.start), ("end", bounds.end)):
        axis.hist(np.clip(values, -0.5, 0.5), edges, histtype="step", label=f"word {label}")
    axis.set(xlabel="found - known, seconds (beyond half a second at the edges)", ylabel="words")
    axis.legend(frameon=False)
    return Picture("times", "Errors of word times", drawn)
