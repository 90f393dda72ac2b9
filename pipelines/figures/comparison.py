"""Plots that compare models by their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def draw_scores(
    axes: Axes,
    names: Sequence[str],
    means: ArrayLike,
    deviations: ArrayLike,
    label: str,
    colours: Sequence[str] | None = None,
) -> None:
    """One dot per model, the first on top, with a bar for the deviation over its trainings.

    means, deviations: (M,), a deviation of NaN has no bar; label: what the score is."""
    places = np.arange(len(names))[::-1]
    bars = np.nan_to_num(np.asarray(deviations, np.float64))
    for place, mean, bar, colour in zip(
        places, np.asarray(means), bars, colours or [None] * len(names), strict=True
    ):
        axes.errorbar(mean, place, xerr=bar, fmt="o", color=colour or "C0", capsize=3)
    axes.set(xlabel=label, yticks=places)
    axes.set_yticklabels(names, fontsize=8)
    axes.grid(visible=False, axis="y")
