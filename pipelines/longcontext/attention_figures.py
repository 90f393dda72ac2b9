"""Pictures of what attention does: the map of heads, the mass of sinks by layer, their norms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..figures.style import (
    BLUE,
    COLOURS,
    GREY,
    LIGHT,
    MEDIUM,
    NARROW,
    ORANGE,
    ROW,
    SMALL,
    WIDE,
    plain_ticks,
    styled_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.16  # height of a layer of the map, inches


def map_of_heads(table: np.ndarray, chosen: Collection[tuple[int, int]]) -> Figure:
    """Scores (L, K) of heads of keys as shades, layers from below; chosen: those with a frame."""
    from matplotlib.patches import Rectangle

    layers, heads = table.shape
    with styled_figure(NARROW, max(ROW, CELL * layers + 1), grid=False) as figure:
        axis = figure.subplots()
        image = axis.imshow(
            table, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=max(1e-9, table.max())
        )
        for layer, head in chosen:
            corner = (head - 0.45, layer - 0.45)
            axis.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, edgecolor=ORANGE, lw=1.2))
        axis.set(xlabel="head of keys", ylabel="layer", xticks=_ticks(heads), yticks=_ticks(layers))
        figure.colorbar(image, ax=axis, label="attention to the needle")
    return figure


def _ticks(count: int) -> list[int]:
    return list(range(0, count, max(1, -(-count // 12))))


def falling_scores(scores: Sequence[float], chosen: int) -> Figure:
    """Scores of the heads of keys from the best on; those up to `chosen` are in the plan."""
    with styled_figure(MEDIUM, ROW) as figure:
        axis = figure.subplots()
        places = np.arange(1, len(scores) + 1)
        axis.plot(places, scores, color=BLUE)
        axis.axvspan(0.5, chosen + 0.5, color=ORANGE, alpha=0.15, lw=0)
        axis.set(xlabel="heads of keys by score", ylabel="attention to the needle", ylim=(0, None))
    return figure


def cost_of_cutting(rows: Sequence[tuple[str, float, float, float, bool]]) -> Figure:
    """rows: (name, change of the loss, its interval's ends, whether it is one of the best)."""
    with styled_figure(MEDIUM, max(ROW, 0.22 * len(rows) + 0.8)) as figure:
        axis = figure.subplots()
        for place, (_, mean, low, high, best) in enumerate(rows):
            colour = BLUE if best else GREY
            if np.isfinite(low):
                axis.plot([low, high], [place, place], color=colour, lw=1.5)
            axis.plot(mean, place, "o", color=colour, ms=4)
        axis.axvline(0, color=LIGHT, lw=1)
        axis.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=SMALL)
        axis.invert_yaxis()
        axis.set(xlabel="change of the answer's loss, nats a token")
    return figure


def sinks_by_layer(
    masses: Mapping[str, np.ndarray], norms: Mapping[str, np.ndarray], takeover: int | None
) -> Figure:
    """Mass and norm by layer, each the mean over texts, by what it is of. masses, norms: (L,) by
    name; takeover: layer of the primary sink, None without one.
    """
    with styled_figure(WIDE, ROW) as figure:
        mass, norm = figure.subplots(1, 2)
        for axis, curves in ((mass, masses), (norm, norms)):
            for colour, (name, values) in zip(COLOURS, curves.items(), strict=False):
                axis.plot(np.arange(len(values)), values, color=colour, label=name)
            if takeover is not None:
                axis.axvline(takeover, color=LIGHT, lw=1)
            axis.set(xlabel="layer")
            axis.legend()
        mass.set(title="attention drawn", ylabel="share of later tokens' attention", ylim=(0, None))
        norm.set(title="length of the state", ylabel="times the median", yscale="log")
        plain_ticks(norm.yaxis)
    return figure


def mass_against_norm(groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """groups: norms and masses of sinks, (N,) each, by kind."""
    with styled_figure(MEDIUM, ROW) as figure:
        axis = figure.subplots()
        for colour, (name, (norms, masses)) in zip(COLOURS, groups.items(), strict=False):
            axis.plot(norms, masses, "o", color=colour, ms=4, alpha=0.7, label=name)
        axis.set(xscale="log", xlabel="norm of what the MLP wrote, times the median")
        axis.set(ylabel="attention drawn", ylim=(0, None))
        plain_ticks(axis.xaxis)
        axis.legend()
    return figure
