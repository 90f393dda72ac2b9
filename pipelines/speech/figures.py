"""Figures: a spectrogram with its words above maps on the same axis of time, errors of word times,
agreement of attention and saliency, deletion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ...data.formats.audio import RATE
from ...data.speech.log_mel import FRAME_SECONDS, log_mel
from ...data.speech.transcripts import Word
from ..engine.pipeline import ReportFigure
from ..figures.style import GREEN, LIGHT, MEDIUM, ROW, SMALL, styled_figure
from ..metrics.alignment import Boundaries
from .data import STATE_SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDEST = 16.0  # inches
MOST_LABELS = 40
MOST_UPRIGHT = 25  # words above a spectrogram before they are rotated


def recording_figure(
    name: str,
    caption: str,
    samples: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    words: Sequence[Word] = (),
    true_words: Sequence[Word] = (),
    tokens: Sequence[str] = (),
) -> ReportFigure:
    """A spectrogram with its words above it, the true words below it, and maps under it.

    samples: (S,); maps: (tokens, states) by title; tokens: the text of each token, which is printed
    next to the maps if they are few enough.
    """
    seconds = len(samples) / RATE
    labels = tokens if 0 < len(tokens) <= MOST_LABELS else ()
    width, height = min(WIDEST, max(6.0, 1.2 * seconds)), max(1.9, 0.11 * len(labels))
    with styled_figure(width, 2.2 + height * len(maps), grid=False) as figure:
        axes = figure.subplots(1 + len(maps), sharex=True, squeeze=False)[:, 0]
        _draw_spectrogram(axes[0], samples)
        _draw_words(axes[0], words, height=1.02, colour="black")
        _draw_words(axes[0], true_words, height=-0.13, colour=GREEN)
        for word in words:
            for time in (word.start, word.end):
                axes[0].axvline(time, color="white", lw=0.6)
        for axis, (title, values) in zip(axes[1:], maps.items(), strict=True):
            _draw_map(axis, title, values, labels)
        axes[-1].set(xlabel="seconds", xlim=(0, seconds))
    return ReportFigure(name, caption, figure, is_answer=True)


def _draw_spectrogram(axis: Axes, samples: np.ndarray) -> None:
    features = log_mel(samples).numpy()
    bands, frames = features.shape
    extent = (0, frames * FRAME_SECONDS, 0, bands)
    axis.imshow(features, origin="lower", aspect="auto", extent=extent, cmap="magma")
    axis.set(ylabel="mel band")


def _draw_words(axis: Axes, words: Sequence[Word], *, height: float, colour: str) -> None:
    for word in words:
        axis.text(
            (word.start + word.end) / 2,
            height,
            word.text,
            transform=axis.get_xaxis_transform(),
            ha="center",
            fontsize=SMALL,
            color=colour,
            clip_on=False,
            parse_math=False,
            rotation=30 if len(words) > MOST_UPRIGHT else 0,
        )


def _draw_map(axis: Axes, title: str, values: np.ndarray, labels: Sequence[str]) -> None:
    tokens, states = values.shape
    axis.imshow(
        values,
        aspect="auto",
        extent=(0, STATE_SECONDS * states, tokens, 0),
        cmap="viridis",
        interpolation="nearest",
    )
    axis.set(ylabel="token")
    if labels:
        axis.set_yticks(np.arange(len(labels)) + 0.5)
        axis.set_yticklabels([label.strip() for label in labels], fontsize=6, parse_math=False)
    axis.set_title(title, fontsize=8)


def boundary_figure(boundaries: Boundaries) -> ReportFigure:
    """Signed errors of starts and ends of words."""
    edges = np.linspace(-0.5, 0.5, 51).tolist()
    with styled_figure(MEDIUM, ROW) as figure:
        axis = figure.subplots()
        for label, errors in (("start", boundaries.start), ("end", boundaries.end)):
            axis.hist(np.clip(errors, -0.5, 0.5), edges, histtype="step", label=f"word {label}")
        axis.set(
            xlabel="predicted - true, seconds (beyond half a second at the edges)", ylabel="words"
        )
        axis.legend()
    return ReportFigure("times", "Errors of word times", figure)


def agreement_figure(table: pl.DataFrame) -> ReportFigure:
    """Correlations of averages of heads with intervals; of single heads with the states, or with
    the first saliency if there is none of the states.
    """
    single = pl.col("attention").str.contains(" head ")
    saliencies = table["saliency"].unique(maintain_order=True).to_list()
    means = table.filter(~single)
    scopes = means["attention"].unique(maintain_order=True).to_list()
    with styled_figure(11, 0.5 * len(scopes) + 2.2, grid=False) as figure:
        axis, grid = figure.subplots(1, 2, width_ratios=(3, 2))
        for number, saliency in enumerate(saliencies):
            rows = means.filter(pl.col("saliency") == saliency)
            height = np.arange(len(rows))[::-1] + 0.6 * (0.5 - (number + 0.5) / len(saliencies))
            bars = np.abs(np.stack([rows["pearson"] - rows["low"], rows["high"] - rows["pearson"]]))
            errors = np.nan_to_num(bars)
            axis.errorbar(
                rows["pearson"], height, xerr=errors, fmt="o", ms=4, capsize=2, label=saliency
            )
        axis.set(
            yticks=np.arange(len(scopes))[::-1],
            xlabel="Pearson's correlation with the saliency (95 % interval)",
        )
        axis.set_yticklabels(scopes)
        axis.axvline(0, color=LIGHT, lw=0.8)
        axis.legend()
        _draw_heads(grid, table.filter(single & (pl.col("saliency") == saliencies[0])))
        grid.set_title(f"single heads, {saliencies[0]}")
        figure.colorbar(grid.images[0], ax=grid, shrink=0.8)
    caption = "How far cross-attention agrees with what the model used"
    return ReportFigure("agreement", caption, figure)


def _draw_heads(axis: Axes, rows: pl.DataFrame) -> None:
    """The correlation of each head of each layer, from rows in the order of layers and heads."""
    layers = rows["attention"].str.extract(r"layer (\d+)").n_unique()
    values = rows["pearson"].to_numpy().reshape(layers, -1)
    axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (layer, head), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.6 else "black"
        axis.text(
            head, layer, f"{value:.2f}", ha="center", va="center", fontsize=SMALL, color=colour
        )
    axis.set(xlabel="head", ylabel="layer", xticks=range(values.shape[1]), yticks=range(layers))
    axis.set_xticklabels([str(head) for head in range(1, values.shape[1] + 1)])
    axis.set_yticklabels([str(layer) for layer in range(1, layers + 1)])


def deletion_figure(curves: Mapping[str, np.ndarray]) -> ReportFigure:
    """Mean word error rate while the most important places are blanked; curves: (recordings, steps)
    by map.
    """
    styles = {"chance": "k:", "chance in full": "k--"}
    with styled_figure(MEDIUM, 3.4) as figure:
        axis = figure.subplots()
        for name, rates in curves.items():
            share = np.linspace(0, 100, rates.shape[1])
            axis.plot(share, 100 * rates.mean(0), styles.get(name, "-"), lw=1.4, label=name)
        axis.set(
            xlabel="most important part that is blanked, percent",
            ylabel="word error rate, percent",
            xlim=(0, 100),
        )
        axis.legend(bbox_to_anchor=(1.01, 1), loc="upper left")
    caption = "Deletion: the sooner the words are lost, the better a map knows what mattered"
    return ReportFigure("deletion", caption, figure)
