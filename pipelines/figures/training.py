"""Plots of a training by epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .style import styled_figure

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

WIDTH = 6.0


def learning_curve(history: pl.DataFrame, monitor: str) -> Figure:
    """Training loss and validation score by epoch: columns epoch, train_loss and val_{monitor}."""
    with styled_figure(WIDTH, 2.6) as figure:
        axes = figure.subplots()
        for column, label in (
            ("train_loss", "training loss"),
            (f"val_{monitor}", f"validation {monitor}"),
        ):
            axes.plot(history["epoch"], history[column], "o-", ms=3, label=label)
        axes.set_xlabel("epoch")
        axes.legend()
    return figure


def expert_loads(history: pl.DataFrame) -> Figure | None:
    """How the experts of each layer were used by epoch: columns moe{layer}_load{expert} and
    moe{layer}_entropy. None for a model without experts."""
    layers = [
        name.removesuffix("_entropy")
        for name in history.columns
        if name.startswith("moe") and "_entropy" in name
    ]
    if not layers:
        return None
    with styled_figure(WIDTH, 2.2 * len(layers), grid=False) as figure:
        for axes, layer in zip(figure.subplots(len(layers), squeeze=False)[:, 0], layers):
            loads = [
                history[name].to_numpy()
                for name in history.columns
                if name.startswith(f"{layer}_load")
            ]
            axes.stackplot(history["epoch"], loads, alpha=0.7)
            axes.set(
                ylim=(0, 1),
                ylabel="share of the load",
                title=f"layer {layer.removeprefix('moe')}",
                xlabel="epoch",
            )
            entropy_axes = axes.twinx()
            entropy_axes.plot(history["epoch"], history[f"{layer}_entropy"], "k.-", ms=4)
            entropy_axes.set(ylim=(0, 1.05 * math.log(len(loads))), ylabel="router entropy, nats")
    return figure
