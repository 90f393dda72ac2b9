"""Reports without their pictures: drawing them takes more than half of the time of a short
training.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headwise.pipelines.figures import style

DRAW = style.png_of


def dot() -> bytes:
    """A picture of one pixel."""
    from PIL import Image

    with io.BytesIO() as file:
        Image.new("L", (1, 1)).save(file, format="PNG")
        return file.getvalue()


@contextmanager
def pictures(*, as_dots: bool) -> Iterator[None]:
    """Pictures of reports are made in either case, and drawn or written as a dot."""
    png = dot()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "png_of", (lambda figure: png) if as_dots else DRAW)
        yield
