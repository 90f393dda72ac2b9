"""Slides: OpenSlide for every format that it opens (DICOM included), Pillow for other plain images.

Coordinates are pixels of level 0, x to the right and y down. The resolution is given in micrometres
per pixel (mpp) at level 0; where the file does not hold it, `mpp` is None and `Slide.scale` raises.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...base.account import note
from ...base.errors import InputError, fail, reason
from ...base.extras import install_line
from ...base.files import walk_folder
from ..formats.pictures import PICTURE_FORMATS, to_rgb

if TYPE_CHECKING:
    from openslide import OpenSlide

SLIDE_SUFFIXES = (
    ".svs",
    ".tif",
    ".tiff",
    ".ndpi",
    ".vms",
    ".vmu",
    ".scn",
    ".mrxs",
    ".svslide",
    ".bif",
    ".czi",
    ".dcm",
    ".zvi",
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
)
IMAGE_PIXELS = 400_000_000  # largest plain image: it has no levels and is read into memory at once
REGION_PIXELS = 1 << 26  # largest region read at once
CACHE_BYTES = 64 << 20  # decoded tiles in the cache of a slide
LEAST_MPP, MOST_MPP = 0.01, 20.0  # of level 0; what a file says beyond is an error of its writer
MOST_ENLARGED = 1.1  # how much a tile may be enlarged where the slide is slightly too coarse


class Slide:
    """A slide that is opened when it is first used, and again in each process that it is sent to.

    Several threads may read it. mpp: micrometres per pixel at level 0 to use where the file holds
    none, or none that can be right. mpp_first: mpp counts whatever the file says.
    """

    def __init__(
        self, path: str | os.PathLike[str], mpp: float | None = None, *, mpp_first: bool = False
    ) -> None:
        self.path, self.default_mpp, self.mpp_first = str(path), mpp, mpp_first

    def __getstate__(self) -> dict[str, object]:
        state = ("path", "default_mpp", "mpp_first")
        return {name: getattr(self, name) for name in state}

    @cached_property
    def _open(self) -> OpenSlide | _PlainImage:
        return open_openslide(self.path) or _PlainImage(self.path)

    @property
    def reader(self) -> str:
        """The library that reads it: "openslide" or "pillow"."""
        return "pillow" if isinstance(self._open, _PlainImage) else "openslide"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0, pixels."""
        return self._open.dimensions

    @cached_property
    def stated_mpp(self) -> float | None:
        """Micrometres per pixel at level 0 as the file says them, the mean of x and y, right or
        not.
        """
        properties = self._open.properties
        try:
            sides = [float(properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
        except (KeyError, ValueError):
            return None
        return sum(sides) / 2 if all(np.isfinite(sides)) and min(sides) > 0 else None

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel at level 0: what the file says if that can be right, else the
        default; the default first with `mpp_first`.
        """
        stated = self.stated_mpp
        if self.mpp_first and self.default_mpp is not None:
            return self.default_mpp
        usable = stated is not None and LEAST_MPP <= stated <= MOST_MPP
        return stated if usable else self.default_mpp

    @property
    def origin(self) -> tuple[int, int]:
        """Left and upper edge (x, y) of the scanned area at level 0, (0, 0) where the file names
        none. Viewers such as QuPath show this area alone and count from its corner.
        """
        properties = self._open.properties
        try:
            x, y = (int(properties[f"openslide.bounds-{axis}"]) for axis in "xy")
        except (KeyError, ValueError):
            return 0, 0
        return x, y

    @property
    def power(self) -> str | None:
        """The magnification of the objective, as text from the file."""
        return self._open.properties.get("openslide.objective-power")

    def scale(self, target_mpp: float) -> float:
        """How many pixels of level 0 make one pixel at `target_mpp`.

        Raises `InputError` where the micrometres per pixel are unknown or cannot be right, and
        where the slide is coarser than `target_mpp`.
        """
        mpp, stated = self.mpp, self.stated_mpp
        if mpp is None:
            raise fail(self.path, f"{self._why_unknown()}; say them with --mpp, or in a column mpp")
        scale = target_mpp / mpp
        if scale * MOST_ENLARGED < 1:
            raise fail(
                self.path,
                f"has {mpp:.4g} micrometres a pixel, coarser than --tile-mpp {target_mpp:g}; if "
                "that is not so, say what it has with --mpp",
            )
        if stated is not None and abs(mpp - stated) > 0.01 * stated:
            what = "slides whose file says other micrometres per pixel than --mpp, which is taken"
            note("assumed", what, [f"{Path(self.path).name}: {stated:.4g}, taken {mpp:.4g}"])
        return scale

    def _why_unknown(self) -> str:
        if self.stated_mpp is not None:
            return f"says {self.stated_mpp:.4g} micrometres a pixel, which cannot be right"
        hint = f" (its objective magnifies {self.power} times, which is no measure)"
        return f"holds no micrometres a pixel{hint if self.power else ''}"

    def read(
        self,
        x: int,
        y: int,
        extent: tuple[int, int],
        size: tuple[int, int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Read the region of `extent` (width, height) level-0 pixels at (x, y), resized to `size`
        (width, height) pixels.

        It comes from the smallest level that is no coarser; what lies beyond the slide is white.
        Returns uint8 (h, w, 3), which is `out` if that is not None.

        Raises `InputError` where the file is damaged.
        """
        opened = self._open
        downsample = min(extent[0] / size[0], extent[1] / size[1])
        try:  # after one thread met damage, OpenSlide raises that error in the others, too
            level = max(
                (k for k, d in enumerate(opened.level_downsamples) if d <= downsample * 1.02),
                default=0,
            )
            factor = opened.level_downsamples[level]
            read = max(1, round(extent[0] / factor)), max(1, round(extent[1] / factor))
            if read[0] * read[1] > REGION_PIXELS:
                raise fail(
                    self.path,
                    f"has no level small enough for a picture of {size[0]} x {size[1]} pixels",
                )
            region = opened.read_region((x, y), level, read)
        except InputError:
            raise
        except Exception as error:  # from OpenSlide or from a decoder of Pillow
            raise fail(self.path, f"cannot be read at ({x}, {y}): {reason(error)}") from error
        if region.mode == "RGBA" and np.asarray(region)[..., 3].min() < 255:
            white = Image.new("RGB", region.size, (255, 255, 255))
            white.paste(region, mask=region.getchannel("A"))
            region = white
        if region.size != size:
            region = region.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        pixels = np.asarray(region.convert("RGB"))  # drops alpha four times as fast as numpy does
        if out is None:
            return pixels
        out[:] = pixels
        return out

    def thumbnail(self, longest: int = 1024) -> tuple[np.ndarray, float]:
        """The entire slide, at most `longest` pixels wide and high, and how many level-0 pixels
        make one of its pixels.
        """
        width, height = self.size
        factor = max(1.0, max(width, height) / longest)
        size = max(1, round(width / factor)), max(1, round(height / factor))
        # Band by band: a slide may have one level only, too large to be read at once.
        rows = max(1, int(REGION_PIXELS / 4 / width / factor))
        bands = []
        for top in range(0, size[1], rows):
            end = min(top + rows, size[1])
            first, last = round(top * height / size[1]), round(end * height / size[1])
            bands.append(self.read(0, first, (width, last - first), (size[0], end - top)))
        return np.concatenate(bands), factor

    def close(self) -> None:
        """Close the file; the slide opens it again when it is next used."""
        if "_open" in self.__dict__:
            self.__dict__.pop("_open").close()
            self.__dict__.pop("stated_mpp", None)

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_openslide(path: str) -> OpenSlide | None:
    """Open a file in OpenSlide, with a bounded cache; None for a format that it does not know.

    Raises `InputError` for a file that is missing, or that OpenSlide knows but cannot open.
    """
    try:
        import openslide
    except ImportError as error:
        raise InputError(f"whole-slide images need OpenSlide; {install_line('wsi')}") from error
    if not Path(path).is_file():
        raise fail(path, "there is no such slide")
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise fail(path, f"OpenSlide cannot open it ({reason(error)})") from error
    slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    return slide


class _PlainImage:
    """A plain image with the interface of an OpenSlide: one level, no micrometres per pixel."""

    level_downsamples = (1.0,)
    properties: Mapping[str, str] = {}

    def __init__(self, path: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                # No limit while opening: the size is checked below.
                limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                Image.init()
                formats = [name for name in PICTURE_FORMATS if name in Image.OPEN]
                try:
                    opened = Image.open(path, formats=formats)
                finally:
                    Image.MAX_IMAGE_PIXELS = limit
            with opened:
                width, height = opened.size
                if width * height > IMAGE_PIXELS:
                    size = f"{width} x {height} pixels"
                    raise fail(path, f"{size} are too many for a plain image; make a pyramid of it")
                self.image = to_rgb(path, opened)
        except InputError:
            raise
        except Exception as error:
            raise fail(path, f"neither OpenSlide nor Pillow reads it ({reason(error)})") from error
        self.dimensions = self.image.size
        self.level_dimensions = (self.dimensions,)

    def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """The region of `size` (width, height) at `place` (x, y); white beyond the image."""
        region = Image.new("RGB", size, (255, 255, 255))
        x, y = place
        box = (
            max(0, x),
            max(0, y),
            min(self.dimensions[0], x + size[0]),
            min(self.dimensions[1], y + size[1]),
        )
        if box[0] < box[2] and box[1] < box[3]:
            region.paste(self.image.crop(box), (box[0] - x, box[1] - y))
        return region

    def close(self) -> None:
        """Release the image."""
        self.image.close()


def list_slides(folder: str | os.PathLike[str], known: Sequence[str] = ()) -> list[str]:
    """The slides below a folder, at any depth, sorted; of the files of a DICOM series the first.

    What is left out goes into the account: other files but those whose names end with one of
    `known`, and links that lead out of the folder (followed where the doubt "links" is accepted).
    """
    names = walk_folder(folder, (*SLIDE_SUFFIXES, *known))
    slides = (name for name in names if name.lower().endswith(SLIDE_SUFFIXES))
    return one_of_each_series(str(Path(folder, name)) for name in slides)


def one_of_each_series(paths: Iterable[str]) -> list[str]:
    """Drop all but the first file of each DICOM series: OpenSlide opens the entire slide from any
    of them.
    """
    slides: list[str] = []
    others: list[str] = []
    known_series: set[str] = set()
    for path in paths:
        series = _series_of(path) if path.lower().endswith(".dcm") else None
        (others if series is not None and series in known_series else slides).append(path)
        if series is not None:
            known_series.add(series)
    if others:
        note(
            "read", "further files of DICOM series, each read with the first of its series", others
        )
    return slides


def _series_of(path: str) -> str | None:
    """The id of the DICOM series that a file belongs to; None where it is unknown."""
    try:
        opened = open_openslide(path)
    except InputError:
        return None  # it stays in the list, and fails with its reason when it is read
    if opened is None:
        return None
    with opened:
        return opened.properties.get("dicom.SeriesInstanceUID")
