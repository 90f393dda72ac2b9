"""Pictures that a prediction leaves beside its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..runs.run_directory import write_aside


def png_names(items: Sequence[str]) -> list[str]:
    """A name of a PNG for each item id: its own ending replaced, or kept before .png where two
    would be one.
    """
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in items]
    count = Counter(short)
    return [one if count[one] == 1 else f"{name}.png" for name, one in zip(items, short)]


def place_below(home: Path, name: str) -> Path:
    """Where a file of this name, with "/", lies below a folder; it never leads out of it."""
    return home.joinpath(
        *(part for part in PurePosixPath(name).parts if part not in ("..", "/", "."))
    )


def write_png(path: Path, picture: np.ndarray) -> None:
    """uint8 (Y, X) or (Y, X, 3), written aside and renamed."""
    from PIL import Image

    write_aside(path, lambda aside: Image.fromarray(picture).save(aside, format="PNG"))
