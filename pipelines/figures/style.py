"""How figures of reports look: colours, fonts and lines, and how they are written to a file.

Matplotlib reads its settings when it makes a line, a text or a tick, and ticks are made when a
figure is saved. So draw inside `styled_figure` and save with `save_png` or inside `styled`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cycler import cycler

from ...base.files import write_aside

if TYPE_CHECKING:  # matplotlib takes as long to import as half of torch: only where it draws
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#3b6fb6", "#d9822b", "#3f8f5f", "#c23b33"
PURPLE, BROWN, TEAL = "#7a5ba6", "#8c6d4f", "#2f8f9d"
GREY, LIGHT = "#7b8794", "#b8c0c8"  # of what is compared with, and of guides
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, TEAL, GREY)

WIDE, MEDIUM, NARROW = 9.5, 7.0, 5.0  # widths of figures, inches
ROW = 3.1  # height of one row of plots, inches
SMALL = 7  # font size of names of classes and of captions of small pictures
DPI = 110

STYLE: Mapping[str, object] = {
    "text.parse_math": False,  # names of columns and classes may hold any $
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "grid.alpha": 0.25,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def styled(*, grid: bool = True) -> AbstractContextManager[object]:
    """A context in which matplotlib draws in the style of the package."""
    import matplotlib as mpl

    return mpl.rc_context({**STYLE, "axes.grid": grid})  # pyright: ignore[reportArgumentType]


@contextmanager
def styled_figure(width: float, height: float, *, grid: bool = True) -> Iterator[Figure]:
    """A figure of a size in inches; what is drawn inside the context has the style of the package.

    grid: whether plots have grid lines, which lie above images.

    >>> with styled_figure(NARROW, ROW) as figure:
    ...     lines = figure.subplots().plot([1, 2, 3])
    """
    from matplotlib.figure import Figure

    with styled(grid=grid):
        yield Figure(figsize=(width, height))


def plain_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis: matplotlib's own are formulas, which are not drawn as
    such in this style.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def bare(axes: Axes) -> None:
    """Remove ticks, grid and frame from axes that show an image; titles and names stay."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def png_of(figure: Figure) -> bytes:
    """A figure as PNG, without empty margins."""
    image = io.BytesIO()
    with styled():
        figure.savefig(image, format="png", dpi=DPI, bbox_inches="tight")
    return image.getvalue()


def save_png(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as PNG, aside first. Raises OSError where it cannot be written."""
    with styled():
        write_aside(path, lambda aside: figure.savefig(aside, format="png", dpi=dpi))
