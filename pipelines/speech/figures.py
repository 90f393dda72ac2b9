"""Pictures: a spectrogram with its words, attention and saliency one above the other; errors of
word times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ...data.formats.audio import RATE
from ...data.speech.log_mel import log_mel
from ...data.speech.transcripts import Word
from ..engine.pipeline import ReportFigure
from ..metrics.alignment import Boundaries

WIDEST = 16.0  # inches
MOST_LABELS = 40


def heard(
    name: str,
    samples: np.ndarray,
    words: Sequence[Word],
    known: Sequence[Word] | None,
    maps: np.ndarray | None,
    caption: str,
    others: Mapping[str, np.ndarray] | None = None,
    tokens: Sequence[str] = (),
) -> ReportFigure:
    """A recording: its spectrogram with words above (and known ones below), then maps (tokens,
    states), one above the other on one axis of time; tokens: their texts, beside the maps where
    they are few enough."""
    rows = {} if maps is None else {"cross-attention, mean of all heads": maps}
    rows |= others or {}
    seconds = len(samples) / RATE
    labelled = 0 < len(tokens) <= MOST_LABELS
    each = max(1.9, 0.11 * len(tokens)) if labelled else 1.9
    drawn = Figure(
        figsize=(min(WIDEST, max(6.0, 1.2 * seconds)), 2.2 + each * len(rows)), layout="constrained"
    )
    axes = drawn.subplots(1 + len(rows), sharex=True, squeeze=False)[:, 0]
    spectrogram = log_mel(samples).numpy()
    axes[0].imshow(
        spectrogram,
        origin="lower",
        aspect="auto",
        extent=(0, spectrogram.shape[1] / 100, 0, 80),
        cmap="magma",
    )
    axes[0].set(ylabel="mel band")
    for place, (own, side) in enumerate(((words, 1.02), (known or (), -0.13))):
        for word in own:
            middle = (word.start + word.end) / 2
            axes[0].text(
                middle,
                side,
                word.text,
                transform=axes[0].get_xaxis_transform(),
                ha="center",
                fontsize=7,
                color="black" if place == 0 else "tab:green",
                clip_on=False,
                parse_math=False,
                rotation=30 if len(own) > 25 else 0,
            )
            if place == 0:
                for at in (word.start, word.end):
                    axes[0].axvline(at, color="white", lw=0.6)
    for axis, (title, values) in zip(axes[1:], rows.items()):
        axis.imshow(
            values,
            aspect="auto",
            extent=(0, 0.02 * values.shape[1], values.shape[0], 0),
            cmap="viridis",
            interpolation="nearest",
        )
        axis.set(ylabel="token")
        if labelled:
            axis.set_yticks(np.arange(len(tokens)) + 0.5)
            axis.set_yticklabels([token.strip() for token in tokens], fontsize=6, parse_math=False)
        axis.set_title(title, fontsize=8)
    axes[-1].set(xlabel="seconds", xlim=(0, seconds))
    return ReportFigure(name, caption, drawn)


def times(bounds: Boundaries) -> ReportFigure:
    """Signed errors of starts and ends."""
    drawn = Figure(figsize=(6, 2.6), layout="constrained")
    axis = drawn.subplots()
    edges = np.linspace(-0.5, 0.5, 51).tolist()
    for label, values in (("start", bounds.start), ("end", bounds.end)):
        axis.hist(np.clip(values, -0.5, 0.5), edges, histtype="step", label=f"word {label}")
    axis.set(xlabel="found - known, seconds (beyond half a second at the edges)", ylabel="words")
    axis.legend(frameon=False)
    return ReportFigure("times", "Errors of word times", drawn)


def agreement(table: pl.DataFrame) -> ReportFigure:
    """Correlations of averages of heads with intervals; of single heads with the states, where they
    are there."""
    kinds = table["saliency"].unique(maintain_order=True).to_list()
    heads = table.filter(pl.col("attention").str.contains(" head "))
    means = table.filter(~pl.col("attention").str.contains(" head "))
    scopes = means["attention"].unique(maintain_order=True).to_list()
    drawn = Figure(figsize=(11, 0.5 * len(scopes) + 2.2), layout="constrained")
    axis, grid = drawn.subplots(1, 2, width_ratios=(3, 2))
    for number, kind in enumerate(kinds):
        own = means.filter(pl.col("saliency") == kind)
        place = np.arange(len(own))[::-1] + 0.6 * (0.5 - (number + 0.5) / len(kinds))
        bars = np.abs(np.stack([own["pearson"] - own["low"], own["high"] - own["pearson"]]))
        axis.errorbar(
            own["pearson"], place, xerr=np.nan_to_num(bars), fmt="o", ms=4, capsize=2, label=kind
        )
    axis.set(
        yticks=np.arange(len(scopes))[::-1],
        xlabel="Pearson's correlation with the saliency (95 % interval)",
    )
    axis.set_yticklabels(scopes)
    axis.axvline(0, color="0.7", lw=0.8)
    axis.legend(frameon=False, fontsize=8)
    own = heads.filter(pl.col("saliency") == kinds[0])
    layers = own["attention"].str.extract(r"layer (\d+)").n_unique()
    values = own["pearson"].to_numpy().reshape(layers, -1)
    shown = grid.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 else "black"
        grid.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    grid.set(
        xlabel="head",
        ylabel="layer",
        title=f"single heads, {kinds[0]}",
        xticks=range(values.shape[1]),
        yticks=range(layers),
    )
    grid.set_xticklabels(range(1, values.shape[1] + 1))
    grid.set_yticklabels(range(1, layers + 1))
    drawn.colorbar(shown, ax=grid, shrink=0.8)
    return ReportFigure(
        "agreement", "How far cross-attention agrees with what the model used", drawn
    )


def deletion(curves: Mapping[str, np.ndarray]) -> ReportFigure:
    """Mean word error rate while the most important parts are blanked; curves: (recordings, steps)
    by map.
    """
    drawn = Figure(figsize=(7, 3.4), layout="constrained")
    axis, kinds = drawn.subplots(), {"chance": "k:", "chance in full": "k--"}
    for name, each in curves.items():
        share = np.linspace(0, 100, each.shape[1])
        axis.plot(share, 100 * each.mean(0), kinds.get(name, "-"), lw=1.4, label=name)
    axis.set(
        xlabel="most important part that is blanked, percent",
        ylabel="word error rate, percent",
        xlim=(0, 100),
    )
    axis.legend(frameon=False, fontsize=7, bbox_to_anchor=(1.01, 1), loc="upper left")
    return ReportFigure(
        "deletion",
        "Deletion: the sooner the words are lost, the better a map knows what mattered",
        drawn,
    )
